"""Weights, programs and Python files that somebody else wrote: read where whole, refused with a reason where not."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from explorer.engine import trace
from explorer.engine.errors import AssetError, CheckpointError, SpecError
from explorer.zoo import memory
from explorer.zoo.architectures import build
from explorer.zoo.checkpoint import open_state, read_state
from explorer.zoo.fitting import count_classes, fit_state, load_checkpoint
from explorer.zoo.own import NetworkSource, open_network
from explorer.zoo.programs import load_program
from tests import networks as gallery

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def saved(value: object, **options: object) -> bytes:
    """Return what torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """An untrained ResNet-20, batch-norm statistics stirred so that every buffer matters."""
    torch.manual_seed(0)
    net = build("resnet20-relu")
    with torch.no_grad():
        net(torch.randn(8, 3, 32, 32))
    return net.eval()


def chenyaofo(state: dict) -> dict:
    """Rename to the parts' usual other names."""
    renamed = {}
    for key, value in state.items():
        for stage in range(3):
            key = key.replace(f"stages.{stage}.", f"layer{stage + 1}.")
        renamed[key.replace(".shortcut.", ".downsample.").replace("fc.", "linear.")] = value
    return renamed


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"checkpoint": 1, "model": {"state_dict": s}},
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled data parallel": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "lightning": lambda s: {"state_dict": {f"net.{k}": v for k, v in s.items()}, "epoch": 1},
    "profiled": lambda s: {**s, "total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
    "no counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "parameters": lambda s: {k: nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in s.items()},
    "other names": chenyaofo,
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_usual_wrappings_are_taken_off(original, wrap):
    net = load_checkpoint("resnet20-relu", saved(wrap(dict(original.state_dict()))))
    tolerance = 1e-2 if wrap is WRAPPINGS["half"] else 0
    assert torch.allclose(net(X), original(X), rtol=tolerance, atol=tolerance)
    assert not net.training


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors"])
@pytest.mark.parametrize("as_file", [True, False])
def test_every_file_form_is_read(original, tmp_path, kind, as_file):
    state = original.state_dict()
    match kind:
        case "pt":
            content = saved(state)
        case "legacy":
            content = saved(state, _use_new_zipfile_serialization=False)
        case _:
            content = save({k: v.contiguous() for k, v in state.items()})
    path = tmp_path / f"net.{kind}"
    path.write_bytes(content)
    net = load_checkpoint("resnet20-relu", path if as_file else content, name=f"net.{kind}")
    assert torch.equal(net(X), original(X))


def test_the_number_of_classes_comes_from_the_file():
    state = build("resnet20-relu", 37).state_dict()
    assert count_classes(state) == 37
    assert load_checkpoint("resnet20-relu", saved(state)).fc.out_features == 37


def test_names_that_do_not_fit_are_listed(original):
    state = dict(original.state_dict())
    state["extra.weight"] = state.pop("conv1.weight")
    state["fc.bias"] = torch.zeros(11)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint("resnet20-relu", saved(state), 10)
    message = str(caught.value)
    assert "1 missing: conv1.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: fc.bias is [11], the network's is [10]" in message


def test_another_architectures_weights_are_refused():
    with pytest.raises(CheckpointError, match=r"not the weights of this network .*107 missing"):
        load_checkpoint("resnet20-relu", saved(build("vgg16-relu").state_dict()))


def test_a_refused_checkpoint_leaves_the_network_alone(original):
    net = build("resnet20-relu").eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(CheckpointError):
        fit_state(net, {"conv1.weight": original.conv1.weight})
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Malice:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch malice-was-run",)


def deflated(content: bytes) -> bytes:
    """Return a zip with its entries compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return out.getvalue()


def scripted() -> bytes:
    """Return a TorchScript-like archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/net.py", b"")
    return out.getvalue()


W = torch.zeros(8, 8)
WITH_NAN = {"w": torch.tensor([1.0, float("nan"), float("inf")])}
BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello there", "truncated, or not a checkpoint"),
    "noise": (bytes(range(256)) * 9, "truncated, or not a checkpoint"),
    "truncated": (saved({"w": torch.zeros(5000)})[:9000], "truncated: .* end is missing"),
    "truncated legacy": (saved({"w": W}, _use_new_zipfile_serialization=False)[:-20], "truncated"),
    "truncated safetensors": (save({"w": W})[:-9], "not a whole safetensors file"),
    "malicious": (saved({"w": Malice()}), r"more than weights \((posix|nt).system\).*never run"),
    "malicious bare pickle": (pickle.dumps(Malice(), protocol=2), "more than weights|not a checkpoint"),
    "malicious new pickle": (pickle.dumps(Malice()), "more than weights|not a checkpoint"),
    "whole module": (saved(nn.Linear(2, 2)), r"more than weights.*state_dict"),
    "bomb by compression": (deflated(saved({"w": torch.zeros(10**6)})), "compressed archive.*unpack to 4,"),
    "bomb by expansion": (saved({"w": torch.zeros(1).expand(10**6, 10**6)}), r"w claims \[1000000, 1000000\]"),
    "sparse": (saved({"w": torch.eye(3).to_sparse()}), "not a dense tensor"),
    "meta": (saved({"w": torch.empty(10**6, 10**6, device="meta")}), "not a dense tensor"),
    "nan": (saved(WITH_NAN), "2 of 3 numbers in w are not finite"),
    "nan safetensors": (save(WITH_NAN), "2 of 3 numbers in w are not finite"),
    "no weights": (saved({"optimizer": {"lr": 0.1}}), "no state dict in it.*optimizer"),
    "a list": (saved([1, 2]), r"no state dict in it \(list\)"),
    "TorchScript": (scripted(), "TorchScript"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("as_file", [True, False])
def test_bad_files_are_refused_with_the_reason(content, message, as_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"bad.pt: .*{message}"):
        read_state(path if as_file else content, "bad.pt")
    assert not (tmp_path / "malice-was-run").exists()


def test_the_malice_of_these_tests_is_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Malice()))
    assert (tmp_path / "malice-was-run").exists()


def test_what_does_not_fit_the_memory_is_refused_before_it_is_read(monkeypatch):
    content = saved({"w": torch.zeros(10**6)})
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    with pytest.raises(CheckpointError, match=r"too large for this machine's memory"):
        read_state(content)
    with pytest.raises(CheckpointError, match=r"vgg16-relu: too large"):
        load_checkpoint("vgg16-relu", saved({"w": torch.zeros(3)}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"net.pt: there is no such file"):
        read_state(tmp_path / "net.pt")


OWN = """
import torch
from torch import nn
from helper import width

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.fc = nn.LazyLinear(4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean([2, 3]))

def broken():
    raise ValueError("no luck")

def odd():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()
"""


@pytest.fixture
def own(tmp_path) -> Path:
    """A Python file with a network that imports a neighbour."""
    (tmp_path / "helper.py").write_text("width = 5\n")
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_a_python_file_and_weights_make_a_network(own, tmp_path):
    plain, card = open_network(NetworkSource(f"{own}:Net", input_size=12, mean=(0.5,), std=(0.5,)))
    assert (card.channels, card.input_size, card.classes) == (1, 12, ("class 0", "class 1", "class 2", "class 3"))
    weights = tmp_path / "weights.pt"
    torch.save({"model": {f"module.{k}": v + 1 for k, v in plain.state_dict().items()}}, weights)
    source = NetworkSource(
        f"{own}:Net", str(weights), input_size=12, mean=(0.5,), std=(0.5,), classes=("a", "b", "c", "d")
    )
    net, card = open_network(source)
    assert torch.equal(net.fc.bias, plain.fc.bias + 1)
    assert card.classes == ("a", "b", "c", "d")
    assert card.name == "weights.pt"


@pytest.mark.parametrize("kind", ["OptionAResNet", "ReusedReLU", "ControlFlow", "Fire", "Depthwise"])
def test_checkpoints_made_elsewhere_load_onto_their_python_file(kind, tmp_path):
    """As people have them: wrapped, data parallel, and a file of network definitions."""
    original = gallery.make(getattr(gallery, kind))
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, tmp_path / "net.th")
    source = NetworkSource(f"{gallery.__file__}:{kind}", str(tmp_path / "net.th"), input_size=gallery.SIZE)
    net, card = open_network(source)
    images = gallery.images(4)
    expected = original(images.clone()).detach()
    found = trace(net, card.example()).forward(images)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("missing", "no factory 'missing' in it. It defines: .*Net"),
        ("broken", "broken failed .ValueError: no luck"),
        ("odd", "returned int, not an nn.Module"),
        ("pair", "gives tuple for"),
        ("Net", "fails on .*Check the input size"),
    ],
)
def test_a_python_file_that_does_not_do_is_explained(own, factory, message):
    with pytest.raises(CheckpointError, match=message):
        open_network(NetworkSource(f"{own}:{factory}"))


def test_a_number_of_class_names_that_does_not_fit_is_refused(own):
    source = NetworkSource(f"{own}:Net", input_size=12, mean=(0.5,), std=(0.5,), classes=("a", "b"))
    with pytest.raises(SpecError, match=r"2 names given, but own.py has 4 outputs"):
        open_network(source)


def test_how_pictures_are_resized_can_be_given(own):
    size = {"input_size": 12, "mean": (0.5,), "std": (0.5,)}
    assert open_network(NetworkSource(f"{own}:Net", **size))[1].resize == 0
    assert open_network(NetworkSource(f"{own}:Net", **size, resize=20))[1].resize == 20
    assert open_network(NetworkSource("resnet20-relu", resize=40))[1].resize == 40


def test_weights_need_an_architecture(tmp_path):
    with pytest.raises(SpecError, match=r"no architecture"):
        open_network(NetworkSource("nothing", str(tmp_path / "w.pt")))
    with pytest.raises(SpecError, match=r"is ONNX, which is not read.*torch.export"):
        open_network(NetworkSource("net.onnx"))
    with pytest.raises(CheckpointError, match=r"own.py: there is no such file"):
        open_network(NetworkSource(f"{tmp_path}/own.py:make"))


def exported(net: nn.Module, path: Path, any_batch: bool = True) -> Path:
    """Write a program for 32x32 images."""
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 32, 32),), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("name", ["resnet20-relu", "torchvision:mobilenet_v2", "torchvision:shufflenet_v2_x0_5"])
def test_an_exported_program_computes_the_same(name, tmp_path):
    torch.manual_seed(0)
    net = build(name).eval()
    program, card = open_network(NetworkSource(str(exported(net, tmp_path / "net.pt2"))))
    assert torch.allclose(program(X), net(X), rtol=1e-5, atol=1e-6)
    assert len(card.classes) == 10
    theirs, ours = trace(program, X[:1]), trace(net, X[:1])
    assert [site.shape for site in theirs.sites] == [site.shape for site in ours.sites]
    assert not theirs.unsupported


def test_an_exported_program_keeps_the_names_of_its_modules(tmp_path):
    net = build("resnet20-relu").eval()
    program = load_program(exported(net, tmp_path / "net.pt2"))
    assert [s.name for s in trace(program, X[:1]).sites] == [s.name for s in trace(net, X[:1]).sites]


def test_an_exported_program_converts_sequences_and_clips(tmp_path):
    """Batch norm behind a rectifier over sequences, which has another module than over maps."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(1, 2),
        nn.Conv1d(96, 8, 3),
        nn.ReLU6(),
        nn.BatchNorm1d(8),
        nn.Conv1d(8, 8, 3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(112, 16),
        nn.ReLU(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 10),
    ).eval()
    network = trace(load_program(exported(net, tmp_path / "net.pt2")), X[:1])
    assert [(s.name, s.cap) for s in network.sites] == [("2", 6.0), ("5", None), ("8", None)]
    assert not network.unsupported
    assert torch.allclose(network.forward(X), net(X), rtol=1e-5, atol=1e-6)


def test_a_program_for_one_batch_size_is_refused_with_the_mend(tmp_path):
    with pytest.raises(CheckpointError, match=r"exactly 2 image.*dynamic_shapes"):
        load_program(exported(build("resnet20-relu").eval(), tmp_path / "net.pt2", any_batch=False))


def test_a_damaged_program_is_refused(tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"not a program that torch.export.save wrote"):
        load_program(tmp_path / "net.pt2")


def averaged(state: dict) -> dict:
    """Return what torch.optim.swa_utils.AveragedModel saves."""
    return {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in state.items()}


BOOKKEEPING = {
    "averaged": averaged,
    "averaged data parallel": lambda s: averaged({f"module.{k}": v for k, v in s.items()}),
    "averaged, wrapped": lambda s: {"model_ema": averaged(s), "epoch": 3},
    "module in the middle": lambda s: {k.replace("stages.", "stages.module."): v for k, v in s.items()},
    "module at the end of the first part": lambda s: {
        re.sub(r"(stages\.\d\.\d\.)", r"\1module.", f"module.{k}"): v for k, v in s.items()
    },
    "checkpointed blocks": lambda s: {
        k.replace("conv1.", "_checkpoint_wrapped_module.conv1."): v for k, v in s.items()
    },
    "lightning with metrics": lambda s: {
        "state_dict": {f"net.{k}": v for k, v in s.items()}
        | {"train_acc.tp": torch.zeros(1), "loss_fn.weight": torch.ones(10), "ema.decay": torch.ones(1)}
    },
    "metrics beside the layers": lambda s: (
        s | {"val_metrics.total": torch.zeros(1), "criterion.weight": torch.ones(10)}
    ),
    "other names below a prefix": lambda s: {f"backbone.{k}": v for k, v in chenyaofo(s).items()},
}


@pytest.mark.parametrize("wrap", BOOKKEEPING.values(), ids=BOOKKEEPING.keys())
def test_what_is_no_part_of_the_network_is_left_out(original, wrap):
    assert torch.equal(load_checkpoint("resnet20-relu", saved(wrap(dict(original.state_dict()))))(X), original(X))


def test_what_lies_within_the_network_is_not_left_out(original):
    state = {f"net.{k}": v for k, v in original.state_dict().items()} | {"net.extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: extra.weight"):
        load_checkpoint("resnet20-relu", saved(state))


@pytest.mark.parametrize("average", ["model_ema", "state_dict_ema", "ema"])
def test_an_average_beside_the_raw_weights_is_taken_and_the_raw_ones_on_request(average):
    content = saved({"state_dict": {"a": W, "b": W, "c": W}, average: {"a": W + 1, "b": W, "c": W}, "epoch": 1})
    found = open_state(content)
    assert (found.part, set(found.parts)) == (average, {"state_dict", average})
    assert torch.equal(found.tensors["a"], W + 1)
    for part in ("raw", "state_dict"):
        assert torch.equal(open_state(content, part=part).tensors["a"], W)
    with pytest.raises(CheckpointError, match=rf"no 'teacher' weights in it; there are: state_dict, {average}"):
        open_state(content, part="teacher")


def test_a_program_of_torchscript_is_called_by_its_name(tmp_path):
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"net.pt: a TorchScript program, not a state dict"):
        read_state(tmp_path / "net.pt")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("legacy", [True, False])
def test_views_of_all_kinds_are_read_as_torch_reads_them(kind, legacy):
    whole = torch.arange(60, dtype=torch.float32).to(kind).reshape(3, 4, 5)
    state = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[1, ::2, 1:],
        "number": whole[2, 3, 4],
        "repeated": torch.ones(1, 5).expand(4, 5).contiguous(),
        "tied": whole,
        "steps": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "small": torch.arange(7, dtype=torch.int8),
    }
    optimizer = {0: {"momentum": torch.ones(9)}, 1: {"momentum": torch.ones(3)}}
    content = saved({"state_dict": state, "optimizer": optimizer}, _use_new_zipfile_serialization=not legacy)
    expected = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]
    found = read_state(content)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def test_what_training_scripts_keep_beside_the_weights_is_no_obstacle():
    extras = {
        "args": argparse.Namespace(lr=0.1, names=["a"]),
        "best": np.float64(0.93),
        "milestones": collections.Counter({30: 1}),
        "random": torch.ByteTensor(8),
        "shape": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "seen": {1, 2},
        "raw": b"bytes",
    }
    assert torch.equal(read_state(saved({"state_dict": {"w": W}, **extras}))["w"], W)


def fake_timm(monkeypatch, fetch=None):
    """Put a stand-in for timm in its place: one network, and a hub."""
    import sys
    import types

    from explorer.zoo import timm_models

    def create_model(name, pretrained=False, num_classes=5):
        if pretrained and fetch is not None:
            raise fetch
        layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
        net = nn.Sequential(*layers)
        net.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.8}
        net.pretrained_cfg["num_classes"] = num_classes
        return net

    module = types.SimpleNamespace(create_model=create_model, list_models=lambda: ["resnet18", "resnet18d", "vit_tiny"])
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setattr(timm_models, "is_installed", lambda: True)
    timm_models.timm_names.cache_clear()


@pytest.fixture
def without_kept_names():
    from explorer.zoo import timm_models

    yield
    timm_models.timm_names.cache_clear()


def test_weights_go_onto_timms_architectures(monkeypatch, tmp_path, without_kept_names):
    from explorer.zoo.architectures import architectures, convertible

    fake_timm(monkeypatch)
    assert "timm:vit_tiny" in architectures()
    assert "timm:resnet18d" in convertible() and "timm:vit_tiny" not in convertible()
    torch.manual_seed(1)
    state = build("timm:resnet18", 7).state_dict()
    torch.save(state, tmp_path / "mine.pt")
    net, card = open_network(NetworkSource("timm:resnet18", str(tmp_path / "mine.pt")))
    assert len(card.classes) == 7
    assert torch.equal(net[4].weight, state["4.weight"])
    with pytest.raises(SpecError, match=r"timm has no network 'resnet19'. Near: resnet18"):
        build("timm:resnet19")


def test_timms_own_weights_come_with_their_normalisation(monkeypatch, without_kept_names):
    fake_timm(monkeypatch)
    net, card = open_network(NetworkSource("timm:resnet18"))
    assert (card.input_size, card.resize, card.mean, card.std) == (32, 40, (0.5,) * 3, (0.25,) * 3)
    assert net(card.example()).shape == (1, len(card.classes))


def test_a_hub_of_timm_that_is_not_there_is_explained(monkeypatch, without_kept_names):
    fake_timm(monkeypatch, OSError("no route"))
    with pytest.raises(AssetError, match=r"timm:resnet18: its weights cannot be had .*no route.*--weights"):
        open_network(NetworkSource("timm:resnet18"))


def test_timm_that_is_not_installed_is_explained(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SpecError, match=r"timm's networks need its package.*pip install timm"):
        build("timm:resnet18")
