"""The one place where the visitor's settings live: kept over reruns and pages, undone, reset, read from a link.

Widgets use the keys `key(name)`; per-layer settings, pins and the history are plain entries of the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from explorer.study import link
from explorer.study.scene import DISPLAY, FIELDS, MAX_PINS, Display, Scene, clamp_display, differences
from explorer.study.settings import TABLE, Settings, clamp, clamp_sites
from explorer.ui import cache

HISTORY = 50
PARAGRAPH, MESSAGES = "\n\n", 2  # how messages are joined, and how many old ones stay beside a new one
DRAG_SECONDS = 1.0  # changes of one control that follow one another sooner are one drag


def key(name: str) -> str:
    """Return the session key of a setting's widget."""
    return f"set_{name}"


def begin() -> None:
    """Fill a fresh session: from the link it was opened with, else from the defaults."""
    session = st.session_state
    if "set_sites" in session:
        for field in FIELDS:
            session.setdefault(key(field.name), field.default)
        return
    session["history"], session["message"] = [], None
    start = Scene()
    session["hidden"] = link.hidden(st.query_params.get(link.HIDE, ""))
    text = st.query_params.get(link.PARAMETER)
    if text:
        try:
            start, session["message"] = link.admit(link.decode(text))
        except link.LinkError as error:
            session["message"] = f"{error} The app starts from its defaults; ask for the link again or go on from here."
    put_scene(start)


def hidden() -> frozenset[str]:
    """Return the parts of the sidebar that the link hid, on all pages of this session."""
    return st.session_state["hidden"]


def current() -> Settings:
    """Return the settings on screen; values a browser may have sent out of range are put back into it."""
    return clamp(_raw(TABLE) | {"sites": st.session_state.get("set_sites", ())})


def display() -> Display:
    """Return how the pages show results."""
    return clamp_display(_raw(DISPLAY))


def scene() -> Scene:
    """Return all that a link carries."""
    return Scene(current(), display(), pins())


def _raw(table: tuple[Any, ...]) -> dict[str, Any]:
    return {field.name: st.session_state.get(key(field.name), field.default) for field in table}


def put(settings: Settings) -> None:
    """Make these the settings; only before the widgets are drawn or in a callback."""
    for field in TABLE:
        st.session_state[key(field.name)] = getattr(settings, field.name)
    st.session_state["set_sites"] = clamp_sites(settings.sites)


def put_scene(scene: Scene) -> None:
    """Show another scene; only before the widgets are drawn or in a callback."""
    put(scene.settings)
    for field in DISPLAY:
        st.session_state[key(field.name)] = getattr(scene.display, field.name)
    st.session_state["pins"] = scene.pins


def change(**values: Any) -> None:
    """Change some settings by name; only before the widgets are drawn or in a callback."""
    plain = {field.name: getattr(current(), field.name) for field in TABLE} | {"sites": current().sites}
    put(clamp(plain | values))


def place(**values: Any) -> None:
    """Set some settings whose widgets this run has not drawn yet."""
    for name, value in values.items():
        if st.session_state.get(key(name)) != value:
            st.session_state[key(name)] = value
    if st.session_state["history"]:
        st.session_state["history"][-1] = scene()


def remember() -> None:
    """Add what is on screen to the undo history, if it is new; a drag of one control is one entry."""
    history, now = st.session_state["history"], scene()
    if history and history[-1] == now:
        return
    what = differences(history[-1], now) if history else ()
    last_what, last_time = st.session_state.get("touched", ((), 0.0))
    st.session_state["touched"] = what, time.monotonic()
    if len(history) > 1 and what == last_what and time.monotonic() - last_time < DRAG_SECONDS:
        history.pop()
    history.append(now)
    del history[:-HISTORY]


def undo() -> None:
    """Go back to what was on screen before the last change."""
    history = st.session_state["history"]
    if len(history) > 1:
        history.pop()
        put_scene(history[-1])
        st.session_state["touched"] = (), 0.0


def reset() -> None:
    """Go back to the defaults; network, images and pins are kept."""
    now = current()
    rule = cache.fitting_rule(Settings().rule, now.network)
    kept = Settings(network=now.network, source=now.source, images=now.images, device=now.device, rule=rule)
    put_scene(Scene(kept, pins=pins()))


def anew() -> None:
    """Go back to the defaults, all of them: what was asked for cannot be shown."""
    put_scene(Scene())


def pins() -> tuple[Settings, ...]:
    """Return the pinned settings, oldest first."""
    return st.session_state["pins"]


def pin() -> None:
    """Pin the present settings, so that their curve stays for comparison."""
    entry = current().look()
    kept = [other for other in pins() if other != entry]
    st.session_state["pins"] = (*kept, entry)[-MAX_PINS:]


def unpin(but: Callable[[Settings], bool] = lambda settings: False) -> None:
    """Forget the pinned settings, but those."""
    st.session_state["pins"] = tuple(filter(but, pins()))


def say(message: str) -> None:
    """Show a message from the next run on, under those that the visitor has not dismissed."""
    told = [one for one in (st.session_state.get("message") or "").split(PARAGRAPH) if one not in ("", message)]
    st.session_state["message"] = PARAGRAPH.join([*told[-MESSAGES:], message])


def dismiss() -> None:
    """Show the message no longer."""
    st.session_state["message"] = None


def good(settings: Settings) -> None:
    """Remember the last settings that gave a result."""
    st.session_state["last_good"] = settings


def last_good() -> Settings | None:
    """Return the last settings that gave a result, if any did."""
    return st.session_state.get("last_good")
