"""Which calls the engine knows, by canonical name, and what each becomes in time.

A call is named alike whether it is written as a module, a function, a method or an ATen operator: `nn.ReLU()(x)`,
`F.relu(x)`, `x.relu_()` and `aten.relu_.default` are all "relu". In-place forms count as their plain ones.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from explorer.engine.clip import TrainableClip
from explorer.engine.qcfs import QuantisedClip

# An affine map runs on every step's input as it stands: its mean over time is the map of the mean.
AFFINE = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "linear",
        "batch_norm",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "mean",
        "sum",
        "add",
        "sub",
        "rsub",
        "neg",
        "cat",
        "concat",
        "concatenate",
        "flatten",
        "view",
        "reshape",
        "permute",
        "transpose",
        "contiguous",
        "getitem",
        "slice",
        "select",
        "pad",
        "constant_pad_nd",
        "chunk",
        "split",
        "split_with_sizes",
        "squeeze",
        "unsqueeze",
        "unflatten",
        "interpolate",
        "upsample",
        "channel_shuffle",
        "pixel_shuffle",
        "zero_pad2d",
        "identity",
        "stack",
        "clone",
        "detach",
        "to",
        "float",
        "expand",
        "expand_as",
        "alias",
        "dropout",
        "dropout2d",
        "feature_dropout",
        "alpha_dropout",
        "lift_fresh_copy",
        "_unsafe_view",
        "narrow",
        "roll",
        "flip",
        "type_as",
    ]
)
# Linear in one operand only: the others must not depend on the image.
SCALING = frozenset(["mul", "div", "truediv", "matmul", "mm", "addmm"])
# About shapes and devices, not values.
SHAPE_ONLY = frozenset(
    ["size", "getattr", "dim", "ndim", "numel", "sym_size", "floordiv", "eq", "_assert", "_assert_async", "shape"]
)
NO_OPS = frozenset(
    [
        "identity",
        "dropout",
        "dropout2d",
        "feature_dropout",
        "alpha_dropout",
        "contiguous",
        "clone",
        "detach",
        "alias",
        "to",
        "float",
        "lift_fresh_copy",
    ]
)
FINAL_ONLY = frozenset(["softmax", "log_softmax", "sigmoid"])
MAX_POOL = "max_pool2d"

_SYNONYMS = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "itruediv": "truediv",
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "max_pool2d_with_indices": "max_pool2d",
    "boolean_dispatch": "max_pool2d",
    "relu_": "relu",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "convolution": "conv2d",
    "clip": "clamp",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
}
_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    TrainableClip: "trainable_clip",
    QuantisedClip: "quantised_clip",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.Linear: "linear",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.AvgPool1d: "avg_pool1d",
    nn.AvgPool2d: "avg_pool2d",
    nn.AdaptiveAvgPool1d: "adaptive_avg_pool1d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
    nn.MaxPool2d: "max_pool2d",
    nn.Flatten: "flatten",
    nn.Unflatten: "unflatten",
    nn.Identity: "identity",
    nn.Dropout: "dropout",
    nn.Dropout1d: "dropout",
    nn.Dropout2d: "dropout2d",
    nn.AlphaDropout: "alpha_dropout",
    nn.ZeroPad2d: "zero_pad2d",
    nn.Upsample: "upsample",
    nn.ChannelShuffle: "channel_shuffle",
    nn.PixelShuffle: "pixel_shuffle",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
}


def canonical_name(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Return the one name under which the tables here know a call; an unknown module goes by its class name."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return _MODULES.get(type(module), type(module).__name__)
    if node.op == "call_method":
        name = str(node.target)
    elif isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name.split("::")[-1]
    else:
        name = getattr(node.target, "__name__", str(node.target))
    if name.endswith("_") and not name.startswith("__"):
        name = name[:-1]
    return _SYNONYMS.get(name, name)


def rectifier_cap(node: fx.Node, name: str, modules: dict[str, nn.Module]) -> tuple[bool, float | None]:
    """Tell whether a call rectifies, and at which upper bound (None: without one).

    ReLU, ReLU6, Hardtanh(0, c), clamp(min=0) with or without a maximum, and the trainable clip, plain or quantised, are
    rectifiers.
    """
    if name == "relu":
        return True, None
    if name == "relu6":
        return True, 6.0
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, TrainableClip | QuantisedClip):
        return True, float(module.theta.detach())
    if isinstance(module, nn.Hardtanh):
        return module.min_val == 0 and module.max_val > 0, float(module.max_val)
    if name not in ("clamp", "clamp_min", "hardtanh"):
        return False, None
    defaults = (-1.0, 1.0) if name == "hardtanh" else (None, None)
    names = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
    low, high = (  # type: ignore[assignment]
        node.args[i] if len(node.args) > i else node.kwargs.get(key, default)
        for i, key, default in zip((1, 2), names, defaults, strict=True)
    )
    if low != 0 or isinstance(high, fx.Node):
        return False, None
    return (True, None) if high is None else (float(high) > 0, float(high))  # type: ignore[arg-type]


# Calls that write their first operand or ask for its memory layout, and what to call in their place.
PLAIN_FORMS: dict[Any, Any] = {
    operator.iadd: torch.add,
    operator.isub: torch.sub,
    operator.imul: torch.mul,
    operator.itruediv: torch.div,
    operator.add: torch.add,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
}
PLAIN_METHODS = {
    "view": "reshape",
    "add_": "add",
    "sub_": "sub",
    "mul_": "mul",
    "div_": "div",
    "relu_": "relu",
    "clamp_": "clamp",
}
