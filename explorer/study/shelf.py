"""What visitors uploaded, kept by key: a bounded number within a byte budget, least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """A thread-safe, bounded map shared by all visitors of a server; gone when the server stops."""

    def __init__(self, entries: int, budget_bytes: int) -> None:
        self.entries = entries
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: str, value: T, size: int) -> None:
        """Keep a value of so many bytes; drop those least recently used beyond number and budget, never this one."""
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (value, size)
            while len(self._kept) > 1 and (
                len(self._kept) > self.entries or sum(size for _, size in self._kept.values()) > self.budget_bytes
            ):
                self._kept.popitem(last=False)

    def get(self, key: str) -> T | None:
        """Return what is kept under a key, or None; it counts as used."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def __len__(self) -> int:
        return len(self._kept)
