"""What each call of a graph becomes in time: kinds, sites, the report, and the calls without a rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import fx, nn

from explorer.engine.errors import TraceError, UnsupportedLayerError
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.guard import label, where
from explorer.engine.graph.join import FEW, FOLDED
from explorer.engine.graph.network import Kind, Network, ReportRow, Site, Unsupported, state_fingerprint
from explorer.engine.graph.operations import (
    AFFINE,
    FINAL_ONLY,
    MAX_POOL,
    MAX_POOLS,
    NO_OPS,
    ROUNDING,
    SCALING,
    SHAPE_ONLY,
    canonical_name,
    rectifier_cap,
)
from explorer.engine.graph.qcfs import QuantisedClip

QUOTIENTS = frozenset(["div", "divide", "true_divide"])
MEND = "Replace it by nn.ReLU (or another layer that converts) and fine-tune, or choose a network from the list."


@dataclass(eq=False)
class _Marks:
    """What is known of the nodes so far; `images` depend on the image, `timed` on a site."""

    module: fx.GraphModule
    modules: dict[str, nn.Module]
    notes: dict[str, str]
    kinds: dict[str, Kind] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    site_nodes: dict[str, str] = field(default_factory=dict)
    rows: list[ReportRow] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)
    once: list[Unsupported] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    timed: set[str] = field(default_factory=set)


def mark(module: fx.GraphModule, input_shape: tuple[int, ...], notes: dict[str, str]) -> Network:
    """Give every node its kind, and list sites, report and unsupported calls.

    notes: what to say of a node in the report.

    Raises:
        TraceError: there is no site.
    """
    marks, output = _Marks(module, dict(module.named_modules()), notes), ""
    for node in module.graph.nodes:
        marks.shapes[node.name] = _shape(node)
        if node.op == "output":
            output = node.args[0].name
            marks.kinds[node.name], marks.names[node.name] = "output", "output"
        else:
            _mark_node(marks, node)
    if not marks.sites:
        _refuse_without_sites(marks)
    return Network(
        module,
        marks.kinds,
        marks.names,
        marks.shapes,
        tuple(marks.sites),
        marks.site_nodes,
        tuple(marks.unsupported),
        tuple(marks.rows),
        input_shape,
        output,
        state_fingerprint(module),
    )


def _mark_node(marks: _Marks, node: fx.Node) -> None:
    """Give one node its kind; what depends on the image alone, and on no site, is computed once and may be anything."""
    if node.op in ("placeholder", "get_attr"):
        kind: Kind = "input" if node.op == "placeholder" else "constant"
        marks.kinds[node.name], marks.names[node.name] = kind, kind
        if kind == "input":
            marks.images.add(node.name)
        return
    name = marks.names[node.name] = canonical_name(node, marks.modules)
    place, shape, note = where(node), marks.shapes[node.name], marks.notes.get(node.name, "")
    if name in SHAPE_ONLY or not any(n.name in marks.images for n in node.all_input_nodes):
        marks.kinds[node.name] = "constant"
        return
    marks.images.add(node.name)
    timed = [n for n in node.all_input_nodes if n.name in marks.timed]
    rectifies, cap = rectifier_cap(node, name, marks.modules)
    if rectifies:
        _mark_site(marks, node, cap)
    elif name == MAX_POOL:
        marks.kinds[node.name] = "max_pool"
        marks.rows.append(ReportRow(place, "pool", shape, note or "exact in rate, by counts so far"))
        _require_map(marks, node)
    else:
        marks.kinds[node.name] = "affine"
        problem = _problem(marks, node, name, timed)
        if problem is not None and timed:
            marks.unsupported.append(problem)
            marks.rows.append(ReportRow(place, "unsupported", shape, f"{problem.why} {problem.mend}"))
        elif problem is not None:
            marks.once.append(problem)
            marks.rows.append(ReportRow(place, "image", shape, "before the first site: computed once, as it is"))
        elif name not in NO_OPS:
            marks.rows.append(ReportRow(place, "folded" if note else "affine", shape, note))
    if timed:
        marks.timed.add(node.name)


def _mark_site(marks: _Marks, node: fx.Node, cap: float | None) -> None:
    name = place = label(node)
    shape = marks.shapes[node.name]
    if place in marks.site_nodes:
        name = f"{place}#{sum(s.name.startswith(place) for s in marks.sites) + 1}"
    module = marks.modules.get(str(node.target)) if node.op == "call_module" else None
    clip = isinstance(module, TrainableClip | QuantisedClip)
    caps = tuple(module.theta.flatten().tolist()) if isinstance(module, TrainableClip) and module.theta.ndim else ()
    marks.sites.append(Site(name, shape, cap, len(marks.sites), clip, caps))
    marks.site_nodes[name] = node.name
    marks.kinds[node.name] = "site"
    marks.rows.append(ReportRow(name, "site", shape, "" if cap is None else f"bounded at {cap:.4g}"))
    marks.timed.add(node.name)
    _require_map(marks, node)


def _require_map(marks: _Marks, node: fx.Node) -> None:
    shape = marks.shapes[node.name]
    value = node.meta["tensor_meta"]
    if not hasattr(value, "shape"):
        why = "a max pool that gives indices as well has no rule."
        marks.unsupported.append(Unsupported(where(node), why, "Leave return_indices out, and unpool by upsampling."))
        return
    if value.shape[:1] != (FEW,):
        problem = Unsupported(where(node), *FOLDED.split(". ", 1))
        marks.unsupported.append(replace(problem, why=f"{problem.why}."))
        return
    if len(shape) not in (1, 3):
        size = "×".join(map(str, shape)) or "a single number"
        marks.unsupported.append(
            Unsupported(
                where(node),
                f"its values have the shape {size} for each image.",
                "Only C (after a linear layer) and C×H×W (feature maps) convert: reshape them so.",
            )
        )


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape[1:]) if meta is not None and hasattr(meta, "shape") else ()


def _problem(marks: _Marks, node: fx.Node, name: str, timed: list[fx.Node]) -> Unsupported | None:
    """Return why a call has no rule; None if it has one."""
    place = where(node)
    if name in ("div", "divide") and node.kwargs.get("rounding_mode") is not None:
        name = "floor_divide" if node.kwargs["rounding_mode"] == "floor" else "trunc"
    if name == "batch_norm" and node.op != "call_module":
        return Unsupported(
            place,
            "batch norm without running statistics takes those of the batch, so that an image's scores depend on the "
            "images beside it.",
            "Train or load the network with running statistics (track_running_stats=True).",
        )
    if name in AFFINE or (name in SCALING and _one_factor(node, name, timed)):
        return None
    return _explain(place, name, node, timed)


def _one_factor(node: fx.Node, name: str, timed: list[fx.Node]) -> bool:
    """Tell whether a product takes what comes from sites once, and does not divide by it."""
    positions = [i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a in timed]
    return len(timed) <= 1 and len(positions) <= 1 and not (name in QUOTIENTS and positions not in ([], [0]))


def _explain(place: str, name: str, node: fx.Node, timed: list[fx.Node]) -> Unsupported:
    if name in FINAL_ONLY and _only_reshaped_behind(node):
        return Unsupported(
            place,
            f"{name} is not affine and has no integrate-and-fire counterpart.",
            "Drop it: class scores need no softmax.",
        )
    if name in FINAL_ONLY:
        return Unsupported(
            place,
            f"{name} in the middle of the network (a gate or attention) has no integrate-and-fire counterpart.",
            "Choose a network without gates, or replace it by a rectifier with a bound and fine-tune.",
        )
    if name in SCALING and len(timed) > 1:
        return Unsupported(
            place,
            f"{name} multiplies two quantities that both depend on the image.",
            "Squeeze-and-excitation and attention cannot be converted; choose a network without them.",
        )
    if name in SCALING:
        return Unsupported(
            place, f"{name} is not linear in a quantity that comes from neurons.", "Divide by numbers that are stored."
        )
    if name in ROUNDING:
        return Unsupported(
            place,
            f"{name} rounds: it belongs to a quantiser, and spikes are the quantiser here.",
            "Leave it out and keep the clip around it, clamp(x, 0, bound): its bound becomes the threshold.",
        )
    if name in MAX_POOLS:
        return Unsupported(place, f"{name} has no rule.", "Use max_pool2d or an average pool.")
    if "Norm" in name or name.endswith("_norm"):
        return Unsupported(
            place,
            f"{name} divides by a deviation that depends on the image, which has no integrate-and-fire counterpart.",
            "Use batch norm, which has fixed statistics, and train again; or choose a network from the list.",
        )
    return Unsupported(place, f"{name.strip('_')} has no integrate-and-fire counterpart.", MEND)


def _only_reshaped_behind(node: fx.Node) -> bool:
    """Tell whether a node's value goes to the output as it is."""
    users = list(node.users)
    if len(users) != 1:
        return False
    return users[0].op == "output" or (
        users[0].op in ("call_method", "call_function")
        and canonical_name(users[0], {}) in ("flatten", "reshape", "view", "squeeze")
        and _only_reshaped_behind(users[0])
    )


def _refuse_without_sites(marks: _Marks) -> None:
    found = [*marks.unsupported, *marks.once]
    if found:
        named = ", ".join(f"{p.call}: {p.why.split()[0]}" for p in found[:3])
        raise UnsupportedLayerError(
            f"The network calls no ReLU, so there is nothing to convert; its other activations have no counterpart "
            f"({named}). {MEND}"
        )
    raise TraceError(
        "The network calls no ReLU, so there is nothing to convert. Choose a network with ReLU, ReLU6, "
        "clamp(min=0) or the trainable clip between its layers."
    )
