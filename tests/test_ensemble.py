"""Random starts as an ensemble: its numbers by hand, its members, and what it is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explorer.engine import SpecError
from explorer.engine.ensemble import calibration_error, ensemble
from explorer.study import ensemble as study
from explorer.study.case import case
from explorer.study.scene import Display, Scene
from explorer.study.settings import Settings
from tests.app_help import open_app


def test_a_calibration_error_by_hand():
    """Two bins of 15 are in use: 0.9 twice, once right (gap 2 * 0.9 - 1 = 0.8), and 0.6 once, right (gap 0.4)."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    assert calibration_error(p, torch.tensor([0, 1, 1])) == pytest.approx((0.8 + 0.4) / 3, abs=1e-6)
    assert calibration_error(p, torch.tensor([0, 1, 1]), bins=1) == pytest.approx(abs(2 - 2.4) / 3, abs=1e-6)
    sure = torch.eye(3)
    assert calibration_error(sure, torch.arange(3)) == 0 and calibration_error(sure, torch.tensor([1, 2, 0])) == 1


def test_an_ensemble_by_hand():
    """Three members, two images, of class 0: the third member is alone wrong on the second image, but only just."""
    sure, unsure, wrong = [4.0, 0.0], [0.2, 0.0], [0.0, 0.1]
    scores = torch.tensor([[sure, sure], [sure, unsure], [sure, wrong]])
    found = ensemble(scores, torch.tensor([0, 0]))
    assert found.top1 == 1 and found.top1_each == (1, 1, 0.5) and found.members == 3 and found.images == 2
    assert found.disagreement == pytest.approx((0 + 0.5 + 0.5) / 3)
    p = scores.double().softmax(2)
    assert found.calibration_error == pytest.approx(float(1 - p.mean(0)[:, 0].mean()))
    assert found.calibration_error_each[0] == pytest.approx(float(1 - p[0, :, 0].mean()))
    one = ensemble(scores[:1], torch.tensor([0, 0]))
    assert one.disagreement == 0 and one.top1 == one.top1_each[0]
    for shape in ((0, 2, 2), (2, 0, 2), (2, 3, 2)):
        with pytest.raises(SpecError, match="a label for each image"):
            ensemble(torch.zeros(shape), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("seed", range(4))
def test_the_calibration_error_is_torchmetrics(seed):
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(200, 7, generator=generator)).softmax(1)
    labels = torch.randint(0, 7, (200,), generator=generator)
    expected = multiclass_calibration_error(p, labels, num_classes=7, n_bins=15, norm="l1")
    assert calibration_error(p, labels) == pytest.approx(float(expected), abs=1e-5)


def test_starts_are_runs_of_their_seeds():
    settings = Settings(images=16, T=4)
    found = study.starts(settings, 3)
    drawn = study.members(settings, 3)
    assert [one.seed for one in drawn] == [0, 1, 2] and {one.start for one in drawn} == {"uniform"}
    labels = torch.from_numpy(case(settings).pictures.first(16).labels)
    for k, one in enumerate(drawn):
        scores = case(one).fitted.run(case(one).pictures.inputs(0, 16)).logits[-1]
        assert found.random.top1_each[k] == float((scores.argmax(1) == labels).double().mean())
    one = case(replace(settings, v_init=0.5))
    half = one.fitted.run(one.pictures.inputs(0, 16)).logits[-1]
    assert found.half.top1 == float((half.argmax(1) == labels).double().mean()) and found.half.members == 1
    assert 0 < found.random.disagreement < 1 and len(set(found.random.calibration_error_each)) == 3
    gaussian = study.members(replace(settings, start="gaussian"), 2)
    assert {one.start for one in gaussian} == {"gaussian"}
    by_method = study.members(replace(settings, method="signed:per=site"), 2)
    assert [one.method for one in by_method] == [
        f"signed:v_init=uniform:0:1,{rest}per=site" for rest in ("", "seed=1,")
    ]
    assert study.single(replace(settings, method="signed:v_init=gaussian:0.5:0.2")).method == "signed:v_init=0.5"


@pytest.mark.parametrize("method", ["", "opi:v_init=uniform:0:1"])
def test_no_layer_keeps_a_start_of_its_own(method):
    changed = Settings(images=16, T=4, method=method, sites=(("act1", None, 0.2), ("stages.0.0.act1", 0.9, 0.1)))
    for one in [study.single(changed), *study.members(changed, 3)]:
        assert one.sites == (("stages.0.0.act1", 0.9, None),)


def test_the_page_shows_the_ensemble():
    at = open_app(Scene(Settings(images=16, T=4), Display(ablation="ensemble")), page="accuracy_and_ablation")
    assert not at.exception and any(s.value == "Random starts as an ensemble" for s in at.subheader)
    (table,) = [frame.value for frame in at.dataframe if "Calibration error (%)" in frame.value]
    assert len(table) == 3 and float(table["Two starts disagree (%)"][0]) > 0
