"""What is in a file of weights, before any of it is read: the names, and where each tensor's numbers lie.

torch.save's archives and its older stream are read by `pickles`, safetensors by its library once the header has been
looked through. Every length in a file is held against what the file really holds.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from explorer.engine.errors import CheckpointError
from explorer.zoo import pickles
from explorer.zoo.pickles import BYTES, Claim, Forbidden, Unreadable

ZIP = b"PK\x03\x04"
SAVE_AGAIN = "Save it again by torch.save(model.state_dict(), path) or as safetensors."
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
HEADER_MAX, DIRECTORY_MAX, PICKLE_MAX = 4 * 2**20, 8 * 2**20, 64 * 2**20
Source = Path | bytes


@dataclass(frozen=True, eq=False)
class Content:
    """What a file describes: dicts, lists, claims (or tensors already), and how to fetch a claim's numbers."""

    root: Any
    fetch: Callable[[Claim], Tensor]


def damaged(name: str, why: str) -> CheckpointError:
    """Return the error of a file that is no whole checkpoint."""
    return CheckpointError(
        f"{name}: truncated, or not a checkpoint that torch.save wrote ({why}). Copy or upload it again; if it is "
        f"whole: {SAVE_AGAIN[0].lower()}{SAVE_AGAIN[1:]}"
    )


def open_source(source: Source) -> BinaryIO:
    """Return a file or bytes as something to read and seek in."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def read_safetensors(source: Source, name: str, size: int) -> Content:
    """Return a safetensors file's tensors.

    Raises:
        CheckpointError: it is not whole, or its header is larger than any network's.
    """
    try:
        with open_source(source) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(HEADER_MAX, size):
                raise ValueError(f"a header of {length:,} bytes")
            if not isinstance(json.loads(file.read(length)), dict):
                raise ValueError("its header is no table")
        tensors = load(source) if isinstance(source, bytes) else load_file(source)
    except (SafetensorError, ValueError, KeyError, OSError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"{name}: not a whole safetensors file ({error}). Copy or upload it again.") from error
    return Content(tensors, lambda claim: claim)  # type: ignore[arg-type, return-value]


def read_torch(file: BinaryIO, name: str, size: int) -> Content:
    """Return what torch.save wrote, as an archive or, before torch 1.6, as a stream; the file must stay open.

    Raises:
        CheckpointError: it is damaged, holds more than weights, or is a program.
    """
    is_archive = zipfile.is_zipfile(file)
    file.seek(0)
    try:
        if is_archive:
            return _archive(file, name, size)
        if file.read(4) == ZIP:
            raise CheckpointError(
                f"{name}: truncated: its archive begins but its end is missing. Copy or upload it again, all of it "
                f"({size:,} bytes arrived)."
            )
        file.seek(0)
        return _stream(file, name, size)
    except Forbidden as error:
        raise CheckpointError(
            f"{name}: it holds more than weights ({error}), and code in a checkpoint is never run. {SAVE_AGAIN}"
        ) from error
    except Unreadable as error:
        raise damaged(name, str(error)) from error


def _archive(file: BinaryIO, name: str, size: int) -> Content:
    archive, entries = _entries(file, name, size)
    found = next((entry for entry in entries if entry.count("/") == 1 and entry.endswith("/data.pkl")), None)
    if found is None:
        raise damaged(name, "an archive without data.pkl")
    top = found.removesuffix("data.pkl")

    def inside(entry: str) -> bytes:
        try:
            return archive.read(entry)
        except (
            zipfile.BadZipFile,
            OSError,
            KeyError,
            ValueError,
            NotImplementedError,
            RuntimeError,
            EOFError,
        ) as error:
            raise CheckpointError(f"{name}: the archive is damaged ({error}). Copy or upload it again.") from error

    if entries[found].file_size > PICKLE_MAX:
        raise Unreadable(f"its pickle has {entries[found].file_size:,} bytes")
    if f"{top}byteorder" in entries and inside(f"{top}byteorder") != b"little":
        raise CheckpointError(f"{name}: numbers in an order this machine does not use. {SAVE_AGAIN}")
    root = pickles.read(io.BytesIO(inside(found))).root
    kept: dict[str, bytearray] = {}

    def fetch(claim: Claim) -> Tensor:
        storage, entry = claim.storage, f"{top}data/{claim.storage.key}"
        there = entries[entry].file_size if entry in entries else 0
        _check(claim, there, name)
        if storage.key not in kept:
            kept[storage.key] = bytearray(inside(entry))
        return _tensor(claim, memoryview(kept[storage.key]))

    return Content(root, fetch)


def _entries(file: BinaryIO, name: str, size: int) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open an archive that unpacks to no more than it is: torch never compresses weights, a bomb must.

    Raises:
        CheckpointError: it is damaged, unpacks to more than the file's own size, or is a program.
    """
    try:
        described = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if described is None or described[5] > DIRECTORY_MAX:
            raise zipfile.BadZipFile("a table of contents larger than any network's")
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, EOFError) as error:
        raise CheckpointError(f"{name}: the archive is damaged ({error}). Copy or upload it again.") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    inner = {entry.split("/", 1)[-1] for entry in entries}
    if "constants.pkl" in inner or any(entry.startswith("code/") for entry in inner):
        raise CheckpointError(f"{name}: a TorchScript program, not a state dict. {SAVE_AGAIN}")
    if "archive_format" in inner:
        raise CheckpointError(
            f"{name}: an exported program, not a state dict. Give it to the command line as --network."
        )
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise CheckpointError(
            f"{name}: a compressed archive ({size:,} bytes that unpack to {unpacked:,}), which torch.save never "
            f"writes. {SAVE_AGAIN}"
        )
    return archive, entries


def _stream(file: BinaryIO, name: str, size: int) -> Content:
    """Read the form that torch wrote before 1.6: five pickles, then the storages one after the other."""
    if size > PICKLE_MAX and file.read(1) != b"\x80":
        raise Unreadable("no pickle")
    file.seek(0)
    if _exact_magic(file) != LEGACY_MAGIC:
        raise Unreadable("it does not begin as one")
    _version, _system, described, keys = (pickles.read(file) for _ in range(4))
    wanted = described.storages
    places: dict[str, int] = {}
    for key in keys.root if isinstance(keys.root, list) else ():
        if not isinstance(key, str) or key not in wanted:
            raise Unreadable("it lists numbers of a type that weights do not have")
        numel = int.from_bytes(file.read(8), "little")
        begin, length = file.tell(), numel * BYTES.get(wanted[key].dtype, 1)
        if numel != wanted[key].numel or begin + length > size:
            raise Unreadable("its numbers are cut off")
        places[key] = begin
        file.seek(begin + length)
    kept: dict[str, bytearray] = {}

    def fetch(claim: Claim) -> Tensor:
        storage = claim.storage
        length = storage.numel * BYTES.get(storage.dtype, 1)
        _check(claim, length if storage.key in places else 0, name)
        if storage.key not in kept:
            file.seek(places[storage.key])
            kept[storage.key] = bytearray(file.read(length))
        return _tensor(claim, memoryview(kept[storage.key]))

    return Content(described.root, fetch)


def _exact_magic(file: BinaryIO) -> int:
    """Return the number that the stream begins with; it is larger than the sizes that `pickles` reads."""
    head = file.read(64)
    expected = b"\x80\x02\x8a\n" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
    file.seek(len(expected))
    return LEGACY_MAGIC if head.startswith(expected) else 0


def _check(claim: Claim, there: int, name: str) -> None:
    """Require that a tensor lies within the bytes that the file holds for its storage."""
    storage, unit = claim.storage, BYTES[claim.dtype]
    have = storage.numel * BYTES.get(storage.dtype, 1)
    reach = claim.offset + sum((n - 1) * step for n, step in zip(claim.size, claim.stride)) + 1
    if have > there or storage.begin * unit + reach * unit > have:
        raise CheckpointError(
            f"{name}: a tensor claims {list(claim.size)} but {there:,} bytes are there. The file is damaged, or made "
            f"to fill the memory. {SAVE_AGAIN}"
        )


def _tensor(claim: Claim, content: memoryview) -> Tensor:
    dtype = getattr(torch, claim.dtype)
    begin = claim.storage.begin * BYTES[claim.dtype]
    flat = torch.frombuffer(content, dtype=torch.uint8)[begin:]
    whole = flat[: len(flat) // BYTES[claim.dtype] * BYTES[claim.dtype]]
    if begin % BYTES[claim.dtype]:
        whole = whole.clone()
    return whole.view(dtype).as_strided(claim.size, claim.stride, claim.offset)
