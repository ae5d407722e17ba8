"""A traced network: sites, what lies between them, and how to run it as an ANN."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from explorer.engine.errors import SpecError

PASS_BYTES, ALIVE = 256 * 2**20, 4  # of one pass; float32 maps of the largest size that live at a time
Kind = Literal["input", "constant", "site", "affine", "max_pool", "output"]


@dataclass(frozen=True)
class Site:
    """One call of a rectifier: the place of one layer of integrate-and-fire neurons.

    shape excludes the batch, `(C, H, W)` or `(C,)`; cap is the rectifier's own upper bound, in activation units; where
    each channel has its own, the largest of them, and caps are all.
    """

    name: str
    shape: tuple[int, ...]
    cap: float | None
    order: int
    trained_clip: bool = False
    caps: tuple[float, ...] = ()

    @property
    def bound(self) -> float | Tensor | None:
        """The upper bound as `clamp` takes it: float32 [C, 1, ...] where each channel has its own."""
        return torch.tensor(self.caps).reshape(-1, *(1,) * (len(self.shape) - 1)) if self.caps else self.cap

    def rectified(self, x: Tensor) -> Tensor:
        """Return what the rectifier makes of its input [B, *site], without the levels of a quantised one."""
        a = x.clamp(min=0)
        return a if self.bound is None else torch.clamp(a, max=torch.as_tensor(self.bound).to(a))

    @property
    def neurons(self) -> int:
        """How many neurons the site has."""
        return int(torch.Size(self.shape).numel())

    @property
    def channels(self) -> int:
        """How many channels the site has."""
        return self.shape[0]


@dataclass(frozen=True)
class Unsupported:
    """A call without a rule: which, why, and the mend."""

    call: str
    why: str
    mend: str

    def __str__(self) -> str:
        return f"{self.call}: {self.why} {self.mend}"


@dataclass(frozen=True)
class ReportRow:
    """One line of the conversion report."""

    node: str
    kind: str
    shape: tuple[int, ...]
    note: str


@dataclass(frozen=True, eq=False)
class Network:
    """An ANN as a graph of calls with its rectifiers marked as sites; owns its weights and never changes.

    Node names are those of `graph_module`; `kinds` and `names` give each node's kind and canonical name, `shapes` its
    shape without the batch.
    """

    graph_module: fx.GraphModule
    kinds: dict[str, Kind]
    names: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    sites: tuple[Site, ...]
    site_nodes: dict[str, str]
    unsupported: tuple[Unsupported, ...]
    rows: tuple[ReportRow, ...]
    input_shape: tuple[int, ...]
    output: str
    fingerprint: str
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    def site(self, name: str) -> Site:
        """Return the site of that name.

        Raises:
            SpecError: there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise SpecError(f"{name}: no such site. The network has {', '.join(s.name for s in self.sites)}.")

    @property
    def clips_trained(self) -> bool:
        """Whether every site was trained with its bound, which is then its threshold."""
        return all(site.trained_clip for site in self.sites)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The graph's modules by name."""
        return dict(self.graph_module.named_modules())

    def node(self, name: str) -> fx.Node:
        """Return the graph's node of that name."""
        return next(n for n in self.graph_module.graph.nodes if n.name == name)

    def report(self) -> list[dict[str, Any]]:
        """List every call: what it became, its output's shape, and what to know about it."""
        return [{"node": r.node, "kind": r.kind, "shape": r.shape, "note": r.note} for r in self.rows]

    def at_once(self, most: int, keep_sites: bool = False) -> int:
        """Return how many images, at most so many, the ANN takes in one pass of 256 MiB; at least one.

        keep_sites: the activations of all sites are kept as well.
        """
        sizes = [prod(shape) for shape in self.shapes.values() if all(isinstance(n, int) for n in shape)]
        kept = sum(prod(site.shape) for site in self.sites) if keep_sites else 0
        return max(1, min(most, PASS_BYTES // (4 * (ALIVE * max(sizes, default=1) + kept))))

    def forward(self, images: Tensor, batch: int = 64) -> Tensor:
        """Return the ANN's class scores [B, K] for images [B, C, H, W], at most so many in one pass."""
        batch = self.at_once(batch)
        scores = [self._run(images[i : i + batch], ())[0] for i in range(0, len(images), batch)]
        return torch.cat(scores)

    def activations(self, images: Tensor, sites: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the ANN's activations [B, *site] at the sites named (None: all), in activation units."""
        wanted = [s.name for s in self.sites] if sites is None else list(sites)
        return self._run(images, wanted)[1]

    @torch.no_grad()
    def _run(self, images: Tensor, wanted: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        self.check_images(images)
        keep = {self.site_nodes[name]: name for name in wanted}
        for name in keep.values():
            self.site(name)
        x = images.float().to(memory_format=torch.channels_last) if images.ndim == 4 else images.float()
        interpreter = _Interpreter(self.graph_module, set(keep))
        scores = interpreter.run(x)
        return scores.float(), {keep[node]: value for node, value in interpreter.kept.items()}

    def check_images(self, images: Tensor) -> None:
        """Require float images of the traced shape.

        Raises:
            SpecError: shape or type is another, or a pixel is not finite.
        """
        if tuple(images.shape[1:]) != self.input_shape or images.ndim != len(self.input_shape) + 1:
            raise SpecError(
                f"images: shape {tuple(images.shape)}, but the network was traced for [B, "
                f"{', '.join(map(str, self.input_shape))}]. Resize the images, or trace with an example of their size."
            )
        if not images.is_floating_point():
            raise SpecError(f"images: {images.dtype}, expected normalised floats. Normalise them as the card says.")
        if not torch.isfinite(images).all():
            raise SpecError("images: a pixel is not finite. Check the mean and standard deviation.")

    def macs(self) -> dict[str, int]:
        """Count multiply-accumulates per image in the weights that feed each site; the last layer's are 'readout'.

        Convolutions and linear layers count; a weight that feeds several sites counts at the first.
        """
        result, pending = {}, 0
        order = {node: name for name, node in self.site_nodes.items()}
        for node in self.graph_module.graph.nodes:
            pending += self.node_macs(node)
            if node.name in order:
                result[order[node.name]] = pending
                pending = 0
        result["readout"] = pending
        return result

    def node_macs(self, node: fx.Node) -> int:
        """Count one call's multiply-accumulates per image: 0 unless it is a convolution or a linear layer."""
        module = self.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            return module.weight.numel() * int(torch.Size(self.shapes[node.name][1:]).numel())
        if isinstance(module, nn.Linear):
            return module.weight.numel() * int(torch.Size(self.shapes[node.name][:-1]).numel())
        return 0


class _Interpreter(fx.Interpreter):
    """Run a graph and keep the values of some nodes."""

    def __init__(self, module: fx.GraphModule, keep: set[str]) -> None:
        super().__init__(module)
        self.keep = keep
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.keep:
            self.kept[n.name] = value
        return value


def state_fingerprint(module: fx.GraphModule) -> str:
    """Return a short digest of a graph's code, its layers' options and its weights."""
    digest = hashlib.blake2b(module.code.encode(), digest_size=12)
    for node in module.graph.nodes:
        if node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            plain = {k: v for k, v in vars(layer).items() if k[0] != "_" and isinstance(v, int | float | str | tuple)}
            digest.update(f"{node.target} {type(layer)} {layer.extra_repr()} {sorted(plain.items())}".encode())
        meta = node.meta.get("tensor_meta")
        digest.update(str(tuple(getattr(meta, "shape", ()))).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
