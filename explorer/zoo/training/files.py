"""Files that a kill in the middle of writing cannot spoil."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(path: Path, value: Any) -> None:
    """Write tensors to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.replace(path)
