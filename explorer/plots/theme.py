"""Colours, dashes, fonts and axis titles of every figure, in one place.

The four line colours keep a contrast of about 3:1 on white and on the dark background and can be told apart with the common
colour-vision deficiencies (Okabe and Ito's set); dash and marker differ as well, so that colour never stands alone.
Text and grid colours are left to the page, which knows whether it is light or dark.
"""  # noqa: E501

from __future__ import annotations

import plotly.graph_objects as go

BLUE, GREEN, ORANGE, PINK = "#0072B2", "#009E73", "#D55E00", "#CC79A7"
GREY = "#808891"
COLORWAY = [BLUE, ORANGE, GREEN, PINK]
DASHES = ["solid", "dash", "dot", "dashdot"]
SYMBOLS = ["circle", "square", "diamond", "triangle-up"]
SCALE = "cividis"

STEP = "time-step t"
POTENTIAL = "potential v (activation units)"
CURRENT = "input current x (activation units)"
ACTIVATION = "ANN activation a (activation units)"
DECODED = "decoded â = θ n / T (activation units)"
ACCURACY = "top-1 accuracy (%)"
AGREEMENT = "agreement with the ANN (%)"
SHARE_A = "ANN activation a / θ"
SHARE_DECODED = "decoded rate n / T (spikes per step)"


def new_figure(height: int, x: str, y: str, **layout) -> go.Figure:
    """Return an empty figure in house style: transparent, axes titled with units, zoom kept over updates."""
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 62, "r": 16, "t": 34, "b": 48},
        colorway=COLORWAY,
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        uirevision="keep",
        hovermode="closest",
        font={"size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        **layout,
    )
    figure.update_xaxes(title=x, zeroline=False, gridcolor="rgba(128,136,145,0.22)")
    figure.update_yaxes(title=y, zeroline=False, gridcolor="rgba(128,136,145,0.22)")
    return figure


def sample(figure: go.Figure, n: int, goal: int | None = None) -> go.Figure:
    """Write into a figure, behind the title of its x axis, on how many images it rests; goal: on how many it will."""
    told = f"N = {n:,}" + (f" of {goal:,}" if goal is not None and goal > n else "")
    title = figure.layout.xaxis.title.text
    figure.update_xaxes(title_text=f"{title}; {told}" if title else told)
    return figure


def translucent(colour: str, alpha: float) -> str:
    """Return the hex colour as rgba with this opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
