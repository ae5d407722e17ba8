"""Widgets of the tables of fields: label, range, help and session key come from there; pages only place them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import streamlit as st

from explorer.study.scene import BY_NAME
from explorer.ui import state
from explorer.ui.session import DRAWERS


def _common(name: str) -> dict[str, Any]:
    return {"key": state.key(name), "help": BY_NAME[name].help, "persist_state": "session"}


def drawer(label: str, icon: str, name: str) -> Any:
    """Draw an expander whose content is drawn only while it is open, as its `open` tells: it costs nothing closed.

    It stays as it is on other pages, where Streamlit would forget it.
    """
    key, before = f"drawer_{name}", DRAWERS.get()
    st.session_state.setdefault(key, name in before)
    drawer = st.expander(label, icon=icon, key=key, on_change="rerun")
    DRAWERS.put(before | {name} if drawer.open else before - {name})
    return drawer


def slider(name: str, at: Any = st) -> Any:
    """Draw a field as a slider; at: the column or container it goes to."""
    field = BY_NAME[name]
    return at.slider(field.label, field.low, field.high, step=field.step, **_common(name))


def number(name: str, high: int | None = None, at: Any = st) -> Any:
    """Draw a whole number; high: its present upper end, where that is not the field's. Only one value: disabled."""
    field = BY_NAME[name]
    low, high = int(field.low or 0), int(field.high or 0) if high is None else high
    return at.number_input(field.label, low, high, disabled=high <= low, **_common(name))


def decimal(name: str, at: Any = st) -> Any:
    """Draw a number that is typed as exactly as it is meant, or stepped by buttons."""
    field = BY_NAME[name]
    return at.number_input(field.label, field.low, field.high, step=field.step, format="%.6g", **_common(name))


def text(name: str, at: Any = st) -> str:
    """Draw a field that is typed."""
    return at.text_input(BY_NAME[name].label, max_chars=300, **_common(name))


def toggle(name: str, at: Any = st) -> bool:
    """Draw a field that is on or off."""
    return at.toggle(BY_NAME[name].label, **_common(name))


def select(
    name: str,
    options: Iterable[str] | None = None,
    shown: Callable[[str], str] | None = None,
    on_change: Callable[[], None] | None = None,
    at: Any = st,
) -> Any:
    """Draw a choice among the field's options, or among those given; shown(option) is what is read."""
    field = BY_NAME[name]
    names = dict(field.options or {})
    return at.selectbox(
        field.label,
        list(names if options is None else options),
        format_func=shown or (lambda one: names.get(one, one)),
        on_change=on_change,
        **_common(name),
    )


def radio(name: str, at: Any = st) -> Any:
    """Draw a choice among the field's options, all in sight."""
    names = BY_NAME[name].options or {}
    return at.radio(BY_NAME[name].label, list(names), format_func=names.get, horizontal=True, **_common(name))


def segments(name: str, at: Any = st) -> Any:
    """Draw a choice among the field's options as a row of buttons, of which one is always pressed."""
    names = BY_NAME[name].options or {}
    return at.segmented_control(
        BY_NAME[name].label, list(names), format_func=lambda one: names[one], required=True, **_common(name)
    )
