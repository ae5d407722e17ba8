"""Kept spike trains: bit-packed, under a byte budget, least recently used out first.

Whatever is kept can be dropped at any time without changing a result; it is only computed again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

DEFAULT_BUDGET = 384 * 2**20


class SpikeStore:
    """A thread-safe map from keys to read-only arrays, shared by all visitors of a server."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET) -> None:
        self.budget_bytes = budget_bytes
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> np.ndarray | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            array = self._arrays.get(key)
            if array is not None:
                self._arrays.move_to_end(key)
            return array

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Keep an array, which becomes read-only; drop the least recently used ones beyond the budget.

        An array larger than the whole budget is not kept, and nothing is dropped for it.
        """
        array.flags.writeable = False
        if array.nbytes > self.budget_bytes:
            return
        with self._lock:
            old = self._arrays.pop(key, None)
            self._bytes += array.nbytes - (old.nbytes if old is not None else 0)
            self._arrays[key] = array
            while self._bytes > self.budget_bytes and self._arrays:
                _, dropped = self._arrays.popitem(last=False)
                self._bytes -= dropped.nbytes

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._arrays.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """How many bytes are kept now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._arrays)
