"""The threshold equaliser: a bank of vertical sliders, one per layer, that acts while it is dragged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from explorer.ui.components.source import source

_BANK = st.components.v2.component(
    "explorer_equaliser",
    html='<div class="bank" role="group"></div>\n',
    css=source("equaliser.css"),
    js=source("equaliser.js"),
)


def equaliser(
    names: Sequence[str],
    values: Sequence[float],
    changed: Sequence[bool],
    what: str,
    low: float,
    high: float,
    key: str,
    on_move: Callable[[str, float], None],
) -> None:
    """Show one vertical slider per name; on_move(name, value) is called about ten times a second while one is dragged."""  # noqa: E501

    def moved() -> None:
        event = st.session_state[key].get("moved")
        if event and event.get("site") in names and isinstance(event.get("value"), int | float):
            on_move(event["site"], min(max(float(event["value"]), low), high))

    data = {
        "names": list(names),
        "values": list(values),
        "changed": list(changed),
        "what": what,
        "low": low,
        "high": high,
        "step": 0.01,
    }
    _BANK(key=key, data=data, on_moved_change=moved)
