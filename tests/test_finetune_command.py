"""`finetune` from end to end on small generated pictures: what it trains on, what it writes, that it goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from explorer.cli.main import main
from explorer.engine import (
    CalibrationSpec,
    Percentile,
    SimulationSpec,
    TrainedClip,
    calibrate,
    convert,
    methods,
    simulate,
    trace,
)
from explorer.engine.errors import AssetError, CheckpointError
from explorer.engine.finetune.tunable import Tunable
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.qcfs import QuantisedClip
from explorer.zoo import architectures, cifar10
from explorer.zoo.cards import write_network
from explorer.zoo.fitting import load_checkpoint
from explorer.zoo.registry import load
from explorer.zoo.training import data, tuned

PLANTED = 251  # a colour that only the test images have


def pictures(n, train):
    rng = np.random.default_rng(train)
    labels = np.arange(n) % 10
    images = rng.integers(0, 250, (n, 32, 32, 3)).astype(np.uint8)
    if not train:
        images[:, 0] = PLANTED
    return data.Images(torch.from_numpy(images), torch.from_numpy(labels), "noise", "CIFAR-10", cifar10.CLASSES)


@pytest.fixture
def reads(monkeypatch):
    """Small pictures in place of CIFAR-10; what is read, and what is trained on, is written down in order."""
    told = []

    def read(root, train):
        told.append("train" if train else "test")
        return pictures(64 if train else 20, train)

    take = tuned.Crops.take

    def taken(self, index, turn):
        assert not (self.data.images == PLANTED).any()
        told.append("batch")
        return take(self, index, turn)

    monkeypatch.setattr(data, "read", read)
    monkeypatch.setattr(tuned, "CALIBRATION_IMAGES", 16)
    monkeypatch.setattr(tuned, "START", "opi")
    monkeypatch.setattr(tuned, "START_FROZEN", "opi:threshold=max:channel")
    monkeypatch.setattr(tuned.Crops, "take", taken)
    return told


def by_clips(network):
    return convert(network, calibrate(network, torch.empty(0), CalibrationSpec(TrainedClip())))


def run(tmp_path, *more):
    out = tmp_path / "out" / "tuned.safetensors"
    words = ["finetune", "--data", "x", "--out", str(out), "--runs", str(tmp_path / "runs"), "--steps", "2"]
    return main([*words, "--batch", "16", "--held-out", "20", "--judged", "10", "--judge-every", "2", *more]), out


def test_it_writes_a_checkpoint_that_loads_and_spikes_as_measured(reads, tmp_path, capsys):
    code, out = run(tmp_path, "--epochs", "2")
    assert code == 0
    assert reads.index("test") > max(i for i, what in enumerate(reads) if what == "batch")
    assert reads.count("test") == 1 and reads.count("batch") == 1 + 4
    card = json.loads(out.with_suffix(".json").read_text())
    assert (
        card["recipe"]["method"] == "hybrid"
        and card["recipe"]["T"] == 2
        and card["recipe"]["start_from"] == "resnet20-relu"
    )
    net, read = load("tuned", out.parent)
    images = pictures(20, False)
    x = tuned.to_input(images.images, torch.device("cpu"))
    network = trace(net, read.example())
    assert network.clips_trained and all(len(site.caps) == site.channels or not site.caps for site in network.sites)
    run_ = simulate(by_clips(network), x, SimulationSpec(2))
    assert card["top1_after"] == {"2": float((run_.logits[-1].argmax(1) == images.labels).double().mean())}
    assert set(run_.paths.values()) == {"constant", "integer"}
    again = load_checkpoint("resnet20-clip", out)  # as an upload is read
    assert torch.equal(again(x), net(x))
    said = capsys.readouterr().out
    assert "left about" in said and "test set: top-1 on 20 images" in said
    assert "going on after update 4" not in said
    assert run(tmp_path, "--epochs", "2", "--no-test")[0] == 0
    assert "going on after update 4" in capsys.readouterr().out


def test_it_goes_on_from_a_file_it_wrote_and_learns_from_another_network(reads, tmp_path, capsys):
    first = run(tmp_path, "--epochs", "1")[1]
    before, _ = load("tuned", first.parent)
    words = ["--network", str(first), "--teacher", "resnet20-relu", "--lr", "1e-9", "--keep", "last"]
    code, out = run(tmp_path / "more", *words)
    assert code == 0 and "last kept" in capsys.readouterr().out
    card = json.loads(out.with_suffix(".json").read_text())["recipe"]
    assert card["kept"] == "last" and "The state is the last one." in card["note"]
    assert (card["start_from"], card["teacher"], card["start"]) == ("tuned", "resnet20-relu", tuned.TUNED)
    after, _ = load("tuned", out.parent)
    thetas = [[m.theta.detach() for m in net.modules() if isinstance(m, TrainableClip)] for net in (before, after)]
    assert all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(*thetas, strict=True))
    x = tuned.to_input(pictures(20, False).images, torch.device("cpu"))
    assert torch.allclose(before(x), after(x), atol=0.02 * float(before(x).std()))
    assert run(tmp_path, "--network", str(tmp_path / "none.safetensors"))[0] == 2
    assert "none" in capsys.readouterr().err


def test_quantised_activations_stay_what_they_are(reads, tmp_path):
    code, out = run(tmp_path, "--network", "resnet20-qcfs", "--steps", "2,3,0", "--epochs", "3")
    assert code == 0
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["recipe"]["also"] == [3, 0] and card["recipe"]["start"] == "qcfs"
    assert "T = 2, T = 3 and the ANN, in turns" in card["recipe"]["note"]
    assert [*card["top1_after"]] == ["4", "8", "16", "32"]
    net, read = load("tuned", out.parent)
    sites = [m for m in net.modules() if isinstance(m, QuantisedClip)]
    before = [m for m in load("resnet20-qcfs")[0].modules() if isinstance(m, QuantisedClip)]
    assert len(sites) == 19 and [int(m.levels) for m in sites] == [int(m.levels) for m in before]
    images = pictures(20, False)
    x = tuned.to_input(images.images, torch.device("cpu"))
    fitted = methods.get("qcfs")().fit(trace(net, read.example()), 4, x)
    right = float((fitted.scores(x)[-1].argmax(1) == images.labels).double().mean())
    assert card["top1_after"]["4"] == right


def test_frozen_weights_are_left_to_the_network_they_came_from(reads, tmp_path, capsys):
    words = ["--network", "resnet20-clip", "--frozen-above", "20000", "--keep", "last", "--epochs", "2"]
    code, out = run(tmp_path, *words)
    assert code == 0
    base, known = load("resnet20-clip")
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["recipe"]["rest"] == {"network": "resnet20-clip", "sha256": known.sha256}
    assert card["recipe"]["frozen_above"] == 20_000 and card["recipe"]["start"] == "opi:threshold=max:channel"
    net, read = load("tuned", out.parent)
    own = load_file(out)
    convolutions = [name for name, m in net.named_modules() if isinstance(m, torch.nn.Conv2d)]
    frozen = [name for name in convolutions if net.get_submodule(name).weight.numel() > 20_000]
    assert 0 < len(frozen) < len(convolutions)
    for name in convolutions:
        weight = net.get_submodule(name).weight
        assert torch.equal(weight, base.get_submodule(name).weight) == (name in frozen), name
        assert (f"{name}.weight" in own) == (name not in frozen), name
    images = pictures(20, False)
    x = tuned.to_input(images.images, torch.device("cpu"))
    run_ = simulate(by_clips(trace(net, read.example())), x, SimulationSpec(2))
    assert card["top1_after"] == {"2": float((run_.logits[-1].argmax(1) == images.labels).double().mean())}

    with pytest.raises(CheckpointError, match=r"5 missing: .*opened on the command line, by --network"):
        load_checkpoint("resnet20-clip", out)  # as an upload is read

    code, more = run(tmp_path / "more", "--network", str(out), *words[2:])  # and on from there
    assert code == 0 and json.loads(more.with_suffix(".json").read_text())["recipe"]["rest"] == card["recipe"]["rest"]
    assert torch.equal(
        load("tuned", more.parent)[0].get_submodule(frozen[0]).weight, base.get_submodule(frozen[0]).weight
    )

    card["recipe"]["rest"]["sha256"] = "0" * 64
    out.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(AssetError, match=r"tuned has the rest of its weights in resnet20-clip\.safetensors\."):
        load("tuned", out.parent)
    for damage in ("resnet20-clip", {"network": "resnet20-clip"}, 3):
        card["recipe"]["rest"] = damage
        out.with_suffix(".json").write_text(json.dumps(card))
        with pytest.raises(AssetError, match="do not belong together"):
            load("tuned", out.parent)


def test_what_is_measured_is_what_is_stored(monkeypatch, reads, tmp_path):
    """A network that came in float16 goes in float16, rounded before it is tested."""
    from explorer.zoo import registry

    net, card = load("resnet20-relu")
    half = replace(card, recipe={**card.recipe, "weights": "float16"})
    monkeypatch.setattr(registry, "load", lambda name: (net, half))
    code, out = run(tmp_path)
    assert code == 0 and {value.dtype for value in load_file(out).values()} == {torch.float16, torch.int64}
    again, read = registry.load_written(out)
    images = pictures(20, False)
    x = tuned.to_input(images.images, torch.device("cpu"))
    told = json.loads(out.with_suffix(".json").read_text())["top1_after"]["2"]
    run_ = simulate(by_clips(trace(again, read.example())), x, SimulationSpec(2))
    assert told == float((run_.logits[-1].argmax(1) == images.labels).double().mean())


def test_frozen_weights_need_a_shipped_network_to_be_left_to(reads, tmp_path, capsys):
    first = run(tmp_path)[1]
    assert run(tmp_path / "more", "--network", str(first), "--frozen-above", "20000")[0] == 2
    assert "left to the file of a shipped network, and tuned is none" in capsys.readouterr().err


@pytest.mark.parametrize("frozen", [0, 10_000])
@pytest.mark.parametrize(("name", "architecture"), [("relu", "resnet20-clip"), ("qcfs", "resnet20-qcfs")])
def test_the_weights_of_every_layer_come_through(name, architecture, frozen):
    """Thresholds, shortcuts and batch norms included: the written network spikes as the trained one."""
    net, card = load(f"resnet20-{name}")
    network = trace(net, card.example())
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    rule = TrainedClip() if name == "qcfs" else Percentile(97.0, "channel")
    snn = convert(network, calibrate(network, x, CalibrationSpec(rule)))
    tunable = Tunable(network, snn.neurons, 3, x, frozen_above=frozen).eval()
    with torch.no_grad():
        for p in tunable.trained():
            p.mul_(1 + 0.05 * torch.rand(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        scores = tunable(x)
    written = tuned.as_network(tunable, architecture, 10, card.example(), net if frozen else None)
    again = trace(written, card.example())
    theirs = simulate(
        convert(again, calibrate(again, torch.empty(0), CalibrationSpec(TrainedClip()))), x, SimulationSpec(3)
    )
    assert float((scores - theirs.logits[-1]).abs().median()) < 0.05 * float(scores.std())
    assert torch.equal(scores.argmax(1), theirs.logits[-1].argmax(1))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--steps", "1"), "at least 2 time-steps"),
        (("--lr", "0"), "--lr: from"),
        (("--held-out", "0"), "--held-out: from 1"),
        (("--network", "nobody"), "nobody knows"),
    ],
)
def test_wrong_options_are_told(reads, tmp_path, capsys, words, why):
    code, _ = run(tmp_path, *words)
    assert code == 2 and why in capsys.readouterr().err
    assert "batch" not in reads


def test_a_network_without_a_place_for_thresholds_is_refused(monkeypatch, reads, tmp_path, capsys):
    from explorer.zoo import registry

    net, card = load("resnet20-relu")
    monkeypatch.setattr(registry, "load", lambda name: (net, replace(card, recipe={})))
    code, _ = run(tmp_path)
    assert code == 2 and "no architecture of ours" in capsys.readouterr().err
    assert architectures.architectures()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--epochs", "nan"], "--epochs: from"),
        (["--epochs", "-1"], "--epochs: from"),
        (["--lr", "inf"], "--lr: from"),
        (["--frozen-above", "-1"], "--frozen-above: from 0"),
        (["--train-images", "0"], "--train-images: from 1"),
        (["--held-out", "64"], "--held-out: fewer than the 64 training images"),
        (["--held-out", "-1"], "--held-out: from 1"),
        (["--judged", "-1"], "--judged: from 1"),
        (["--threads", "-1"], "threads: 0"),
        (["--seed", "-1"], "seed: a whole number from 0"),
        (["--runs", "/proc/none"], "--runs: /proc/none cannot be written to"),
        (["--network", "none.safetensors"], "none.safetensors: there is no such file"),
    ],
)
def test_bad_numbers_and_places_are_refused_before_any_training(reads, tmp_path, capsys, more, words):
    code, out = run(tmp_path, *more)
    assert code == 2 and words in capsys.readouterr().err
    assert "batch" not in reads and not out.exists()


def test_weights_and_card_are_written_both_or_neither(tmp_path):
    net, card = load("resnet20-clip")
    (tmp_path / "x.json").mkdir()
    with pytest.raises(AssetError, match="cannot be written"):
        write_network(tmp_path, "x", net, dict(card.recipe), 0.9)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
