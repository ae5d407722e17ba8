"""The queue of fine-tunings: one thread, one short slice at a time, after the simulations of other visitors.

A visitor has one fine-tuning. It goes on while he looks at it; one that nobody asks about for a minute, or whose
visitor's browser is gone, stops where it is, and can be taken up again. Slices wait while simulations wait, but not for
ever.
"""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from explorer.engine.errors import Cancelled, ExplorerError
from explorer.engine.finetune.progress import Judged, Progress
from explorer.study.runner import GONE
from explorer.study.tuning import Made, Opened, Wanted

SLICE = 0.4  # seconds of training at a time
POLITE = 3.0  # seconds that a slice waits at most for simulations
SILENCE = 60.0
KEEP = 8  # fine-tunings, those that stand still included
Status = Literal["waiting", "running", "stopped", "done", "failed"]


class Trainer(Protocol):
    """What the workshop drives; the module `tuning` is the real one."""

    def begin(self, id: str, wanted: Wanted, stop: Any = None, on_progress: Any = None) -> Opened:
        """Open a fine-tuning."""

    def advance(self, id: str, seconds: float) -> list[Progress]:
        """Do a slice of it."""

    def finish(self, id: str, wanted: Wanted) -> Made:
        """Return its best state as a file."""

    def drop(self, id: str) -> None:
        """Forget it."""


@dataclass(eq=False)
class Job:
    """One visitor's fine-tuning and what is known of it.

    layers: (calibrated, all) before the first update; progress: after each update; heard: when somebody last asked.
    """

    wanted: Wanted
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "waiting"
    opened: Opened | None = None
    layers: tuple[int, int] = (0, 0)
    progress: list[Progress] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    heard: float = field(default_factory=time.monotonic)

    @property
    def active(self) -> bool:
        """Whether it goes on by itself."""
        return self.status in ("waiting", "running")

    @property
    def update(self) -> int:
        """How many updates are done."""
        return len(self.progress)

    @property
    def left(self) -> float | None:
        """Seconds of training left, by those so far; None before the first update."""
        return self.seconds / self.update * (self.wanted.updates - self.update) if self.update else None

    @property
    def looks(self) -> list[Judged]:
        """The looks at the held-back images, after the start's."""
        return [each.judged for each in self.progress if each.judged is not None]

    @property
    def best(self) -> tuple[int, float]:
        """The update and the accuracy of the best state on the held-back images; the earliest of equals."""
        assert self.opened is not None
        found = (0, self.opened.accuracy)
        for look in self.looks:
            if look.accuracy > found[1]:
                found = (look.update, look.accuracy)
        return found


class Workshop:
    """All visitors' fine-tunings, and the thread that does them.

    busy: whether simulations wait. lost: whether a visitor's browser has no connection any more.
    """

    def __init__(
        self, trainer: Trainer, busy: Callable[[], bool], lost: Callable[[str], bool] = lambda owner: False
    ) -> None:
        self._trainer, self._busy, self._lost = trainer, busy, lost
        self._jobs: dict[str, Job] = {}
        self._news = threading.Condition()
        self._working = threading.Lock()  # one slice, or one file, at a time
        self._thread: threading.Thread | None = None

    def start(self, owner: str, wanted: Wanted) -> Job:
        """Begin a visitor's fine-tuning; one that he had is forgotten."""
        self.discard(owner)
        with self._news:
            job = self._jobs[owner] = Job(wanted)
            self._make_room()
            self._wake()
            return job

    def job(self, owner: str) -> Job | None:
        """Return a visitor's fine-tuning, if he has one; it is then looked at."""
        with self._news:
            job = self._jobs.get(owner)
            if job is not None:
                job.heard = time.monotonic()
            return job

    def stop(self, owner: str) -> None:
        """Let a visitor's fine-tuning stand where it is."""
        with self._news:
            job = self._jobs.get(owner)
            if job is not None and job.active:
                job.status = "stopped"
            self._news.notify_all()

    def go_on(self, owner: str) -> None:
        """Take a fine-tuning that stands up again."""
        with self._news:
            job = self._jobs.get(owner)
            if job is not None and job.status == "stopped":
                job.status, job.heard = "waiting", time.monotonic()
                self._wake()

    def discard(self, owner: str) -> None:
        """Forget a visitor's fine-tuning."""
        with self._news:
            job = self._jobs.pop(owner, None)
            if job is not None:
                job.status = "stopped"
                self._trainer.drop(job.id)

    def finish(self, owner: str) -> Made | None:
        """Return a visitor's network in its best state so far, as a file; None if there is none.

        Raises:
            ExplorerError: it cannot be written down.
        """
        job = self.job(owner)
        if job is None or job.opened is None:
            return None
        with self._working:
            return self._trainer.finish(job.id, job.wanted)

    def _make_room(self) -> None:
        idle = sorted((job.heard, owner) for owner, job in self._jobs.items() if not job.active)
        for _, owner in idle[: max(0, len(self._jobs) - KEEP)]:
            self._trainer.drop(self._jobs.pop(owner).id)

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="fine-tuning", daemon=True)
            self._thread.start()
        self._news.notify_all()

    def _next(self) -> Job | None:
        """Return whose turn it is: his who had least machine time; stop those that nobody looks at."""
        self._stop_unseen()
        return min((job for job in self._jobs.values() if job.active), key=lambda job: job.seconds, default=None)

    def _stop_unseen(self) -> None:
        """Let what nobody looks at stand where it is."""
        now = time.monotonic()
        for owner, job in list(self._jobs.items()):
            silent = now - job.heard
            if job.active and (silent > SILENCE or (silent > GONE and self._lost(owner))):
                job.status = "stopped"

    def _is_over(self, job: Job) -> bool:
        self._stop_unseen()
        return not job.active

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._next() is not None)
                job = self._next()
            self._wait_politely()
            if job is not None and job.active:
                with self._working:
                    self.step(job)

    def _wait_politely(self) -> None:
        end = time.monotonic() + POLITE
        while self._busy() and time.monotonic() < end:
            time.sleep(0.05)

    def step(self, job: Job) -> None:
        """Do one slice of a fine-tuning: its start, or some updates."""
        began = time.monotonic()
        try:
            if job.opened is None:
                job.opened = self._trainer.begin(job.id, job.wanted, lambda: self._is_over(job), self._teller(job))
            else:
                job.progress.extend(self._trainer.advance(job.id, SLICE))
                job.seconds += time.monotonic() - began
            with self._news:
                if job.active:
                    job.status = "done" if job.update >= job.wanted.updates else "running"
        except Cancelled:
            pass
        except ExplorerError as error:
            job.status, job.error = "failed", str(error)
        except BaseException as error:  # a thread that ends for one would leave all others waiting
            if job not in self._jobs.values():
                return  # it was forgotten meanwhile
            traceback.print_exc()
            job.status = "failed"
            job.error = f"The fine-tuning failed: {type(error).__name__}: {error}. Start it anew with other settings."
        finally:
            if job not in self._jobs.values():
                self._trainer.drop(job.id)

    @staticmethod
    def _teller(job: Job) -> Callable[[int, int], None]:
        def tell(done: int, all: int) -> None:
            job.layers = (done, all)

        return tell
