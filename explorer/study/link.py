"""The share link: a scene as zlib-compressed JSON in base64url, in one query parameter.

A link comes from a stranger, so its length and its unpacked size are capped and every value is put into range.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import replace
from typing import Any

from explorer.study.scene import Scene, pack, unpack

PARAMETER, HIDE = "view", "hide"
GROUPS = {
    "presets": "Presets, undo, reset",
    "network": "Network",
    "time": "Time-steps",
    "thresholds": "Thresholds",
    "potential": "Initial potential",
    "images": "Images and device",
    "share": "Share this view",
    "tour": "Guided tour",
}
MAX_CHARACTERS = 6_000
MAX_BYTES = 200_000


class LinkError(ValueError):
    """The link cannot be read; the message is for the visitor."""


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


def hidden(text: str) -> frozenset[str]:
    """Return the parts of the sidebar a link's `hide` names, separated by commas; other words mean nothing."""
    return frozenset(text[:MAX_CHARACTERS].split(",")) & GROUPS.keys()


def decode(text: str) -> Scene:
    """Return the scene a link holds, every value in its range.

    Raises:
        LinkError: the text is too long, damaged or not ours.
    """
    return unpack(_unpack(text))
