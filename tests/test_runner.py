"""The queue of simulations: who waits for whom, without simulating anything."""

import threading
from dataclasses import replace

import pytest

from explorer.ui.runner import Runner
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
    first = runner.want("me", [Settings()])
    assert runner.want("other", [replace(Settings(), channel=3)]) == first
    assert runner.ahead("me") == 0 and first[0].wanted == {"me", "other"}


def test_a_run_is_done_when_there_are_no_more_images_however_many_are_asked_for(runner):
    job = runner.want("me", [Settings(images=64)])[0]
    job.available, job.result.images = 5, 5
    assert runner.want("me", [Settings(images=64)])[0].done and job.goal == 5
