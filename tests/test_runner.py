"""The queue of simulations: who waits for whom, without simulating anything."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from explorer.engine.errors import Cancelled, SpecError
from explorer.limits import Limits
from explorer.study.results import Result
from explorer.study.runner import GONE, KEEP, SILENCE, Runner
from explorer.study.settings import Settings


class Still(Runner):
    """A queue whose worker never starts."""

    def _start(self):
        pass


@pytest.fixture
def runner():
    return Still(lambda: None)


def see(job, images):
    """Let a job's run know so many images."""
    T = job.run.settings.T
    job.run.result = Result(T, np.ones((images, T), bool), np.ones(images, bool))


def test_visitors_are_counted_while_they_come_first(runner):
    own = runner.want("me", [Settings(T=8)])[0]
    assert runner.ahead("me") == 0
    see(own, 16)  # now others wait for their first point, and he does not
    for other in ("a", "b"):
        runner.want(other, [Settings(T=16, seed=ord(other)), Settings(T=32)])
    assert runner.ahead("me") == 2
    see(runner.want("a", [Settings(T=16, seed=ord("a"))])[0], 16)
    assert runner.ahead("me") == 1
    see(own, own.goal)
    assert runner.ahead("me") == 0


def test_visitors_with_equal_settings_share_a_run(runner):
    first = runner.want("me", [Settings(images=64)])[0]
    second = runner.want("other", [replace(Settings(images=256), channel=3)])[0]
    assert second.run is first.run and first.run.wanted == {"me": 64, "other": 256}
    assert (first.goal, second.goal) == (64, 256)
    see(first, 80)
    assert first.done and not second.done and runner.ahead("me") == 0
    runner.want("other", [])
    assert first.run.wanted == {"me": 64} and not first.run.is_open


def test_one_visitor_may_want_the_same_run_twice_and_gets_the_larger(runner):
    large, small = runner.want("me", [Settings(images=256), Settings(images=64)])
    assert large.run is small.run and large.run.wanted == {"me": 256}
    assert (large.goal, small.goal, small.settings.images) == (256, 64, 64)


def test_a_large_grid_waits_in_the_queue_piece_by_piece(runner, monkeypatch):
    monkeypatch.setattr("explorer.study.runner.limits", lambda: Limits(runs=3))
    grid = [Settings(images=16, seed=seed) for seed in range(8)]
    jobs = runner.want("me", grid)
    assert [bool(job.run.wanted) for job in jobs] == [True] * 3 + [False] * 5
    assert not any(job.done for job in jobs)
    for job in jobs[:2]:
        see(job, 16)
    jobs = runner.want("me", grid)
    assert [bool(job.run.wanted) for job in jobs] == [True] * 5 + [False] * 3, "those that ended leave their places"
    assert jobs[0].done and runner.load().open_runs == 3


def test_errors_are_waited_for_only_by_who_asked_for_them(runner):
    job = runner.want("me", [Settings(images=16)])[0]
    see(job, 16)
    assert job.done
    strict = runner.want("other", [Settings(images=16)], errors=True)[0]
    assert not strict.done and job.run.is_open and job.done


def test_a_run_is_done_when_there_are_no_more_images_however_many_are_asked_for(runner):
    job = runner.want("me", [Settings(images=64)])[0]
    job.run.available = 5
    see(job, 5)
    assert runner.want("me", [Settings(images=64)])[0].done and job.goal == 5


def test_a_failed_run_is_tried_again_only_when_asked_for_anew(runner):
    job = runner.want("me", [Settings()])[0]
    job.run.error = "no memory"
    assert job.done
    for _ in range(3):
        assert runner.want("me", [Settings()])[0].error == "no memory"
    runner.want("me", [])
    assert runner.want("me", [Settings()])[0].error is None


def test_who_is_silent_has_left(runner, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("explorer.study.runner.time.monotonic", lambda: now[0])
    theirs = runner.want("other", [Settings(T=8)])[0]
    now[0] = SILENCE - 1
    runner.want("me", [Settings(T=16)])
    assert theirs.run.wanted
    now[0] = SILENCE + 1
    runner.want("me", [Settings(T=16)])
    assert not theirs.run.wanted


@pytest.mark.parametrize(("lost", "after"), [(False, SILENCE), (True, GONE)])
def test_who_has_left_is_noticed_though_nobody_else_asks(monkeypatch, lost, after):
    now, queue = [0.0], Still(lambda: None, lost=lambda owner: lost)
    monkeypatch.setattr("explorer.study.runner.time.monotonic", lambda: now[0])
    job = queue.want("me", [Settings(T=8)])[0]
    now[0] = after - 1
    assert queue._next() == ("me", job.run) and queue.load().visitors == 1
    now[0] = after + 1
    assert not queue._is_wanted(job.run), "what is in work stops"
    assert queue._next() is None and queue.load().open_runs == 0 and not queue.knows("me")


def test_no_more_runs_are_kept_than_there_is_room_for(runner):
    kept = runner.want("me", [Settings(seed=1000)])[0]
    for seed in range(KEEP + 10):
        runner.want("other", [Settings(seed=seed)])
    assert len(runner._runs) == KEEP
    assert runner.want("me", [Settings(seed=1000)])[0].run is kept.run


class Clockwork:
    """An instrument whose images take a known time on a clock of its own, and which fails where it is told to."""

    def __init__(self, seconds=0.1, fault=None):
        self.seconds, self.fault, self.now = seconds, fault, 0.0

    def available(self, settings, n):
        return n

    def advance(self, settings, begin, end, stop, pause):
        if self.fault is not None and settings.seed == 13:
            raise self.fault
        done = 0
        for _ in range(begin, end):
            self.now += self.seconds
            done += 1
            if done % 4 == 0 and (pause() or done * self.seconds > 0.6):
                break
        return Result(settings.T, np.ones((done, settings.T), bool), np.ones(done, bool))

    def errors(self, settings, images, stop):
        return {}


def turn(runner, instrument):
    """Let the queue do its next slice; return whose turn it was."""
    owner, run = runner._next()
    runner.step(instrument, owner, run)
    return owner


@pytest.mark.parametrize("others", [1, 5])
@pytest.mark.parametrize("cells", [1, 20])
def test_a_first_point_is_not_kept_waiting_by_much_work_of_others(runner, monkeypatch, cells, others):
    instrument = Clockwork()
    monkeypatch.setattr("explorer.study.runner.time.monotonic", lambda: instrument.now)
    for i in range(others):
        runner.want(f"other {i}", [Settings(images=2000, seed=100 * i + k) for k in range(cells)])
    for _ in range(3 * others):
        turn(runner, instrument)
    began = instrument.now
    job = runner.want("me", [Settings(v_init=0.3)])[0]
    while not job.result.images:
        turn(runner, instrument)
    assert instrument.now - began < 2
    used = dict.fromkeys(runner._used, 0)
    for _ in range(40 * (others + 1)):
        used[turn(runner, instrument)] += 1
        for owner in list(runner._heard):  # all go on looking
            runner._heard[owner] = instrument.now
        if job.done:
            break
    assert max(used.values()) <= 2 * used["me"] + 4, "many cells are not many shares"


@pytest.mark.parametrize("fault", [SystemExit(3), MemoryError("no memory"), KeyError("odd")])
def test_a_fault_in_a_slice_is_told_and_the_others_go_on(runner, fault, capsys):
    instrument = Clockwork(fault=fault)
    bad = runner.want("me", [Settings(seed=13, images=16)])[0]
    good = runner.want("other", [Settings(images=16)])[0]
    while runner._next():
        turn(runner, instrument)
    assert type(fault).__name__ in bad.error and bad.done
    assert good.error is None and good.result.images == 16
    assert "Traceback" in capsys.readouterr().err


def test_a_worker_that_died_is_started_again():
    made = []

    def instrument():
        made.append(1)
        if len(made) == 1:
            raise SystemExit
        return Clockwork(0.0)

    queue = Runner(instrument)
    queue.want("me", [Settings(images=16)])
    queue._thread.join(10)
    job = queue.want("me", [Settings(images=16)])[0]
    end = threading.Event()
    for _ in range(200):
        if job.done:
            break
        end.wait(0.05)
    queue.close()
    assert len(made) == 2 and job.result.images == 16


def test_a_slow_close_look_holds_up_nobody_elses():
    queue, seen, release = Runner(lambda: Clockwork(0.0)), [], threading.Event()

    def slow():
        with queue.aside():
            release.wait(20)

    threads = [threading.Thread(target=slow) for _ in range(3)]
    for thread in threads:
        thread.start()
    quick = threading.Thread(target=lambda: [queue.aside().__enter__(), seen.append(1)])
    quick.start()
    job = queue.want("me", [Settings(images=16)])[0]
    quick.join(8)
    for _ in range(200):
        if job.done:
            break
        release.wait(0.05)
    assert seen and job.result.images == 16, "a look and a run went on beside three that hang"
    release.set()
    for thread in threads:
        thread.join(10)
    queue.close()


def test_the_end_of_the_server_in_mid_run_is_no_fault_of_the_run(runner, capsys):
    class Ending:
        def available(self, settings, n):
            return n

        def advance(self, *_):
            raise RuntimeError("cannot schedule new futures after shutdown")

    job = runner.want("me", [Settings(T=8)])[0]
    runner.step(Ending(), "me", job.run)
    assert job.error is None
    assert runner._closing
    assert "Traceback" not in capsys.readouterr().err


class Fits:
    """An instrument whose fits wait until they may end, and are noted."""

    def __init__(self, fault=None):
        self.may_end, self.begun, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.done, self.fault = set(), fault

    def available(self, settings, n):
        return n

    def advance(self, settings, begin, end, stop, pause):
        T, n = settings.T, end - begin
        return Result(T, np.ones((n, T), bool), np.ones(n, bool))

    def ready(self, settings):
        return settings.method in self.done

    def prepare(self, settings, stop):
        self.begun.set()
        while not self.may_end.wait(0.01):
            if stop():
                self.stopped.set()
                raise Cancelled("stopped")
        if self.fault is not None:
            raise self.fault
        self.done.add(settings.method)


def test_others_go_on_while_a_method_is_fitted():
    instrument = Fits()
    runner = Runner(lambda: instrument)
    fitting = runner.want("me", [Settings(images=16, method="calibrate")])
    assert instrument.begun.wait(10)
    other = runner.want("other", [Settings(images=16)])
    runner.wait(other, 10)
    assert other[0].done and not fitting[0].done and runner.ahead("me") == 0
    instrument.may_end.set()
    for _ in range(100):
        if fitting[0].done:
            break
        runner.wait(fitting, 0.1)
    assert fitting[0].result.images == 16
    runner.close()


def test_a_fit_stops_when_the_browser_it_is_for_is_gone(monkeypatch):
    monkeypatch.setattr("explorer.study.runner.GONE", 0.0)
    instrument, closed = Fits(), threading.Event()
    runner = Runner(lambda: instrument, lost=lambda owner: closed.is_set())
    runner.want("me", [Settings(images=16, method="calibrate")])
    assert instrument.begun.wait(10) and not instrument.stopped.is_set()
    closed.set()
    assert instrument.stopped.wait(10)
    runner.close()


def test_a_fit_that_nobody_wants_any_more_stops_and_one_that_fails_says_why():
    instrument = Fits()
    runner = Runner(lambda: instrument)
    runner.want("me", [Settings(images=16, method="calibrate")])
    assert instrument.begun.wait(10)
    runner.want("me", [])
    assert instrument.stopped.wait(10)
    runner.close()
    failing = Fits(SpecError("It does not apply here."))
    failing.may_end.set()
    runner = Runner(lambda: failing)
    jobs = runner.want("me", [Settings(images=16, method="calibrate")])
    runner.wait(jobs, 10)
    for _ in range(100):
        if jobs[0].done:
            break
        runner.wait(jobs, 0.1)
    assert jobs[0].error == "It does not apply here."
    runner.close()


def test_asking_again_changes_nothing_as_long_as_nothing_changed(runner):
    settings = [Settings(T=8), Settings(T=16)]
    jobs = runner.want("me", settings, errors=True)
    again = runner.want("me", list(settings), errors=True)
    assert [job.run for job in again] == [job.run for job in jobs] and again[0].errors
    assert not runner.want("me", settings)[0].errors and runner.want("me", settings, errors=True)[0].errors
    runner._heard["me"] -= 2 * SILENCE
    runner.want("other", [])
    assert not jobs[0].run.wanted, "who is silent has left"
    assert runner.want("me", settings, errors=True)[0].run.wanted == {"me": 256}, "and is taken in again"
