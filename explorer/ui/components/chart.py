"""A Plotly chart that is updated in place: its node, zoom and hover survive every rerun, and any trace can be clicked.

`st.plotly_chart` builds a new chart whenever the figure changes. This component hands the new figure to `Plotly.react`
instead. plotly.js comes from the installed plotly package and is copied once to the static folder Streamlit serves.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import plotly
import streamlit as st

from explorer.plots.figure import Figure
from explorer.study import link
from explorer.ui import state
from explorer.ui.components.source import source

STATIC = Path(__file__).resolve().parents[2] / "static"
SCRIPT = f"plotly-{plotly.__version__}.min.js"


@cache
def serve_plotly() -> str | None:
    """Put plotly.js where Streamlit serves it and return its address; None if that cannot be done here."""
    if not st.get_option("server.enableStaticServing"):
        return None
    target = STATIC / SCRIPT
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    try:
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            STATIC.mkdir(exist_ok=True)
            partial = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(source, partial)
            partial.replace(target)
    except OSError:
        return None
    return f"app/static/{SCRIPT}"


_CHART = st.components.v2.component(
    "explorer_chart",
    html='<div class="plot" tabindex="0"><div class="waiting">Drawing…</div></div>\n',
    css=source("chart.css"),
    js=source("chart.js"),
    isolate_styles=False,
)


def preload() -> None:
    """Have the browser fetch and run plotly.js while the server still computes; shows nothing."""
    address = serve_plotly()
    if address is not None:
        _CHART(key="library", data={"library": address}, height="content")


def chart(
    figure: Figure,
    key: str,
    alt: str,
    on_click: Callable[[dict[str, Any]], None] | None = None,
    note: str | None = None,
    time: bool = False,
) -> None:
    """Show a figure; alt says what to see. on_click gets the clicked point (x, y, z, curve, custom) before the rerun.

    time: the x axis is time-steps, and shows where the player stands; a click moves the player there.
    Exported files carry alt as their title and note, the settings line, below it (None: the settings on screen).
    """
    address = serve_plotly()
    if address is None:
        st.plotly_chart(figure.checked(), key=f"{key}_plain", theme="streamlit", alt=alt)
        return
    height = figure.layout["height"]
    scene = state.scene()
    scene = replace(scene, settings=state.last_good() or scene.settings)
    data = {
        "figure": figure.to_json(),
        "library": address,
        "alt": alt,
        "height": height,
        "name": key,
        "time": time,
        "note": scene.settings.note() if note is None else note,
        "view": f"?{link.PARAMETER}={link.encode(scene)}",
    }

    def clicked() -> None:
        point = st.session_state[key].get("clicked")
        if point and on_click is not None:
            on_click(point)
            st.rerun()  # the chart may stand in a fragment, but its click concerns the page

    _CHART(key=key, data=data, height="content", on_clicked_change=clicked)
