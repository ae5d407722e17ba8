"""Words for numbers."""

from __future__ import annotations


def count(n: int, what: str) -> str:
    """Return a number with its noun, in the plural where it must be."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
