"""Put a state dict onto an architecture: names made to agree, and every one that does not is listed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from explorer.engine.errors import CheckpointError
from explorer.engine.graph.clip import shape_clips
from explorer.zoo.architectures import build
from explorer.zoo.checkpoint import open_state
from explorer.zoo.memory import require_memory

COUNTERS = ("total_ops", "total_params", "n_averaged")  # left behind by profilers and averaging wrappers
MEASURES = re.compile(r"(^|_)(acc|accuracy|auroc|confmat|criterion|f1|loss|metrics?|precision|recall)(_|\d|$)")
CLASSES_MAX = 100_000
PREFIX_DEPTH = 12
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
ALIASES = (  # other authors' names for the parts of a CIFAR ResNet
    ("layer1.", "stages.0."),
    ("layer2.", "stages.1."),
    ("layer3.", "stages.2."),
    (".downsample.", ".shortcut."),
    ("linear.", "fc."),
)


def load_checkpoint(
    architecture: str, source: Path | bytes, classes: int = 0, name: str = "", part: str | None = None
) -> nn.Module:
    """Return a network of the zoo with the weights in a file, in eval mode, float32 on the CPU.

    architecture: a name that `architectures()` lists. classes: the number of outputs; 0 takes the checkpoint's. part:
    which weights, where a file holds several; see `open_state`.

    Raises:
        CheckpointError: the file cannot be used, or is of another architecture.
        SpecError: nobody knows that architecture.
    """
    name = name or (source.name if isinstance(source, Path) else "checkpoint")
    return fit_architecture(architecture, open_state(source, name, part).tensors, classes, name)


def fit_architecture(architecture: str, state: Mapping[str, Tensor], classes: int = 0, name: str = "") -> nn.Module:
    """Return a network of the zoo with a state dict; names, shapes and memory are looked at before it is built.

    Raises:
        CheckpointError: the weights are of another architecture, or the network does not fit the memory.
        SpecError: nobody knows that architecture.
    """
    name = name or "checkpoint"
    classes = classes or count_classes(state) or 10
    if classes > CLASSES_MAX:
        raise CheckpointError(f"{name}: {classes:,} classes, at most {CLASSES_MAX:,} are taken. Is this a classifier?")
    with torch.device("meta"):
        sketch = shape_clips(build(architecture, classes), state)
    require_memory(3 * 4 * sum(p.numel() for p in sketch.parameters()), architecture)
    match_names(sketch.state_dict(), state, name)
    return fit_state(shape_clips(build(architecture, classes), state), state, name)


def count_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return how many outputs the last matrix of a state dict has, or None where it has no matrix."""
    matrices = [value for key, value in state.items() if value.ndim == 2 and key.endswith("weight")]
    if not matrices:
        matrices = [value for key, value in state.items() if value.ndim == 4 and value.shape[2:] == (1, 1)]
    return int(matrices[-1].shape[0]) if matrices else None


def fit_state(net: nn.Module, state: Mapping[str, Tensor], name: str = "checkpoint") -> nn.Module:
    """Load a state dict into a network, in place, and return the network in eval mode with gradients off.

    Raises:
        CheckpointError: names are missing or left over, or shapes differ (all are listed), or it does not fit.
    """
    given = match_names(net.state_dict(), state, name)
    try:
        net.load_state_dict(given)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{name}: the weights cannot be put onto the network ({error}).") from error
    return net.float().eval().requires_grad_(False)


def match_names(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a state dict under the names that a network wants.

    A prefix common to the weights (`model.`, `backbone.`, ...) is taken off or put on, wrappers' names within a name
    (`features.module.0`) are left out, the usual other names for the parts of a CIFAR ResNet are understood, and batch
    norm's step counters may be missing. What is no part of the network is left out: all that lies beside a prefix that
    holds the whole network, counters of profilers and averaging wrappers, buffers of metrics and losses.

    Raises:
        CheckpointError: names are missing or left over, or shapes differ (all are listed).
    """
    given = {key: value for key, value in state.items() if key in wanted or not _is_bookkeeping(key)}
    given = max(_readings(given, wanted), key=lambda reading: len(reading.keys() & wanted.keys()))
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    given = {**{key: torch.zeros_like(value, device="cpu") for key, value in counters.items()}, **given}
    _require_same(wanted, given, name)
    return given


def _is_bookkeeping(key: str) -> bool:
    first, last = key.split(".", 1)[0], key.rsplit(".", 1)[-1]
    return last in COUNTERS or (first != last and MEASURES.search(first) is not None)


def _readings(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """Offer the state dict as it stands, without wrappers' names, less a prefix most names share, under other names."""
    plain = dict(state)
    yield plain
    for base in (plain, _renamed(plain, _unwrap)):
        yield base
        for inner, rest in _without_prefix(base):
            yield inner if wanted.keys() - inner.keys() <= _counters(wanted) else {**inner, **rest}
            yield _renamed(inner, _rename)
        yield _renamed(base, _rename)
    tops = {key.split(".", 1)[0] for key in wanted}
    if len(tops) == 1:
        yield {f"{next(iter(tops))}.{key}": value for key, value in state.items()}


def _counters(wanted: Mapping[str, Tensor]) -> set[str]:
    return {key for key in wanted if key.endswith("num_batches_tracked")}


def _without_prefix(state: Mapping[str, Tensor]) -> Iterable[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Offer (the names below a prefix, less it; the others) for every prefix that more than half of the names have.

    In the order of the alphabet such names stand side by side and take in the middle one, so only its prefixes count.
    """
    if not state:
        return
    parts = sorted(state)[len(state) // 2].split(".")
    for depth in range(1, min(len(parts), PREFIX_DEPTH + 1)):
        prefix = ".".join(parts[:depth]) + "."
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
        if len(inner) > len(rest) and not inner.keys() & rest.keys():
            yield inner, rest


def _renamed(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Return a state dict under other names; as it is where two would get one name."""
    renamed = {rename(key): value for key, value in state.items()}
    return renamed if len(renamed) == len(state) else dict(state)


def _unwrap(key: str) -> str:
    """Return a name without the parts that wrappers of modules put into it."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _rename(key: str) -> str:
    for theirs, ours in ALIASES:
        key = key.replace(theirs, ours) if theirs.startswith(".") else _replace_head(key, theirs, ours)
    return key


def _replace_head(key: str, theirs: str, ours: str) -> str:
    return ours + key.removeprefix(theirs) if key.startswith(theirs) else key


def _require_same(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{key} is {list(given[key].shape)}, the network's is {list(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    faults = [
        f"{len(found)} {kind}: {_few(found)}"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if found
    ]
    if faults:
        share = 1 - len(missing) / max(1, len(wanted))
        mend = "Choose the architecture it was saved from, and its number of classes."
        if not unexpected and not shapes and share >= 0.5:
            mend = (
                "Save all of its weights; a file of `finetune --frozen-above` leaves some to another and is opened on "
                "the command line, by --network, its card beside it."
            )
        raise CheckpointError(
            f"{name}: not the weights of this network ({math.floor(100 * share)} % of its names are there). "
            f"{'; '.join(faults)}. {mend}"
        )


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
