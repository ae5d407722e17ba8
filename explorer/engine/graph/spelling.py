"""How a call of torch is written down: in-place and operator spellings as the plain call that gives the same."""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.engine.errors import UnsupportedLayerError
from explorer.engine.graph.operations import words

# What gives a Python value, or memory, that the image decides.
READS_VALUES = words(
    "__bool__ __int__ __float__ __index__ __complex__ __contains__ __array__ __dlpack__ item tolist numpy is_nonzero "
    "equal allclose data_ptr"
)
# What asks for a tensor's shape and type, and not for its values.
LIKE = words(
    "ones_like zeros_like full_like empty_like rand_like randn_like randint_like "
    "new_zeros new_ones new_full new_empty new_tensor new"
)
UNCHANGED = words("requires_grad_ retain_grad data real detach detach_ resolve_conj")
CASTS = words("to float double half bfloat16 type type_as _to_copy")
DROPOUTS = words(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout"
)
PROPERTIES: dict[str, Callable[[Tensor], tuple[str, tuple[Any, ...]]]] = {
    "T": lambda x: ("permute", (tuple(reversed(range(x.ndim))),)),
    "mT": lambda x: ("transpose", (-2, -1)),
    "H": lambda x: ("transpose", (-2, -1)),
    "mH": lambda x: ("transpose", (-2, -1)),
}
SPELLINGS: dict[str, Any] = {
    "__getitem__": operator.getitem,
    "__floordiv__": operator.floordiv,
    "__rsub__": torch.rsub,
}


@dataclass(eq=False)
class Call:
    """A call as it is written down: in place of what it overwrites, it gives a value; writes: what it overwrote."""

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    label: str
    writes: Tensor | None = None


def name_of(func: Any) -> str:
    """Return the plain name of a function, method, property or operator of torch."""
    if isinstance(func, torch._ops.OpOverload):
        return func._schema.name.split("::")[-1]
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return func.__self__.__name__
    return name


def spell(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return the call that gives what this one gives or leaves in its operand."""
    args, kwargs, inplace = _without_inplace(func, args, kwargs)
    first = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
    writing = name.endswith("_") and not name.startswith("__")
    if name in ("__setitem__", "__set__") or (name.startswith("__i") and name not in ("__invert__", "__index__")):
        return Call("refused", name, args, kwargs, "an assignment" if "set" in name else name.strip("_"))
    if kwargs.get("out") is not None:
        return Call("refused", name, args, kwargs, name)
    _refuse_dropout(name, args, kwargs)
    if name in PROPERTIES and getattr(func, "__name__", "") == "__get__":
        name, rest = PROPERTIES[name](args[0])
        return Call("call_method", name, (args[0], *rest), {}, name)
    if getattr(func, "__name__", "") == "__get__":
        asked = getattr(torch, name, None)  # torch.imag for x.imag
        return Call("call_function", asked or getattr, args[:1] if asked else (args[0], name), {}, name)
    if name in SPELLINGS:
        return Call("call_function", SPELLINGS[name], args, kwargs, SPELLINGS[name].__name__)
    plain = name.removesuffix("_") if writing else name
    written = first if writing or inplace else None
    if isinstance(func, torch._ops.OpOverload):
        target: Any = func
        if writing:
            packet = getattr(getattr(torch.ops, func.namespace), plain, None)
            target = getattr(packet, func._overloadname, None)
        return Call("call_function" if target else "refused", target, args, kwargs, name, written)
    if _is_method(func):
        known = hasattr(Tensor, plain)
        return Call("call_method" if known else "refused", plain, args, kwargs, name, written)
    if writing:
        func = getattr(F, plain, None) or getattr(torch, plain, None)
        return Call("call_function" if func else "refused", func, args, kwargs, name, written)
    return Call("call_function", func, args, kwargs, name, written)


def _is_method(func: Any) -> bool:
    kinds = (types.MethodDescriptorType, types.WrapperDescriptorType)
    return isinstance(func, kinds) or getattr(Tensor, getattr(func, "__name__", ""), None) is func


def _without_inplace(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    """Return the arguments with inplace=False, and whether it was true."""
    if not isinstance(func, types.FunctionType) or func.__module__ != "torch.nn.functional":
        return args, kwargs, False
    names = list(inspect.signature(func).parameters)
    if "inplace" not in names:
        return args, kwargs, False
    at = names.index("inplace")
    inplace = bool(args[at]) if len(args) > at else bool(kwargs.get("inplace"))
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    return args[:at] + args[at + 1 :] if len(args) > at else args, kwargs, inplace


def _refuse_dropout(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if name.removesuffix("_") not in DROPOUTS:
        return
    given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    default = name.removesuffix("_") in ("dropout",)
    training = given.get("training", given.get("train", default))
    if training and given.get("p", 0.5) > 0:
        raise always_on(name)


def always_on(label: str) -> UnsupportedLayerError:
    """Return the error that says that a dropout draws in evaluation too."""
    return UnsupportedLayerError(
        f"{label}: dropout that is always on: it draws at random in evaluation too, so that no two runs give the same "
        "scores. Give it training=self.training, or leave it out."
    )
