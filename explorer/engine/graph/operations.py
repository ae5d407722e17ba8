"""Which calls the engine knows, by canonical name, and what each becomes in time.

A call is named alike whether it is written as a module, a function, a method or an ATen operator: `nn.ReLU()(x)`,
`F.relu(x)`, `x.relu_()` and `aten.relu_.default` are all "relu". In-place forms count as their plain ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.qcfs import QuantisedClip


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# An affine map runs on every step's input as it stands: its mean over time is the map of the mean. What is let through
# here by name is measured at every load (`guard.py`).
AFFINE_KINDS: dict[str, frozenset[str]] = {
    "weights": words(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear batch_norm "
        "addmm baddbmm einsum tensordot"
    ),
    "averages and sums": words(
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "mean sum cumsum add sub subtract rsub neg negative lerp addcmul where masked_fill"
    ),
    "shapes and places": words(
        "cat concat concatenate stack hstack dstack flatten ravel reshape view_as reshape_as _unsafe_view "
        "permute transpose swapaxes swapdims movedim moveaxis t adjoint squeeze unsqueeze unflatten expand expand_as "
        "broadcast_to getitem slice select narrow index index_select gather chunk split "
        "split_with_sizes tensor_split unbind unfold fold repeat tile repeat_interleave roll flip fliplr flipud rot90 "
        "tril triu channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle"
    ),
    "borders and sizes": words(
        "pad constant_pad_nd zero_pad2d constant_pad reflection_pad replication_pad circular_pad interpolate upsample "
        "upsample_nearest upsample_bilinear upsample_nearest1d upsample_nearest2d upsample_bilinear2d "
        "upsample_bicubic2d"
    ),
    "nothing, in evaluation": words(
        "identity dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout "
        "contiguous clone detach alias positive to float type_as lift_fresh_copy"
    ),
}
AFFINE = frozenset().union(*AFFINE_KINDS.values())
# Linear in one operand only: the others must not come from a site.
SCALING = words("mul multiply div divide true_divide matmul mm bmm")
RECTIFIERS = words("relu relu6 hardtanh clamp clamp_min threshold leaky_relu trainable_clip")
# What is written down as another call: (call, in the only form that converts).
REWRITTEN = {
    "maximum": "with a stored 0, as a rectifier",
    "minimum": "of a rectifier and a stored bound",
    "clamp_max": "of a rectifier",
    "view": "as reshape",
    "max_pool1d": "as max_pool2d",
    "adaptive_max_pool2d": "to 1×1, as max_pool2d",
    "amax": "over axes of the map, as max_pool2d",
    "max": "over an axis of the map, as max_pool2d",
}
SHAPE_ONLY = words("size")
NO_OPS = AFFINE_KINDS["nothing, in evaluation"] - {"type_as"}
FINAL_ONLY = words("softmax log_softmax sigmoid Sigmoid")
ROUNDING = words(
    "floor ceil round trunc fix frac floordiv floor_divide remainder fmod "
    "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine"
)
MAX_POOLS = words(
    "max_pool1d max_pool3d MaxPool3d AdaptiveMaxPool1d AdaptiveMaxPool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d amax max maximum"
)
MAX_POOL = "max_pool2d"

_SYNONYMS = {
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "clip": "clamp",
    "_threshold": "threshold",
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
    nn.Dropout3d: "dropout3d",
    nn.FeatureAlphaDropout: "feature_alpha_dropout",
    nn.ZeroPad1d: "constant_pad",
    nn.ZeroPad2d: "zero_pad2d",
    nn.ZeroPad3d: "constant_pad",
    nn.ConstantPad1d: "constant_pad",
    nn.ConstantPad2d: "constant_pad",
    nn.ConstantPad3d: "constant_pad",
    nn.ReflectionPad1d: "reflection_pad",
    nn.ReflectionPad2d: "reflection_pad",
    nn.ReflectionPad3d: "reflection_pad",
    nn.ReplicationPad1d: "replication_pad",
    nn.ReplicationPad2d: "replication_pad",
    nn.ReplicationPad3d: "replication_pad",
    nn.CircularPad1d: "circular_pad",
    nn.CircularPad2d: "circular_pad",
    nn.CircularPad3d: "circular_pad",
    nn.Upsample: "upsample",
    nn.UpsamplingNearest2d: "upsample_nearest",
    nn.UpsamplingBilinear2d: "upsample_bilinear",
    nn.ChannelShuffle: "channel_shuffle",
    nn.PixelShuffle: "pixel_shuffle",
    nn.PixelUnshuffle: "pixel_unshuffle",
    nn.Unfold: "unfold",
    nn.Fold: "fold",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose3d: "conv_transpose3d",
    nn.BatchNorm3d: "batch_norm",
    nn.AvgPool3d: "avg_pool3d",
    nn.AdaptiveAvgPool3d: "adaptive_avg_pool3d",
    nn.MaxPool1d: "max_pool1d",
    nn.AdaptiveMaxPool2d: "adaptive_max_pool2d",
    nn.Threshold: "threshold",
    nn.LeakyReLU: "leaky_relu",
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

    ReLU, ReLU6, Hardtanh(0, c), clamp(min=0) with or without a maximum, Threshold(0, 0), LeakyReLU(0) and the
    trainable clip, plain or quantised, are rectifiers.
    """
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if name == "relu":
        return True, None
    if name == "relu6":
        return True, 6.0
    if isinstance(module, TrainableClip | QuantisedClip):
        return True, float(module.theta.detach().max())
    if name not in _BOUNDS:
        return False, None
    low, high = (
        getattr(module, key, None) if module is not None else _given(node, place, key, default)
        for place, key, default in _BOUNDS[name]
    )
    if name in ("threshold", "leaky_relu"):  # (bound, value below it), or the slope below zero alone
        return (low == 0 and (high == 0 or name == "leaky_relu")), None
    if low != 0 or isinstance(low, bool) or not isinstance(high, int | float | None):
        return False, None
    return (True, None) if high is None or high == float("inf") else (float(high) > 0, float(high))


# Where the two numbers of a call stand: position, name, default.
_BOUNDS: dict[str, tuple[tuple[int, str, Any], tuple[int, str, Any]]] = {
    "clamp": ((1, "min", None), (2, "max", None)),
    "clamp_min": ((1, "min", None), (9, "max", None)),
    "hardtanh": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
    "threshold": ((1, "threshold", None), (2, "value", None)),
    "leaky_relu": ((1, "negative_slope", 0.01), (9, "none", None)),
}


def _given(node: fx.Node, place: int, key: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(key, default)


# Calls that ask for a memory layout, and what to call in their place.
PLAIN_FORMS: dict[Any, Any] = {
    "view": "reshape",
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
}
