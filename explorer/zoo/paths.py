"""Texts as paths, whatever they hold: a text that cannot be one names nothing, and raises nothing."""

from __future__ import annotations

from pathlib import Path


def is_file(path: Path) -> bool:
    """Tell whether a path names a regular file; one that is too long, or holds what no path can, names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Tell whether a path names a folder; one that is too long, or holds what no path can, names none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def why_no_file(path: Path) -> str:
    """Return, for a path that names no regular file, what is wrong with it."""
    return f"{path} is a folder, not a file" if is_folder(path) else f"{path}: there is no such file"


def expanded(text: str) -> Path:
    """Return a text as a path, `~` replaced by the home folder where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
