"""Every entry of a visitor's session that is not a widget's, with its type: nowhere else are such keys written.

All of them are one key of Streamlit's, which copies what a session holds for nearly every widget it draws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import streamlit as st

if TYPE_CHECKING:
    from explorer.study.results import Result
    from explorer.study.scene import Pin, Scene
    from explorer.study.seen import Windows
    from explorer.study.settings import Settings
    from explorer.study.sweep import Sweep
    from explorer.ui.panels.exports import Shown
    from explorer.ui.panels.standings import Standings

V = TypeVar("V")
ALL = "entries"  # the key


class Entry(Generic[V]):
    """One entry: its name, and what it holds before anything is put there."""

    def __init__(self, name: str, default: Callable[[], V]) -> None:
        self.name = name
        self._default = default

    def get(self) -> V:
        """Return what the session holds; the default is put there first if there is nothing."""
        held = _held()
        if self.name not in held:
            held[self.name] = self._default()
        return held[self.name]

    def put(self, value: V) -> None:
        """Hold this from now on."""
        _held()[self.name] = value

    def known(self) -> bool:
        """Tell whether anything was put here."""
        return self.name in _held()


class _Found(threading.local):
    """The entries of the session that this thread draws."""

    held: dict[str, Any] | None = None


_found = _Found()


@contextmanager
def at_hand() -> Iterator[None]:
    """Look for the session's entries once within this, not at every question: for a drawing, which has one session."""
    before, _found.held = _found.held, _held()
    try:
        yield
    finally:
        _found.held = before


def _held() -> dict[str, Any]:
    return st.session_state.setdefault(ALL, {}) if _found.held is None else _found.held


def _nothing() -> Any:
    return None


SITES: Entry[tuple[tuple[str, float | None, float | None], ...]] = Entry("set_sites", tuple)
PINS: Entry[tuple[Pin, ...]] = Entry("pins", tuple)
HISTORY: Entry[list[Scene]] = Entry("history", list)
TOUCHED: Entry[tuple[tuple[str, ...], float]] = Entry("touched", lambda: ((), 0.0))
HIDDEN: Entry[frozenset[str]] = Entry("hidden", frozenset)
MESSAGE: Entry[str | None] = Entry("message", _nothing)
LAST_GOOD: Entry[Settings | None] = Entry("last_good", _nothing)
PAGES: Entry[dict[str, Any]] = Entry("pages", dict)
OWNER: Entry[str] = Entry("owner", str)
TITLE: Entry[str | None] = Entry("title", _nothing)  # of the page shown last
ASKED: Entry[Settings | None] = Entry("asked", _nothing)
PLACED: Entry[tuple[str, tuple[int, ...]] | None] = Entry("placed", _nothing)
SHOWN: Entry[Shown | None] = Entry("shown", _nothing)
LATEST: Entry[tuple[Settings, Result] | None] = Entry("shown_result", _nothing)
TABLE_SITES: Entry[Any] = Entry("table_sites", _nothing)
TABLE_VERSION: Entry[int] = Entry("table_version", int)
PENDING: Entry[dict[str, Any] | None] = Entry("pending", _nothing)
GRID: Entry[Sweep | None] = Entry("grid", _nothing)  # the own grid that was started
STANDINGS: Entry[Standings | None] = Entry("standings", _nothing)  # how far the table of methods is
STANDINGS_VERSION: Entry[int] = Entry("standings_version", int)
METHOD_TOLD: Entry[str | None] = Entry("method_told", _nothing)  # the method that the page Methods tells of
WINDOWS: Entry[tuple[Settings, Windows] | None] = Entry("windows", _nothing)  # accuracy over them, as far as read
METHODS_STOPPED: Entry[bool] = Entry("methods_stopped", bool)
DRAWERS: Entry[frozenset[str]] = Entry("drawers", frozenset)  # those that are open
DIALOG: Entry[str | None] = Entry("dialog", _nothing)  # the window that is open: network, images or report
OWN_NETWORKS: Entry[list[str]] = Entry("own_networks", list)
OWN_PICTURES: Entry[list[str]] = Entry("own_pictures", list)
TUNED: Entry[tuple[str, str, bytes, str] | None] = Entry("tuned", _nothing)  # key, file, content, architecture
TOUR: Entry[int | None] = Entry("tour", _nothing)
