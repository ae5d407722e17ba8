"""What all commands share: threads, time-steps, places to write to, and that a fault is one line with the mend."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from explorer.engine.errors import ExplorerError, SpecError, readable

THREADS_MAX = 1024


class Parser(argparse.ArgumentParser):
    """A parser whose own faults are one line as well."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are listed."""
        print(f"error: {message}. {self.prog} --help lists the options.", file=sys.stderr)
        raise SystemExit(2)


def set_threads(threads: int) -> None:
    """Have torch use so many threads; 0 leaves it its choice.

    Raises:
        SpecError: the number is out of range.
    """
    if not 0 <= threads <= THREADS_MAX:
        raise SpecError(f"threads: 0 (torch's choice) to {THREADS_MAX}, got {threads}.")
    if threads:
        import torch

        torch.set_num_threads(threads)


def step_numbers(text: str) -> list[int]:
    """Read numbers of time-steps, separated by commas.

    Raises:
        SpecError: it does not read so.
    """
    parts = [part.strip() for part in text.split(",")]
    if wrong := [part for part in parts if not part.isdecimal()]:
        raise SpecError(f"steps: whole numbers separated by commas, got {wrong[0]!r}. Write for example 4,8,16.")
    return [int(part) for part in parts]


def require_writable(folder: Path, option: str) -> None:
    """Require that files can be written to a folder, which is made if it is not there.

    Raises:
        SpecError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = f"{option}: {folder} cannot be written to ({error.strerror}). Choose another folder."
        raise SpecError(why) from error


def guarded(work: Callable[[], int | None]) -> int:
    """Do a command's work; return its exit code: its own, 2 for a fault, 130 where it was stopped."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  closed by whoever started it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold letters that the terminal has not
    try:
        code = work()
        sys.stdout.flush()
        return code or 0
    except ExplorerError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _fail(
            f"the result cannot be written, or a file not read ({error}). Free space on the disk, or choose another "
            "place."
        )
    except MemoryError:
        return _fail("the memory is full. Take fewer images, a smaller input size or network, or close other programs.")
    except Exception as error:
        if os.environ.get("EXPLORER_TRACEBACK"):
            raise
        return _fail(
            f"something in the explorer failed ({type(error).__name__}: {readable(str(error), 300)}). "
            "EXPLORER_TRACEBACK=1 shows where; please report it."
        )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Send what is still to be written nowhere: the interpreter would complain again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
