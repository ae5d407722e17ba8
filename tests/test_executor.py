"""The process that computes: what it returns, how it is stopped, and what its end costs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from explorer.engine.errors import DataError, SpecError
from explorer.study import process
from explorer.study.executor import Inline, WorkerLost
from explorer.study.process import Process

ROOT = Path(__file__).resolve().parents[1]
WORK = "tests.tasks:"


@pytest.fixture(scope="module")
def shared():
    """Return one process for the tests that leave it alive."""
    executor = Process()
    yield executor
    executor.close()


@pytest.fixture
def own():
    executor = Process(lambda key: (f"{WORK}bring", key) if key == "mine" else None)
    yield executor
    executor.close()


@pytest.fixture(params=["inline", "process"])
def executor(request, shared):
    return shared if request.param == "process" else Inline()


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_work_is_done_and_returned(executor):
    assert executor.call(f"{WORK}add", 2, 3) == 5


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("spec", SpecError, "T: too large"), ("key", KeyError, "x"), ("odd", Exception, "strange")],
)
def test_a_fault_of_the_work_is_the_callers(executor, kind, error, words):
    with pytest.raises(error, match=words):
        executor.call(f"{WORK}fail", kind)


def test_what_cannot_be_sent_is_a_fault_and_no_silence(shared):
    with pytest.raises(Exception, match="pickle"):
        shared.call(f"{WORK}unsendable")


def test_work_is_stopped_by_its_caller_and_tells_how_far_it_is(executor):
    told: list[int] = []
    assert (
        executor.call(f"{WORK}until_stopped", asks={"stop": lambda: bool(told)}, tells={"tell": told.append})
        == "stopped"
    )
    assert told == [1, 2]


def test_a_caller_that_leaves_stops_its_work(shared):
    class Left(BaseException):
        pass

    def leave():
        raise Left

    with pytest.raises(Left):
        shared.call(f"{WORK}until_stopped", "left", asks={"stop": leave})
    assert any("left" in shared.call(f"{WORK}notes") for _ in range(2000))


def test_long_work_keeps_no_other_waiting(shared):
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(shared.call, f"{WORK}until_stopped", asks={"stop": done.is_set})
        assert shared.call(f"{WORK}add", 1, 1) == 2
        assert not long.done()
        done.set()
        assert long.result(20) == "stopped"


def test_a_process_killed_in_mid_work_costs_nothing_but_time(own, tmp_path, caplog):
    before = own.call(f"{WORK}pid")
    assert own.call(f"{WORK}die_once", str(tmp_path / "died"), 7) == 7
    assert own.call(f"{WORK}pid") != before
    assert "it was killed, as the system does where memory runs out" in caplog.text


def test_work_that_ends_its_process_twice_is_given_up_in_words_and_the_rest_goes_on(own):
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(own.call, f"{WORK}until_stopped", asks={"stop": done.is_set})
        with pytest.raises(WorkerLost, match=r"did so again.*signal 11.*fewer time-steps"):
            own.call(f"{WORK}die")
        assert own.call(f"{WORK}add", 1, 2) == 3
        done.set()
        assert beside.result(20) == "stopped", "begun anew by itself"


def test_a_lost_gpu_is_tried_once_more_and_then_done_without(own):
    assert own.call(f"{WORK}on_device") == "cpu"
    with pytest.raises(WorkerLost, match=r"The GPU failed or is gone.*Choose the CPU"):
        Inline().call(f"{WORK}on_device")


def test_an_upload_that_the_process_lacks_is_brought_to_it(own, tmp_path):
    assert own.call(f"{WORK}needs", "mine") == "mine is here"
    own.call(f"{WORK}die_once", str(tmp_path / "died"), 0)
    assert own.call(f"{WORK}needs", "mine") == "mine is here"
    with pytest.raises(DataError, match="other is not here"):
        own.call(f"{WORK}needs", "other")


def test_the_process_ends_with_its_owner():
    executor = Process()
    pid = executor.call(f"{WORK}pid")
    assert executor.memory_mib() > 5
    executor.close()
    assert is_gone(pid)
    with pytest.raises(WorkerLost, match="ending"):
        executor.call(f"{WORK}add", 1, 1)


def test_the_process_ends_when_its_server_is_killed():
    code = (
        "from explorer.study.process import Process; import os\n"
        f"p = Process(); print(p.call('{WORK}pid'), flush=True); os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert is_gone(int(told.stdout))


def test_where_no_process_can_be_had_work_is_done_here(monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", refuse)
    executor = process.make(lambda key: None)
    assert executor.call(f"{WORK}pid") == os.getpid()
    assert "simulations run in the server" in caplog.text


def test_the_server_needs_no_torch_for_what_pages_show():
    code = """
import sys
from explorer.study.process import Process
from explorer.study.settings import Settings
own, of = Process(), "explorer.study.measure:"
chosen = Settings(T=4, images=16)
look = own.call(of + "look", chosen, asks={"stop": lambda: False})
chosen = Settings(T=4, images=16, layer=list(look.shapes)[0])
assert own.call(of + "membrane", chosen, 0).x.shape == (4,)
run = own.call(of + "ENGINE.advance", chosen, 0, 2, asks={"stop": lambda: False, "pause": lambda: False})
assert run.images == 2 and run.right.shape == (2, 4)
assert own.call(of + "ENGINE.errors", chosen, 2, asks={"stop": lambda: False})
assert own.call(of + "rasters", chosen, 5)
assert own.call(of + "describe", chosen.network).lines and own.call(of + "macs", chosen.network)
assert own.call(of + "first", chosen.network, "embedded", 2).shape[0] == 2
print("torch" in sys.modules, any(name.startswith("torch") for name in sys.modules))
own.close()
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert told.stdout.split() == ["False", "False"], told.stderr
