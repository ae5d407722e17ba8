"""What a method says of itself, as plain values: its paper, its formula, its settings and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One setting of a method. low, high: of a number; choices: of a text, where it is one of some."""

    name: str
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """A method: what it is called, its paper, its formula in TeX, a paragraph on it, and its settings."""

    key: str
    title: str
    citation: str
    equation: str
    about: str
    options: tuple[Option, ...]


def told(key: str) -> Told:
    """Return what a method says of itself.

    Raises:
        SpecError: there is none of that name.
    """
    from explorer.engine import methods

    method = methods.get(key)
    options = tuple(
        Option(one.name, one.default, *(one.metadata[what] for what in ("help", "low", "high", "choices")))
        for one in method.options()
    )
    return Told(key, method.title, method.citation, method.equation, method.about, options)
