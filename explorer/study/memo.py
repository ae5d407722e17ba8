"""Keep what was computed, by its key: bounded, for all threads, each value computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import update_wrapper
from typing import Any, Generic, TypeVar

import numpy as np

from explorer.engine.errors import Cancelled

PATIENCE = 0.1  # seconds between the questions put to who waits

V = TypeVar("V")


class Turn:
    """One value's computation: one thread at a time, and how far it is, for those who wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: tuple[Any, ...] = ()

    def wait(self, stop: Callable[[], bool] | None, on_progress: Callable[..., None] | None) -> None:
        """Wait for one's turn.

        Raises:
            Cancelled: stop said so.
        """
        while not self._lock.acquire(timeout=PATIENCE):
            if stop is not None and stop():
                raise Cancelled("Stopped while another visitor's computation of the same was awaited.")
            if on_progress is not None and self._told:
                on_progress(*self._told)

    @contextmanager
    def over(self) -> Iterator[None]:
        """End one's turn behind this."""
        try:
            yield
        finally:
            self._lock.release()

    def overheard(self, beside: Mapping[str, Any]) -> dict[str, Any]:
        """Return keyword arguments with progress that those who wait hear, too."""
        own = beside.get("on_progress")
        if own is None:
            return dict(beside)

        def tell(*how: Any) -> None:
            self._told = how
            own(*how)

        return {**beside, "on_progress": tell}


class Kept(Generic[V]):
    """A function whose last results are kept by its positional arguments, least recently used out first.

    Threads that ask for the same value wait for the one that computes it; others never wait. Keyword arguments are
    handed on and are no part of the key. Who waits is asked by his own `stop` whether he still does, and hears by his
    own `on_progress` how far the other is. What comes out is shared: read-only.
    """

    def __init__(self, make: Callable[..., V], entries: int, budget: int | None) -> None:
        update_wrapper(self, make)
        self._make = make
        self._entries = entries
        self._budget = budget
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._making: dict[Hashable, Turn] = {}
        self._lock = threading.Lock()

    def __call__(self, *key: Hashable, **beside: Any) -> V:
        """Return the kept value of these arguments; compute and keep it if there is none.

        Raises:
            Cancelled: `stop` said so while another thread computed it.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            turn = self._making.setdefault(key, Turn())
        turn.wait(beside.get("stop"), beside.get("on_progress"))
        with turn.over():
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = self._make(*key, **turn.overheard(beside))
                with self._lock:
                    self._values[key] = value
                    self._make_room()
            finally:
                with self._lock:
                    if self._making.get(key) is turn:
                        del self._making[key]
        return value

    def has(self, *key: Hashable) -> bool:
        """Tell whether the value of these arguments is kept."""
        with self._lock:
            return key in self._values

    def _make_room(self) -> None:
        while len(self._values) > self._entries or (
            self._budget is not None and len(self._values) > 1 and sum(map(size, self._values.values())) > self._budget
        ):
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


def kept(entries: int, budget: int | None = None) -> Callable[[Callable[..., V]], Kept[V]]:
    """Keep the last so many results of a function, of at most so many bytes of arrays together."""
    return lambda make: Kept(make, entries, budget)


def size(value: Any) -> int:
    """Return the bytes of the arrays in a value: an array, or arrays within mappings, sequences and dataclasses."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value):
        return sum(size(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, list | tuple) else 0
