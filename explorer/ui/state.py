"""The one place where the visitor's settings live: kept over reruns and pages, undone, reset, read from a link.

Widgets use the keys `key(name)`; per-layer settings, pins and the history are plain entries of the session.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from explorer.ui import link
from explorer.ui.settings import TABLE, Settings, clamp, clamp_sites

HISTORY = 50
MAX_PINS = 4


def key(name: str) -> str:
    """Return the session key of a setting's widget."""
    return f"set_{name}"


def begin() -> None:
    """Fill a fresh session: from the link it was opened with, else from the defaults."""
    session = st.session_state
    if "set_sites" in session:
        for field in TABLE:
            session.setdefault(key(field.name), field.default)
        return
    session["history"], session["pins"], session["message"] = [], [], None
    settings = Settings()
    session["hidden"] = link.hidden(st.query_params.get(link.HIDE, ""))
    text = st.query_params.get(link.PARAMETER)
    if text:
        try:
            settings = link.decode(text)
        except link.LinkError as error:
            session["message"] = f"{error} The app starts from its defaults; ask for the link again or go on from here."
    put(settings)


def hidden() -> frozenset[str]:
    """Return the parts of the sidebar that the link hid, on all pages of this session."""
    return st.session_state["hidden"]


def current() -> Settings:
    """Return the settings on screen; values a browser may have sent out of range are put back into it."""
    raw: dict[str, Any] = {field.name: st.session_state.get(key(field.name), field.default) for field in TABLE}
    return clamp(raw | {"sites": st.session_state.get("set_sites", ())})


def put(settings: Settings) -> None:
    """Make these the settings; only before the widgets are drawn or in a callback."""
    for field in TABLE:
        st.session_state[key(field.name)] = getattr(settings, field.name)
    st.session_state["set_sites"] = clamp_sites(settings.sites)


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
        st.session_state["history"][-1] = current()


def remember(settings: Settings) -> None:
    """Add the settings to the undo history, if they are new."""
    history = st.session_state["history"]
    if not history or history[-1] != settings:
        history.append(settings)
        del history[:-HISTORY]


def undo() -> None:
    """Go back to the settings before these."""
    history = st.session_state["history"]
    if len(history) > 1:
        history.pop()
        put(history[-1])


def reset() -> None:
    """Go back to the defaults, network and images kept."""
    now = current()
    put(Settings(network=now.network, source=now.source, images=now.images, device=now.device))


def pins() -> list[Settings]:
    """Return the pinned settings, oldest first."""
    return list(st.session_state["pins"])


def pin() -> None:
    """Pin the present settings, so that their curve stays for comparison."""
    entry = current().look()
    kept = [other for other in st.session_state["pins"] if other != entry]
    st.session_state["pins"] = [*kept, entry][-MAX_PINS:]


def unpin() -> None:
    """Forget all pinned settings."""
    st.session_state["pins"] = []


def say(message: str) -> None:
    """Show a message on the next run."""
    st.session_state["message"] = message


def good(settings: Settings) -> None:
    """Remember the last settings that gave a result."""
    st.session_state["last_good"] = settings


def last_good() -> Settings | None:
    """Return the last settings that gave a result, if any did."""
    return st.session_state.get("last_good")
