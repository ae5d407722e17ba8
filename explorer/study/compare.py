"""Which runs stand beside the visitor's own, what each is called, and what it means (so that it is drawn the same)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from explorer.study.scene import Pin
from explorer.study.settings import Settings, with_start

ZERO, HALF = "v_init = 0", "v_init = 1/2"


@dataclass(frozen=True)
class Named:
    """One run on screen: its name, its settings, and its role: 'yours', 'zero', 'half', or 'pin' with a number."""

    name: str
    settings: Settings
    role: str


def references(settings: Settings) -> list[Named]:
    """Return the two starts that everything is compared with, at these thresholds; beside a method, without it."""
    plain = replace(settings, method="")
    return [
        Named(ZERO, with_start(plain, 0.0), "zero"),
        Named(HALF, with_start(plain, 0.5), "half"),
    ]


def role(settings: Settings) -> str:
    """Return what a visitor's own settings mean: one of the references, or 'yours'."""
    return next((one.role for one in references(settings) if one.settings == settings), "yours")


def comparison(settings: Settings, pins: Sequence[Pin]) -> list[Named]:
    """Return the visitor's run first, then the references and the pins; a run that is two of these stands once.

    Pins are compared on the visitor's images and device.
    """
    yours = settings.of_run()
    named = [Named("yours", yours, role(yours))]
    for one in references(yours):
        if one.settings == yours:
            named[0] = replace(named[0], name=f"yours: {one.name}")
        else:
            named.append(one)
    for pin in pins:
        own = replace(pin.settings, source=yours.source, images=yours.images, device=yours.device)
        found = next((i for i, one in enumerate(named) if one.settings == own), None)
        if found is None:
            named.append(Named(f"pin {pin.title}", own, f"pin{pin.slot}"))
        else:
            named[found] = replace(named[found], name=f"{named[found].name} (pin {pin.title})")
    names = distinct([one.name for one in named])
    return [replace(one, name=name) for one, name in zip(named, names, strict=True)]


def distinct(names: Sequence[str]) -> list[str]:
    """Return names no two of which are equal: a number is added to one that was there before."""
    found: dict[str, None] = {}
    for name in names:
        numbered = (f"{name} ({k})" for k in count(2))
        free = name if name not in found else next(one for one in numbered if one not in found and one not in names)
        found[free] = None
    return list(found)
