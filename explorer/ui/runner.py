"""One simulation at a time for all visitors: a queue of runs that are resumed slice by slice.

A run is known by its settings, so two visitors with the same settings share it. A visitor who moves a control asks for
other runs; a run nobody asks for stops at the engine's next chunk and can be taken up later where it was.
"""

from __future__ import annotations

import atexit
import copy
import threading
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


@dataclass(eq=False)
class Job:
    """One run: its recipe, how many images it should see, whether errors are asked for, and what is known so far.

    available: how many images there are, once that is known.
    """

    settings: Settings
    goal: int
    available: int | None = None
    result: Result = field(init=False)
    error: str | None = None
    errors: bool = False
    wanted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.result = Result(self.settings.T)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.error is not None or (self.result.images >= self.goal and not self.lacks_errors)

    @property
    def lacks_errors(self) -> bool:
        """Whether the errors that were asked for are still to be computed."""
        return self.errors and not self.result.error_images


class Runner:
    """The queue and its single worker thread."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[Settings, Job] = OrderedDict()
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
        """Ask for these runs and no others; return them, finished or not. errors: the first's conversion errors too."""
        with self._news:
            for job in self._jobs.values():
                job.wanted.discard(owner)
            jobs = [self._job(one) for one in settings]
            for job in jobs:
                job.wanted.add(owner)
            for job in jobs[:1]:
                job.errors = job.errors or errors
            while len(self._jobs) > KEEP and not next(iter(self._jobs.values())).wanted:
                self._jobs.popitem(last=False)
            if jobs and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="simulations", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._news.notify_all()
            return jobs

    def _job(self, settings: Settings) -> Job:
        key = replace(settings.look(), images=16)
        job = self._jobs.get(key)
        if job is None or (job.error is not None and not job.wanted):
            job = self._jobs[key] = Job(settings.look(), settings.images)
        self._jobs.move_to_end(key)
        job.goal = settings.images if job.available is None else min(settings.images, job.available)
        return job

    def ahead(self, owner: str) -> int:
        """Return how many runs of other visitors come before this visitor's next slice."""
        with self._news:
            open_jobs = [job for job in self._jobs.values() if job.wanted and not job.done]
            mine = [job.result.images for job in open_jobs if owner in job.wanted]
            return sum(owner not in job.wanted and job.result.images <= min(mine) for job in open_jobs) if mine else 0

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
            for job in self._jobs.values():
                job.wanted.clear()
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(20)

    def _next(self) -> Job | None:
        """Return the wanted run that has seen the fewest images; None while an interactive turn is asked for."""
        open_jobs = [job for job in self._jobs.values() if job.wanted and not job.done]
        return None if self._first or not open_jobs else min(open_jobs, key=lambda job: job.result.images)

    def _work(self) -> None:
        while not self._closing:
            with self._news:
                self._news.wait_for(lambda: self._closing or self._next() is not None)
                job = self._next()
            if job is not None:
                with self._turn:
                    self._slice(job)
                with self._news:
                    self._news.notify_all()

    def _slice(self, job: Job) -> None:
        from explorer.ui import cache, compute

        try:
            job.available = len(cache.images(job.settings.network, job.settings.source).images)
            goal = job.goal = min(job.goal, job.available)
            done = job.result.images
            if done and job.lacks_errors:
                result = copy.deepcopy(job.result)
                compute.add_errors(job.settings, result, min(ERROR_IMAGES, goal), lambda: not job.wanted)
                job.result = result
                return
            if done >= goal:
                return
            begin, end = next((a, b) for a, b in slices(goal) if b > done)
            result = copy.deepcopy(job.result)
            compute.advance(job.settings, result, max(begin, done), end, lambda: not job.wanted)
            job.result = result
        except Cancelled:
            pass
        except ExplorerError as error:
            job.error = str(error)
        except Exception as error:
            if self._closing or not threading.main_thread().is_alive():
                return
            traceback.print_exc()
            job.error = f"The run failed: {type(error).__name__}: {error}. Change a setting to try again."
