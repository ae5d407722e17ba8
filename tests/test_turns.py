"""Pages are drawn one after another: who comes when, who goes on meanwhile, and what a fault leaves behind."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from explorer.ui import frame
from explorer.ui.turns import Turns

PATIENCE = 20.0  # seconds for anything here on a busy machine


@pytest.fixture
def turns():
    return Turns(stuck=3600.0)


@contextmanager
def drawing(turns, name, told, until, **how):
    """Draw in another thread until the event comes; told: who began, in order."""

    def draw():
        with turns.take(**how):
            told.append(name)
            assert until.wait(PATIENCE)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    yield thread
    until.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def reached(what):
    end = time.monotonic() + PATIENCE
    while not what() and time.monotonic() < end:
        threading.Event().wait(0.002)
    return what()


def begin(turns, name, told, **how):
    """Put one more into the line, who draws for no time; wait until he stands there."""
    before = turns.waiting()

    def draw():
        with turns.take(**how):
            told.append(name)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    assert reached(lambda: turns.waiting() == before + 1)
    return thread


def test_who_came_first_draws_first_and_what_refines_lets_others_go_before(turns):
    told, end = [], threading.Event()
    with drawing(turns, "at work", told, end):
        assert reached(lambda: told == ["at work"])
        waiting = [begin(turns, name, told, later=later) for name, later in (("a", 0), ("refining", 3600), ("b", 0))]
        assert told == ["at work"], "one at a time"
    for thread in waiting:
        thread.join(PATIENCE)
    assert told == ["at work", "a", "b", "refining"]


def test_a_turn_is_handed_on_while_something_is_waited_for_and_had_back_before_others_begin(turns):
    told, computed = [], threading.Event()

    def page():
        with turns.take():
            with turns.elsewhere():
                assert computed.wait(PATIENCE)
            told.append("the page")

    first = threading.Thread(target=page, daemon=True)
    end = threading.Event()
    first.start()
    with drawing(turns, "another", told, end):
        assert reached(lambda: told == ["another"]), "the first one holds no turn while it waits"
        last = begin(turns, "last", told)
        computed.set()
        assert reached(lambda: turns.waiting() == 2)
    for thread in (first, last):
        thread.join(PATIENCE)
    assert told == ["another", "the page", "last"]


def test_a_drawing_within_a_drawing_needs_no_turn_of_its_own(turns):
    with turns.take(), turns.take():
        assert turns.waiting() == 0
    with turns.elsewhere():
        pass
    with turns.take():  # nothing is left of those before
        assert turns.waiting() == 0


def test_a_fault_gives_the_turn_away(turns):
    for within in (turns.take, lambda: turns.elsewhere()):
        with pytest.raises(ValueError), turns.take(), within():
            raise ValueError
        told: list[str] = []
        with drawing(turns, "next", told, threading.Event()):
            assert reached(lambda told=told: told == ["next"])


def test_who_moves_on_while_waiting_leaves_the_line(turns):
    told, end, gone = [], threading.Event(), []

    def check():
        raise KeyError

    def draw():
        try:
            with turns.take(check=check):
                told.append("who moved on")
        except KeyError:
            gone.append(True)

    with drawing(turns, "at work", told, end):
        assert reached(lambda: told == ["at work"])
        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert gone and turns.waiting() == 0
    assert told == ["at work"]


def test_a_drawing_that_takes_long_stops_nobody():
    turns, told, end = Turns(stuck=0.0), [], threading.Event()
    with drawing(turns, "long", told, end):
        assert reached(lambda: told == ["long"])
        for name in ("a", "b"):
            with turns.take():
                told.append(name)
    assert told == ["long", "a", "b"]


class _Stage:
    """A stand-in for a job: done from the given look on."""

    def __init__(self, run, done_at):
        self.run, self.looks, self.done_at, self.errors = run, 0, done_at, False
        self.result = SimpleNamespace(images=1, error_images=0)

    @property
    def done(self):
        self.looks += 1
        return self.looks > self.done_at


def test_runs_asked_for_in_stages_are_done_when_no_stage_follows():
    """A stage that ends between being asked for and being looked at must not end the page's watching."""
    stages = [[_Stage("a", 0)], [_Stage("a", 0), _Stage("b", 0)], [_Stage("a", 0), _Stage("b", 0), _Stage("c", 1)]]
    given = iter([*stages, stages[-1], stages[-1]])
    jobs, reached = frame.asked(lambda: next(given))
    assert jobs == stages[-1] and not reached[1], "the last stage still runs"
    jobs, reached = frame.asked(lambda: stages[-1])
    assert jobs == stages[-1] and reached == (True, True)
    assert frame.asked(list) == ([], (False, True)), "nothing is asked for"
