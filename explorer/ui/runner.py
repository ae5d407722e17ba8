"""One simulation at a time for all visitors: a queue of runs that are resumed slice by slice.

A run is known by its settings, so two visitors with the same settings share it; each holds it as a `Job`, with the
number of images he wants of it. A visitor who moves a control asks for other runs; a run nobody asks for stops at the
engine's next chunk and can be taken up later where it was. A visitor who is silent for long has left.
"""

from __future__ import annotations

import atexit
import copy
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from explorer.engine.errors import Cancelled, ExplorerError
from explorer.ui.recipes import ERROR_IMAGES, slices
from explorer.ui.results import Result
from explorer.ui.settings import Settings

KEEP = 300
SILENCE = 30.0  # seconds; a page asks every 0.3 s while its runs refine, a browser's hidden tab more seldom


@dataclass(eq=False)
class Run:
    """One simulation: its recipe, who wants how many images of it, and what is known so far.

    available: how many images there are, once that is known. errors: whether anybody asked for conversion errors.
    """

    settings: Settings
    result: Result = field(init=False)
    wanted: dict[str, int] = field(default_factory=dict)
    available: int | None = None
    errors: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        self.result = Result(self.settings.T)

    def within(self, images: int) -> int:
        """Return how many images there are of so many."""
        return images if self.available is None else min(images, self.available)

    def finished(self, images: int, errors: bool) -> bool:
        """Whether so many images, and errors if asked for, are known, or never will be."""
        known = self.result.images >= self.within(images) and (bool(self.result.error_images) or not errors)
        return known or self.error is not None

    @property
    def goal(self) -> int:
        """The most images that anybody wants."""
        return self.within(max(self.wanted.values(), default=0))

    @property
    def is_open(self) -> bool:
        """Whether somebody waits for something that is not done."""
        return bool(self.wanted) and not self.finished(self.goal, self.errors)


@dataclass(eq=False)
class Job:
    """A run as one visitor wants it: his number of images, and whether he needs the conversion errors."""

    run: Run
    images: int
    errors: bool = False

    @property
    def settings(self) -> Settings:
        """The run's recipe, with this visitor's number of images."""
        return replace(self.run.settings, images=self.images)

    @property
    def goal(self) -> int:
        """How many images it should see."""
        return self.run.within(self.images)

    @property
    def result(self) -> Result:
        """What is known so far; it may hold more images than the goal."""
        return self.run.result

    @property
    def error(self) -> str | None:
        """Why the run failed, if it did."""
        return self.run.error

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.run.finished(self.images, self.errors)


class Runner:
    """The queue and its single worker thread."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Settings, Run] = OrderedDict()
        self._heard: dict[str, float] = {}
        self._news = threading.Condition()
        self._turn = threading.Lock()
        self._first = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the machine for a short interactive computation, before the next slice of any run."""
        with self._news:
            self._first += 1
        with self._turn:
            with self._news:
                self._first -= 1
                self._news.notify_all()
            yield

    def want(self, owner: str, settings: list[Settings], errors: bool = False) -> list[Job]:
        """Ask for these runs and no others; return them, finished or not. errors: the first's conversion errors too.

        A run that failed starts anew for a visitor who did not ask for it just before.
        """
        with self._news:
            self._forget_the_silent(owner)
            before = {key for key, run in self._runs.items() if owner in run.wanted}
            jobs = [self._job(one, before) for one in settings]
            for run in self._runs.values():
                images = max((job.images for job in jobs if job.run is run), default=0)
                if images:
                    run.wanted[owner] = images
                else:
                    run.wanted.pop(owner, None)
            for job in jobs[:1]:
                job.errors = errors
                job.run.errors = job.run.errors or errors
            for key in [key for key, run in self._runs.items() if not run.wanted][: max(0, len(self._runs) - KEEP)]:
                del self._runs[key]
            if jobs and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="simulations", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._news.notify_all()
            return jobs

    def _job(self, settings: Settings, before: set[Settings]) -> Job:
        key = replace(settings.look(), images=16)
        run = self._runs.get(key)
        if run is None or (run.error is not None and key not in before and not run.wanted):
            run = self._runs[key] = Run(key)
        self._runs.move_to_end(key)
        return Job(run, settings.images)

    def _forget_the_silent(self, owner: str) -> None:
        now = self._heard[owner] = time.monotonic()
        gone = [other for other, when in self._heard.items() if now - when > SILENCE]
        for other in gone:
            del self._heard[other]
            for run in self._runs.values():
                run.wanted.pop(other, None)

    def ahead(self, owner: str) -> int:
        """Return how many runs of other visitors come before this visitor's next slice."""
        with self._news:
            open_runs = [run for run in self._runs.values() if run.is_open]
            mine = [run.result.images for run in open_runs if owner in run.wanted]
            return sum(owner not in run.wanted and run.result.images <= min(mine) for run in open_runs) if mine else 0

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
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(20)

    def _next(self) -> Run | None:
        """Return the wanted run that has seen the fewest images; None while an interactive turn is asked for."""
        open_runs = [run for run in self._runs.values() if run.is_open]
        return None if self._first or not open_runs else min(open_runs, key=lambda run: run.result.images)

    def _work(self) -> None:
        while not self._closing:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._next() is not None)
                run = self._next()
            if run is not None:
                with self._turn:
                    self._slice(run)
                with self._news:
                    self._news.notify_all()

    def _slice(self, run: Run) -> None:
        from explorer.ui import cache, compute

        try:
            run.available = len(cache.images(run.settings.network, run.settings.source).images)
            goal, done = run.goal, run.result.images
            if done and run.errors and not run.result.error_images:
                result = copy.deepcopy(run.result)
                compute.add_errors(run.settings, result, min(ERROR_IMAGES, run.available), lambda: not run.wanted)
                run.result = result
                return
            if done >= goal:
                return
            begin, end = next((a, b) for a, b in slices(goal) if b > done)
            result = copy.deepcopy(run.result)
            compute.advance(run.settings, result, max(begin, done), end, lambda: not run.wanted)
            run.result = result
        except Cancelled:
            pass
        except ExplorerError as error:
            run.error = str(error)
        except Exception as error:
            if self._closing or not threading.main_thread().is_alive():
                return
            traceback.print_exc()
            run.error = f"The run failed: {type(error).__name__}: {error}. Change a setting to try again."
