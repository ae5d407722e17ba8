"""Methods side by side: accuracy against time-steps or latency, what the start does to each, every read-out window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure

POWERS = [2**k for k in range(13)]


@dataclass(frozen=True, eq=False)
class MethodLine:
    """One conversion after some numbers of steps T: shares in 0..1, latency in steps, all of shape [points].

    method: as written in a line, which a click gives back.
    """

    name: str
    method: str
    T: np.ndarray
    latency: np.ndarray
    top1: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: theme.Style


def methods_figure(lines: Sequence[MethodLine], ann: float | None, latency: bool, labelled: bool = True) -> Figure:
    """Draw accuracy (%) against T, or against the steps that an answer takes; ann in 0..1 as a horizontal line."""
    x_title = "latency of an answer (time-steps)" if latency else "time-steps T"
    figure = theme.new_figure(560, x_title, theme.ACCURACY if labelled else theme.AGREEMENT)
    for line in lines:
        figure.add_scatter(
            x=(line.latency if latency else line.T).astype(np.float32),
            y=(100 * line.top1).astype(np.float32),
            mode="lines+markers",
            name=line.name,
            line={**line.style.line, "width": 3.5 if line.style == theme.YOURS else 1.8},
            marker=line.style.marker(8),
            customdata=[
                [line.method, int(T), int(wait), float(low), float(high)]
                for T, wait, low, high in zip(line.T, line.latency, 100 * line.low, 100 * line.high, strict=True)
            ],
            hovertemplate="T = %{customdata[1]}, answer after %{customdata[2]} steps<br>%{y:.1f} % "
            "(95 %: %{customdata[3]:.1f} to %{customdata[4]:.1f})<extra>" + line.name + "</extra>",
        )
    if ann is not None:
        figure.add_hline(
            y=100 * ann,
            line={"color": theme.GREY, "dash": "dash", "width": 1.5},
            annotation={"text": f"ANN {100 * ann:.1f} %", "x": 0, "xanchor": "left", "yanchor": "bottom"},
        )
    figure.update_layout(legend={"y": -0.2, "yanchor": "top"})
    figure.update_yaxes(range=[0, 104])
    return figure.update_xaxes(type="log", tickvals=POWERS)


def starts_figure(
    names: Sequence[str], zero: np.ndarray, own: np.ndarray, half: np.ndarray, T: int, labelled: bool = True
) -> Figure:
    """Draw what each method's accuracy (0..1, [methods]) is with v(0) = 0, with its own start and with theta / 2."""
    unit = theme.ACCURACY if labelled else theme.AGREEMENT
    figure = theme.new_figure(150 + 26 * len(names), f"{unit} after T = {T}", "method")
    gap = np.full(len(names), np.nan)
    figure.add_scatter(
        x=100 * np.stack([zero, half, gap], 1).ravel(),
        y=[name for name in names for _ in range(3)],
        mode="lines",
        line={"color": theme.GREY, "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    drawn = (("v_init = 0", zero, theme.ZERO, 11), ("v_init = 1/2", half, theme.HALF, 11), ("its own", own, None, 17))
    for name, values, style, size in drawn:
        ring = {"color": theme.CHOSEN, "symbol": "circle-open", "size": size, "line": {"width": 2}}
        figure.add_scatter(
            x=(100 * values).astype(np.float32),
            y=list(names),
            mode="markers",
            name=name,
            marker=ring if style is None else style.marker(size),
            hovertemplate="%{y}: %{x:.1f} %<extra>" + name + "</extra>",
        )
    return figure.update_yaxes(autorange="reversed", automargin=True, type="category")


def windows_figure(hits: np.ndarray, images: int, begin: int, labelled: bool = True) -> Figure:
    """Draw accuracy over every read-out window: of so many images, hits [i, j - 1] over the steps i + 1 to j.

    begin: steps that the conversion's own read-out leaves out, which is marked.
    """
    T = len(hits)
    figure = theme.new_figure(460, "last step read, j (time-step)", "steps left out, i (time-steps)")
    shares = np.where(np.tri(T, k=-1, dtype=bool), np.nan, 100 * hits / images)
    unit = theme.ACCURACY if labelled else theme.AGREEMENT
    figure.add_heatmap(
        z=shares.astype(np.float32),
        x=np.arange(1, T + 1),
        y=np.arange(T),
        colorscale=theme.colour_scale(),
        colorbar={"title": {"text": unit, "side": "right"}, "thickness": 12},
        hovertemplate="steps after %{y}, up to %{x}<br>%{z:.1f} %<extra></extra>",
        hoverongaps=False,
    )
    figure.add_scatter(
        x=[T],
        y=[begin],
        mode="markers",
        name=f"the method's own: steps {begin + 1} to {T}",
        marker={"color": theme.CHOSEN, "symbol": "circle-open", "size": 14, "line": {"width": 3}},
        hovertemplate=f"its own: %{{y}} left out, read up to %{{x}}: {shares[begin, T - 1]:.1f} %<extra></extra>",
    )
    theme.steps_axis(figure, T)
    return figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1 if T <= 12 else None)
