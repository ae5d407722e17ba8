"""Read a state dict that somebody else wrote, trusting nothing in it.

safetensors, or .pt/.pth as torch.save writes them. A file may be truncated, malicious, a bomb of a few bytes that asks
for gigabytes, or simply not weights; each is told apart in the message. Nothing in it is executed: see `pickles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explorer.engine.errors import CheckpointError
from explorer.zoo.containers import SAVE_AGAIN, Content, Source, open_source, read_safetensors, read_torch
from explorer.zoo.memory import require_memory
from explorer.zoo.paths import is_file, why_no_file
from explorer.zoo.pickles import BYTES, Claim, Odd

AVERAGES = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "ema_model",
    "model_ema_state_dict",
    "params_ema",
    "swa_state_dict",
    "swa_model",
    "averaged_model",
)
WRAPPINGS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "state",
    *AVERAGES,
)
EVERYWHERE = ("module.", "_orig_mod.")
DEPTH_MAX = 4
NAMES_MAX, NAME_MAX = 20_000, 300  # weights of one network, and characters of a name
SHARING_MAX = 4  # weights may share numbers (tied layers), but not all share all
TYPES = {getattr(torch, kind) for kind in BYTES} | {torch.float8_e4m3fn, torch.float8_e5m2}


@dataclass(frozen=True, eq=False)
class StateDict:
    """A state dict as read: its dense tensors by name, which part of the file it is, and which parts there are.

    part: the key it lay under, "" where it is the whole file.
    """

    tensors: dict[str, Tensor]
    part: str
    parts: tuple[str, ...]


def read_state(source: Source, name: str = "") -> dict[str, Tensor]:
    """Return the state dict in a file, as `open_state` finds it."""
    return open_state(source, name).tensors


def open_state(source: Source, name: str = "", part: str | None = None) -> StateDict:
    """Return the state dict in a file: names to dense tensors on the CPU, finite throughout.

    Wrappings such as `{"state_dict": ...}` and prefixes such as `module.` on every name are taken off. Where a file
    holds an average of the weights beside the raw ones, the average is taken, as it is what accuracies are reported
    of; part says otherwise: "raw" (where the file holds both), or the key.

    Raises:
        CheckpointError: the file is missing, empty, truncated, malicious, a bomb, too large for the memory, holds no
            weights or not that part, or holds a weight that is not finite.
    """
    name = name or (source.name if isinstance(source, Path) else "checkpoint")
    size = _size(source, name)
    require_memory(2 * size, name)
    if name.lower().endswith(".onnx"):
        raise CheckpointError(f"{name}: ONNX, which is not read. Give the PyTorch network's weights. {SAVE_AGAIN}")
    if name.lower().endswith(".pt2"):
        raise CheckpointError(f"{name}: a whole program, not a state dict. Give it to the command line as --network.")
    try:
        with open_source(source) as file:
            is_new = name.lower().endswith(".safetensors") or file.read(9)[8:9] == b"{"
            file.seek(0)
            content = read_safetensors(source, name, size) if is_new else read_torch(file, name, size)
            found = _parts(content, name)
            taken = _choose(found, part, name)
            tensors = _tensors(found[taken], content, size, name)
    except MemoryError as error:
        raise CheckpointError(f"{name}: it claims more memory than there is. {SAVE_AGAIN}") from error
    except OSError as error:
        raise CheckpointError(f"{name}: the file cannot be read ({error.strerror}). Change its permissions.") from error
    return StateDict(_without_prefixes(tensors), taken, tuple(found))


def _size(source: Source, name: str) -> int:
    if isinstance(source, bytes):
        size = len(source)
    elif is_file(source):
        size = source.stat().st_size
    else:
        raise CheckpointError(f"{why_no_file(source)}. Give a .safetensors, .pt or .pth file.")
    if size == 0:
        raise CheckpointError(f"{name}: the file is empty. Copy or upload it again.")
    return size


def _parts(content: Content, name: str) -> dict[str, dict[str, Any]]:
    """Return the state dicts inside what was saved, by key: it is one itself, or they lie below the usual keys."""
    found = dict(_walk(content.root, "", DEPTH_MAX))
    if not found:
        root = content.root
        kind = f"keys {[str(key)[:40] for key in list(root)[:4]]}" if isinstance(root, Mapping) else type(root).__name__
        raise CheckpointError(f"{name}: no state dict in it ({kind}). {SAVE_AGAIN}")
    most = max(map(len, found.values()))
    return {key: state for key, state in found.items() if 2 * len(state) >= most}


def _walk(content: Any, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, Mapping) or depth == 0:
        return
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor | Claim | Odd)}
    inner = [key for key in WRAPPINGS if isinstance(content.get(key), Mapping)]
    if weights and (not inner or len(weights) > 2):
        yield path, weights
        return
    for key in inner:
        yield from _walk(content[key], f"{path}.{key}" if path else key, depth - 1)


def is_average(part: str) -> bool:
    """Tell whether a part's key names an average of weights."""
    return any(key in AVERAGES for key in part.split("."))


def _choose(found: Mapping[str, Any], part: str | None, name: str) -> str:
    averages = [key for key in found if is_average(key)]
    raw = [key for key in found if key not in averages]
    match part:
        case None | "average":
            return (averages or raw)[0]
        case "raw":
            return (raw or averages)[0]
        case _ if part in found:
            return part
    listed = ", ".join(key or "the whole file" for key in list(found)[:8])
    raise CheckpointError(f"{name}: no {part!r} weights in it; there are: {listed}. Choose one of these, or none.")


def _tensors(state: Mapping[str, Any], content: Content, size: int, name: str) -> dict[str, Tensor]:
    if len(state) > NAMES_MAX:
        raise CheckpointError(f"{name}: {len(state):,} weights, at most {NAMES_MAX:,} are read. {SAVE_AGAIN}")
    tensors, total = {}, 0
    for key, value in state.items():
        if len(key) > NAME_MAX:
            raise CheckpointError(
                f"{name}: {key[:40]}...: a name of {len(key):,} characters, at most {NAME_MAX} are read. {SAVE_AGAIN}"
            )
        if isinstance(value, Odd):
            raise CheckpointError(f"{name}: {key} is not a dense tensor. Save plain float weights.")
        if isinstance(value, Claim):
            total += _claimed(key, value, name)
            if total > SHARING_MAX * size:
                raise CheckpointError(
                    f"{name}: its weights claim more than {SHARING_MAX} times the {size:,} bytes that are there. It is "
                    "damaged, or made to fill the memory. Save it again with its tensors made contiguous."
                )
            value = content.fetch(value)
        _check_tensor(key, value, name)
        tensors[key] = value.contiguous()
    return tensors


def _claimed(key: str, claim: Claim, name: str) -> int:
    """Return the bytes that a tensor claims; no more than its storage has."""
    elements, storage = 1, claim.storage
    for length in claim.size:
        elements *= length
    claimed, stored = elements * BYTES[claim.dtype], storage.numel * BYTES.get(storage.dtype, 1)
    if elements == 0:
        raise CheckpointError(_without_elements(key, claim.size, name))
    if claimed > stored:
        raise CheckpointError(
            f"{name}: {key} claims {list(claim.size)} but {stored:,} bytes are there. The file is damaged, or made "
            "to fill the memory. Save it again with its tensors made contiguous."
        )
    return claimed


def _without_elements(key: str, shape: Any, name: str) -> str:
    return f"{name}: {key} has no elements ({list(shape)}), so it is no weight. Leave it out and save the file again."


def _check_tensor(key: str, value: Tensor, name: str) -> None:
    if value.numel() == 0:
        raise CheckpointError(_without_elements(key, value.shape, name))
    if value.dtype not in TYPES:
        raise CheckpointError(f"{name}: {key} holds {value.dtype} numbers. Save plain float weights.")
    if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
        bad = int((~torch.isfinite(value.float())).sum())
        raise CheckpointError(
            f"{name}: {bad:,} of {value.numel():,} numbers in {key} are not finite (NaN or infinity). "
            "The training diverged, or the file is damaged; take an earlier checkpoint."
        )


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name; an averaging wrapper's own counter is left out."""
    state = {key: value for key, value in state.items() if key != "n_averaged"} or state
    while any(all(key.startswith(prefix) for key in state) for prefix in EVERYWHERE):
        state = {key.split(".", 1)[1]: value for key, value in state.items()}
    return state
