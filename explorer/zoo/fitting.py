"""Put a state dict onto an architecture: names made to agree, and every one that does not is listed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from explorer.engine.errors import CheckpointError
from explorer.zoo.architectures import build
from explorer.zoo.checkpoint import read_state
from explorer.zoo.memory import require_memory

COUNTERS = ("total_ops", "total_params")  # left behind by profilers
ALIASES = (  # other authors' names for the parts of a CIFAR ResNet
    ("layer1.", "stages.0."),
    ("layer2.", "stages.1."),
    ("layer3.", "stages.2."),
    (".downsample.", ".shortcut."),
    ("linear.", "fc."),
)


def load_checkpoint(architecture: str, source: Path | bytes, classes: int = 0, name: str = "") -> nn.Module:
    """Return a network of the zoo with the weights in a file, in eval mode, float32 on the CPU.

    architecture: a name that `architectures()` lists. classes: the number of outputs; 0 takes the checkpoint's.

    Raises:
        CheckpointError: the file cannot be used, or is of another architecture.
        SpecError: nobody knows that architecture.
    """
    name = name or (source.name if isinstance(source, Path) else "checkpoint")
    state = read_state(source, name)
    classes = classes or count_classes(state) or 10
    with torch.device("meta"):
        need = sum(p.numel() * 4 for p in build(architecture, classes).parameters())
    require_memory(3 * need, architecture)
    net = build(architecture, classes)
    return fit_state(net, state, name)


def count_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return how many outputs the last matrix of a state dict has, or None where it has no matrix."""
    matrices = [value for key, value in state.items() if value.ndim == 2 and key.endswith("weight")]
    if not matrices:
        matrices = [value for key, value in state.items() if value.ndim == 4 and value.shape[2:] == (1, 1)]
    return int(matrices[-1].shape[0]) if matrices else None


def fit_state(net: nn.Module, state: Mapping[str, Tensor], name: str = "checkpoint") -> nn.Module:
    """Load a state dict into a network, in place, and return the network in eval mode with gradients off.

    A prefix common to the weights (`model.`, `backbone.`, ...) is taken off or put on, the usual other names for the
    parts of a CIFAR ResNet are understood, and batch norm's step counters may be missing.

    Raises:
        CheckpointError: names are missing or left over, or shapes differ (all are listed), or it does not fit.
    """
    wanted = net.state_dict()
    given = {key: value for key, value in state.items() if not key.endswith(COUNTERS)}
    given = max(_readings(given, wanted), key=lambda reading: len(reading.keys() & wanted.keys()))
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    given = {**{key: value for key, value in counters.items() if key not in given}, **given}
    _require_same(wanted, given, name)
    try:
        net.load_state_dict(given)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{name}: the weights cannot be put onto the network ({error}).") from error
    return net.float().eval().requires_grad_(False)


def _readings(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """Offer the state dict as it stands, less each prefix it uses, under other names, and with a prefix put on."""
    plain = dict(state)
    yield plain
    prefixes = {key[: i + 1] for key in state for i, letter in enumerate(key) if letter == "."}
    for prefix in sorted(prefixes, key=len)[:200]:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
        if len(inner) > len(rest) and not inner.keys() & rest.keys():
            yield {**inner, **rest}
    renamed = {_rename(key): value for key, value in state.items()}
    if len(renamed) == len(plain):
        yield renamed
    tops = {key.split(".", 1)[0] for key in wanted}
    if len(tops) == 1:
        yield {f"{next(iter(tops))}.{key}": value for key, value in state.items()}


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
        raise CheckpointError(
            f"{name}: not the weights of this network ({math.floor(100 * share)} % of its names are there). "
            f"{'; '.join(faults)}. Choose the architecture it was saved from, and its number of classes."
        )


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
