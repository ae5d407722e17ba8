"""Watch what a piece of code does to the machine: programs, connections, files, memory, time."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "http.client.connect")
CODE = ("pickle.find_class",)
READABLE = tuple(map(os.path.realpath, {sys.prefix, sys.base_prefix, str(ROOT), "/usr/lib", "/usr/share"}))
SYSTEM = ("/proc/meminfo", "/sys/fs/cgroup/", "/proc/self/", "/proc/cpuinfo", "/sys/devices/system/", "/dev/null")
_watching: list[tuple[list[str], tuple[str, ...]]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    seen, allowed = _watching[-1]
    if event in PROGRAMS or event in NETWORK or event in CODE:
        seen.append(f"{event} {arguments!r:.200}")
    elif event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith((*READABLE, *SYSTEM, *allowed)):
            seen.append(f"open {path}")


sys.addaudithook(_audit)


@contextmanager
def watched(*folders: Path) -> Iterator[list[str]]:
    """Collect what the block should not do: run programs, reach hosts, unpickle, open files outside these folders."""
    seen: list[str] = []
    _watching.append((seen, tuple(os.path.realpath(folder) for folder in folders)))
    try:
        yield seen
    finally:
        _watching.pop()


def peak_mib() -> float:
    """Return the most memory this process has had since `reset_peak`, in MiB."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def within(mib: float, seconds: float, what: str) -> Iterator[None]:
    """Require of the block to take no more than so much further memory and processor time."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, began = peak_mib(), time.process_time()
    yield
    used, took = peak_mib() - before, time.process_time() - began
    assert used <= mib, f"{what}: {used:.0f} MiB"
    assert took <= seconds, f"{what}: {took:.1f} s"
