"""The share link: a scene as zlib-compressed JSON in base64url, in one query parameter.

A link comes from a stranger, so its length and its unpacked size are capped and every value is put into range.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from explorer.limits import NAMED
from explorer.study import keys
from explorer.study.library import fitting_rule
from explorer.study.scene import Scene, pack, unpack
from explorer.study.settings import Settings

PARAMETER, HIDE = "view", "hide"
GROUPS = {
    "presets": "Presets, undo, reset",
    "network": "Network",
    "time": "Time-steps",
    "calibrate": "Calibrate for T",
    "method": "Conversion method",
    "thresholds": "Thresholds",
    "potential": "Initial potential",
    "images": "Images and device",
    "share": "Share this view",
    "tour": "Guided tour",
}
MAX_CHARACTERS = 6_000
MAX_BYTES = 200_000
FOLDERS_MAX = 100
_chosen: dict[str, None] = {}
_lock = threading.Lock()


class LinkError(ValueError):
    """The link cannot be read; the message is for the visitor."""


@lru_cache(1024)
def encode(scene: Scene) -> str:
    """Return the value of the query parameter for a scene; only what differs from the defaults is written.

    Pins that would make the link too long to be read are left out.
    """
    packed = zlib.compress(json.dumps(pack(scene), separators=(",", ":")).encode(), 9)
    text = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    return encode(replace(scene, pins=scene.pins[1:])) if len(text) > MAX_CHARACTERS and scene.pins else text


def _unpack(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise LinkError(f"The link is too long ({len(text)} characters, at most {MAX_CHARACTERS}).")
    try:
        packed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        inflate = zlib.decompressobj()
        raw = inflate.decompress(packed, MAX_BYTES)
        if inflate.unconsumed_tail or not inflate.eof:
            raise LinkError("The link does not end where it should or unpacks to too much.")
        content = json.loads(raw)
    except (binascii.Error, zlib.error, UnicodeError, ValueError, RecursionError) as error:
        if isinstance(error, LinkError):
            raise
        raise LinkError("The link is damaged: it was probably cut when it was copied.") from None
    if not isinstance(content, dict):
        raise LinkError("The link does not hold settings.")
    return content


def allow_folder(name: str) -> None:
    """Remember a picture folder that was chosen in the app's own window: the page's address may name it from now on."""
    with _lock:
        _chosen[name] = None
        while len(_chosen) > FOLDERS_MAX:
            del _chosen[next(iter(_chosen))]


def admit(scene: Scene) -> tuple[Scene, str]:
    """Return what a link may ask of this server, and what to tell the visitor about the rest.

    A link neither chooses a folder of this computer (unless the operator named it, or it was chosen here before) nor
    starts a download: whoever opens it does not know what it asks for.
    """
    told = []
    if not _may_show(scene.settings.source):
        told.append(
            "The link asks for pictures in a folder of the computer that runs this app, which a link cannot choose: it "
            "opens with the embedded ones. Choose the folder yourself under “Your own images…”."
        )
    if not _is_here(scene.settings.network):
        told.append(
            f"The link asks for {scene.settings.network}, whose weights are not on this computer; a link starts no "
            "download. Fetch them yourself under “More…”."
        )
    pins = tuple(pin for pin in scene.pins if _may_show(pin.source) and _is_here(pin.network))
    return replace(scene, settings=_admitted(scene.settings), pins=pins), " ".join(told)


def _admitted(settings: Settings) -> Settings:
    if not _may_show(settings.source):
        settings = replace(settings, source=Settings().source, image=0)
    if not _is_here(settings.network):
        settings = replace(settings, network=Settings().network, layer="", sites=())
    if settings.method and settings.rule == "clip":  # not in force, but the references beside a method take it
        settings = replace(settings, rule=fitting_rule("clip", settings.network))
    return settings


def _may_show(source: str) -> bool:
    return source == Settings().source or source.startswith(NAMED) or keys.is_upload(source) or source in _chosen


def _is_here(network: str) -> bool:
    if network.startswith("timm:"):  # only timm knows whether its weights are here, and fetches them if not
        return False
    if not network.startswith("torchvision:"):
        return True
    from explorer.zoo.architectures import convertible
    from explorer.zoo.hub import is_fetched

    return network not in convertible() or is_fetched(network.removeprefix("torchvision:"))


def hidden(text: str) -> frozenset[str]:
    """Return the parts of the sidebar a link's `hide` names, separated by commas; other words mean nothing."""
    return frozenset(text[:MAX_CHARACTERS].split(",")) & GROUPS.keys()


def decode(text: str) -> Scene:
    """Return the scene a link holds, every value in its range.

    Raises:
        LinkError: the text is too long, damaged or not ours.
    """
    return unpack(_unpack(text))
