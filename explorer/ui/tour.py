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
from explorer.ui import state
from explorer.ui.session import PAGES, TOUR

LESSONS = Path(__file__).resolve().parents[2] / "assets" / "lessons"


@dataclass(frozen=True)
class Step:
    """One step: its title, what to look at, the page and the scene it opens."""

    title: str
    text: str
    page: str
    scene: Scene


@cache
def steps() -> tuple[Step, ...]:
    """Return the steps in order."""
    raw: list[dict[str, Any]] = json.loads((LESSONS / "tour.json").read_text(encoding="utf-8"))
    return tuple(Step(one["title"], one["text"], one["page"], unpack(one["scene"])) for one in raw)


def draw() -> None:
    """Draw the tour in the sidebar; a step sets the app and opens its page."""
    with st.expander("Guided tour", icon=":material/signpost:"):
        for i, step in enumerate(steps()):
            if st.button(
                f"{i + 1}. {step.title}",
                key=f"tour_{i}",
                width="stretch",
                on_click=lambda step=step, i=i: _open(step, i),
            ):
                page = PAGES.get().get(step.page)
                if page is not None:
                    st.switch_page(page)
        chosen = TOUR.get()
        if chosen is not None:
            step = steps()[chosen]
            st.info(f"**{chosen + 1}. {step.title}**  \n{step.text}")
            st.code(
                f"{_root()}{'' if step.page == 'explorer' else step.page}?{link.PARAMETER}={link.encode(step.scene)}",
                language=None,
                wrap_lines=True,
            )


def _root() -> str:
    """Return the app's address, without the page."""
    url = (st.context.url or "").split("?")[0].rstrip("/")
    head, _, last = url.rpartition("/")
    return f"{head if last in PAGES.get() else url}/"


def _open(step: Step, i: int) -> None:
    state.put_scene(replace(step.scene, pins=state.pins()))
    TOUR.put(i)


def lesson(name: str) -> None:
    """Show a lesson text from assets/lessons."""
    with st.container(), st.expander("What am I looking at?", icon=":material/school:"):
        st.markdown((LESSONS / f"{name}.md").read_text(encoding="utf-8"))
