"""Shipped networks, their cards, and torchvision's hub."""

from __future__ import annotations

import http.client
import io
import json
import urllib.error
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from explorer.engine import CalibrationSpec, Record, SimulationSpec, TrainedClip, calibrate, convert, simulate, trace
from explorer.engine.analysis import top1_curve
from explorer.engine.errors import AssetError, SpecError
from explorer.zoo import hub
from explorer.zoo.architectures import ACTIVATIONS, CIFAR_ARCHITECTURES, architectures, build
from explorer.zoo.cards import CIFAR10_MEAN, CIFAR10_STD, Card, write_network
from explorer.zoo.cifar10 import CLASSES
from explorer.zoo.data import ASSETS, Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import available, load
from explorer.zoo.training.recipes import RECIPES
from explorer.zoo.training.start import build as build_recipe

CARD = Card("net", 32, CIFAR10_MEAN, CIFAR10_STD, CLASSES)


@pytest.fixture
def assets(tmp_path):
    """A folder with one untrained network and its card."""
    recipe = RECIPES["resnet20-clip"]
    torch.manual_seed(0)
    write_network(tmp_path, "tiny", build_recipe(recipe), asdict(recipe), 0.1234)
    return tmp_path


def test_what_was_written_is_what_loads(assets):
    net, card = load("tiny", assets)
    torch.manual_seed(0)
    original = build_recipe(RECIPES["resnet20-clip"]).eval()
    x = CARD.example()
    assert torch.equal(net(x), original(x))
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert (card.top1, card.top1_images, card.classes, card.input_size) == (0.1234, 10_000, CLASSES, 32)
    assert available(assets) == (card,)


def test_a_card_is_a_cache_key(assets):
    assert hash(load("tiny", assets)[1]) == hash(load("tiny", assets)[1])


def test_damaged_weights_are_noticed(assets):
    weights = assets / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(AssetError, match=r"tiny.safetensors is damaged.*Copy it anew"):
        load("tiny", assets)
    weights.unlink()
    with pytest.raises(AssetError, match=r"tiny.safetensors is missing"):
        load("tiny", assets)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"name": "tiny"})])
def test_a_damaged_card_is_noticed(assets, content):
    (assets / "tiny.json").write_text(content)
    assert available(assets) == ()
    with pytest.raises(AssetError, match=r"tiny.json is damaged.*Copy it anew"):
        load("tiny", assets)


def test_a_card_of_another_architecture_is_noticed(assets):
    path = assets / "tiny.json"
    card = json.loads(path.read_text())
    card["recipe"]["architecture"] = "vgg16"
    path.write_text(json.dumps(card))
    with pytest.raises(AssetError, match=r"do not belong together"):
        load("tiny", assets)


def test_unknown_names_are_answered_with_the_known_ones(assets):
    with pytest.raises(SpecError, match=r"nobody knows 'vgg'. Choose one of: tiny"):
        load("vgg", assets)
    with pytest.raises(SpecError, match=r"Choose resnet20-relu"):
        build("resnet21")
    with pytest.raises(SpecError, match=r"Near: .*resnet18"):
        build("torchvision:resnet17")


@pytest.mark.parametrize("name", [f"{base}-{a}" for base in CIFAR_ARCHITECTURES for a in ACTIVATIONS])
def test_every_architecture_of_ours_maps_images_to_scores(name):
    assert name in architectures()
    assert build(name, classes=7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": 0}, "input size: 4 to 1024 pixels, got 0"),
        ({"resize": 16}, "resize: 0 or from the input size 32"),
        ({"mean": (0.5, 0.5)}, "got 2 and 3"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
        ({"classes": ("one",)}, "at least 2, got 1"),
    ],
)
def test_a_card_checks_itself(change, message):
    with pytest.raises(SpecError, match=message):
        replace(CARD, **change)


@pytest.mark.parametrize("card", available(), ids=lambda card: card.name)
def test_shipped_networks_do_what_their_cards_say(card):
    """On 500 images the measured accuracy lies within four standard errors of the card's."""
    net, card = load(card.name)
    images = load_images(Embedded(), card, 500)
    with torch.no_grad():
        hits = net(normalise(images.images, card)).argmax(1).numpy() == images.labels
    error = np.sqrt(card.top1 * (1 - card.top1) / len(images))
    assert abs(hits.mean() - card.top1) < 4 * error
    assert sum(p.numel() for p in net.parameters()) == card.parameters


SPIKING = {
    path.stem: json.loads(path.read_text())["top1_after"]
    for path in sorted(ASSETS.glob("*-*.json"))
    if json.loads(path.read_text()).get("top1_after")
}


@pytest.mark.parametrize("name", SPIKING)
def test_shipped_networks_spike_as_their_cards_say(name):
    """Thresholds as trained, start 1/2, 300 images: within four standard errors of the card's; VGG-16 up to T = 8."""
    net, card = load(name)
    images = load_images(Embedded(), card, 300)
    network = trace(net, card.example())
    assert all(site.trained_clip for site in network.sites)
    snn = convert(network, calibrate(network, torch.empty(0), CalibrationSpec(TrainedClip())))
    most = 8 if card.parameters > 10**6 else 32
    told = {int(T): share for T, share in SPIKING[name].items() if int(T) <= most}
    spec = SimulationSpec(max(told), Record(counts=False, v_end=False))
    found = top1_curve(simulate(snn, normalise(images.images, card), spec).logits, torch.from_numpy(images.labels))
    for T, share in told.items():
        assert abs(float(found[T - 1]) - share) < 4 * (share * (1 - share) / len(images)) ** 0.5, T


def test_all_assets_together_are_small():
    assert sum(path.stat().st_size for path in ASSETS.iterdir() if path.is_file()) < 48 * 2**20


def test_an_unreachable_hub_says_what_to_do(tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub.urllib.request, "urlopen", nobody)
    with pytest.raises(AssetError, match=r"hub cannot be reached.*Fetch https://.* elsewhere"):
        load("torchvision:squeezenet1_1")


def test_weights_in_the_hubs_folder_are_used_without_asking(tmp_path, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights

    torch.manual_seed(0)
    original = build("torchvision:squeezenet1_1", 1000).eval()
    (tmp_path / "checkpoints").mkdir()
    file = SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(original.state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net, card = load("torchvision:squeezenet1_1")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), original(x))
    assert (card.input_size, card.resize, len(card.classes)) == (224, 256, 1000)
    assert card.top1 is None, "published is not measured"


def test_networks_that_rescale_their_input_are_told_to(tmp_path, monkeypatch):
    from torchvision.models import GoogLeNet_Weights

    (tmp_path / "checkpoints").mkdir()
    file = GoogLeNet_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(build("torchvision:googlenet", 1000).state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net, _ = load("torchvision:googlenet")
    assert net.transform_input
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(trace(net, x).forward(x), net(x), rtol=1e-4, atol=1e-5)


def test_what_the_hub_sends_is_verified(tmp_path, monkeypatch):
    class Answer:
        headers = {"Content-Length": "6"}

        def __init__(self):
            self.parts = [b"abc", b"def", b""]

        def read(self, _):
            return self.parts.pop(0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    seen = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub.urllib.request, "urlopen", lambda *_, **__: Answer())
    with pytest.raises(AssetError, match=r"damaged. Try again"):
        hub.fetch("https://example.org/net-00000000.pth")
    path = hub.fetch("https://example.org/net-bef57ec7.pth", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == b"abcdef"
    assert seen == [(3, 6), (6, 6)]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["net-bef57ec7.pth"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (http.client.IncompleteRead(b"xx", 98), "broke off"),
        (ConnectionResetError("reset"), "broke off"),
        (TimeoutError("timed out"), "broke off"),
        (OSError(28, "No space left on device"), "cannot be kept in .*No space left.*TORCH_HOME"),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_hub_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch, fault, message):
    class Answer(io.BytesIO):
        headers = {"Content-Length": "many"}

        def read(self, n=-1):
            if self.tell():
                raise fault
            return super().read(2)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub.urllib.request, "urlopen", lambda *_, **__: Answer(b"four"))
    with pytest.raises(KeyboardInterrupt if message is None else AssetError, match=message):
        hub.fetch("https://example.org/net-00000000.pth")
    assert list((tmp_path / "checkpoints").iterdir()) == []
