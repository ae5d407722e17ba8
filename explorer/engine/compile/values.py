"""Values as traced, of all steps at once: [T*B, ...], for what cannot be written as taps."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.engine.graph import Network

CASTS = frozenset({"to", "float", "double", "type_as"})
COPIES = threading.Lock()


class StaticValues:
    """Values that depend on the image but on no spike: the same in every step, computed once.

    They are computed in float64 and rounded, so that they do not depend on the batch or the number of threads.
    """

    def __init__(self, network: Network, images: Tensor) -> None:
        self.network, self.images = network, images
        self._values: dict[str, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        """Return a node's value for all images, in float64."""
        if node.name not in self._values:
            match self.network.kinds[node.name]:
                case "input":
                    value: Any = self.images.double()
                case _ if node.op == "get_attr":
                    value = _double(attribute(self.network, node))
                case _:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), self)
                    value = call(self.network, node, args, kwargs, double=True)
            self._values[node.name] = value
        return self._values[node.name]


class TimedValues:
    """Values that change in time, for the steps of one block."""

    def __init__(
        self,
        network: Network,
        static: StaticValues,
        static_names: frozenset[str],
        spikes: Callable[[str], Tensor],
        spiking: Callable[[str], bool],
        T: int,
        precision: torch.dtype,
    ) -> None:
        self.network, self.static, self.static_names = network, static, static_names
        self.spikes, self.spiking, self.T, self.precision = spikes, spiking, T, precision
        self._values: dict[str, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        """Return a node's value [T*B, ...], in the precision asked for; values with several readers are kept."""
        if node.name in self._values:
            return self._values[node.name]
        value = self._compute(node)
        if len(node.users) > 1:
            self._values[node.name] = value
        return value

    def summands(self, node: fx.Node) -> list[Tensor]:
        """Return one or two values [T*B, ...] whose sum is a node's value: an addition is left to the scan."""
        parts = node.all_input_nodes
        plain = self.network.names[node.name] == "add" and not node.kwargs and len(node.args) == len(parts) == 2
        if plain and len(node.users) == 1 and node.name not in self.static_names:
            values = [self(part) for part in parts]
            if all(isinstance(value, Tensor) for value in values) and values[0].shape == values[1].shape:
                return values
            return [values[0] + values[1]]
        return [self(node)]

    def _compute(self, node: fx.Node) -> Any:
        if self.spiking(node.name):
            return self.spikes(node.name)
        if node.name in self.static_names:
            value = self.static(node)
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self.static.images):
                return value.to(self.precision).repeat(self.T, *(1,) * (value.ndim - 1))
        if node.op == "get_attr":
            return _double(attribute(self.network, node)) if self.double else attribute(self.network, node)
        if self.network.kinds[node.name] == "max_pool":
            return self._pool_of_sums(node)
        args, kwargs = fx.map_arg((node.args, node.kwargs), self)
        return call(self.network, node, args, kwargs, self.double)

    @property
    def double(self) -> bool:
        """Whether values are float64."""
        return self.precision == torch.float64

    def _pool_of_sums(self, node: fx.Node) -> Tensor:
        """Return maxpool(X(t)) - maxpool(X(t-1)), X the sum of the input so far."""
        x = self(node.all_input_nodes[0])
        sums = x.reshape(self.T, -1, *x.shape[1:]).cumsum(0)
        args, kwargs = fx.map_arg((node.args[1:], node.kwargs), self)
        pooled = call(self.network, node, (sums.flatten(0, 1), *args), kwargs, self.double)
        pooled = pooled.reshape(self.T, -1, *pooled.shape[1:])
        return torch.diff(pooled, dim=0, prepend=torch.zeros_like(pooled[:1])).flatten(0, 1)


def on_device(network: Network, device: torch.device) -> Network:
    """Return a network with its weights on a device, sent there once; the plans stay those of the first."""
    if device.type == "cpu":
        return network
    with COPIES:
        key = ("device", str(device))
        if key not in network.plans:
            module = copy.deepcopy(network.graph_module).to(device)
            network.plans[key] = replace(network, graph_module=module, plans={})
        return network.plans[key]


def attribute(network: Network, node: fx.Node) -> Any:
    """Return the tensor that a get_attr node names."""
    value: Any = network.graph_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _in_double(network: Network, target: str, module: nn.Module) -> nn.Module:
    """Return a layer's copy in float64, made once: the network's own layers are shared by threads and never change."""
    with COPIES:
        key = ("double", target)
        if key not in network.plans:
            network.plans[key] = copy.deepcopy(module).double()
        return network.plans[key]


@torch.no_grad()
def call(network: Network, node: fx.Node, args: Any, kwargs: Any, double: bool = False) -> Any:
    """Run one node on given arguments, its module in float64 if asked."""
    if double and network.names[node.name] in CASTS and isinstance(args[0], Tensor) and args[0].is_floating_point():
        value = call(network, node, args, kwargs)
        return args[0] if value.is_floating_point() else value
    match node.op:
        case "call_module":
            module = network.graph_module.get_submodule(str(node.target))
            return (_in_double(network, str(node.target), module) if double else module)(*args, **kwargs)
        case "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        case _:
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
