"""Where computing is done: in this process, or in one of its own that may die without taking the server with it.

Work is asked for by name (`explorer.study.measure:look`) with arguments that can be pickled. What the work asks while
it runs (has somebody stopped it?) and what it tells (how far is it?) are callables here, wherever it runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Protocol

from explorer.engine.errors import ExplorerError

Asks = Mapping[str, Callable[[], bool]]
Tells = Mapping[str, Callable[..., None]]
NONE: Mapping[str, Any] = {}


class WorkerLost(ExplorerError):
    """What computes was lost: its process, twice in the same work, or its GPU."""


class Executor(Protocol):
    """Something that does work by name."""

    def call(self, name: str, *args: Any, asks: Asks = NONE, tells: Tells = NONE) -> Any:
        """Do this work and return what it returns.

        asks, tells: keyword arguments of the work, which it calls. An ask that has once answered True is not asked
        again; one that raises ends the waiting, and the work is told to stop. Several threads may call at a time.

        Raises:
            WorkerLost: the process that did it ended, and ended again when the work was begun anew; or the GPU failed.
            Exception: what the work raised.
        """

    def memory_mib(self) -> float:
        """Return the memory of processes beside this one, in MiB."""

    def close(self) -> None:
        """End what was started."""


def find(name: str) -> Callable[..., Any]:
    """Return the function of a name, `module:attribute`."""
    module, _, attribute = name.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


def is_lost_device(error: BaseException) -> bool:
    """Tell whether a GPU failed or is gone, as torch says it; memory that ran out is another matter."""
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and "out of memory" not in text
        and ("CUDA error" in text or "CUDA driver" in text or type(error).__name__ == "AcceleratorError")
    )


class Inline:
    """Work is done in the thread that asks for it."""

    def call(self, name: str, *args: Any, asks: Asks = NONE, tells: Tells = NONE) -> Any:
        """Do this work and return what it returns."""
        try:
            return find(name)(*args, **asks, **tells)
        except RuntimeError as error:
            if not is_lost_device(error):
                raise
            raise WorkerLost(
                f"The GPU failed or is gone ({error}). Choose the CPU under “Images and device”, or start the server "
                "anew."
            ) from error

    def memory_mib(self) -> float:
        """Return the memory of processes beside this one: there is none."""
        return 0.0

    def close(self) -> None:
        """End what was started: nothing was."""
