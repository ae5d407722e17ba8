"""Every operator that has a rule, by itself and in random networks made of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import simulate_reference
from torch import Tensor, nn

from explorer.engine import CalibrationSpec, MaxActivation, SimulationSpec, calibrate, convert, simulate, trace
from explorer.engine.graph.operations import AFFINE, AFFINE_KINDS, MAX_POOL, RECTIFIERS, REWRITTEN, SCALING
from tests.networks import images
from tests.test_networks import relative_gap

aten = torch.ops.aten
C, SIZE = 8, 8
MIX = torch.eye(C).roll(1, 0) + 0.1
ROW = torch.linspace(0.5, 1.5, C).reshape(1, C, 1, 1)
KERNEL = torch.linspace(-0.3, 0.5, C * C * 9).reshape(C, C, 3, 3)
Change = Callable[[Tensor], Tensor]


def _rows(x: Tensor, change: Change) -> Tensor:
    """Apply a change to maps laid out as sequences [B, C, H W]."""
    return change(x.flatten(2)).reshape(len(x), C, *x.shape[2:])


def _volume(x: Tensor, change: Change) -> Tensor:
    return change(x[:, :, None]).flatten(2, 3)


# Every operator keeps [B, C, H, W]; H and W may change, to 2 at least.
OPERATORS: dict[str, Change] = {
    "conv1d": lambda x: _rows(x, lambda s: F.conv1d(s, KERNEL[..., 0], padding=1)),
    "conv2d": lambda x: F.conv2d(x, KERNEL, padding=1),
    "conv3d": lambda x: _volume(x, lambda v: F.conv3d(v, KERNEL[:, :, None], padding=(0, 1, 1))),
    "conv_transpose1d": lambda x: _rows(x, lambda s: F.conv_transpose1d(s, KERNEL[..., 0], padding=1)),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, KERNEL, padding=1),
    "conv_transpose3d": lambda x: _volume(x, lambda v: F.conv_transpose3d(v, KERNEL[:, :, None], padding=(0, 1, 1))),
    "linear": lambda x: F.linear(x.movedim(1, -1), MIX).movedim(-1, 1),
    "batch_norm": lambda x: F.batch_norm(x, ROW.flatten(), ROW.flatten(), eps=0.2),
    "addmm": lambda x: (
        torch.addmm(torch.ones(C), x.movedim(1, -1).reshape(-1, C), MIX).reshape(len(x), *x.shape[2:], C).movedim(-1, 1)
    ),
    "baddbmm": lambda x: torch.baddbmm(x.flatten(2), MIX.expand(len(x), C, C), x.flatten(2)).reshape(x.shape),
    "tensordot": lambda x: torch.tensordot(x, MIX, ([1], [0])).movedim(-1, 1),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, MIX),
    "avg_pool1d": lambda x: _rows(x, lambda s: F.avg_pool1d(s, 3, 1, 1)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "avg_pool3d": lambda x: _volume(x, lambda v: F.avg_pool3d(v, (1, 3, 3), 1, (0, 1, 1))),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 16).reshape(-1, C, 4, 4),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 5),
    "adaptive_avg_pool3d": lambda x: _volume(x, lambda v: F.adaptive_avg_pool3d(v, (1, 4, 4))),
    "mean": lambda x: x + x.mean(1, keepdim=True),
    "sum": lambda x: x - 0.1 * x.sum((2, 3), keepdim=True),
    "cumsum": lambda x: x.cumsum(2) / 4,
    "add": lambda x: x + x.flip(2) + 0.1,
    "sub": lambda x: x - ROW,
    "subtract": lambda x: torch.subtract(x, 0.1),
    "rsub": lambda x: 1 - x,
    "neg": lambda x: -x,
    "negative": lambda x: torch.negative(x),
    "lerp": lambda x: torch.lerp(x, x.flip(3), 0.3),
    "addcmul": lambda x: torch.addcmul(x, x.flip(2), ROW),
    "where": lambda x: torch.where(ROW > 1, x, 0.5 * x.flip(2)),
    "masked_fill": lambda x: x.masked_fill(ROW > 1, 0.1),
    "cat": lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
    "concat": lambda x: torch.concat([x, x], 2),
    "concatenate": lambda x: torch.concatenate([x[:, :4], x[:, 4:]], -3),
    "stack": lambda x: torch.stack([x, x], 4).flatten(3),
    "hstack": lambda x: torch.hstack([x[:, 5:], x[:, :5]]),
    "dstack": lambda x: torch.dstack([x, x]),
    "flatten": lambda x: x.flatten(1).reshape(x.shape),
    "ravel": lambda x: torch.ravel(x).reshape(x.shape),
    "view": lambda x: x.contiguous().view(x.shape[0], C, x.shape[3], -1),
    "reshape": lambda x: x.reshape(x.size(0), C, -1, x.size(2)),
    "view_as": lambda x: x.flatten(1).view_as(x),
    "reshape_as": lambda x: x.flatten(1).reshape_as(x),
    "_unsafe_view": lambda x: aten._unsafe_view.default(x.flatten(1), list(x.shape)),
    "permute": lambda x: x.permute(0, 1, 3, 2),
    "transpose": lambda x: x.transpose(-1, -2),
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "swapdims": lambda x: x.swapdims(2, 3),
    "movedim": lambda x: x.movedim(3, 2),
    "moveaxis": lambda x: torch.moveaxis(x, 3, 2),
    "t": lambda x: x.movedim(1, -1).reshape(-1, C).t().reshape(C, len(x), *x.shape[2:]).movedim(1, 0),
    "adjoint": lambda x: x.adjoint(),
    "squeeze": lambda x: x[:, :, None].squeeze(2),
    "unsqueeze": lambda x: x.unsqueeze(1).flatten(1, 2),
    "unflatten": lambda x: x.unflatten(1, (2, -1)).flatten(1, 2),
    "expand": lambda x: x + x[:, :1].expand(-1, C, -1, -1),
    "expand_as": lambda x: x - x[:, :1].expand_as(x),
    "broadcast_to": lambda x: x - x[:, 1:2].broadcast_to(x.shape),
    "getitem": lambda x: x[:, :, x.shape[2] // 2 - 1 :, : x.shape[3] // 2 + 1],
    "slice": lambda x: aten.slice.Tensor(x, 2, x.shape[2] // 2 - 1, 9),
    "select": lambda x: x - x.select(1, 2)[:, None],
    "narrow": lambda x: x.narrow(2, x.shape[2] // 2 - 1, 2),
    "index": lambda x: aten.index.Tensor(x, [None, torch.arange(C).flip(0)]),
    "index_select": lambda x: x.index_select(1, torch.arange(C).roll(3)),
    "gather": lambda x: x.gather(1, torch.arange(C).flip(0).reshape(1, C, 1, 1).expand(x.shape)),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x: torch.cat(x.split(3, 1)[::-1], 1),
    "split_with_sizes": lambda x: torch.cat(x.split_with_sizes([3, 5], 1)[::-1], 1),
    "tensor_split": lambda x: torch.cat(x.tensor_split(3, 1)[::-1], 1),
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "unfold": lambda x: F.unfold(x, 3, padding=1).reshape(len(x), C, 9, *x.shape[2:]).mean(2),
    "fold": lambda x: F.fold(F.unfold(x, 2, stride=1), x.shape[2:], 2) / 4,
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "tile": lambda x: torch.tile(x, (1, 1, 1, 2)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "roll": lambda x: x.roll(1, 3),
    "flip": lambda x: x.flip(2, 3),
    "fliplr": lambda x: torch.fliplr(x),
    "flipud": lambda x: torch.flipud(x.movedim(0, 1)).movedim(0, 1),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "tril": lambda x: x + x.tril(),
    "triu": lambda x: x + x.triu(),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "native_channel_shuffle": lambda x: torch.native_channel_shuffle(x, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :2].repeat(1, 1, 2, 2), 2),
    "pad": lambda x: F.pad(x, (1, 0, 0, 1)),
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, (1, 1), 0.1),
    "zero_pad2d": nn.ZeroPad2d((1, 0, 1, 0)),
    "constant_pad": nn.ConstantPad2d(1, 0.2),
    "reflection_pad": nn.ReflectionPad2d(1),
    "replication_pad": nn.ReplicationPad2d(1),
    "circular_pad": nn.CircularPad2d(1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsample": nn.Upsample(scale_factor=2),
    "upsample_nearest": nn.UpsamplingNearest2d(scale_factor=2),
    "upsample_bilinear": nn.UpsamplingBilinear2d(scale_factor=2),
    "upsample_nearest1d": lambda x: _rows(x, lambda s: aten.upsample_nearest1d.default(s, s.shape[2:])),
    "upsample_nearest2d": lambda x: aten.upsample_nearest2d.default(x, [7, 6]),
    "upsample_bilinear2d": lambda x: aten.upsample_bilinear2d.default(x, [7, 6], True),
    "upsample_bicubic2d": lambda x: aten.upsample_bicubic2d.default(x, [7, 6], False),
    "identity": nn.Identity(),
    "dropout": nn.Dropout(),
    "dropout1d": lambda x: _rows(x, lambda s: F.dropout1d(s, training=False)),
    "dropout2d": nn.Dropout2d(),
    "dropout3d": lambda x: _volume(x, lambda v: F.dropout3d(v, training=False)),
    "feature_dropout": lambda x: torch.feature_dropout(x, 0.5, False),
    "alpha_dropout": nn.AlphaDropout(),
    "feature_alpha_dropout": nn.FeatureAlphaDropout(),
    "contiguous": lambda x: x.contiguous(),
    "clone": lambda x: x.clone(),
    "alias": lambda x: aten.alias.default(x),
    "positive": lambda x: +x,
    "lift_fresh_copy": lambda x: aten.lift_fresh_copy.default(x),
    "mul": lambda x: x * ROW,
    "multiply": lambda x: torch.multiply(x, 0.7),
    "div": lambda x: x / ROW,
    "divide": lambda x: torch.divide(x, 1.5),
    "true_divide": lambda x: torch.true_divide(x, ROW),
    "matmul": lambda x: x @ torch.full((x.shape[3], 3), 0.3),
    "mm": lambda x: (x.movedim(1, -1).reshape(-1, C).mm(MIX)).reshape(len(x), *x.shape[2:], C).movedim(-1, 1),
    "bmm": lambda x: torch.bmm(MIX.expand(len(x), C, C), x.flatten(2)).reshape(x.shape),
    MAX_POOL: lambda x: F.max_pool2d(x, 3, 1, 1),
    "max_pool1d": lambda x: _rows(x, lambda s: F.max_pool1d(s, 3, 1, 1)),
    "amax": lambda x: x + x.amax((2, 3), keepdim=True),
    "max": lambda x: x - x.max(2, keepdim=True).values,
    "adaptive_max_pool2d": lambda x: x + F.adaptive_max_pool2d(x, 1),
}
ACTS: dict[str, Change] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": nn.Hardtanh(0.0, 3.0),
    "clamp": lambda x: x.clamp(0, 2),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": nn.Threshold(0, 0),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "minimum": lambda x: torch.minimum(F.relu(x), torch.tensor(2.5)),
    "clamp_max": lambda x: F.relu(x).clamp_max(2.0),
}
# Casts among floating-point types and detach() leave no call; the trainable clip has tests of its own.
ELSEWHERE = {"to", "float", "type_as", "detach", "trainable_clip"}


class Made(nn.Module):
    """A network of operators between two convolutions with rectifiers."""

    def __init__(self, acts: list[str], before: list[str], between: list[str], shortcut: bool, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)
        self.acts = [ACTS[name] for name in acts]
        self.before, self.between = ([OPERATORS[name] for name in names] for names in (before, between))
        self.layers = nn.ModuleList(c for c in (*self.acts, *self.before, *self.between) if isinstance(c, nn.Module))
        self.out, self.shortcut = nn.Linear(C, 5), shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.first(x))
        for change in self.before:
            x = change(x)
        y = self.acts[1](self.second(x))
        y = y + x if self.shortcut else y
        for change in self.between:
            y = change(y)
        return self.out(y.mean((2, 3)))


def hold_together(net: nn.Module, T: int = 8) -> None:
    """Require that the graph, both paths and the float64 reference agree."""
    x = images(3, SIZE)
    with torch.no_grad():
        expected = net(x)
    network = trace(net, x[:1])
    assert not network.unsupported, network.unsupported[0]
    assert relative_gap(network.forward(x), expected) <= 1e-5
    snn = convert(network, calibrate(network, x, CalibrationSpec(MaxActivation())))
    scores, counts, _ = simulate_reference(snn, x, T)
    for integer in (True, False):
        run = simulate(snn, x, SimulationSpec(T=T, integer=integer, device="cpu"))
        for name, n in counts.items():
            assert (run.counts[name] != n).float().mean() < 0.01, (name, integer)
        assert torch.allclose(run.logits[-1], scores[-1].float(), rtol=1e-2, atol=2e-2 * float(scores.abs().max()))


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_converts(name):
    net = Made(["relu", "relu"], [name], [], False, 0).eval()
    hold_together(net)
    if name not in REWRITTEN:
        assert name in trace(net, images(1, SIZE)).names.values()


@pytest.mark.parametrize("name", ACTS)
def test_every_rectifier_converts(name):
    hold_together(Made([name, name], [], [], True, 0).eval())


def test_every_rule_has_an_example():
    assert {*OPERATORS, *ACTS, *ELSEWHERE} == AFFINE | SCALING | RECTIFIERS | {MAX_POOL, *REWRITTEN}


some = st.lists(st.sampled_from(sorted(OPERATORS)), max_size=3)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(ACTS)), min_size=2, max_size=2), some, some, st.booleans(), st.integers(0, 99))
def test_random_networks_hold_together(acts, before, between, shortcut, seed):
    hold_together(Made(acts, before, between, shortcut, seed).eval())


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(ACTS)), min_size=2, max_size=2), some, some, st.booleans(), st.integers(0, 99))
def test_many_random_networks_hold_together(acts, before, between, shortcut, seed):
    hold_together(Made(acts, before, between, shortcut, seed).eval())


def test_the_readme_lists_exactly_what_has_a_rule():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    listed = dict(re.findall(r"^\* \*\*([^*]+)\*\*: (`[^\n]*(?:\n  [^\n]*)*)", readme, re.M))
    rules = {"rectifiers": RECTIFIERS, "max pools": {MAX_POOL}, **AFFINE_KINDS, "products": SCALING}
    for kind, names in rules.items():
        assert set(re.findall(r"`(\w+)`", listed[kind])) == set(names), kind
    assert dict(re.findall(r"`(\w+)` ([^,.`]+)", listed["written as another"])).keys() == REWRITTEN.keys()
