"""Picture files for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 30), colour: object = None, kind: str = "PNG") -> bytes:
    """Return the content of a picture file."""
    out = io.BytesIO()
    default = {"RGB": (200, 100, 50), "RGBA": (200, 100, 50, 0), "L": 90, "LA": (90, 0), "P": 3, "1": 1, "I;16": 40_000}
    Image.new(mode, size, default[mode] if colour is None else colour).save(out, kind)
    return out.getvalue()


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    """Write folders of pictures, each of its own grey."""
    for c, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03}.png").write_bytes(picture(colour=(50 * c, i, 0)))
    return root
