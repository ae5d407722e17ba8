"""The one place where the visitor's settings live: kept over reruns and pages, undone, reset, read from a link.

Widgets use the keys `key(name)`; per-layer settings, pins and the history are plain entries of the session.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import streamlit as st

from explorer.study import link
from explorer.study.scene import (
    BY_NAME,
    DISPLAY,
    FIELDS,
    MAX_PINS,
    PIN_NAME_MAX,
    Display,
    Pin,
    Scene,
    clamp_display,
    differences,
)
from explorer.study.settings import TABLE, Settings, clamp, clamp_sites, printable
from explorer.ui import cache
from explorer.ui.session import HIDDEN, HISTORY, LAST_GOOD, MESSAGE, PINS, SITES, TOUCHED, at_hand

STEPS_BACK = 50
PARAGRAPH, MESSAGES = "\n\n", 2  # how messages are joined, and how many old ones stay beside a new one
DRAG_SECONDS = 1.0  # changes of one control that follow one another sooner are one drag


class _Read(threading.local):
    """What the drawing in this thread has read of its session; outside of a drawing nothing is kept."""

    drawing = False
    scene: Scene | None = None


_read = _Read()


@contextmanager
def drawing() -> Iterator[None]:
    """Read the session's forty settings once within this, not at every question; callbacks run outside of it."""
    outermost = not _read.drawing
    if outermost:
        _read.drawing, _read.scene = True, None
    try:
        with at_hand():
            yield
    finally:
        if outermost:
            _read.drawing, _read.scene = False, None


def key(name: str) -> str:
    """Return the session key of a setting's widget."""
    return f"set_{name}"


def help(name: str) -> str:
    """Return what a field tells the visitor."""
    return BY_NAME[name].help


def begin() -> None:
    """Fill a fresh session: from the link it was opened with, else from the defaults."""
    if SITES.known():
        for field in FIELDS:
            st.session_state.setdefault(key(field.name), field.default)
        _read.scene = None
        return
    start = Scene()
    HIDDEN.put(link.hidden(st.query_params.get(link.HIDE, "")))
    text = st.query_params.get(link.PARAMETER)
    if text:
        try:
            start, told = link.admit(link.decode(text))
            MESSAGE.put(told or None)
        except link.LinkError as error:
            MESSAGE.put(f"{error} The app starts from its defaults; ask for the link again or go on from here.")
    put_scene(start)


def hidden() -> frozenset[str]:
    """Return the parts of the sidebar that the link hid, on all pages of this session."""
    return HIDDEN.get()


def current() -> Settings:
    """Return the settings on screen; values a browser may have sent out of range are put back into it."""
    return scene().settings if _read.drawing else _settings()


def _settings() -> Settings:
    return clamp(_raw(TABLE) | {"sites": SITES.get()})


def display() -> Display:
    """Return how the pages show results."""
    return scene().display if _read.drawing else clamp_display(_raw(DISPLAY))


def scene() -> Scene:
    """Return all that a link carries."""
    if _read.scene is not None:
        return _read.scene
    now = Scene(_settings(), clamp_display(_raw(DISPLAY)), pins())
    if _read.drawing:
        _read.scene = now
    return now


def _raw(table: tuple[Any, ...]) -> dict[str, Any]:
    return {field.name: st.session_state.get(key(field.name), field.default) for field in table}


def put(settings: Settings) -> None:
    """Make these the settings; only before the widgets are drawn or in a callback."""
    for field in TABLE:
        st.session_state[key(field.name)] = getattr(settings, field.name)
    SITES.put(clamp_sites(settings.sites))
    _read.scene = None


def put_scene(scene: Scene) -> None:
    """Show another scene; only before the widgets are drawn or in a callback."""
    put(scene.settings)
    for field in DISPLAY:
        st.session_state[key(field.name)] = getattr(scene.display, field.name)
    PINS.put(scene.pins)
    _read.scene = None


def change(**values: Any) -> None:
    """Change some settings by name; only before the widgets are drawn or in a callback."""
    plain = {field.name: getattr(current(), field.name) for field in TABLE} | {"sites": current().sites}
    put(clamp(plain | values))


def place(**values: Any) -> None:
    """Set some settings whose widgets this run has not drawn yet."""
    for name, value in values.items():
        if st.session_state.get(key(name)) != value:
            st.session_state[key(name)] = value
            _read.scene = None
    if HISTORY.get():
        HISTORY.get()[-1] = scene()


def remember() -> None:
    """Add what is on screen to the undo history, if it is new; a drag of one control is one entry."""
    history, now = HISTORY.get(), scene()
    if history and history[-1] == now:
        return
    what = differences(history[-1], now) if history else ()
    last_what, last_time = TOUCHED.get()
    TOUCHED.put((what, time.monotonic()))
    if len(history) > 1 and what == last_what and time.monotonic() - last_time < DRAG_SECONDS:
        history.pop()
    if not history or history[-1] != now:  # a drag may end where it began
        history.append(now)
    del history[:-STEPS_BACK]


def undo() -> None:
    """Go back to what was on screen before the last change, as far as it can be shown: uploads may be gone."""
    history, now = HISTORY.get(), scene()
    before = history[:-1]
    while before and (before[-1] == now or _is_gone(before[-1])):
        before.pop()
    if before:
        history[:] = before
        put_scene(before[-1])
        TOUCHED.put(((), 0.0))


def _is_gone(scene: Scene) -> bool:
    return cache.missing(scene.settings.network, "network") or cache.missing(scene.settings.source, "source")


def reset() -> None:
    """Go back to the defaults; network, images and pins are kept."""
    now = current()
    rule = cache.fitting_rule(Settings().rule, now.network)
    kept = Settings(network=now.network, source=now.source, images=now.images, device=now.device, rule=rule)
    put_scene(Scene(kept, pins=pins()))


def anew() -> None:
    """Go back to the defaults, all of them: what was asked for cannot be shown."""
    put_scene(Scene())


def pins() -> tuple[Pin, ...]:
    """Return the pinned runs, oldest first."""
    return PINS.get()


def pin() -> None:
    """Pin the present settings, so that their curve stays for comparison; the oldest pin makes room where it must."""
    entry = current().of_run()
    if any(other.settings == entry for other in pins()):
        return
    kept = pins()[-(MAX_PINS - 1) :]
    taken = {other.slot for other in kept}
    slot = next(i for i in range(MAX_PINS) if i not in taken)
    PINS.put((*kept, Pin(entry, slot=slot)))
    _read.scene = None


def name_pin(slot: int, name: str) -> None:
    """Give a pinned run a name."""
    named = printable(name, PIN_NAME_MAX).strip()
    PINS.put(tuple(replace(one, name=named) if one.slot == slot else one for one in pins()))
    _read.scene = None


def unpin(but: Callable[[Pin], bool] = lambda pin: False) -> None:
    """Forget the pinned runs, but those."""
    kept = tuple(filter(but, pins()))
    if kept != pins():
        PINS.put(kept)
        _read.scene = None


def say(message: str) -> None:
    """Show a message from the next run on, under those that the visitor has not dismissed."""
    told = [one for one in (MESSAGE.get() or "").split(PARAGRAPH) if one not in ("", message)]
    MESSAGE.put(PARAGRAPH.join([*told[-MESSAGES:], message]))


def dismiss() -> None:
    """Show the message no longer."""
    MESSAGE.put(None)


def good(settings: Settings) -> None:
    """Remember the last settings that gave a result."""
    LAST_GOOD.put(settings)


def last_good() -> Settings | None:
    """Return the last settings that gave a result, if any did."""
    return LAST_GOOD.get()
