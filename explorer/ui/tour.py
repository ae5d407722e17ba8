"""The guided tour: five steps for a lecture, each a button and a link that set the app."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.study import link
from explorer.study.scene import Scene, unpack
from explorer.ui import state, widgets
from explorer.ui.panels import literature
from explorer.ui.session import PAGES, TOUR

LESSONS = Path(__file__).resolve().parents[2] / "assets" / "lessons"


@dataclass(frozen=True)
class Station:
    """One station of the tour: its title, what to look at, the page and the scene it opens."""

    title: str
    text: str
    page: str
    scene: Scene


@cache
def stations() -> tuple[Station, ...]:
    """Return the stations in order."""
    raw: list[dict[str, Any]] = json.loads((LESSONS / "tour.json").read_text(encoding="utf-8"))
    return tuple(Station(one["title"], one["text"], one["page"], unpack(one["scene"])) for one in raw)


def draw() -> None:
    """Draw the tour in the sidebar; a station sets the app and opens its page."""
    drawer = widgets.drawer("Guided tour", ":material/signpost:", "tour")
    if not drawer.open:
        return
    with drawer:
        for i, station in enumerate(stations()):
            if st.button(
                f"{i + 1}. {station.title}",
                key=f"tour_{i}",
                width="stretch",
                on_click=lambda station=station, i=i: _open(station, i),
            ):
                page = PAGES.get().get(station.page)
                if page is not None:
                    st.switch_page(page)
        chosen = TOUR.get()
        if chosen is not None:
            at = stations()[chosen]
            st.info(f"**{chosen + 1}. {at.title}**  \n{at.text}")
            st.code(
                f"{_root()}{'' if at.page == 'explorer' else at.page}?{link.PARAMETER}={link.encode(at.scene)}",
                language=None,
                wrap_lines=True,
            )
        literature.links(_root(), state.current())


def _root() -> str:
    """Return the app's address, without the page."""
    url = (st.context.url or "").split("?")[0].rstrip("/")
    head, _, last = url.rpartition("/")
    return f"{head if last in PAGES.get() else url}/"


def _open(station: Station, i: int) -> None:
    state.put_scene(replace(station.scene, pins=state.pins()))
    TOUR.put(i)


def lesson(name: str) -> None:
    """Show a lesson text from assets/lessons."""
    with st.container(), widgets.drawer("What am I looking at?", ":material/school:", name) as drawer:
        if drawer.open:
            st.markdown((LESSONS / f"{name}.md").read_text(encoding="utf-8"))
