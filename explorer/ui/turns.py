"""Whose turn it is to draw: all pages share one interpreter, so they are drawn one after another.

Forty pages drawn at the same time are all late; one after another, the first is done in a fortieth of the time and the
last no later. Who came first goes first. A page that waits for what is computed elsewhere hands its turn on meanwhile
and has it back before others begin. What only refines a page lets whole pages go before it, for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STUCK = 0.5  # seconds that one drawing may take before another begins beside it
LOOK = 0.2  # seconds between looks, while waiting, for whether it is worth while still
REFINING = 1.5  # seconds by which what refines a page lets others go first
RESUMED = -1e6  # seconds: what was begun goes before all that was not


@dataclass(eq=False)
class _Place:
    due: float
    called: threading.Event = field(default_factory=threading.Event)


class _Mine(threading.local):
    place: _Place | None = None
    inside = False


class Turns:
    """A line of drawings. stuck: seconds after which whoever has the turn is waited for no longer."""

    def __init__(self, stuck: float = STUCK) -> None:
        self._stuck = stuck
        self._lock = threading.Lock()
        self._line: list[_Place] = []
        self._drawing: _Place | None = None
        self._since = 0.0  # when it began
        self._mine = _Mine()

    @contextmanager
    def take(self, later: float = 0.0, check: Callable[[], object] = bool) -> Iterator[None]:
        """Wait for one's turn and have it; a drawing within a drawing has it already.

        later: seconds by which others that come after this one may go before it. check: called now and then while
        waiting; if it raises, the place is given up.
        """
        if self._mine.inside:
            yield
            return
        self._wait(later, check)
        self._mine.inside = True
        try:
            yield
        finally:
            self._mine.inside = False
            self._leave()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Let others draw while this thread waits for something; without effect in one that has no turn."""
        if self._mine.place is None:
            yield
            return
        self._leave()
        yield  # after a fault what is left to draw is little, and needs no turn
        self._wait(RESUMED, bool)

    def waiting(self) -> int:
        """Return how many wait for their turn."""
        with self._lock:
            return len(self._line)

    def _wait(self, later: float, check: Callable[[], object]) -> None:
        place = _Place(time.monotonic() + later)
        with self._lock:
            self._line.append(place)
            self._call()
        try:
            while not place.called.wait(LOOK):
                check()
                with self._lock:
                    self._call()
        except BaseException:
            with self._lock:
                if place in self._line:
                    self._line.remove(place)
                self._end(place)
            raise
        self._mine.place = place

    def _leave(self) -> None:
        place, self._mine.place = self._mine.place, None
        if place is not None:
            with self._lock:
                self._end(place)

    def _end(self, place: _Place) -> None:
        if self._drawing is place:
            self._drawing = None
        self._call()

    def _call(self) -> None:
        """Let the next one in, if nobody draws or whoever does takes long."""
        now = time.monotonic()
        if self._line and (self._drawing is None or now - self._since > self._stuck):
            place = self._drawing = min(self._line, key=lambda one: one.due)
            self._line.remove(place)
            self._since = now
            place.called.set()


TURNS = Turns()
