"""Accuracy against time-steps: lines with 95 % Wilson intervals, the ANN as a line, published figures as markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure

MARKS, MEASURED = (
    ("star", "cross", "star-open", "cross-open", "x", "x-open"),
    (*(f"{shape}-open" for shape in ("circle", "square", "diamond", "triangle-up", "bowtie", "pentagon", "hexagram")),),
)


@dataclass(frozen=True)
class Marks:
    """Single figures of top-1, per cent, after T steps. low, high: intervals, where they were measured here."""

    name: str
    T: tuple[int, ...]
    top1: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy of one setting: top1, low, high have shape [T], in 0..1; n images were counted.

    Where nobody labelled the images, they are agreement with the ANN. style: how this setting is drawn everywhere.
    """

    name: str
    top1: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int
    labelled: bool = True
    style: theme.Style = theme.YOURS


def accuracy_figure(
    curves: Sequence[Curve],
    ann: float | None,
    log: bool = False,
    marks: Sequence[Marks] = (),
    height: int = 360,
) -> Figure:
    """Draw top-1 accuracy (%) against T, one line per setting with its 95 % band; ann in 0..1 as a horizontal line.

    marks: published figures, and ours on whole test sets; left out where there are no labels.
    """
    labelled = all(curve.labelled for curve in curves)
    figure = theme.new_figure(height, "time-steps T", theme.ACCURACY if labelled else theme.AGREEMENT)
    for curve in curves:
        t = np.arange(1, len(curve.top1) + 1)
        band = np.concatenate([curve.high, curve.low[::-1]]) * 100
        figure.add_scatter(
            x=np.concatenate([t, t[::-1]]),
            y=band.astype(np.float32),
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=theme.translucent(curve.style.colour, 0.15),
            hoverinfo="skip",
            showlegend=False,
            legendgroup=curve.name,
        )
        figure.add_scatter(
            x=t,
            y=(curve.top1 * 100).astype(np.float32),
            mode="lines+markers",
            name=curve.name,
            legendgroup=curve.name,
            line=curve.style.line,
            marker=curve.style.marker(6 if len(t) <= 64 else 1),
            customdata=np.stack([curve.low, curve.high], 1) * 100,
            hovertemplate="T = %{x}<br>%{y:.1f} % (95 %: %{customdata[0]:.1f} to %{customdata[1]:.1f})"
            f"<br>N = {curve.n}<extra>{curve.name}</extra>",
        )
    for kind in (MARKS, MEASURED):  # published, and measured here: no two of a kind look alike
        alike = [one for one in marks if labelled and bool(one.low) == (kind is MEASURED)]
        for symbol, one in zip(cycle(kind), alike):
            _add_marks(figure, one, symbol)
    if ann is not None:
        figure.add_hline(
            y=ann * 100,
            line={"color": theme.GREY, "dash": "dash", "width": 1.5},
            annotation={"text": f"ANN {ann * 100:.1f} %", "x": 0, "xanchor": "left", "yanchor": "top"},
        )
    figure.update_yaxes(range=[0, 102])
    if curves and not log:
        theme.steps_axis(figure, max(len(curve.top1) for curve in curves))
    if log:
        figure.update_xaxes(type="log", tickvals=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    return figure


def _add_marks(figure: Figure, marks: Marks, symbol: str) -> None:
    measured, top1 = bool(marks.low), np.array(marks.top1)
    errors, told = None, [note or "" for note in marks.notes] or [""] * len(top1)
    if measured:
        errors = {"array": marks.high - top1, "arrayminus": top1 - marks.low, "symmetric": False, "thickness": 1.5}
        told = [f" (95 %: {low:.2f} to {high:.2f})" for low, high in zip(marks.low, marks.high, strict=True)]
    figure.add_scatter(
        x=list(marks.T),
        y=list(marks.top1),
        mode="markers",
        name=marks.name,
        marker={"symbol": symbol, "size": 11, "color": theme.PURPLE if measured else theme.GREY},
        error_y=errors,
        customdata=[[text] for text in told],
        hovertemplate="T = %{x}: %{y:.2f} %%{customdata[0]}<extra>" + marks.name + "</extra>",
    )


def steps_to_reach(top1: np.ndarray, target: float) -> int | None:
    """Return the first T from which on top1 [T] stays at or above target; None if it never does.

    Where it is not a number there is no answer yet.
    """
    below = np.flatnonzero(~(top1 >= target))
    first = 0 if len(below) == 0 else int(below[-1]) + 1
    return first + 1 if first < len(top1) else None


def grid_figure(
    grid: np.ndarray,
    x: Sequence,
    y: Sequence,
    x_title: str,
    y_title: str,
    unit: str = "top-1 accuracy (%)",
    height: int = 380,
) -> Figure:
    """Draw a heat map of grid [y, x], cells of one size each; the best row of every column is marked."""
    figure = theme.new_figure(height, x_title, y_title)
    labels = [str(value) for value in x]
    y = [str(value) for value in y]
    figure.add_heatmap(
        z=grid.astype(np.float32),
        x=labels,
        y=y,
        colorscale=theme.colour_scale(),
        colorbar={"title": {"text": unit, "side": "right"}},
        hovertemplate=f"{x_title} %{{x}}<br>{y_title} %{{y}}<br>{unit} %{{z:.2f}}<extra></extra>",
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")  # what was run, not a scale on which it lies
    known = ~np.isnan(grid).all(axis=0)
    if known.any():
        best = np.nanargmax(np.where(np.isnan(grid), -np.inf, grid), axis=0)
        figure.add_scatter(
            x=[label for label, ok in zip(labels, known, strict=True) if ok],
            y=[y[row] for row, ok in zip(best, known, strict=True) if ok],
            mode="markers",
            name="best of each column",
            marker={"color": theme.ORANGE, "symbol": "diamond", "size": 9, "line": {"color": "white", "width": 1}},
        )
    return figure


def bars_figure(
    names: Sequence[str],
    values: np.ndarray,
    unit: str,
    height: int | None = None,
    errors: np.ndarray | None = None,
    y: str = "layer",
) -> Figure:
    """Draw one horizontal bar per name, signed values in unit; y: what the names are."""
    figure = theme.new_figure(height or 140 + 20 * len(names), unit, y)
    figure.add_bar(
        y=list(names),
        x=values.astype(np.float32),
        orientation="h",
        marker={"color": np.where(values < 0, theme.LOSS, theme.GAIN).tolist()},
        error_x=None if errors is None else {"array": errors.astype(np.float32), "color": theme.GREY},
        hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
    return figure
