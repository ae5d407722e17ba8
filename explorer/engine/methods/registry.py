"""All methods by name, and how one is written in a line: `cos:rho=8,v_init=0.4`."""

from __future__ import annotations

from typing import Any

from explorer.engine.errors import SpecError
from explorer.engine.methods.catalogue import METHODS
from explorer.engine.methods.method import OWN, Method

BY_KEY = {method.key: method for method in METHODS}


def get(key: str) -> type[Method]:
    """Return a method by its name.

    Raises:
        SpecError: there is none of that name.
    """
    if key not in BY_KEY:
        raise SpecError(f"method: {key!r} is none. Choose one of {', '.join(BY_KEY)}.")
    return BY_KEY[key]


def all() -> tuple[type[Method], ...]:
    """Return all methods, in the order in which they are told."""
    return METHODS


def parse(text: str) -> Method:
    """Read `NAME` or `NAME:field=value,field=value`.

    Raises:
        SpecError: there is no such method or field, or a value does not fit it.
    """
    key, _, rest = text.strip().partition(":")
    kind = get(key)
    known = {each.name: each for each in kind.options()}
    values: dict[str, Any] = {}
    for part in rest.split(",") if rest else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name in kind.refuses:
            raise SpecError(f"{key}: {name} cannot be chosen here. {kind.refuses[name]}")
        if not equals or name not in known or name in values:
            raise SpecError(f"{key}: {part!r} cannot be read. Write field=value, fields: {', '.join(known)}.")
        values[name] = _read(key, name, known[name].default, value)
    return kind(**values)


def _read(key: str, name: str, default: object, text: str) -> object:
    """Read a value of the same kind as the default."""
    try:
        match default:
            case bool():
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
            case int():
                return int(text)
            case float():
                return float(text)
    except (ValueError, KeyError):
        kind = "true or false" if isinstance(default, bool) else "a number"
        raise SpecError(f"{key}: {name} is {kind}, got {text!r}.") from None
    return text


def written(method: Method) -> str:
    """Write a method in a line, settings that are as by default left out; `parse` reads it back."""
    parts = [
        f"{each.name}={getattr(method, each.name)}"
        for each in method.options()
        if getattr(method, each.name) != each.default
    ]
    return f"{method.key}:{','.join(parts)}" if parts else method.key


__all__ = ["BY_KEY", "OWN", "all", "get", "parse", "written"]
