"""Networks nobody here wrote: the gallery and torchvision's zoo, traced, converted and simulated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from explorer.engine import (
    CalibrationSpec,
    ConversionSpec,
    MaxActivation,
    Network,
    SimulationSpec,
    TraceError,
    UnsupportedLayerError,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.zoo.architectures import build, convertible
from explorer.zoo.own import NetworkSource, own_card
from tests import networks as gallery

SLOW = (
    "alexnet",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "densenet121",
    "regnet_x_400mf",
    "googlenet",
    "vgg11_bn",
    "mnasnet0_5",
)
FAST = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2")
TORCHVISION = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
REFUSED = {
    "efficientnet_b0": (64, "features.0.2: SiLU"),
    "mobilenet_v3_small": (64, "Hardsigmoid has no integrate.*features.4.block.0.2: Hardswish"),
    "regnet_y_400mf": (64, "Sigmoid"),
    "vit_b_16": (224, "encoder|GELU|LayerNorm|MultiheadAttention"),
    "convnext_tiny": (64, "LayerNorm|GELU|layer_norm"),
    "swin_t": (64, "LayerNorm|GELU|layer_norm|features"),
}


def relative_gap(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected score."""
    return float((found - expected).abs().max() / expected.abs().max())


def gaps(network: Network, images: Tensor, steps: tuple[int, ...]) -> list[float]:
    """Return the root mean square gap between SNN and ANN scores after each number of steps.

    It is a share of how much the ANN's scores vary from image to image, so that 1 means: tells nothing apart.
    Thresholds are the maxima over these very images, so that no clipping is left and the gap must vanish with T.
    """
    snn = convert(network, calibrate(network, images, CalibrationSpec(MaxActivation("channel"))), ConversionSpec())
    logits = simulate(snn, images, SimulationSpec(max(steps))).logits
    expected = network.forward(images)
    scale = (expected - expected.mean(0)).pow(2).mean().sqrt()
    assert scale > 1e-3 * expected.abs().mean(), "scores that hardly depend on the image would prove nothing"
    return [float((logits[T - 1] - expected).pow(2).mean().sqrt() / scale) for T in steps]


@pytest.mark.parametrize("kind", gallery.GALLERY, ids=lambda kind: kind.__name__)
class TestGallery:
    def test_scores_stay_the_same_when_traced_and_folded(self, kind):
        net, images = gallery.make(kind), gallery.images(8)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with torch.no_grad():
            expected = net(images.clone())
        network = trace(net, images[:1])
        assert not network.unsupported
        assert relative_gap(network.forward(images), expected) < 1e-5
        with torch.no_grad():
            assert torch.equal(net(images.clone()), expected), "the visitor's network is left as found"
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_the_spiking_network_approaches_the_ann(self, kind):
        images = gallery.images(8)
        network = trace(gallery.make(kind), images[:1])
        early, middle, late = gaps(network, images, (8, 64, 256))
        assert late < middle < early
        assert late < 0.1
        fired = network.activations(images)
        assert all((a > 0).any() for a in fired.values()), "a silent site would prove nothing"


def torchvision_network(name: str, size: int) -> nn.Module:
    """Return a torchvision network with random weights and lively batch norm."""
    torch.manual_seed(0)
    return gallery.stir(build(f"torchvision:{name}", 10), size, batches=2, shift=1.0)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_convert(name):
    size = 64 if name == "alexnet" else 32
    net, images = torchvision_network(name, size), gallery.images(2, size)
    with torch.no_grad():
        expected = net(images)
    network = trace(net, images[:1])
    assert not network.unsupported
    assert relative_gap(network.forward(images), expected) < 1e-5
    early, late = gaps(network, images, (8, 64))
    assert late < 0.75 * early


def test_the_list_of_what_converts_keeps_to_it():
    listed = convertible()
    assert {f"torchvision:{name}" for name in (*FAST, *SLOW)} | {"resnet20-relu", "vgg16-clip"} <= set(listed)
    assert not {f"torchvision:{name}" for name in REFUSED} & set(listed)


@pytest.mark.slow
@pytest.mark.parametrize("name", convertible())
def test_whatever_is_listed_as_converting_has_a_rule_for_every_call(name):
    size = 96 if "inception" in name else 64 if "torchvision" in name else 32
    assert not trace(build(name).eval(), gallery.images(1, size)).unsupported


@pytest.mark.parametrize(
    "name", [n if n == "mobilenet_v3_small" else pytest.param(n, marks=pytest.mark.slow) for n in REFUSED]
)
def test_networks_that_cannot_convert_are_refused_by_the_layers_name(name):
    size, message = REFUSED[name]
    net = build(f"torchvision:{name}", 10).eval()
    with pytest.raises(UnsupportedLayerError, match=message):
        _converted(net, gallery.images(1, size))


def _converted(net: nn.Module, images: Tensor) -> None:
    network = trace(net, images)
    convert(network, calibrate(network, images))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (gallery.WithSigmoid(), "gate: sigmoid|gate: Sigmoid"),
        (gallery.WithSigmoid(nn.GELU()), "gate: GELU"),
        (gallery.WithSigmoid(nn.SiLU()), "gate: SiLU"),
        (gallery.WithSigmoid(nn.Hardswish()), "gate: Hardswish"),
        (gallery.WithSigmoid(nn.LeakyReLU()), "gate: leaky_relu"),
        (gallery.WithSigmoid(nn.GroupNorm(2, 8)), "gate: GroupNorm"),
        (gallery.WithSigmoid(nn.MaxPool2d(2, return_indices=False, ceil_mode=True)), None),
        (gallery.SqueezeExcite(), "multiplies two quantities"),
        (gallery.BoundedBelow(), "tanh: hardtanh"),
    ],
    ids=lambda value: getattr(value, "gate", value).__class__.__name__ if isinstance(value, nn.Module) else "",
)
def test_unsupported_calls_are_named_never_skipped(net, message):
    if message is None:
        _converted(net.eval(), gallery.images(2))
        return
    with pytest.raises(UnsupportedLayerError, match=message):
        _converted(net.eval(), gallery.images(2))


@pytest.mark.parametrize(
    ("net", "message"),
    [(gallery.NoReLU(), "calls no ReLU"), (gallery.DataDependent(), "control flow depends on its data")],
)
def test_networks_that_cannot_be_traced_are_explained(net, message):
    with pytest.raises(TraceError, match=message):
        trace(net.eval(), gallery.images(1))


def test_a_network_in_training_mode_is_traced_in_eval_and_left_in_training():
    net = gallery.make(gallery.Nested)
    net.train()
    before = copy.deepcopy(net.state_dict())
    network = trace(net, gallery.images(1))
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    images = gallery.images(4)
    with torch.no_grad():
        assert relative_gap(network.forward(images), net.eval()(images)) < 1e-5


def test_a_card_is_found_for_networks_nobody_described():
    for kind in (gallery.Fire, gallery.Perceptron, gallery.NormalisesItself):
        card = own_card(gallery.make(kind), NetworkSource(kind.__name__, input_size=gallery.SIZE), kind.__name__)
        assert len(card.classes) == gallery.CLASSES
