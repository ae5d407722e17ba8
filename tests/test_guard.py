"""The guard at trace time, by planted faults: whatever the tables let through wrongly must be caught and named."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from explorer.engine import TraceError, UnsupportedLayerError, calibrate, convert, trace
from explorer.engine.compile import mosaic, segment
from explorer.engine.graph import guard, mark
from explorer.engine.graph.guard import check_steps
from explorer.zoo.architectures import build
from tests import kinds, networks

IMAGES = networks.images(2)
# Calls that are not affine, with the names under which a faulty table would let them pass.
NOT_AFFINE = {
    "pow": lambda x: x**2,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "abs": lambda x: (x - 0.5).abs(),
    "floordiv": lambda x: x // 0.5,
    "round": lambda x: (x * 8).round() / 8,
    "hardtanh": lambda x: F.hardtanh(x * 4),
    "elu": lambda x: F.elu(x - 0.1),
    "softmax": lambda x: x.softmax(1),
    "group_norm": lambda x: F.group_norm(x, 4),
    "maximum": lambda x: torch.maximum(x, x.flip(3)),
    "sort": lambda x: x.sort(1).values,
    "mul": lambda x: x * x.flip(2),
    "reciprocal": lambda x: (x + 1).reciprocal(),
}


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_what_is_not_affine_is_named_though_the_table_has_it(name, monkeypatch):
    monkeypatch.setattr(mark, "AFFINE", mark.AFFINE | {name, "getitem"})
    network = trace(kinds.make(lambda: kinds.Net(NOT_AFFINE[name])), IMAGES[:1])
    (fault,) = network.unsupported
    assert name in f"{fault.call} {fault.why}" and "is not affine" in fault.why
    assert any(row.kind == "unsupported" and row.node == fault.call for row in network.rows)
    with pytest.raises(UnsupportedLayerError, match="is not affine"):
        convert(network, calibrate(network, IMAGES))


@pytest.mark.parametrize("compare", [torch.eq, torch.gt, torch.isnan])
def test_what_is_no_number_is_named(compare, monkeypatch):
    monkeypatch.setattr(mark, "AFFINE", mark.AFFINE | {compare.__name__})
    change = (lambda x: x + compare(x)) if compare is torch.isnan else (lambda x: x + compare(x, 0.0))
    (fault,) = trace(kinds.make(lambda: kinds.Net(change)), IMAGES[:1]).unsupported
    assert compare.__name__ in fault.call and "gives bool where the values of neurons are needed" in fault.why


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + x.sum() * 1e-4,
        lambda x: x + x.mean(0, keepdim=True),
        lambda x: x.flip(0),
        lambda x: x.roll(1, 0),
        lambda x: x[:1].expand_as(x) + x,
        lambda x: x[-1:].expand_as(x) + x,
        lambda x: x.cumsum(0),
        lambda x: x + x.transpose(0, 1).reshape(16, -1).mean(1).reshape(1, 16, 1, 1),
    ],
)
@pytest.mark.parametrize("place", ["pre", "mid"])
def test_images_that_see_one_another_are_named(mix, place):
    if place == "pre":
        net = kinds.make(lambda: kinds.Net(pre=lambda x: mix(x.repeat(1, 6, 1, 1)[:, :16])[:, :3]))
    else:
        net = kinds.make(lambda: kinds.Net(mix))
    (fault,) = trace(net, IMAGES[:1]).unsupported
    assert "mixes the images of a batch" in fault.why


def test_a_wrong_number_in_the_exact_path_is_found(monkeypatch):
    net = networks.make(networks.OptionAResNet)
    assert not trace(net, IMAGES[:1]).unsupported
    rows = segment._Builder._add_rows
    with monkeypatch.context() as planted:
        planted.setattr(segment._Builder, "_add_rows", lambda self, part, weight: rows(self, part, weight * 1.01))
        assert "the exact sum over spikes is not what" in trace(net, IMAGES[:1]).unsupported[0].why
    tap = segment._Builder._tap
    with monkeypatch.context() as planted:
        shifted = lambda self, part, dy, dx, *rest: tap(self, part, dy, dx + 1, *rest)  # noqa: E731
        planted.setattr(segment._Builder, "_tap", shifted)
        assert "please report" in trace(net, IMAGES[:1]).unsupported[0].mend
    with monkeypatch.context() as planted:
        planted.setattr(mosaic, "_channel_pad", lambda found, node, shape: found)
        assert "the exact sum" in trace(net, IMAGES[:1]).unsupported[0].why
    assert not trace(net, IMAGES[:1]).unsupported


@pytest.mark.parametrize("kind", networks.GALLERY, ids=lambda kind: kind.__name__)
def test_sound_networks_pass_at_any_scale(kind):
    for scale in (1e-3, 1.0, 1e3):
        net = networks.make(kind)
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                    layer.bias.mul_(scale)
        network = trace(net, IMAGES[:1] * scale)
        assert not network.unsupported
        assert check_steps(network, IMAGES[:1] * scale) is None


def test_a_call_that_fails_on_other_numbers_of_images_is_named(monkeypatch):
    network = trace(networks.make(networks.Shuffled), IMAGES[:1])
    node = next(n for n in network.graph_module.graph.nodes if n.target == "reshape")
    node.args = (node.args[0], (2, *node.args[1][1:]))
    with pytest.raises(TraceError, match=f"{node.name}: fails on four images"):
        check_steps(network, IMAGES[:1])


def test_it_takes_less_than_a_second_on_vgg16():
    torch.manual_seed(0)
    net = build("vgg16-clip").eval()
    network = trace(net, torch.randn(1, 3, 32, 32))
    begin = time.process_time()
    assert guard.check_steps(network, torch.randn(1, 3, 32, 32)) is None
    assert time.process_time() - begin < 1
