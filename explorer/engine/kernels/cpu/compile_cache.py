"""Compiled loops kept on disk, where there is a disk to keep them on: no fault of the cache ends a run.

Numba compiles each loop at its first use and can keep the machine code. Its own cache raises where no folder can be
written to, where the disk is full and where a file of it is damaged, and runs damaged machine code that still reads as
a file. Here each of these means that the loop is compiled again, and is said once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from explorer.engine.compile import segment

DIGEST = hashlib.sha256
FOLDER = "explorer-kernels"
config: Any = numba.config
said: set[str] = set()
log = logging.getLogger("explorer")


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function by `numba.njit` with these options; `cache=True` keeps it as this file says."""
    keep = options.pop("cache", False)

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if keep:
            choose_folder(Path(function.__code__.co_filename).parent)
            try:
                dispatcher._cache = CheckedCache(function)
            except (RuntimeError, OSError) as error:  # no folder anywhere
                say_once("cannot be kept", str(error))
        return dispatcher

    return compiled


def say_once(what: str, why: str) -> None:
    """Tell the operator about a fault of the cache, each kind once."""
    if what in said:
        return
    said.add(what)
    log.warning("compiled loops %s (%s): they are compiled again at each start, which takes some seconds.", what, why)


@cache
def choose_folder(source: Path) -> None:
    """Have Numba keep its files where it can: beside the source or in the user's cache, else in a private folder."""
    if config.CACHE_DIR or any(map(_can_write, folders(source))):
        return
    private = private_folder()
    if private is not None:
        config.CACHE_DIR = str(private)
        log.warning(
            "neither the program's folder nor the user's cache can be written to: compiled loops are kept in %s.",
            private,
        )


def folders(source: Path) -> list[Path]:
    """Return where Numba looks by itself for what lies in a folder of source files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [source / "__pycache__", Path(home) / "numba"]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def private_folder() -> Path | None:
    """Return a folder below the system's temporary one that nobody else can write to, or None.

    What lies in it is run, so one that somebody else made, or may change, is not used.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except (OSError, AttributeError):
        return None
    safe = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if safe and _can_write(folder) else None


class CheckedFile(IndexDataCacheFile):
    """Numba's index and data files, each behind a digest of itself; what is not whole counts as not there."""

    def save(self, key: Any, data: Any) -> None:
        """Keep a loop in a file named after all that it was compiled for.

        Numba numbers its files. Two processes that compile different loops of one function at once then take the same
        number, and the index of the one may name the machine code of the other.
        """
        overloads = self._load_index()
        if not overloads:  # of older sources, if any
            for old in Path(self._cache_path).glob(self._data_name_pattern.replace("{number:d}", "*")):
                old.unlink(missing_ok=True)
        what = DIGEST(repr((self._source_stamp, key)).encode()).hexdigest()[:16]
        name = self._data_name_pattern.replace("{number:d}", what)
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})

    def _dump(self, obj: Any) -> bytes:
        content = super()._dump(obj)
        return DIGEST(content).digest() + content

    def _load_index(self) -> dict[Any, Any]:
        try:
            with open(self._index_path, "rb") as file:
                if pickle.load(file) != self._version:
                    return {}
                stamp, overloads = pickle.loads(whole(file.read()))
        except FileNotFoundError:
            return {}
        except Exception as error:  # a damaged pickle raises whatever it likes
            say_once("on the disk are damaged", type(error).__name__)
            return {}
        return overloads if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> Any:
        with open(self._data_path(name), "rb") as file:
            return pickle.loads(whole(file.read()))


def whole(content: bytes) -> bytes:
    """Return what follows a digest, if it is what was digested.

    Raises:
        OSError: it is not; Numba takes this for a file that is not there.
    """
    size = DIGEST().digest_size
    if DIGEST(content[size:]).digest() != content[:size]:
        raise OSError("a compiled loop on the disk is damaged")
    return content[size:]


@cache
def sources() -> str:
    """Return a digest of all that is compiled into a loop: Numba itself looks at the loop's own file alone."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(segment.__file__)]
    return DIGEST(b"".join(file.read_bytes() for file in files)).hexdigest()


class CheckedCache(FunctionCache):
    """Numba's cache of one function, whose faults cost a compilation and nothing else."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        file = self._cache_file
        file.__class__ = CheckedFile
        file._source_stamp = (file._source_stamp, sources())

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            say_once("cannot be read or kept", f"{type(error).__name__}: {error}")
