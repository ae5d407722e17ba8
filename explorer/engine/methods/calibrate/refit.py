"""Weights refitted in closed form to what really arrives: ridge regression towards the old weights.

    min over dW, db  of  sum over the sample of |z - W u - b - r - dW u - db|^2  +  lambda |dW|^2

u: the mean decoded input of a layer at a place; r: what else reaches the site, such as a shortcut; z: the ANN's
pre-activation there. lambda is a share of the mean square of u's elements, times the sample's size, so that neither the
scale of activations nor the number of images matters. What the layers before lose in rate, this one makes up for.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from explorer.engine.graph import Network, state_fingerprint
from explorer.engine.graph.operations import NO_OPS

MOST_INPUTS = 2400  # of one neuron: beyond, the normal equations would take minutes


def own_copy(network: Network) -> Network:
    """Return a network with weights of its own, which may be changed until it is `sealed`."""
    return replace(network, graph_module=copy.deepcopy(network.graph_module), plans={})


def sealed(network: Network) -> Network:
    """Return the changed network under a fingerprint of its own."""
    return replace(network, fingerprint=state_fingerprint(network.graph_module), plans={})


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer whose output reaches one site alone, with nothing but sums on the way."""

    node: fx.Node
    module: nn.Conv2d | nn.Linear

    @property
    def source(self) -> fx.Node:
        """What goes into it."""
        return self.node.all_input_nodes[0]

    @property
    def inputs(self) -> int:
        """Inputs of one neuron."""
        return self.module.weight[0].numel()

    def patches(self, u: Tensor, places: Tensor) -> Tensor:
        """Return what the neurons at places, int64 [B, n], read of the input u [B, ...]: [B, n, inputs]."""
        if isinstance(self.module, nn.Linear):
            return u.flatten(1)[:, None].expand(-1, places.shape[1], -1)
        m = self.module
        assert not isinstance(m.padding, str)
        columns = F.unfold(u, m.kernel_size, m.dilation, m.padding, m.stride)  # type: ignore[arg-type]
        return columns.transpose(1, 2)[torch.arange(len(places))[:, None], places]

    def change(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Add delta, float64 [inputs + 1, C], to weights and bias; return those it had."""
        m = self.module
        weight = m.weight.detach()
        bias = torch.zeros(len(weight)) if m.bias is None else m.bias.detach()
        changed = weight.double() + delta[:-1].T.reshape(weight.shape)
        self._set(changed.float(), (bias.double() + delta[-1]).float())
        return weight, bias

    def keep(self, old: tuple[Tensor, Tensor], better: Tensor) -> None:
        """Go back to the old weights and bias but for the output channels `better`, bool [C]."""
        weight, bias = old
        assert self.module.bias is not None
        rows = better.reshape(-1, *(1,) * (weight.ndim - 1))
        self._set(torch.where(rows, self.module.weight, weight), torch.where(better, self.module.bias, bias))

    def _set(self, weight: Tensor, bias: Tensor) -> None:
        self.module.weight = nn.Parameter(weight, requires_grad=False)
        self.module.bias = nn.Parameter(bias, requires_grad=False)


def layer_before(network: Network, value: fx.Node, dynamic: frozenset[str]) -> Layer | None:
    """Return the largest layer that sums into a value and can be refitted; None if there is none.

    dynamic: nodes that depend on a spike: what reads the image alone is exact already.
    """
    found: list[Layer] = []
    calls = [str(n.target) for n in network.graph_module.graph.nodes if n.op == "call_module"]
    pending = [value]
    while pending:
        node = pending.pop()
        if len(node.users) != 1 or node.name not in dynamic:
            continue
        name = network.names[node.name]
        if name == "add" or (name in NO_OPS and network.kinds[node.name] == "affine"):
            pending += node.all_input_nodes
        module = network.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is None or calls.count(str(node.target)) != 1 or node.all_input_nodes[0].name not in dynamic:
            continue
        plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
        flat = isinstance(module, nn.Linear) and len(network.shapes[node.name]) == 1
        if flat or (plain and not isinstance(module.padding, str)):
            found.append(Layer(node, module))  # type: ignore[arg-type]
    found = [layer for layer in found if layer.inputs <= MOST_INPUTS]
    return max(found, key=lambda layer: layer.inputs) if found else None


def ridge(u: Tensor, residual: Tensor, share: float) -> Tensor:
    """Return the change of weights and bias, float64 [F + 1, C], that explains a residual.

    u: float [S, F]; residual: [S, C]; share: lambda over the mean square of u's elements times S. The bias is free.
    """
    u, residual = u.double(), residual.double()
    middle, miss = u.mean(0), residual.mean(0)
    centred = u - middle
    gram = centred.T @ centred
    penalty = share * float(u.square().mean()) * len(u)
    gram.diagonal().add_(penalty if penalty > 0 else 1.0)
    delta = torch.linalg.solve(gram, centred.T @ (residual - miss))
    return torch.cat([delta, (miss - middle @ delta)[None]])
