"""The recipes and the loop that follows them, on small generated pictures."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explorer.engine import QuantisedClip, SpecError
from explorer.engine.finetune.progress import METHODS
from explorer.zoo import train
from explorer.zoo.cards import write_network
from explorer.zoo.registry import available, load
from explorer.zoo.training.average import MovingAverage
from explorer.zoo.training.batches import crop, cut_out, pad, placement, to_input
from explorer.zoo.training.data import Images, hold_out, read
from explorer.zoo.training.loop import Training
from explorer.zoo.training.measure import Measured, measure
from explorer.zoo.training.noise import Noise
from explorer.zoo.training.optimise import Optimiser, clips, flat, learning_rate
from explorer.zoo.training.recipes import RECIPES, Cycle, Distillation, Muon, Recipe
from explorer.zoo.training.start import build, go_on_from
from explorer.zoo.training.teacher import Teacher

SMALL = Recipe("resnet20", "clip", cycles=(Cycle(1, 0.05), Cycle(1, 0.02)), batch=16, statistics_batches=1)


def pictures(n=96, classes=3, seed=0):
    """Plain colours, one a class, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    colours = rng.integers(30, 225, (classes, 1, 1, 3))
    images = (colours[labels] + rng.normal(0, 20, (n, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    names = tuple(f"colour {k}" for k in range(classes))
    return Images(torch.from_numpy(images), torch.from_numpy(labels), "colours", "CIFAR-10", names)


@pytest.fixture
def assets(tmp_path):
    """A folder with an untrained rectified network and one with clips."""
    for name, recipe in (("plain", replace(SMALL, activation="relu")), ("clipped", replace(SMALL, theta_init=1.5))):
        torch.manual_seed(1)
        write_network(tmp_path / "assets", name, build(recipe), {**vars(recipe), "cycles": []}, 0.5)
    return tmp_path / "assets"


def test_every_shipped_network_has_a_recipe():
    for card in available():
        tuned = card.recipe.get("method") in METHODS  # made by `finetune`, whose options the card holds
        assert card.name in RECIPES or (tuned and card.recipe["start_from"].split(",")[0] in RECIPES), card.name


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_builds_its_network_and_a_step_moves_all_of_it(recipe):
    torch.manual_seed(0)
    net = build(recipe).to(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in net.parameters()]
    optimiser = Optimiser(net, recipe)
    x = to_input(pictures(8).images, torch.device("cpu"))
    optimiser.step(F.cross_entropy(net(x), pictures(8).labels), recipe.cycles[0], 0.2)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert all(moved)


def test_epochs_fall_into_cycles():
    assert [SMALL.at(e) for e in range(SMALL.epochs)] == [(0, 0), (1, 0)]
    with pytest.raises(IndexError):
        SMALL.at(2)


@pytest.mark.parametrize("fall", ["linear", "cosine"])
def test_the_learning_rate_rises_and_falls(fall):
    recipe = replace(SMALL, warmup=0.25, fall=fall)
    rates = [learning_rate(recipe, Cycle(1, 0.4), p) for p in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.2, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cycle(0, 0.1), "at least 1 epoch.*got 0 and 0"),
        (lambda: Cycle(2, 0.1, small_epochs=3), "got 2 and 3"),
        (lambda: replace(SMALL, average_ends=3), "at most all cycles"),
        (lambda: replace(SMALL, average_ends=1, ema=0.9), "not both"),
    ],
)
def test_a_recipe_checks_itself(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_crops_are_shifted_and_mirrored():
    images = torch.randint(1, 256, (6, 32, 32, 3), dtype=torch.uint8)
    placed = torch.tensor([[4, 4, 0], [4, 4, 1], [0, 8, 0]])
    plain, mirrored, shifted = crop(pad(images), torch.tensor([3, 3, 5]), placed)
    assert torch.equal(plain, images[3])
    assert torch.equal(mirrored, images[3].flip(1))
    assert torch.equal(shifted[4:, :-4], images[5, :-4, 4:])
    assert not shifted[:4].any() and not shifted[:, -4:].any()


def test_flips_alternate_and_corners_vary():
    turns = [placement(2000, 0, turn, alternate=True) for turn in range(3)]
    assert torch.equal(turns[0][:, 2], 1 - turns[1][:, 2]) and torch.equal(turns[0][:, 2], turns[2][:, 2])
    assert not torch.equal(turns[0][:, :2], turns[2][:, :2])
    assert turns[0][:, :2].min() == 0 and turns[0][:, :2].max() == 8
    drawn = placement(2000, 0, 0, alternate=False)[:, 2]
    for mirrored in (turns[0][:, 2], drawn):
        assert abs(mirrored.double().mean() - 0.5) < 0.05


def test_cutout_greys_one_square_of_each_image():
    x = cut_out(torch.ones(200, 3, 32, 32), 12, torch.Generator().manual_seed(0))
    grey = x == 0
    assert torch.equal(grey[:, 0], grey[:, 2])
    rows, columns = grey[:, 0].any(2).sum(1), grey[:, 0].any(1).sum(1)
    assert torch.equal(grey[:, 0].sum((1, 2)), rows * columns)
    assert rows.min() == columns.min() == 6 and rows.max() == columns.max() == 12  # cut off where it leaves the image


def test_muon_moves_kernels_by_orthogonal_steps():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 2)).to(memory_format=torch.channels_last)
    recipe = replace(SMALL, muon=Muon(rate_share=1.0, decay=0.0), warmup=0.0)
    kernel = net[0].weight
    before = kernel.detach().clone()
    Optimiser(net, recipe).step(net(torch.randn(4, 3, 4, 4)).square().sum(), Cycle(1, 1.0), 0.0)
    singular = torch.linalg.svdvals(flat(before - kernel.detach()).float())
    assert singular.min() > 0.5 and singular.max() < 1.3  # five Newton-Schulz steps come that near to 1


def test_the_moving_average_follows():
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, 0.75)
    start = net.weight.detach().clone()
    nn.init.constant_(net.weight, 5.0)
    average.follow(net)
    assert torch.allclose(average.state["weight"], 0.75 * start + 0.25 * 5.0)


def test_the_distilling_loss_is_least_at_the_teachers_scores(tmp_path):
    teacher = Teacher(Distillation("plain", temperature=3.0, share=1.0), tmp_path, tmp_path, print)
    taught, labels = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64)
    assert teacher.loss(taught + 2.0, taught, labels, 0.0).item() == pytest.approx(0, abs=1e-6)
    assert teacher.loss(torch.randn(5, 4), taught, labels, 0.0) > 0.01
    own = replace(teacher.settings, share=0.0)
    scores = torch.randn(5, 4)
    assert torch.allclose(
        Teacher(own, tmp_path, tmp_path, print).loss(scores, taught, labels, 0.1),
        F.cross_entropy(scores, labels, label_smoothing=0.1),
    )


def test_the_teacher_is_asked_once_about_both_sides(assets, tmp_path):
    said = []
    data = replace(pictures(10, classes=10), images=torch.randint(0, 256, (10, 32, 32, 3), dtype=torch.uint8))
    teacher = Teacher(Distillation("plain"), assets, tmp_path / "kept", said.append)
    scores = teacher.scores(data)
    net, _ = load("plain", assets)
    turns = [placement(10, 0, turn, alternate=True) for turn in (0, 1)]
    for side in (0, 1):
        placed = torch.stack([next(turn[i] for turn in turns if turn[i, 2] == side) for i in range(10)])
        expected = net(to_input(crop(pad(data.images), torch.arange(10), placed), torch.device("cpu")))
        assert torch.allclose(scores[side].float(), expected, atol=0.05 * float(expected.abs().max()))
    assert not torch.equal(scores[0], scores[1])
    assert torch.equal(teacher.scores(data), scores) and len(said) == 1


def test_a_network_starts_from_another(assets):
    images = pictures().images
    clipped, _ = load("clipped", assets)
    quantised = build(replace(SMALL, activation="qcfs", levels=(4, 6)))
    go_on_from(quantised, replace(SMALL, start_from="clipped"), images, assets)
    assert [float(theta) for theta in clips(quantised)] == [1.5] * 19
    assert {int(m.levels) for m in quantised.modules() if isinstance(m, QuantisedClip)} == {6}
    assert torch.equal(quantised.conv1.weight, clipped.conv1.weight)
    other = build(SMALL)
    go_on_from(other, replace(SMALL, start_from="plain"), images, assets)
    assert len({float(theta) for theta in clips(other)}) > 10, "percentiles differ from site to site"


def trained(tmp_path, recipe, assets=None, said=None, classes=3):
    """Train on the coloured pictures."""
    say = print if said is None else said.append
    return Training("net", recipe, pictures(classes=classes), tmp_path / "runs", assets or tmp_path, say).run()


@pytest.mark.parametrize(
    "recipe",
    [
        replace(SMALL, cycles=(Cycle(3, 0.05, small_epochs=1, cutout=8),), ema=0.5, warmup=0.4),
        replace(
            SMALL, activation="qcfs", levels=(4, 8), noise=0.5, noise_from=1, cycles=(Cycle(3, 0.05),), muon=Muon()
        ),
    ],
    ids=["clip", "qcfs"],
)
def test_training_learns(tmp_path, recipe):
    net = trained(tmp_path, recipe)
    result = measure(net, pictures(seed=0))
    assert result.ann > 0.8
    assert result.snn[32] > 0.7
    assert {int(m.levels) for m in net.modules() if isinstance(m, QuantisedClip)} <= {8}


def test_a_killed_training_goes_on_where_it_was(tmp_path, assets, monkeypatch):
    recipe = replace(SMALL, distillation=Distillation("plain"), average_ends=2)
    whole = trained(tmp_path / "a", recipe, assets, classes=10)
    epoch = Training._epoch

    def killed(self, net, optimiser, average, number):
        if number == 1:
            raise KeyboardInterrupt
        return epoch(self, net, optimiser, average, number)

    monkeypatch.setattr(Training, "_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", recipe, assets, classes=10)
    monkeypatch.setattr(Training, "_epoch", epoch)
    said = []
    resumed = trained(tmp_path / "b", recipe, assets, said, classes=10)
    assert said[0] == "going on after epoch 1"
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(SpecError, match="comes from another recipe"):
        trained(tmp_path / "b", replace(recipe, seed=1), assets, classes=10)


def test_a_teacher_of_other_classes_is_refused(assets, tmp_path):
    with pytest.raises(SpecError, match="plain knows 10 classes, the data have 3"):
        trained(tmp_path, replace(SMALL, distillation=Distillation("plain")), assets)


def test_noise_is_uniform_new_every_step_and_other_at_every_site():
    net = build(replace(SMALL, activation="qcfs"))
    noise = Noise(net, 0.5, torch.Generator().manual_seed(0))
    rows = []
    for _ in range(2):
        noise.draw(torch.zeros(8, 3, 32, 32))
        rows.append([m.noise.float().clone() for m in net.modules() if isinstance(m, QuantisedClip)])
    assert min(len(row) for row in rows[0]) >= 8 * 16 * 32 * 32
    first, second = rows[0][0], rows[1][0]
    assert float(first.mean()) == pytest.approx(0, abs=0.01) and float(first.std()) == pytest.approx(0.5, rel=0.01)
    assert first.abs().max() <= 0.5 * 3**0.5 + 0.01
    n = 100_000
    for other in (second, rows[0][1]):
        assert abs(torch.corrcoef(torch.stack([first[:n], other[:n]]))[0, 1]) < 0.02
    Noise(net, 0.0, torch.Generator()).draw(torch.zeros(8, 3, 32, 32))
    assert all(m.noise is None for m in net.modules() if isinstance(m, QuantisedClip))


def test_each_batch_draws_its_levels_and_noise_begins_where_it_is_told(tmp_path, monkeypatch):
    seen = []
    step = Optimiser.step

    def watched(self, loss, cycle, progress):
        seen.append({(int(m.levels), m.noise is not None) for m in net.modules() if isinstance(m, QuantisedClip)})
        step(self, loss, cycle, progress)

    recipe = replace(SMALL, activation="qcfs", levels=(4, 8), noise=0.5, noise_from=1)
    net = build(recipe)
    monkeypatch.setattr("explorer.zoo.training.loop.build", lambda *_: net)
    monkeypatch.setattr(Optimiser, "step", watched)
    trained(tmp_path, recipe)
    assert all(len(states) == 1 for states in seen), "all sites alike"
    assert {next(iter(states)) for states in seen[: len(seen) // 2]} == {(4, False), (8, False)}
    assert {next(iter(states)) for states in seen[len(seen) // 2 :]} == {(4, True), (8, True)}


def test_held_out_images_are_balanced_and_not_trained_on():
    data = pictures(90)
    rest, held = hold_out(data, 30)
    assert held is not None
    assert torch.bincount(held.labels).tolist() == [10, 10, 10]
    whole = {image.numpy().tobytes() for image in data.images}
    parts = [{image.numpy().tobytes() for image in part.images} for part in (rest, held)]
    assert parts[0] | parts[1] == whole and not parts[0] & parts[1]
    assert hold_out(data, 0) == (data, None)


def test_what_was_measured_is_told_with_its_interval():
    told = str(Measured(10_000, 0.9, {8: 0.5}))
    assert told == "top-1 on 10,000 images: ANN 90.00 % (89.40 to 90.57), T=8 50.00 % (49.02 to 50.98)"


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """A stand-in for CIFAR-100 in torchvision's layout: 100 classes of generated pictures, its checksums not asked."""
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, n in (("train", 200), ("test", 20)):
        images = np.random.default_rng(n).integers(0, 256, (n, 3072), dtype=np.uint8)
        content = {"data": images, "fine_labels": [i % 100 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"thing {k}" for k in range(100)]}))
    return tmp_path / "data"


def test_the_same_recipe_trains_cifar100(cifar100, tmp_path, monkeypatch, capsys):
    """The path of the code alone: nothing can be learnt from these pictures."""
    monkeypatch.setitem(RECIPES, "resnet20-clip", replace(SMALL, held_out=20))
    options = ["--data", str(cifar100), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["train", "resnet20-clip", *options, "--steps", "0,2"])
    assert train.main() == 2 and "got 0" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["train", "resnet20-clip", *options, "--steps", "3,2"])
    assert train.main() == 0
    printed = capsys.readouterr().out
    assert "epoch 2/2" in printed and "held out: top-1 on 20 images" in printed and "test set: top-1" in printed
    net, card = load("resnet20-clip", tmp_path / "out")
    assert (card.dataset, len(card.classes), card.classes[7], card.top1_images) == ("CIFAR-100", 100, "thing 7", 20)
    assert list(json.loads((tmp_path / "out" / "resnet20-clip.json").read_text())["top1_after"]) == ["2", "3"]
    assert net(card.example()).shape == (1, 100)
    assert len(read(cifar100, train=True).labels) == 200
