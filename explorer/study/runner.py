"""The queue of runs: one slice of images at a time, shared fairly among visitors.

A run is known by its key, so two visitors with the same settings share what is computed; each holds it as a `Job`,
which shows exactly his own first N images, whatever else is known. A visitor who moves a control asks for other runs;
a run that nobody asks for stops at the engine's next chunk and can be taken up later where it was. A visitor who is
silent for long, or whose browser is gone, has left. The machine's time is shared by visitor, not by run, and who waits
for his first point comes first.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from explorer.engine.errors import Cancelled, ExplorerError
from explorer.limits import limits
from explorer.study.case import run_key
from explorer.study.results import ERROR_IMAGES, Result, SiteSums
from explorer.study.settings import Settings

FIRST, SLICE = 16, 64  # images; a slice that takes long is cut at the end of a chunk
KEEP = 300
KEEP_BYTES = 256 * 2**20
SILENCE = 30.0  # seconds; a page asks every 0.3 s while its runs refine, a browser's hidden tab more seldom
GONE = 5.0  # seconds of silence after which a browser without a connection does not come back
HEAD_START = 2.0  # seconds of machine time that waiting for a first point counts for
BETWEEN = 0.5  # seconds that a slice waits at most for what is being computed aside
ASIDE = 2  # what is computed aside at the same time


class Instrument(Protocol):
    """What the queue drives; `measure.Engine` is the real one."""

    def available(self, settings: Settings, n: int) -> int:
        """Return how many images there are of so many."""

    def advance(
        self, settings: Settings, begin: int, end: int, stop: Callable[[], bool], pause: Callable[[], bool]
    ) -> Result:
        """Return what images [begin, end) show, or the first of them."""

    def errors(self, settings: Settings, images: int, stop: Callable[[], bool]) -> dict[str, SiteSums]:
        """Return the conversion errors of the first images."""

    def ready(self, settings: Settings) -> bool:
        """Tell whether a method's conversion is at hand, so that a slice takes no longer than its simulation."""

    def prepare(self, settings: Settings, stop: Callable[[], bool]) -> None:
        """Fit a method, which may take long."""


@dataclass(eq=False)
class Run:
    """One simulation: its settings, who wants how many images of it, and what is known so far.

    available: the most images there are, once that is known. errors: who asked for conversion errors. fitting: its
    method is being fitted, beside the slices of other runs.
    """

    settings: Settings
    result: Result = field(init=False)
    wanted: dict[str, int] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)
    available: int | None = None
    error: str | None = None
    fitting: bool = False

    def __post_init__(self) -> None:
        self.result = Result.empty(self.settings.T)

    def within(self, images: int) -> int:
        """Return how many images there are of so many."""
        return images if self.available is None else min(images, self.available)

    def finished(self, images: int, errors: bool) -> bool:
        """Whether so many images, and errors if asked for, are known, or never will be."""
        known = self.result.images >= self.within(images) and (bool(self.result.error_images) or not errors)
        return known or self.error is not None

    def open_for(self, owner: str) -> bool:
        """Whether this visitor waits for something of it."""
        return owner in self.wanted and not self.finished(self.wanted[owner], owner in self.errors)

    @property
    def is_open(self) -> bool:
        """Whether somebody waits for something that is not done."""
        return any(self.open_for(owner) for owner in self.wanted)


@dataclass(eq=False)
class Job:
    """A run as one visitor wants it: his number of images, and whether he needs the conversion errors."""

    run: Run
    images: int
    errors: bool = False

    @property
    def settings(self) -> Settings:
        """The run's settings, with this visitor's number of images."""
        return replace(self.run.settings, images=self.images)

    @property
    def goal(self) -> int:
        """How many images it should see."""
        return self.run.within(self.images)

    @property
    def result(self) -> Result:
        """What is known of exactly the images asked for, and of no others."""
        return self.run.result.first(self.goal)

    @property
    def error(self) -> str | None:
        """Why the run failed, if it did."""
        return self.run.error

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.run.finished(self.images, self.errors)


def _is_ending(error: BaseException) -> bool:
    """Whether a run failed because the interpreter ends: its thread pools close before anything else is told."""
    return not threading.main_thread().is_alive() or (isinstance(error, RuntimeError) and "shutdown" in str(error))


@dataclass(frozen=True)
class Load:
    """How busy the queue is: visitors, those of them who wait, and the runs they wait for."""

    visitors: int
    waiting: int
    open_runs: int


class Runner:
    """The queue and its single worker thread. lost: whether a visitor's browser has no connection any more."""

    def __init__(self, instrument: Callable[[], Instrument], lost: Callable[[str], bool] = lambda owner: False) -> None:
        self._make, self._lost = instrument, lost
        self._runs: OrderedDict[Settings, Run] = OrderedDict()
        self._heard: dict[str, float] = {}
        self._used: dict[str, float] = {}  # machine time of each visitor, in seconds
        self._main: dict[str, Run] = {}  # the run each visitor listed first
        self._of: dict[str, dict[Run, int]] = {}  # the runs each visitor has a place for, in his order; images
        self._asked: dict[str, tuple[list[Settings], bool, list[Job]]] = {}  # what each asked for last, and got
        self._news = threading.Condition()
        self._places = threading.BoundedSemaphore(ASIDE)
        self._aside = 0
        self._closing = False
        self._fits = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Compute something short for one visitor in his own thread: the next slice waits a moment, nobody else does.

        No more than two are computed at once, unless one takes long.
        """
        with self._news:
            self._aside += 1
        held = self._places.acquire(timeout=2.0)
        try:
            yield
        finally:
            if held:
                self._places.release()
            with self._news:
                self._aside -= 1
                self._news.notify_all()

    def want(self, owner: str, settings: list[Settings], errors: bool = False) -> list[Job]:
        """Ask for these runs and no others; return them, finished or not. errors: the first's conversion errors too.

        A run that failed starts anew for a visitor who did not ask for it just before. Of the unfinished ones no more
        than the server's limit wait in the queue at a time, in the order given.
        """
        with self._news:
            self._note(owner)
            again = self._asked.get(owner)
            if again is not None and again[:2] == (settings, errors) and self._stands(owner, again[2]):
                return list(again[2])  # a page asks several times while it is drawn
            self._catch_up(owner)
            before = self._of.get(owner, {})
            jobs = [self._job(one, before) for one in settings]
            wanted = self._of[owner] = self._admitted(jobs)
            for run in before:
                run.errors.discard(owner)
                if run not in wanted:
                    run.wanted.pop(owner, None)
            for run, images in wanted.items():  # never taken out for a moment: the run at work would stop
                run.wanted[owner] = images
            self._main.pop(owner, None)
            for job in jobs[:1]:
                self._main[owner] = job.run
                job.errors = errors
                if errors:
                    job.run.errors.add(owner)
            self._make_room()
            self._asked[owner] = (list(settings), errors, jobs)
            if jobs:
                self._ensure_worker()
                self._news.notify_all()
            return jobs

    def _stands(self, owner: str, jobs: list[Job]) -> bool:
        """Whether all of these runs have their place still, and somebody works on them."""
        if jobs:
            self._ensure_worker()
        return all(owner in job.run.wanted for job in jobs)

    def _ensure_worker(self) -> None:
        if not self._closing and (self._thread is None or not self._thread.is_alive()):
            self._start()

    def _admitted(self, jobs: list[Job]) -> dict[Run, int]:
        """Return how many images of which runs a visitor gets a place in the queue for."""
        wanted: dict[Run, int] = {}
        places = limits().runs
        for job in jobs:
            places -= not job.done
            if job.done or places >= 0:
                wanted[job.run] = max(job.images, wanted.get(job.run, 0))
        return wanted

    def known(self, settings: Settings) -> Result:
        """Return what is known of a run for this many images, without asking for it."""
        with self._news:
            run = self._runs.get(run_key(settings))
            return Result.empty(settings.T) if run is None else Job(run, settings.images).result

    def fault(self, settings: Settings) -> str | None:
        """Return why a run failed; None if it did not, or was never asked for."""
        with self._news:
            run = self._runs.get(run_key(settings))
            return None if run is None else run.error

    def _start(self) -> None:
        first = self._thread is None
        self._thread = threading.Thread(target=self._work, name="simulations", daemon=True)
        self._thread.start()
        if first:
            atexit.register(self.close)

    def _make_room(self) -> None:
        idle = [key for key, run in self._runs.items() if not run.wanted]
        size = sum(run.result.right.nbytes for run in self._runs.values())
        for key in idle:
            if len(self._runs) <= KEEP and size <= KEEP_BYTES:
                return
            size -= self._runs.pop(key).result.right.nbytes

    def _job(self, settings: Settings, before: Container[Run]) -> Job:
        key = run_key(settings)
        run = self._runs.get(key)
        if run is None or (run.error is not None and run not in before and not run.wanted):
            run = self._runs[key] = Run(key)
        self._runs.move_to_end(key)
        return Job(run, settings.images)

    def _note(self, owner: str) -> None:
        """Note that a visitor is there; forget those who are not."""
        self._heard[owner] = time.monotonic()
        self._forget()

    def _catch_up(self, owner: str) -> None:
        """Have a visitor who waited for nothing begin where the others are: he has saved no machine time."""
        waiting = self._waiting()
        if owner not in waiting:
            least = min((self._used[other] for other in waiting), default=0.0)
            self._used[owner] = max(self._used.get(owner, 0.0), least)

    def _is_there(self, owner: str) -> bool:
        """Whether a visitor still looks."""
        silent = time.monotonic() - self._heard.get(owner, -math.inf)
        return silent <= GONE or (silent <= SILENCE and not self._lost(owner))

    def _forget(self) -> None:
        """Forget the visitors who have left, and what they wanted."""
        for owner in [owner for owner in self._heard if not self._is_there(owner)]:
            for run in self._of.get(owner, ()):
                run.wanted.pop(owner, None)
                run.errors.discard(owner)
            for kept in (self._heard, self._used, self._main, self._of, self._asked):
                kept.pop(owner, None)

    def _is_wanted(self, run: Run) -> bool:
        """Whether somebody who still looks asks for a run."""
        return any(map(self._is_there, tuple(run.wanted)))

    def _waiting(self) -> dict[str, list[Run]]:
        """Return the runs that each visitor waits for."""
        found = {owner: [run for run in runs if run.open_for(owner)] for owner, runs in self._of.items()}
        return {owner: runs for owner, runs in found.items() if runs}

    def _lacks_a_point(self, owner: str) -> bool:
        """Whether the run that a visitor listed first has no image yet."""
        main = self._main.get(owner)
        return main is not None and main.error is None and not main.result.images

    def _claim(self, owner: str) -> float:
        """Return a visitor's place in the queue, least first: his machine time, less a head start for a first point."""
        return self._used[owner] - HEAD_START * self._lacks_a_point(owner)

    def ahead(self, owner: str) -> int:
        """Return how many other visitors come before this visitor's next slice."""
        with self._news:
            waiting = self._waiting()
            if owner not in waiting:
                return 0
            return sum(self._claim(other) < self._claim(owner) for other in waiting if other != owner)

    def load(self) -> Load:
        """Return how busy the queue is: visitors heard of lately, those who wait, and the runs they wait for."""
        with self._news:
            self._forget()
            waiting = self._waiting()
            return Load(len(self._heard), len(waiting), len({id(run) for runs in waiting.values() for run in runs}))

    def knows(self, owner: str) -> bool:
        """Tell whether a visitor was heard of and has not left."""
        with self._news:
            return owner in self._heard and self._is_there(owner)

    def wait(self, jobs: list[Job], seconds: float) -> None:
        """Wait until one of the runs has news or all are done, at most this long."""
        seen = [(job.result.images, job.result.error_images) for job in jobs]
        with self._news:
            self._news.wait_for(
                lambda: (
                    all(job.done for job in jobs)
                    or [(job.result.images, job.result.error_images) for job in jobs] != seen
                ),
                seconds,
            )

    def close(self) -> None:
        """End the worker after its present chunk: torch's threads must not outlive the interpreter."""
        with self._news:
            self._closing = True
            for run in self._runs.values():
                run.wanted.clear()
            self._of.clear()
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(20)

    def _next(self) -> tuple[str, Run] | None:
        """Return whose turn it is and the run to go on with: his that has seen the fewest images, first asked first."""
        self._forget()
        can_go_on = {owner: [run for run in runs if not run.fitting] for owner, runs in self._waiting().items()}
        waiting = {owner: runs for owner, runs in can_go_on.items() if runs}
        if not waiting:
            return None
        owner = min(waiting, key=self._claim)
        main = self._main.get(owner)
        return owner, min(waiting[owner], key=lambda run: (run.result.images, run is not main))

    def _work(self) -> None:
        instrument = self._make()
        while not self._closing:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._next() is not None)
                self._news.wait_for(lambda: self._closing or not self._aside, BETWEEN)
                chosen = self._next()
            if chosen is not None:
                self.step(instrument, *chosen)

    def step(self, instrument: Instrument, owner: str, run: Run) -> None:
        """Do one slice of a run in a visitor's turn."""
        self._attempt(owner, run, lambda: self._slice(instrument, owner, run))

    def _attempt(self, owner: str, run: Run, work: Callable[[], None]) -> None:
        """Do something for a run, put it down to the visitor's machine time, and note a fault."""
        began = time.monotonic()
        try:
            work()
        except Cancelled:
            pass
        except ExplorerError as error:
            run.error = str(error)
        except BaseException as error:  # a worker that ends for one run would leave all others waiting
            if self._closing or _is_ending(error):
                self._closing = True
                return
            traceback.print_exc()
            run.error = f"The run failed: {type(error).__name__}: {error}. Change a setting to try again."
        finally:
            with self._news:
                if owner in self._used:
                    self._used[owner] += time.monotonic() - began
                self._news.notify_all()

    def _slice(self, instrument: Instrument, owner: str, run: Run) -> None:
        def stop() -> bool:
            return not self._is_wanted(run)

        with self._news:
            goal, known = run.wanted.get(owner, 0), run.result
            wants_errors = owner in run.errors
        if run.settings.method and not instrument.ready(run.settings):
            run.fitting = True
            fit = threading.Thread(target=self._fit, args=(instrument, owner, run, stop), name="fit", daemon=True)
            fit.start()
            return
        available = instrument.available(run.settings, goal)
        if available < goal:
            run.available = available
        done = known.images
        if done and wants_errors and not known.error_images:
            images = min(ERROR_IMAGES, available)
            sites = instrument.errors(run.settings, images, stop)
            run.result = replace(run.result, sites=sites, error_images=images)
        elif done < available:
            end = min(available, done + (SLICE if done else FIRST))
            run.result = known.joined(instrument.advance(run.settings, done, end, stop, lambda: self._urgent(owner)))

    def _fit(self, instrument: Instrument, owner: str, run: Run, stop: Callable[[], bool]) -> None:
        """Fit a run's method, one at a time, in a thread of its own: slices of other runs go on."""
        with self._fits:
            self._attempt(owner, run, lambda: None if stop() else instrument.prepare(run.settings, stop))
        with self._news:
            run.fitting = False
            self._news.notify_all()

    def _urgent(self, owner: str) -> bool:
        """Whether another visitor who waits for his first point comes before this one."""
        with self._news:
            claim = self._claim(owner) if owner in self._used else 0.0
            return any(
                self._lacks_a_point(other) and self._claim(other) < claim for other in self._waiting() if other != owner
            )
