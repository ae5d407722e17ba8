"""A network's graph in training: every value is carried as its mean over time, with gradients, and by its steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.engine.errors import SpecError, UnsupportedLayerError
from explorer.engine.finetune.representation import Representation, fire
from explorer.engine.finetune.surrogate import Spikes
from explorer.engine.graph import Network, Site
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.rewrite import attribute
from explorer.engine.graph.trace import trace
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.specs import check_steps

LEAST = 0.01  # of the threshold it started with: none falls below


@dataclass(frozen=True, eq=False)
class Timed:
    """A value that changes in time: its mean over T steps, and the first T - 1 steps one after the other."""

    mean: Any
    steps: Any


@dataclass(frozen=True, eq=False)
class Stepped:
    """A value that changes in time, with gradients: all T steps one after the other, [T B, ...]."""

    steps: Any


class Tunable(nn.Module):
    """A trainable copy of a network whose first `spiking` sites send spikes; the others give clip(x, 0, theta).

    Between sites all is affine, so the mean of what arrives is the map of the mean of what is sent: gradients need one
    pass of the ANN's size, whatever T. The T - 1 passes for the steps carry none. Every convolution is trained as gain
    times weight, one gain a channel, scaled at the start so that weights alone give currents of deviation 1: one
    learning rate then fits all layers.

    Args:
        network: left as it is.
        neurons: thresholds and shifts to start with, by site: one value a site or a channel; a shift that changes in
            time is taken at its mean. They fire by v(0) = theta/2, and a spike is worth theta.
        T: time-steps, at least 2.
        images: normalised images [N, C, H, W] by which weights are scaled.
        through_time: all sites spike, and gradients go back through every step in place of the means.
        frozen_above: convolutions of more weights keep them, up to their gains; 0: none does.

    Raises:
        SpecError: T is out of range, or a threshold is per neuron.
        UnsupportedLayerError: the network calls something without a rule.
    """

    def __init__(
        self,
        network: Network,
        neurons: dict[str, Neurons],
        T: int,
        images: Tensor,
        through_time: bool = False,
        frozen_above: int = 0,
    ) -> None:
        super().__init__()
        check_steps(T)
        if T < 2:
            raise SpecError(f"fine-tuning: at least 2 time-steps, got {T}. Choose 2 or more.")
        if network.unsupported:
            raise UnsupportedLayerError(" ".join(str(problem) for problem in network.unsupported[:3]))
        self.network, self.T, self.spiking, self.through_time = network, T, len(network.sites), False
        self.body = copy.deepcopy(network.graph_module).requires_grad_(False)
        self.nodes: dict[str, fx.Node] = {node.name: node for node in self.body.graph.nodes}
        self.places: dict[str, Site] = {node: network.site(name) for name, node in network.site_nodes.items()}
        self.theta = nn.ParameterList(threshold(site, neurons[site.name]) for site in network.sites)
        self.least = [LEAST * theta.detach().clone() for theta in self.theta]
        self.by_image = _descendants(self.nodes.values(), network)
        self.gain = nn.ParameterDict()
        self.frozen_above = frozen_above
        self._scale(images)
        self._take_shifts(neurons)
        self.through_time = through_time

    def _scale(self, images: Tensor) -> None:
        for node in self.nodes.values():
            layer = self.layer(node)
            if layer is None:
                continue
            layer.requires_grad_(True)
            calls = sum(n.op == "call_module" and n.target == node.target for n in self.nodes.values())
            if calls == 1 and isinstance(layer, nn.Conv1d | nn.Conv2d):
                if layer.bias is None:
                    layer.bias = nn.Parameter(torch.zeros(len(layer.weight)).to(layer.weight))
                self.gain[node.name] = nn.Parameter(torch.ones_like(layer.bias))
        with torch.no_grad():
            self._walk(images, scaling=True)
        for name in self.gain:
            self.layer(self.nodes[name]).weight.requires_grad_(not self.frozen(self.nodes[name]))

    def _take_shifts(self, neurons: dict[str, Neurons]) -> None:
        for node, site in self.places.items():
            shift = neurons[site.name].shift
            if shift is None:
                continue
            constant = shift.mean(0) if neurons[site.name].timed(site) else shift
            offset = self._offset(self.nodes[node].all_input_nodes[0])
            if offset is not None and constant.numel() in (1, len(offset)):
                with torch.no_grad():
                    offset += constant.reshape(-1).to(offset)

    def _offset(self, node: fx.Node) -> Tensor | None:
        """Return what is added to a node's value in every step, if it feeds nothing else."""
        if len(node.users) != 1:
            return None
        if (layer := self.layer(node)) is not None:
            return layer.bias
        if self.network.names[node.name] == "add":
            return next((o for o in map(self._offset, node.all_input_nodes) if o is not None), None)
        return None

    def run_for(self, T: int) -> None:
        """Take T steps from now on; 0: none, every site gives clip(x, 0, theta)."""
        self.T = T

    @property
    def carried(self) -> int:
        """Return how many steps a value in time is carried by."""
        return self.T if self.through_time else self.T - 1

    def layer(self, node: fx.Node) -> Any:
        """Return the convolution or linear layer that a node calls; None if it calls another thing."""
        layer = self.body.get_submodule(str(node.target)) if node.op == "call_module" else None
        return layer if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) else None

    def frozen(self, node: fx.Node) -> bool:
        """Whether the convolution that a node calls keeps its weights up to its gains."""
        return 0 < self.frozen_above < self.layer(node).weight.numel() and node.name in self.gain

    def convert(self, spiking: int) -> None:
        """Let the first so many sites spike, and train only what does not lie before them. [Wu2020]"""
        self.spiking = spiking
        before: set[str] = set()
        for node in reversed(self.nodes.values()):
            place = self.places.get(node.name)
            if (place is not None and place.order < spiking) or any(user.name in before for user in node.users):
                before.add(node.name)
        for node in self.nodes.values():
            if node.name in before and (layer := self.layer(node)) is not None:
                layer.requires_grad_(False)
            if node.name in before and node.name in self.gain:
                self.gain[node.name].requires_grad_(False)
        for theta in list(self.theta)[:spiking]:
            theta.requires_grad_(False)

    def trained(self) -> Iterator[nn.Parameter]:
        """Yield what is trained: weights, gains, offsets and thresholds."""
        return (p for p in self.parameters() if p.requires_grad)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all weights, gains, offsets and thresholds."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take on a state."""
        self.load_state_dict(state)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Lift thresholds that fell too low: to a hundredth of those they started with."""
        for theta, least in zip(self.theta, self.least, strict=True):
            theta.clamp_(min=least)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores [B, K]: the mean over T steps of what the last layer gives."""
        return self._walk(images)

    def weights(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the layer that a node calls, its gain taken in."""
        layer = self.layer(node)
        weight = layer.weight.detach()
        return weight * _over(self.gain[node.name].detach(), weight) if node.name in self.gain else weight, layer.bias

    @torch.no_grad()
    def module(self) -> fx.GraphModule:
        """Return the network as an ANN, its rectifiers trainable clips: their bounds are the thresholds."""
        graph = copy.deepcopy(self.body)
        for node in graph.graph.nodes:
            if node.name in self.gain:
                layer: Any = graph.get_submodule(str(node.target))
                layer.weight.copy_(self.weights(self.nodes[node.name])[0])
            if node.name not in self.places:
                continue
            site = self.places[node.name]
            target, theta = site.name.replace("#", "_"), self.theta[site.order].detach()
            graph.add_submodule(target, TrainableClip(theta))
            with graph.graph.inserting_before(node):
                clip = graph.graph.call_module(target, (node.all_input_nodes[0],))
            node.replace_all_uses_with(clip)
            graph.graph.erase_node(node)
        graph.delete_all_unused_submodules()
        graph.recompile()
        return graph.requires_grad_(False).eval()

    def traced(self) -> Network:
        """Return the network, traced; converted by its trained clips at v_init 1/2 it spikes as here."""
        return trace(self.module(), torch.zeros(1, *self.network.input_shape))

    def _walk(self, images: Tensor, scaling: bool = False) -> Tensor:
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        values: dict[str, Any] = {}
        waiting = {name: len(node.users) for name, node in self.nodes.items()}
        for name, node in self.nodes.items():
            if node.op == "output":
                scores = values[self.network.output]
                if isinstance(scores, Stepped):
                    return scores.steps.unflatten(0, (self.T, -1)).mean(0)
                return scores.mean if isinstance(scores, Timed) else scores
            if node.op == "placeholder":
                values[name] = images
            elif node.op == "get_attr":
                values[name] = attribute(self.body, str(node.target))
            elif name in self.places:
                values[name] = self._site(self.places[name], values[node.all_input_nodes[0].name])
            elif name in self.gain:
                values[name] = self._convolved(node, values[node.all_input_nodes[0].name], scaling)
            else:
                values[name] = self._call(node, values)
            for source in node.all_input_nodes:
                waiting[source.name] -= 1
                if not waiting[source.name]:
                    del values[source.name]
        raise AssertionError("a graph without output")

    def _site(self, site: Site, x: Any) -> Any:
        theta = self.theta[site.order]
        if self.through_time and self.T:
            steps = x.steps if isinstance(x, Stepped) else x.repeat(self.T, *(1,) * (x.ndim - 1))
            return Stepped(Spikes.apply(steps, theta, self.T))
        mean, steps = (x.mean, x.steps) if isinstance(x, Timed) else (x, None)
        if site.order >= self.spiking or not self.T:
            return Representation.apply(mean, theta, torch.minimum(mean.detach().clamp(min=0), theta.detach()))
        n, sent = fire(mean, steps, theta, self.T)
        return Timed(Representation.apply(mean, theta, n * (theta.detach() / self.T)), sent)

    def _convolved(self, node: fx.Node, x: Any, scaling: bool) -> Any:
        layer, gain = self.layer(node), self.gain[node.name]
        if isinstance(x, Stepped) and self.frozen(node):
            plain = layer._conv_forward(x.steps, layer.weight, None)  # no gradient of so many weights for the gains
            return Stepped(plain * _over(gain, plain[0]) + _over(layer.bias, plain[0]))
        weight = layer.weight * _over(gain, layer.weight)
        if isinstance(x, Stepped):
            return Stepped(layer._conv_forward(x.steps, weight, layer.bias))
        mean = layer._conv_forward(x.mean if isinstance(x, Timed) else x, weight, layer.bias)
        if scaling:
            spread = mean.movedim(1, 0).flatten(1).std(1, correction=0)
            gain.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))
            layer.weight /= _over(gain, layer.weight)
        if not isinstance(x, Timed):
            return mean
        with torch.no_grad():
            return Timed(mean, layer._conv_forward(x.steps, weight, layer.bias))

    def _call(self, node: fx.Node, values: dict[str, Any]) -> Any:
        given = [values[source.name] for source in node.all_input_nodes]
        if any(isinstance(value, Stepped) for value in given):
            return Stepped(self._in_steps(node, values))
        mean = self._run(node, values, "mean")
        if not any(isinstance(value, Timed) for value in given):
            return mean
        with torch.no_grad():
            return Timed(mean, self._in_steps(node, values))

    def _in_steps(self, node: fx.Node, values: dict[str, Any]) -> Any:
        if self.network.kinds[node.name] != "max_pool":
            return self._run(node, values, "steps")
        (source,) = node.all_input_nodes  # exact in rate: what the pool of the sums so far gained in a step
        sums = values[source.name].steps.unflatten(0, (self.carried, -1)).cumsum(0).flatten(0, 1)
        pooled = self._run(node, {source.name: Stepped(sums)}, "steps")
        B = len(pooled) // self.carried
        return torch.cat([pooled[:B], pooled[B:] - pooled[:-B]])

    def _run(self, node: fx.Node, values: dict[str, Any], side: str) -> Any:
        """Do one call on means, or on all steps at once; what is the same in all steps is repeated."""

        def value(source: fx.Node) -> Any:
            found = values[source.name]
            if isinstance(found, Timed | Stepped):
                return getattr(found, side)
            if side == "steps" and source.name in self.by_image and isinstance(found, Tensor):
                return found.repeat(self.carried, *(1,) * (found.ndim - 1))
            return found

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        if node.op == "call_module":
            return self.body.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def threshold(site: Site, own: Neurons) -> nn.Parameter:
    """Return a site's thresholds to be trained: one value, or one a channel as [C, 1, ...]."""
    theta = own.theta.detach().float()
    if theta.numel() == 1:
        return nn.Parameter(theta.reshape(()).clone())
    if theta.numel() != site.channels:
        raise SpecError(f"{site.name}: one threshold a neuron cannot be trained. Start with one a site or a channel.")
    return nn.Parameter(theta.reshape(-1, *(1,) * (len(site.shape) - 1)).clone())


def _over(gain: Tensor, weight: Tensor) -> Tensor:
    """View one value a channel so that it broadcasts over a kernel."""
    return gain.view(-1, *(1,) * (weight.ndim - 1))


def _descendants(nodes: Iterable[fx.Node], network: Network) -> frozenset[str]:
    """Return the nodes whose values have an axis of images: the input and what is computed from it, sizes left out."""
    found: set[str] = set()
    for node in nodes:
        if node.op == "placeholder" or any(n.name in found for n in node.all_input_nodes):
            found.add(node.name)
    return frozenset(found)
