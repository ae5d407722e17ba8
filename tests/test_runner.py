"""The queue of simulations: who waits for whom, without simulating anything."""

import threading
from dataclasses import replace

import pytest

from explorer.ui.runner import KEEP, SILENCE, Runner
from explorer.ui.settings import Settings


@pytest.fixture
def runner():
    queue = Runner()
    queue._thread = threading.Thread()  # a worker that never starts
    return queue


def test_other_visitors_runs_are_counted_while_they_come_first(runner):
    mine, theirs = Settings(T=8), [Settings(T=16), Settings(T=32)]
    own = runner.want("me", [mine])[0]
    assert runner.ahead("me") == 0
    others = runner.want("other", theirs)
    assert runner.ahead("me") == 2
    others[0].result.images = 16
    assert runner.ahead("me") == 1
    own.result.images = own.goal
    assert runner.ahead("me") == 0


def test_visitors_with_equal_settings_share_a_run(runner):
    first = runner.want("me", [Settings(images=64)])[0]
    second = runner.want("other", [replace(Settings(images=256), channel=3)])[0]
    assert second.run is first.run and first.run.wanted == {"me": 64, "other": 256}
    assert (first.goal, second.goal, first.run.goal) == (64, 256, 256)
    first.run.result.images = 80
    assert first.done and not second.done and runner.ahead("me") == 0
    runner.want("other", [])
    assert first.run.wanted == {"me": 64} and not first.run.is_open


def test_one_visitor_may_want_the_same_run_twice_and_gets_the_larger(runner):
    large, small = runner.want("me", [Settings(images=256), Settings(images=64)])
    assert large.run is small.run and large.run.goal == 256
    assert (large.goal, small.goal, small.settings.images) == (256, 64, 64)


def test_errors_are_waited_for_only_by_who_asked_for_them(runner):
    job = runner.want("me", [Settings(images=16)])[0]
    job.run.result.images = 16
    assert job.done
    strict = runner.want("other", [Settings(images=16)], errors=True)[0]
    assert not strict.done and job.run.is_open and job.done


def test_a_run_is_done_when_there_are_no_more_images_however_many_are_asked_for(runner):
    job = runner.want("me", [Settings(images=64)])[0]
    job.run.available, job.run.result.images = 5, 5
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
    monkeypatch.setattr("explorer.ui.runner.time.monotonic", lambda: now[0])
    theirs = runner.want("other", [Settings(T=8)])[0]
    now[0] = SILENCE - 1
    runner.want("me", [Settings(T=16)])
    assert theirs.run.wanted and runner.ahead("me") == 1
    now[0] = SILENCE + 1
    runner.want("me", [Settings(T=16)])
    assert not theirs.run.wanted and runner.ahead("me") == 0


def test_no_more_runs_are_kept_than_there_is_room_for(runner):
    kept = runner.want("me", [Settings(seed=1000)])[0]
    for seed in range(KEEP + 10):
        runner.want("other", [Settings(seed=seed)])
    assert len(runner._runs) == KEEP
    assert runner.want("me", [Settings(seed=1000)])[0].run is kept.run
