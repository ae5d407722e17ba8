"""What two runs of a network have in common: one graph, for any number of images."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from explorer.engine.errors import TraceError
from explorer.engine.graph.record import Recorder

RESHAPES = frozenset(["view", "reshape", "_unsafe_view"])
FEW, MANY = 2, 3  # images of the two runs


FOLDED = (
    "frames or crops of an image are folded into the batch, so that there are more rows than images. Give the network "
    "one picture at a time, and average the scores of its frames or crops outside."
)


class _Differ(Exception):
    """Two runs are not one network."""


def join_runs(first: Recorder, second: Recorder) -> None:
    """Make the first run's graph fit any number of images, by what differs in the second's."""
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    pairs = dict(zip(nodes, others, strict=False))
    if len(nodes) != len(others) or any(
        a.op != b.op or (a.target != b.target and a.op != "output") for a, b in pairs.items()
    ):
        raise TraceError(
            "The network's calls differ between two images and three: it works through them one by one, or its control "
            "flow depends on its data. Write it for a whole batch at once."
        )
    for node, other in pairs.items():
        node.meta["shapes"] = (node.meta.get("shape"), other.meta.get("shape"))
    for node, other in pairs.items():
        try:
            if node.op == "get_attr":
                _join_constant(first, second, node, other)
            elif node.op not in ("placeholder", "output"):
                _join_call(first.graph, node, other, pairs)
        except _Differ as reason:
            raise TraceError(f"{node.name}: {reason}") from None


def _join_call(graph: fx.Graph, node: fx.Node, other: fx.Node, pairs: dict[fx.Node, fx.Node]) -> None:
    name = getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))
    open_shape = _open_shape(*node.meta["shapes"])
    if name in RESHAPES and open_shape.count(-1) == 1:
        node.args, node.kwargs = (node.args[0], open_shape), {}
        return
    operands = [n for n in node.all_input_nodes if n.op != "get_attr" and _rows(n)]

    def batch(a: int, b: int) -> fx.Node:
        """Return a number that is a in the first run and b in the second, in terms of an operand's first axis."""
        for source in operands:
            few, many = _rows(source) or (1, 1)
            if (few, many) not in ((FEW, MANY), (1, 1)):
                raise _Differ(FOLDED)
            if few != many and (b - a) % (many - few) == 0:
                factor = (b - a) // (many - few)
                with graph.inserting_before(node):
                    size = graph.call_method("size", (source, 0))
                    size = size if factor == 1 else graph.call_function(operator.mul, (size, factor))
                    rest = a - factor * few
                    return size if rest == 0 else graph.call_function(operator.add, (size, rest))
        raise _Differ(
            f"takes the number {a} for two images and {b} for three, so what it gives depends on the images beside."
        )

    def join(a: Any, b: Any) -> Any:
        if isinstance(a, fx.Node):
            if a in pairs and pairs[a] is not b:
                raise _Differ("takes another value for two images than for three.")
            return a
        if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
            return type(a)(join(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            return {key: join(a[key], b[key]) for key in a}
        if isinstance(a, slice) and isinstance(b, slice):
            return slice(join(a.start, b.start), join(a.stop, b.stop), join(a.step, b.step))
        if type(a) is int and type(b) is int and a != b:
            return batch(a, b)
        if a is b or a == b or (isinstance(a, float) and a != a):
            return a
        raise _Differ(f"takes {a!r} for two images and {b!r} for three, so what it gives depends on the images beside.")

    node.args = join(tuple(node.args), tuple(other.args))
    node.kwargs = join(dict(node.kwargs), dict(other.kwargs))


def _open_shape(few: Any, many: Any) -> tuple[int, ...]:
    """Return a shape with -1 for what differs between two runs; () where it is more than sizes."""
    if not few or not many or len(few) != len(many):
        return ()
    return tuple(a if a == b else -1 for a, b in zip(few, many, strict=True))


def _rows(node: fx.Node) -> tuple[int, int] | None:
    """Return the length of a value's first axis in both runs; None where it is no tensor with axes."""
    few, many = node.meta.get("shapes", (None, None))
    return (few[0], many[0]) if few and many else None


def _join_constant(first: Recorder, second: Recorder, node: fx.Node, other: fx.Node) -> None:
    a, b = first.constants[str(node.target)], second.constants[str(other.target)]
    if a is b or (a.shape == b.shape and _same(a, b)):
        return
    reader = next(iter(node.users), node)
    rows = a.ndim > 0 and a.shape[0] == FEW and b.shape[0] == MANY and a.shape[1:] == b.shape[1:]
    if rows and bool((a == b[:1]).all()) and bool((b == b[:1]).all()):
        first.constants[str(node.target)] = a[:1].clone()
        _expand(first.graph, node)
        return
    raise _Differ(
        f"{reader.name} takes a tensor that changes from run to run: it is drawn at random, or made of the image in a "
        "way that cannot be followed (NumPy, a scripted function). Write that part in plain PyTorch."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two values are one but for rounding."""
    if a.is_floating_point() and a.dtype == b.dtype and a.numel():
        return torch.allclose(a, b, rtol=1e-5, atol=1e-6 * float(a.abs().max()), equal_nan=True)
    return a.dtype == b.dtype and torch.equal(a, b)


def _expand(graph: fx.Graph, node: fx.Node) -> None:
    """Give each reader of a row its copies, as many as the reader's other operand has images."""
    for user in list(node.users):
        source = next(n for n in user.all_input_nodes if n.op != "get_attr" and _rows(n))
        with graph.inserting_before(user):
            size = graph.call_method("size", (source, 0))
            rows = graph.call_method("expand", (node, size, *(-1,) * (len(node.meta["shape"]) - 1)))
        user.replace_input_with(node, rows)
