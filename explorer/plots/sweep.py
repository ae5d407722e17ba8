"""Grids of settings: a line with intervals, bars, or a heat map, by what was varied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure


def line_figure(
    x: Sequence[float], mean: np.ndarray, low: np.ndarray, high: np.ndarray, title: str, unit: str, ann: float | None
) -> Figure:
    """Draw shares (0..1) with intervals against a number that was varied; ann: the ANN's share as a line."""
    figure = theme.new_figure(360, title, unit)
    figure.add_scatter(
        x=list(x),
        y=100 * mean,
        error_y={"array": 100 * (high - mean), "arrayminus": 100 * (mean - low), "color": theme.GREY},
        mode="lines+markers",
        name="SNN",
        line=theme.YOURS.line,
        marker=theme.YOURS.marker(8),
        hovertemplate="%{x:g}<br>%{y:.2f} %<extra></extra>",
    )
    if ann is not None:
        figure.add_hline(
            y=100 * ann,
            line={"color": theme.GREY, "dash": "dash", "width": 1.5},
            annotation={"text": f"ANN {100 * ann:.1f} %", "x": 0, "xanchor": "left", "yanchor": "top"},
        )
    return figure


def waterfall_figure(labels: Sequence[str], mean: np.ndarray, title: str, unit: str) -> Figure:
    """Draw what each part adds to a share (0..1): the first from zero, the others from where the one before ended."""
    figure = theme.new_figure(150 + 30 * len(labels), unit, title)
    before = np.concatenate([[0.0], mean[:-1]])
    step = 100 * (mean - before)
    figure.add_bar(
        y=list(labels),
        x=step,
        base=(100 * before).tolist(),
        orientation="h",
        name="change",
        marker={"color": [theme.YOURS.colour, *(theme.GAIN if change >= 0 else theme.LOSS for change in step[1:])]},
        text=[f"{100 * mean[0]:.1f} %", *(f"{change:+.1f}".replace("-", "−") for change in step[1:])],
        textposition="outside",
        cliponaxis=False,
        customdata=100 * mean,
        hovertemplate="%{y}: to %{customdata:.2f} %<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, type="category")
    return figure


def bars_figure(
    labels: Sequence[str], mean: np.ndarray, low: np.ndarray, high: np.ndarray, title: str, unit: str
) -> Figure:
    """Draw shares (0..1) with intervals by words that were varied."""
    figure = theme.new_figure(150 + 26 * len(labels), unit, title)
    figure.add_bar(
        y=list(labels),
        x=100 * mean,
        orientation="h",
        name="SNN",
        marker={"color": theme.YOURS.colour},
        error_x={"array": 100 * (high - mean), "arrayminus": 100 * (mean - low), "color": theme.GREY},
        hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, type="category")
    return figure
