"""Read a state dict that somebody else wrote, trusting nothing in it.

safetensors, or .pt/.pth through torch's weights-only unpickler. A file may be truncated, malicious, a bomb of a few
kilobytes that unpacks to terabytes, or simply not weights; each is told apart in the message.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from explorer.engine.errors import CheckpointError
from explorer.zoo.memory import require_memory

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
    "ema",
    "model_ema",
)
EVERYWHERE = ("module.", "_orig_mod.")
DEPTH_MAX = 4
ZIP = b"PK\x03\x04"
SAVE_AGAIN = "Save it again by torch.save(model.state_dict(), path) or as safetensors."


def read_state(source: Path | bytes, name: str = "") -> dict[str, Tensor]:
    """Return the state dict in a file: names to dense tensors on the CPU, finite throughout.

    Wrappings such as `{"state_dict": ...}` and prefixes such as `module.` on every name are taken off.

    Raises:
        CheckpointError: the file is missing, empty, truncated, malicious, a bomb, too large for the memory, holds no
            weights, or holds a weight that is not finite.
    """
    name = name or (source.name if isinstance(source, Path) else "checkpoint")
    size = _size(source, name)
    require_memory(2 * size, name)
    if name.lower().endswith(".onnx"):
        raise CheckpointError(f"{name}: ONNX, which is not read. Give the PyTorch network's weights. {SAVE_AGAIN}")
    if name.lower().endswith(".pt2"):
        raise CheckpointError(f"{name}: a whole program, not a state dict. Give it to the command line as --network.")
    content = _read_safetensors(source, name) if _is_safetensors(source, name) else _read_pickle(source, name, size)
    state = _unwrap(content, name)
    for key, value in state.items():
        _check_tensor(key, value, name)
    while any(all(key.startswith(prefix) for key in state) for prefix in EVERYWHERE):
        state = {key.split(".", 1)[1]: value for key, value in state.items()}
    return state


def _size(source: Path | bytes, name: str) -> int:
    if isinstance(source, bytes):
        size = len(source)
    elif source.is_file():
        size = source.stat().st_size
    else:
        raise CheckpointError(f"{source}: there is no such file. Give a .safetensors, .pt or .pth file.")
    if size == 0:
        raise CheckpointError(f"{name}: the file is empty. Copy or upload it again.")
    return size


def _head(source: Path | bytes, length: int) -> bytes:
    if isinstance(source, bytes):
        return source[:length]
    with source.open("rb") as file:
        return file.read(length)


def _is_safetensors(source: Path | bytes, name: str) -> bool:
    return name.lower().endswith(".safetensors") or _head(source, 9)[8:9] == b"{"


def _read_safetensors(source: Path | bytes, name: str) -> dict[str, Tensor]:
    try:
        return load(source) if isinstance(source, bytes) else load_file(source)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{name}: not a whole safetensors file ({error}). Copy or upload it again.") from error


def _read_pickle(source: Path | bytes, name: str, size: int) -> Any:
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    if zipfile.is_zipfile(opened):
        check_archive(opened, name, size)
    elif _begins_with(source, ZIP):
        raise CheckpointError(
            f"{name}: truncated: its archive begins but its end is missing. Copy or upload it again, all of it "
            f"({size:,} bytes arrived)."
        )
    if isinstance(opened, io.BytesIO):
        opened.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(opened, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise CheckpointError(f"{name}: it claims more memory than there is. {SAVE_AGAIN}") from error
    except Exception as error:  # a broken pickle raises whatever it likes
        forbidden = re.search(r"GLOBAL ([\w.]+)|class (?:'|`)?([\w.]+)(?:'|`)? |function ([\w.]+)", str(error))
        if "weights" in str(error).lower() and forbidden:
            what = next(group for group in forbidden.groups() if group)
            raise CheckpointError(
                f"{name}: it holds more than weights ({what}), and code in a checkpoint is never run. {SAVE_AGAIN}"
            ) from error
        raise CheckpointError(
            f"{name}: truncated, or not a checkpoint that torch.save wrote. Copy or upload it again; if it is whole: "
            f"{SAVE_AGAIN[0].lower()}{SAVE_AGAIN[1:]}"
        ) from error


def _begins_with(source: Path | bytes, start: bytes) -> bool:
    if isinstance(source, bytes):
        return source.startswith(start)
    with source.open("rb") as file:
        return file.read(len(start)) == start


def check_archive(source: Path | io.BytesIO, name: str, size: int) -> None:
    """Require of a zip that it unpacks to no more than it is: torch never compresses, a bomb must.

    Raises:
        CheckpointError: it unpacks to more than the file's own size, or is a TorchScript or exported program.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{name}: the archive is damaged ({error}). Copy or upload it again.") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{name}: a compressed archive ({size:,} bytes that unpack to {unpacked:,}), which torch.save never "
            f"writes. {SAVE_AGAIN}"
        )
    inner = {entry.filename.split("/", 1)[-1] for entry in entries}
    if "constants.pkl" in inner or any(entry.startswith("code/") for entry in inner):
        raise CheckpointError(f"{name}: a TorchScript program, not a state dict. {SAVE_AGAIN}")
    if "archive_format" in inner:
        raise CheckpointError(
            f"{name}: an exported program, not a state dict. Give it to the command line as --network."
        )


def _unwrap(content: Any, name: str) -> dict[str, Tensor]:
    """Find the state dict inside what was saved: itself, or below one of the usual keys."""
    for _ in range(DEPTH_MAX):
        if isinstance(content, Tensor) or not isinstance(content, Mapping):
            break
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        inner = next((content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)), None)
        if tensors and (inner is None or len(tensors) > 2):
            return tensors
        if inner is None:
            break
        content = inner
    kind = f"keys {list(content)[:4]}" if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(f"{name}: no state dict in it ({kind}). {SAVE_AGAIN}")


def _check_tensor(key: str, value: Tensor, name: str) -> None:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise CheckpointError(f"{name}: {key} is not a dense tensor. Save plain float weights.")
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > stored:
        raise CheckpointError(
            f"{name}: {key} claims {list(value.shape)} but {stored:,} bytes are there. The file is damaged, or made "
            "to fill the memory. Save it again with its tensors made contiguous."
        )
    if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
        bad = int((~torch.isfinite(value.float())).sum())
        raise CheckpointError(
            f"{name}: {bad:,} of {value.numel():,} numbers in {key} are not finite (NaN or infinity). "
            "The training diverged, or the file is damaged; take an earlier checkpoint."
        )
