"""Images that are read when they are looked at, so that a large folder, or a large size, costs what is asked for."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import numpy as np

KEPT_BYTES = 128 * 2**20


class Pictures:
    """A set of square images, uint8 [N, size, size, 3], of which each is read at its first use.

    Indexing by a number or a slice reads what it names and returns an array; those read last are kept, as many as fit
    128 MiB. Safe to share between threads.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, count: int, size: int, read: Callable[[int], np.ndarray]) -> None:
        self.shape: tuple[int, ...] = (count, size, size, 3)
        self._read = read
        self._kept: dict[int, np.ndarray] = {}
        self._most = max(1, KEPT_BYTES // (3 * size * size))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def first(self, n: int) -> Pictures:
        """Return the first n of them, unread; what is kept is shared."""
        part = copy.copy(self)
        part.shape = (max(0, min(n, len(self))), *self.shape[1:])
        return part

    def __getitem__(self, which: int | slice) -> np.ndarray:
        if not isinstance(which, slice):
            return self._one(range(len(self))[which])
        chosen = range(*which.indices(len(self)))
        found = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for place, i in enumerate(chosen):
            found[place] = self._one(i)
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _one(self, i: int) -> np.ndarray:
        with self._lock:
            if i in self._kept:
                return self._kept[i]
        image = self._read(i)
        with self._lock:
            self._kept[i] = image
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return image
