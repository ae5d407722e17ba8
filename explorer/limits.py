"""What a visitor may ask of this server: all of it on one's own computer, less where strangers come.

A server that listens on this computer alone is its user's own. One that others reach is public: `EXPLORER_PUBLIC=1`
says so (needed behind a proxy, where the server still listens on this computer alone), and an address in the settings
file that is not this computer's means the same. Knows neither Streamlit nor torch.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

PUBLIC, FOLDERS = "EXPLORER_PUBLIC", "EXPLORER_FOLDERS"
NAMED = "folder:"
LOCAL_NAMES = ("localhost", "ip6-localhost")


@dataclass(frozen=True)
class Limits:
    """Bounds of one visitor's wishes; sizes in MiB, pixels a side, steps.

    runs: unfinished runs of one visitor that wait in the queue; the rest of a larger grid follows as these end.
    store_mib: spike trains that are kept. folders: picture folders that the operator named, by name; no others are
    shown where `public`.
    """

    public: bool = False
    images: int = 2000
    steps: int = 256
    input_size: int = 1024
    network_mib: int = 200
    pictures: int = 200
    picture_mib: int = 20
    pictures_mib: int = 64
    visitors: int = 1000
    runs: int = 1000
    store_mib: int = 600
    folders: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def free_folders(self) -> bool:
        """Whether a visitor may name any folder of this computer."""
        return not self.public

    @property
    def downloads(self) -> bool:
        """Whether a visitor may have weights fetched from a hub."""
        return not self.public

    @property
    def free_device(self) -> bool:
        """Whether a visitor may choose where his runs are computed."""
        return not self.public

    def admits_source(self, name: str) -> bool:
        """Tell whether an image source may be used at all: embedded, an upload, a named folder; if not public, any."""
        if name.startswith(NAMED):
            return name.removeprefix(NAMED) in self.folders
        return self.free_folders or name == "embedded" or name.startswith("upload:")


def read(environment: Mapping[str, str]) -> Limits:
    """Return the limits that the environment asks for: `EXPLORER_PUBLIC`, `EXPLORER_FOLDERS`."""
    folders = named_folders(environment.get(FOLDERS, ""))
    if environment.get(PUBLIC, "").strip().lower() in ("", "0", "no", "false"):
        return Limits(folders=folders)
    return Limits(
        public=True,
        images=512,
        steps=128,
        input_size=256,
        network_mib=64,
        pictures=50,
        picture_mib=8,
        pictures_mib=32,
        visitors=200,
        runs=24,
        store_mib=128,
        folders=folders,
    )


def named_folders(text: str) -> dict[str, str]:
    """Read `name=folder` pairs, one a line or parted by `;`; what does not read so is left out."""
    pairs = [part.partition("=") for part in re.split(r"[;\n]", text)]
    return {
        name.strip(): folder.strip()
        for name, _, folder in pairs
        if re.fullmatch(r"[\w .-]{1,40}", name.strip()) and folder.strip()
    }


@cache
def limits() -> Limits:
    """Return this server's limits, read once."""
    return read(os.environ)


def is_own(address: str | None) -> bool:
    """Tell whether an address to listen on is reached from this computer alone."""
    if address is None or address in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def announce(address: str | None) -> None:
    """Make the server public where it listens on an address that others reach, unless the environment decides.

    Before anything asks for the limits.
    """
    if not is_own(address):
        os.environ.setdefault(PUBLIC, "1")
