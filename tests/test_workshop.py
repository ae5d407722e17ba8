"""The queue of fine-tunings with a trainer that only counts, and the slices that the real one does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace

import pytest
import torch

from explorer.engine.errors import Cancelled, DataError, SpecError
from explorer.engine.finetune.progress import Judged, Progress
from explorer.study import library, tuning, uploads, workshop
from explorer.study.tuning import Augmented, Opened, Wanted
from explorer.study.workshop import GONE, KEEP, SILENCE, Job, Workshop
from explorer.zoo.checkpoint import open_state
from explorer.zoo.data import UploadedPictures
from explorer.zoo.own import NetworkSource
from explorer.zoo.training import tuned

QUICK = "calibrate:fit_amplitude=false,fit_even=false,fit_steps=0,samples=64"  # without the weights, which takes long


@dataclass
class Counting:
    """Opens at once, does five updates a slice; what it is asked is written down."""

    asked: list = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None

    def begin(self, id, wanted, stop=None, on_progress=None):
        self.asked.append(("begin", id))
        on_progress(1, 2)
        assert self.gate.wait(20)
        if stop():
            raise Cancelled("stopped")
        return Opened(("a", "b"), 12, 4, True, 2.0, 0.5, 0.75, {"a": 1.0, "b": 2.0})

    def advance(self, id, seconds):
        self.asked.append(("advance", id))
        if self.fault:
            raise self.fault
        k = sum(each == ("advance", id) for each in self.asked)
        look = Judged(5 * k, 1.0, 0.5 + 0.25 * (k == 2))
        return [Progress(5 * k - 4 + i, 20, 1.0, 2, {"a": 1.0, "b": 2.0}, look if i == 4 else None) for i in range(5)]

    def finish(self, id, wanted):
        return ("made", id)

    def drop(self, id):
        self.asked.append(("drop", id))


def until(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_fine_tuning_goes_on_by_itself_to_its_end_and_can_be_kept():
    trainer = Counting()
    shop = Workshop(trainer, lambda: False)
    job = shop.start("ann", Wanted("net", "embedded", updates=20))
    until(lambda: job.layers == (1, 2))
    assert job.status == "waiting" and shop.finish("ann") is None
    trainer.gate.set()
    until(lambda: job.status == "done")
    assert job.update == 20 and not job.active
    assert job.best == (10, 0.75) and [look.update for look in job.looks] == [5, 10, 15, 20]
    assert shop.finish("ann") == ("made", job.id)
    shop.discard("ann")
    assert shop.job("ann") is None and trainer.asked[-1] == ("drop", job.id)


def test_it_stops_is_taken_up_again_and_starts_anew():
    trainer = Counting()
    shop = Workshop(trainer, lambda: False)
    first = shop.start("ann", Wanted("net", "embedded", updates=20))
    until(lambda: ("begin", first.id) in trainer.asked)
    shop.stop("ann")
    trainer.gate.set()
    until(lambda: first.opened is None and not shop._working.locked())
    assert first.status == "stopped" and first.update == 0
    shop.go_on("ann")
    until(lambda: first.status == "done")
    second = shop.start("ann", Wanted("net", "embedded", updates=5))
    assert ("drop", first.id) in trainer.asked and shop.job("ann") is second


def test_simulations_come_first_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(workshop, "POLITE", 0.2)
    trainer, waiting = Counting(), [True]
    trainer.gate.set()
    shop = Workshop(trainer, lambda: waiting[0])
    began = time.monotonic()
    job = shop.start("ann", Wanted("net", "embedded", updates=5))
    until(lambda: job.opened is not None)
    assert time.monotonic() - began >= 0.19
    waiting[0] = False
    until(lambda: job.status == "done")


def test_machine_time_is_shared_and_who_looks_away_is_left():
    shop = Workshop(Counting(), lambda: False)
    one, two = Job(Wanted("a", "x"), seconds=3.0), Job(Wanted("b", "x"), seconds=1.0)
    shop._jobs = {"one": one, "two": two}
    assert shop._next() is two
    two.heard -= SILENCE + 1
    assert shop._next() is one and two.status == "stopped"
    shop._lost = {"one"}.__contains__
    assert shop._next() is one, "a connection may come back at once"
    one.heard -= GONE + 1
    assert shop._is_over(one) and shop._next() is None
    for k in range(KEEP + 3):
        shop._jobs[f"idle{k}"] = Job(Wanted("c", "x"), status="done", heard=float(k))
    shop._make_room()
    assert len(shop._jobs) == KEEP and one in shop._jobs.values() and "idle0" not in shop._jobs


@pytest.mark.parametrize(
    ("fault", "told"), [(SpecError("too high."), "too high."), (ValueError("odd"), "ValueError: odd")]
)
def test_a_fault_ends_one_fine_tuning_and_not_the_others(fault, told, capsys):
    trainer = Counting(fault=fault)
    trainer.gate.set()
    shop = Workshop(trainer, lambda: False)
    job = shop.start("ann", Wanted("net", "embedded", updates=5))
    until(lambda: job.status == "failed")
    assert told in job.error
    trainer.fault = None
    other = shop.start("bob", Wanted("net", "embedded", updates=5))
    until(lambda: other.status == "done")


def test_the_real_one_tunes_and_writes_a_file_that_uploads_again(monkeypatch):
    monkeypatch.setattr(tuned, "START", QUICK)
    wanted = Wanted("resnet20-relu", "embedded", T=2, updates=3, batch=8, images=32)
    told = []
    opened = tuning.begin("x", wanted, on_progress=lambda done, all: told.append((done, all)))
    assert (opened.trained, opened.held, opened.labelled) == (24, 8, True) and told[-1] == (19, 19)
    assert len(opened.sites) == 19 and opened.theta.keys() == set(opened.sites)
    done = tuning.advance("x", 0.0)
    assert [p.update for p in done] == [1]
    done += tuning.advance("x", 600.0)
    assert [p.update for p in done] == [1, 2, 3] and done[-1].judged is not None
    made = tuning.finish("x", wanted)
    assert made.name == "resnet20-relu-dsr-T2.safetensors" and made.architecture == "resnet20-clip"
    found = uploads.read_network(made.name, made.content, NetworkSource(made.architecture), "CIFAR-10", lambda _: None)
    assert found.network.clips_trained and len(found.network.sites[0].caps) == 16
    best = tuning._open["x"].result()
    assert torch.equal(open_state(made.content, made.name).tensors["act1.theta"], best.theta[0].detach())
    tuning.drop("x")
    assert "x" not in tuning._open
    with pytest.raises(SpecError, match="gone with the process"):
        tuning.advance("x", 0.0)


def test_what_the_server_hears_of_a_fine_tuning_needs_no_torch():
    names = "explorer.study.workshop, explorer.engine.finetune.progress"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_that_are_judged_are_never_trained_on():
    library.own_pictures().put("upload:0:mine", UploadedPictures((("a.png", b""),)), 1)
    loaded = library.loaded("resnet20-relu")
    key = "upload:1:other"
    library.own_networks().put(key, replace(loaded, card=replace(loaded.card, classes=tuple("abcdefghij"))), 1)
    with pytest.raises(DataError, match="nothing is trained on them"):
        tuning.begin("y", Wanted(key, "upload:0:mine"))


def test_stopping_ends_the_calibration_of_the_start():
    with pytest.raises(Cancelled):
        tuning.begin("z", Wanted("resnet20-relu", "embedded", images=32), stop=lambda: True)
    assert "z" not in tuning._open


def test_an_image_looks_the_same_in_any_batch_of_a_turn_and_is_mirrored_every_other():
    images = torch.arange(4 * 3 * 16 * 16, dtype=torch.float32).view(4, 3, 16, 16)
    given = Augmented(images, None, True, 5)
    whole = given.take(torch.arange(4), 2)
    assert torch.equal(given.take(torch.tensor([3, 1]), 2), whole[[3, 1]])
    assert not torch.equal(given.take(torch.arange(4), 3), whole)
    mirrored = [bool(image[0, 8, 4] > image[0, 8, 5]) for turn in (2, 3) for image in given.take(torch.arange(4), turn)]
    assert all(a != b for a, b in zip(mirrored[:4], mirrored[4:], strict=True))
    assert torch.equal(Augmented(images, None, False, 5).take(torch.arange(4), 2), images)


def test_only_architectures_with_a_place_for_thresholds_are_offered():
    assert tuning.architecture("resnet20-relu") == "resnet20-clip"
    assert tuning.architecture("resnet20-qcfs") == "resnet20-clip"
