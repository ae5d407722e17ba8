"""Certified bounds: intervals through the network for every input of a box. [Gowal2018]

    lower = W+ l + W- u + b,   upper = W+ u + W- l + b;   rectifiers, averages and max pools are monotone

l and u bound what goes in, W+ and W- are the positive and the negative weights. The bounds hold for the ANN in exact
arithmetic, and so for the mean currents to which a spiking network tends as T grows while its thresholds are not
exceeded. They are computed in float64 and widened by its rounding: by (k + 4) 2^-52 (|W| max(|l|, |u|) + |b|) where k
products are summed, by 2^-52 of a sum of two, and by 2^-36 of the largest value in an average, of up to 2^16 terms.
S. Gowal et al., *On the effectiveness of interval bound propagation for training verifiably robust models*, 2018. Every
layer loses what its inputs have in common, so the bounds of deep layers are far too wide unless something clips them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from explorer.engine.compile.values import attribute, call
from explorer.engine.errors import SpecError, UnsupportedLayerError
from explorer.engine.graph import Network
from explorer.engine.graph.operations import AFFINE_KINDS

ROUNDING, SUMS = 2.0**-52, 2.0**-36
MONOTONE = (
    AFFINE_KINDS["shapes and places"]
    | AFFINE_KINDS["nothing, in evaluation"]
    | (AFFINE_KINDS["borders and sizes"] - {"upsample_bicubic2d", "interpolate", "upsample"})
    | {name for name in AFFINE_KINDS["averages and sums"] if "pool" in name}
    | {"mean", "sum", "cumsum", "add", "max_pool2d"}
)
EXACT = (
    AFFINE_KINDS["shapes and places"] | AFFINE_KINDS["nothing, in evaluation"] | AFFINE_KINDS["borders and sizes"]
) - {"fold", "upsample_bilinear", "upsample_bilinear2d"}
REVERSED = frozenset({"neg", "negative"})
SCALED = frozenset({"mul", "multiply", "div", "divide", "true_divide"})


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds of a value, float64 [B, ...] each."""

    lower: Tensor
    upper: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def point(self) -> bool:
        """Whether it is one value, computed as it is and not widened."""
        return self.lower is self.upper

    def widened(self, slack: Any) -> Interval:
        """Return the interval with what rounding may have cost added on both sides."""
        return Interval(self.lower - slack, self.upper + slack)


@dataclass(frozen=True, eq=False)
class Bounds:
    """What holds for every input of a box.

    sites: bounds of what goes into each rectifier, [B, *site], activation units; scores: of the class scores, [B, K].
    margin: a lower bound of the score of the class chosen at the box's centre, less every other's, [B, K], infinite at
    the class itself; chosen: that class, int64 [B].
    """

    sites: dict[str, Interval]
    scores: Interval
    margin: Tensor
    chosen: Tensor

    @property
    def certain(self) -> Tensor:
        """Whether the class is the same in the whole box, bool [B]."""
        return (self.margin > 0).all(1)


@torch.no_grad()
def bounds(network: Network, lower: Tensor, upper: Tensor) -> Bounds:
    """Bound every site and the scores for all inputs between lower and upper, normalised [B, C, H, W].

    Raises:
        SpecError: lower is above upper somewhere, or not of the network's shape.
        UnsupportedLayerError: a call has no rule here.
    """
    network.check_images(lower.float())
    if lower.shape != upper.shape or not (lower <= upper).all():
        raise SpecError("bounds: lower must be at most upper everywhere. Choose a radius of at least 0.")
    box = Interval(lower.double(), upper.double())
    run = _Intervals(network)
    scores = run.run(box)
    centre = _scores(network, (box.lower + box.upper) / 2)
    chosen = centre.argmax(1)
    return Bounds(run.sites, scores, run.margin(scores, chosen), chosen)


def sampled(network: Network, lower: Tensor, upper: Tensor, n: int, seed: int = 0) -> dict[str, Interval]:
    """Return the least and largest input of each rectifier among n inputs of one box [1, C, H, W]; half are corners.

    Always within the bounds; how far within tells how loose those are.
    """
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(n, *lower.shape[1:], generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    points = lower.double() + (upper.double() - lower.double()) * share
    run = _Intervals(network)
    run.run(Interval(points, points))
    return {name: Interval(x.lower.amin(0)[None], x.lower.amax(0)[None]) for name, x in run.sites.items()}


def _scores(network: Network, images: Tensor) -> Tensor:
    return _Intervals(network).run(Interval(images, images)).lower


class _Intervals(fx.Interpreter):
    """Runs the graph on intervals; what depends on no input stays as it is."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.graph_module, garbage_collect_values=False)
        self.network = network
        self.names = {node: name for name, node in network.site_nodes.items()}
        self.sites: dict[str, Interval] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("placeholder", "output"):
            return super().run_node(n)
        if n.op == "get_attr":
            value = attribute(self.network, n)
            return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        intervals = _intervals((args, kwargs))
        if not intervals:
            return call(self.network, n, args, kwargs, double=True)
        if n.name in self.names:
            self.sites[self.names[n.name]] = intervals[0]
            return self._both(n, args, kwargs)
        return self._affine(n, args, kwargs, intervals)

    def _affine(self, n: fx.Node, args: Any, kwargs: Any, intervals: list[Interval]) -> Any:
        name = self.network.names[n.name]
        module = self.network.graph_module.get_submodule(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and len(intervals) == 1:
            return _weighted(module, intervals[0])
        if name in REVERSED:
            low = -intervals[0].upper
            return Interval(low, low if intervals[0].point else -intervals[0].lower)
        if all(each.point for each in intervals):
            return self._both(n, args, kwargs)
        if name in ("sub", "subtract") and not kwargs and len(args) == 2:
            a, b = (value if isinstance(value, Interval) else Interval(*(_double(value),) * 2) for value in args)
            found = Interval(a.lower - b.upper, a.upper - b.lower)
            return found.widened(ROUNDING * found.magnitude)
        if name in SCALED and len(intervals) == 1 and (name in ("mul", "multiply") or args[0] is intervals[0]):
            low, high = (self._at(n, args, kwargs, end) for end in ("lower", "upper"))
            found = Interval(torch.minimum(low, high), torch.maximum(low, high))  # each element has a factor of its own
            return found.widened(2 * ROUNDING * found.magnitude)
        plain_sum = name != "add" or (not kwargs and len(args) == 2)
        if plain_sum and (name in MONOTONE or self.network.kinds[n.name] == "max_pool"):
            return self._both(n, args, kwargs)
        raise UnsupportedLayerError(
            f"{n.name}: bounds have no rule for {name}. Choose a network of convolutions, linear layers and pools."
        )

    def _both(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        """Run a monotone call on both ends."""
        low, point = self._at(n, args, kwargs, "lower"), all(each.point for each in _intervals((args, kwargs)))
        high = low if point else self._at(n, args, kwargs, "upper")
        if not isinstance(low, Tensor):
            return type(low)(Interval(a, b) for a, b in zip(low, high, strict=True))
        found, name = Interval(low, high), self.network.names[n.name]
        if point or n.name in self.names or name in EXACT or self.network.kinds[n.name] == "max_pool":
            return found
        if name == "add":
            return found.widened(ROUNDING * found.magnitude)
        largest = max(float(each.magnitude.max()) for each in _intervals((args, kwargs)))
        summed = 1 if "pool" in name or name == "mean" else _intervals((args, kwargs))[0].lower.numel()
        return found.widened(SUMS * largest * summed)

    def _at(self, n: fx.Node, args: Any, kwargs: Any, end: str) -> Any:
        args, kwargs = _mapped((args, kwargs), lambda value: getattr(value, end))
        return call(self.network, n, args, kwargs, double=True)

    def margin(self, scores: Interval, chosen: Tensor) -> Tensor:
        """Return lower bounds of the chosen score less each other, through the differences of a last linear layer."""
        node, batch = self.network.node(self.network.output), torch.arange(len(chosen))
        module = self.network.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            h = self.env[node.all_input_nodes[0]]
            weight = module.weight.double()
            difference = weight[chosen][:, None] - weight[None]  # [B, K, F]
            bias = torch.zeros(len(weight)).double() if module.bias is None else module.bias.double()
            low = (difference.clamp(min=0) * h.lower[:, None] + difference.clamp(max=0) * h.upper[:, None]).sum(2)
            size = (difference.abs() * h.magnitude[:, None]).sum(2) + bias.abs().max() * 2
            found = low + (bias[chosen][:, None] - bias[None]) - (weight.shape[1] + 4) * 2 * ROUNDING * size
        else:
            found = scores.lower[batch, chosen][:, None] - scores.upper
        found[batch, chosen] = torch.inf
        return found


def _weighted(module: Any, x: Interval) -> Interval:
    """Return the bounds of a layer's output."""
    weight, bias = module.weight.double(), None if module.bias is None else module.bias.double()
    apply = _linear if isinstance(module, nn.Linear) else _convolution(module)
    if x.point:
        y = apply(x.lower, weight, bias)
        return Interval(y, y)
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    lower = apply(x.lower, up, bias) + apply(x.upper, down, None)
    upper = apply(x.upper, up, bias) + apply(x.lower, down, None)
    size = apply(x.magnitude, weight.abs(), None if bias is None else bias.abs())
    return Interval(lower, upper).widened((weight[0].numel() + 4) * ROUNDING * size)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _convolution(module: Any) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    return lambda x, weight, bias: module._conv_forward(x, weight, bias)


def _double(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _intervals(value: Any) -> list[Interval]:
    found: list[Interval] = []
    _mapped(value, lambda each: found.append(each))
    return found


def _mapped(value: Any, change: Callable[[Interval], Any]) -> Any:
    """Return nested arguments with every interval changed."""
    match value:
        case Interval():
            return change(value)
        case tuple() | list():
            return type(value)(_mapped(each, change) for each in value)
        case dict():
            return {key: _mapped(each, change) for key, each in value.items()}
    return value
