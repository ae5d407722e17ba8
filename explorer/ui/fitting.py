"""How far the fit of a method is, while the visitor waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from explorer.engine.methods import names
from explorer.study.settings import Settings
from explorer.ui import state

CALIBRATIONS = {"calibrate": "0 or 1", "calibrate-signed": "−1, 0 or 1"}  # methods, and what a spike counts


@contextmanager
def fitting(settings: Settings) -> Iterator[Callable[[int, int], None] | None]:
    """Draw how far the fit of a method is while it runs, and what stops it; only of methods that tell."""
    key = names.split(settings.method)[0]
    if key not in CALIBRATIONS:
        yield None
        return
    place = st.empty()
    bar: list[Any] = []

    def on_progress(done: int, layers: int) -> None:
        if not bar:
            row = place.container(horizontal=True, vertical_alignment="center")
            bar.append(row.progress(0.0))
            row.button("Cancel", key="cancel_fit", icon=":material/close:", on_click=_back)
        bar[0].progress(done / layers, f"Calibrating for T = {settings.T}: {done} of {layers} layers")

    try:
        yield on_progress
    finally:
        place.empty()


def _back() -> None:
    """Go back to the last settings that gave a result."""
    state.put(state.last_good() or Settings())
