"""A network's calls, written down while it runs.

The network runs on real images, so shapes are numbers, wrappers, hooks, parametrizations and branches over shapes are
plain Python, and only what a tensor goes through is written down: each call of one of torch's layers under the layer's
name, each other call of torch as it is spelled. Two runs with different images, of two and of three, tell what depends
on the number of images (it is written in terms of it) and what cannot be followed (it is refused).
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from explorer.engine.errors import TraceError, UnsupportedLayerError
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.qcfs import QuantisedClip
from explorer.engine.graph.spelling import CASTS, LIKE, READS_VALUES, UNCHANGED, Call, always_on, name_of, spell

WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


@dataclass(eq=False)
class _Known:
    """A tensor that depends on the image: the node it comes from, and the call that has since overwritten it."""

    tensor: Any
    node: fx.Node
    overwritten: str = ""


class Recorder(TorchFunctionMode):
    """Writes the calls of one run into a graph; only those that the image has a part in.

    root: the network, which must run under `listening`; constants: tensors that calls take and no image is in.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.notes: set[str] = set()
        self.origin = ""  # the module that the next call comes from, where calls do not say so themselves
        self.path = ""  # of the module that runs
        self._taken: set[str] = set()
        self._known: dict[int, _Known] = {}
        self._constant_nodes: dict[tuple[int, int], fx.Node] = {}
        self._alive: list[Tensor] = []
        stored = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
        self._stored = {id(tensor): name for name, tensor in stored}

    def image(self, x: Tensor) -> None:
        """Name the tensor that the images come in."""
        self._learn(x, self.graph.placeholder("x"))

    def scores(self, x: Any) -> None:
        """Name the tensor that the class scores are."""
        if not isinstance(x, Tensor) or x.ndim != 2:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise TraceError(f"The network must return class scores [B, K], got {shape}. Wrap it so that it does.")
        if self._find(x) is None:
            raise TraceError(
                "The network's scores do not come from its image by calls of torch that can be followed (NumPy, a "
                "scripted function or a stored number stands between). Write that part in PyTorch."
            )
        self.graph.output(self._node(x, "output"))

    # Calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        operands = list(_tensors((args, kwargs)))
        if name in LIKE or not any(self._find(t) is not None for t in operands):
            return func(*args, **kwargs)
        if name in READS_VALUES:
            raise TraceError(
                f"The network's control flow depends on its data: it reads the value of a tensor that depends on the "
                f"image ({name.strip('_')}). Replace the `if`, loop or number by one over shapes or constants."
            )
        if name in UNCHANGED and args[0].is_floating_point():
            return args[0]
        if name in CASTS and args[0].is_floating_point():
            return self._cast(func, name, args, kwargs)
        call = spell(func, name, args, kwargs)
        if call.writes is not None and self._find(call.writes) is None:
            self._constant(call.writes)  # its value before the call
        result = self._run(func, args, kwargs)
        if next(_tensors(result), None) is None and call.op != "refused":
            return result
        return self._write(call, result)

    def layer(self, path: str, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Run one of torch's layers, and write it down under its name."""
        operands = list(_tensors((args, kwargs)))
        if not any(self._find(t) is not None for t in operands):
            return forward(*args, **kwargs)
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise always_on(path)
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedLayerError(
                f"{path}: batch norm in training mode takes the statistics of the batch, so that an image's scores "
                "depend on the images beside it. Leave it in evaluation mode."
            )
        with torch._C.DisableTorchFunction():
            result = self._run(forward, args, kwargs)
        writes = operands[0] if getattr(module, "inplace", False) else None
        return self._write(Call("call_module", path, args, kwargs, path, writes), result)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            self.notes.add("autocast is left out: all is computed in float32")
            with torch.autocast("cpu", enabled=False):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Leave casts among floating-point types out: the network runs in float32 throughout."""
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.is_floating_point():
            if result.dtype != torch.float32:
                self.notes.add(f"{str(result.dtype).removeprefix('torch.')} inside the network is taken as float32")
            known = self._find(args[0])
            return self._learn(args[0].clone(), known.node) if known and result is not args[0] else args[0]
        return self._write(spell(func, name, args, kwargs), result) if isinstance(result, Tensor) else result

    def _write(self, call: Call, result: Any) -> Any:
        if call.op == "refused":
            raise UnsupportedLayerError(
                f"{call.label}: writes into part of a tensor, or over it. Build the result by torch.cat or F.pad, and "
                "assign it."
            )
        lookup = lambda value: self._node(value, call.label) if isinstance(value, Tensor) else _plain(value)  # noqa: E731
        args: Any = map_aggregate(call.args, lookup)
        kwargs: Any = map_aggregate(call.kwargs, lookup)
        place = self._place(call)
        node = self.graph.create_node(call.op, call.target, args, kwargs, place.replace(".", "_"))
        node.meta["place"] = place if self.origin else ""
        node.meta["inside"] = self.path
        if call.writes is not None:
            self._overwrite(call.writes, node, call.label)
        if isinstance(result, Tensor):
            return self._learn(result, node)
        for i, item in enumerate(result):
            if isinstance(item, Tensor):
                part = self.graph.call_function(operator.getitem, (node, i))
                self._learn(item, part)
        return result

    def _place(self, call: Call) -> str:
        """Return where a call is: the module it comes from, numbered if that was named before, or its own label."""
        place, k = self.origin or call.label, 1
        while self.origin and place in self._taken:
            place, k = f"{self.origin}_{k}", k + 1
        self._taken.add(place)
        return place

    # Tensors

    def _find(self, x: Tensor) -> _Known | None:
        known = self._known.get(id(x))
        return known if known is not None and known.tensor() is x else None

    def _learn(self, x: Tensor, node: fx.Node) -> Tensor:
        node.meta["shape"] = tuple(x.shape)
        self._known[id(x)] = _Known(weakref.ref(x), node)
        return x

    def _node(self, x: Tensor, reader: str) -> fx.Node:
        known = self._find(x)
        if known is None:
            return self._constant(x)
        if known.overwritten:
            raise TraceError(
                f"{known.overwritten} changes in place a tensor that {reader} reads again afterwards. Assign the "
                "result instead (inplace=False)."
            )
        return known.node

    def _constant(self, x: Tensor) -> fx.Node:
        key = (id(x), x._version)
        if key not in self._constant_nodes:
            name = self._stored.get(id(x))
            if name is None:
                name = f"_constant_{len(self.constants)}"
            self.constants[name] = x if id(x) in self._stored else x.detach().clone()
            self._alive.append(x)
            node = self._constant_nodes[key] = self.graph.get_attr(name)
            node.meta["shape"] = tuple(x.shape)
        return self._constant_nodes[key]

    def _overwrite(self, x: Tensor, node: fx.Node, label: str) -> None:
        """Note that a tensor has become a call's result; what shares its memory is not what it was."""
        self._learn(x, node)
        memory = x.untyped_storage()._cdata
        for known in self._known.values():
            other = known.tensor()
            if other is not None and other is not x and other.untyped_storage()._cdata == memory and _overlap(x, other):
                known.overwritten = label


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, slice):
        yield from _tensors((value.start, value.stop, value.step))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors in the same storage share an element."""
    size = a.untyped_storage().nbytes() // max(1, a.element_size())
    marked = torch.zeros(size, dtype=torch.bool)
    marked.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(marked.as_strided(b.shape, b.stride(), b.storage_offset()).any())


@contextmanager
def listening(root: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Have the layers of a network, which must be the tracer's own copy, tell the recorder of their calls."""
    listened = []
    try:
        for path, module in root.named_modules():
            if not path:
                continue
            listened.append((module, vars(module).get("forward")))
            if inner := WRAPPERS.get(type(module).__name__):
                module.forward = getattr(module, inner).__call__
            elif is_layer(module):
                module.forward = _told(recorder, path, module, module.forward)
            else:
                module.forward = _entered(recorder, path, module.forward)
        with recorder:
            yield
    finally:
        for module, forward in listened:
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _told(recorder: Recorder, path: str, module: nn.Module, forward: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: recorder.layer(path, module, forward, args, kwargs)


def _entered(recorder: Recorder, path: str, forward: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        outer, recorder.path = recorder.path, path
        try:
            return forward(*args, **kwargs)
        finally:
            recorder.path = outer

    return run


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is written down as one call: torch's own layers with plain weights, and trainable clips.

    Whatever has its weights made anew in every call (parametrized, pruned, normalised) is looked into: there they are
    constants.
    """
    if isinstance(module, TrainableClip | QuantisedClip):
        return True
    if not type(module).__module__.startswith(("torch.nn", "torch.ao.nn")):
        return False
    if isinstance(module, nn.Sequential | nn.SyncBatchNorm) or "parametrizations" in module._modules:
        return False
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
        return False
    return isinstance(weight, nn.Parameter | None) and not type(module).__module__.startswith("torch.nn.parallel")
