"""What lies between engine and screen: shared results are computed once; energies are written as people write them."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from explorer.engine.errors import Cancelled
from explorer.study import energy, library, nouns
from explorer.study.measure import Engine
from explorer.study.memo import kept, size
from explorer.study.settings import Settings
from tests.app_help import ROOT


def test_a_value_is_computed_once_and_others_do_not_wait_for_it():
    made, release = [], threading.Event()

    @kept(2)
    def slow(key):
        made.append(key)
        if key == "slow":
            release.wait(10)
        return key

    threads = [threading.Thread(target=slow, args=("slow",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert slow("quick") == "quick"
    release.set()
    for thread in threads:
        thread.join(10)
    assert sorted(made) == ["quick", "slow"]


def test_who_waits_for_another_hears_of_it_and_may_leave():
    release, heard, made = threading.Event(), [], []

    @kept(2)
    def fit(key, stop=None, on_progress=None):
        on_progress(1, 3)
        made.append(release.wait(10))
        return key

    first = threading.Thread(target=fit, args=("one",), kwargs={"on_progress": lambda *how: None})
    first.start()
    while not fit._making["one",]._told:
        time.sleep(0.01)
    began, left = time.monotonic(), iter([False, False, True])
    with pytest.raises(Cancelled):
        fit("one", stop=lambda: next(left), on_progress=lambda *how: heard.append(how))
    assert time.monotonic() - began < 5 and heard == [(1, 3), (1, 3)]
    release.set()
    first.join(10)
    assert fit("one") == "one" and made == [True], "it was computed once, by who began"


def test_a_fault_is_not_kept_and_old_values_go():
    calls = []

    @kept(2)
    def odd(key, fault=False):
        calls.append(key)
        if fault:
            raise ValueError(key)
        return key

    with pytest.raises(ValueError):
        odd(1, fault=True)
    assert odd(1) == 1 and odd(2) == 2 and odd(3) == 3 and odd(1) == 1
    assert calls == [1, 1, 2, 3, 1]


def test_large_values_are_kept_within_a_budget():
    made = []

    @kept(10, 1000)
    def array(key):
        made.append(key)
        return {"a": np.zeros(50), "b": [np.zeros(25)]}  # 600 bytes

    assert size(array(1)) == 600
    array(2), array(2), array(1)
    assert made == [1, 2, 1]


@pytest.mark.parametrize(
    ("microjoules", "text"),
    [(0.0123, "12.3 nJ"), (1.5, "1.50 µJ"), (51.02, "51.0 µJ"), (1470, "1.47 mJ"), (188, "188 µJ"), (2.5e6, "2.50 J")],
)
def test_energies_have_three_digits_and_a_unit_that_fits(microjoules, text):
    assert energy.told(microjoules) == text


BEFORE = """
import torch

from explorer.engine import *  # noqa: F403
from explorer.engine import calibrate, convert, simulate, trace
from explorer.zoo.data import calibration_source, data_source, load_images
from explorer.zoo.images import normalise
from explorer.zoo.own import NetworkSource, open_network

model, card = open_network(NetworkSource('resnet20-relu'))
network = trace(model, card.example())
source = data_source('embedded')
calibration_images = load_images(calibration_source(source, card), card, n=256, part="calibration")
rule = Percentile(p=99.9, per='site')
calibration = calibrate(network, normalise(calibration_images.images, card), CalibrationSpec(rule=rule))
snn = convert(network, calibration, ConversionSpec(v_init=ConstantStart(value=0.5), threshold_scale=1.0, sites=()))

evaluation = load_images(source, card, n=2000).take(20)
hits = 0
for begin, end in [(0, 16), (16, 20)]:
    inputs = normalise(evaluation.images[begin:end], card)
    run = simulate(snn, inputs, SimulationSpec(T=6, device='auto'))  # noqa: F405
    if evaluation.labels is None:
        expected = network.forward(inputs).argmax(1)
    else:
        expected = torch.from_numpy(evaluation.labels[begin:end])
    hits += int((run.logits[-1].argmax(1) == expected).sum())
name = "agreement" if evaluation.labels is None else "top-1"
print(f"{name} {hits / len(evaluation.images):.6f} on {len(evaluation.images)} images, T = 6")
"""


def test_a_script_exported_by_the_first_version_still_gives_its_number(tmp_path):
    (tmp_path / "run.py").write_text(BEFORE, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "run.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result = Engine().advance(Settings(T=6), 0, 20, lambda: False, lambda: False)
    assert done.stdout.strip() == f"top-1 {result.top1[-1]:.6f} on 20 images, T = 6" and result.images == 20


def test_only_the_images_asked_for_are_read(monkeypatch):
    from explorer.zoo import data

    asked, real = [], data.load_images
    monkeypatch.setattr(data, "load_images", lambda *args, n=None, **more: asked.append(n) or real(*args, n=n, **more))
    pictures = library.Pictures("resnet20-relu", "embedded")
    assert len(pictures.first(16)) == 16 and len(pictures.first(30)) == 30 and asked == [32]
    assert pictures.available(5000) == 2000 and len(pictures.first(1990)) == 1990 and len(asked) == 2


def test_the_anns_answers_do_not_depend_on_what_is_asked():
    one, other = (library.Pictures("resnet20-relu", "embedded") for _ in range(2))
    whole = one.answers(0, 70)
    assert (whole[40:50] == other.answers(40, 50)).all() and (whole[:5] == other.answers(0, 5)).all()
    assert len(whole) == 70 and len(set(whole)) > 3


def test_one_image_is_told_of_as_one():
    assert [nouns.count(n, "image") for n in (0, 1, 2, 2_000)] == ["0 images", "1 image", "2 images", "2,000 images"]
    assert Settings().note(1).endswith(": 1 image") and Settings().note(200).endswith(": 200 images")
