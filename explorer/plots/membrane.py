"""A neuron's membrane: potential, threshold, spikes and resets, and what its spikes decode to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure
from explorer.plots.rates import short_names


@dataclass(frozen=True, eq=False)
class DrawnMembrane:
    """One neuron over time under one setting. x, v_before, v, z have shape [T]; the rest are numbers.

    v_before is the potential before the threshold is compared, v the one after the reset. style: how this setting is
    drawn everywhere.
    """

    name: str
    x: np.ndarray
    v_before: np.ndarray
    v: np.ndarray
    z: np.ndarray
    theta: float
    v0: float
    a: float
    style: theme.Style = theme.YOURS

    @property
    def decoded(self) -> np.ndarray:
        """a_hat(t) = theta n(t) / t, [T], activation units."""
        steps = np.arange(1, len(self.z) + 1)
        return self.theta * np.cumsum(self.z) / steps


def sawtooth(membrane: DrawnMembrane) -> tuple[np.ndarray, np.ndarray]:
    """Return the path (t, v) through every step: up or down by the current, then down by theta at a spike."""
    steps = len(membrane.x)
    t = np.repeat(np.arange(1, steps + 1, dtype=np.float64), 2)
    v = np.stack([membrane.v_before, membrane.v], 1).reshape(-1)
    return np.concatenate([[0.0], t]), np.concatenate([[membrane.v0], v])


def membrane_figure(membranes: Sequence[DrawnMembrane]) -> Figure:
    """Draw v(t) with threshold, spikes and resets, one line per setting; axes in activation units and steps."""
    figure = theme.new_figure(330, theme.STEP, theme.POTENTIAL)
    figure.update_layout(margin={"r": 84})
    theme.steps_axis(figure, max((len(membrane.x) for membrane in membranes), default=32))
    for membrane in membranes:
        t, v = sawtooth(membrane)
        figure.add_scatter(
            x=t,
            y=v.astype(np.float32),
            mode="lines",
            name=membrane.name,
            line=membrane.style.line,
            hovertemplate="t = %{x}<br>v = %{y:.4g}<extra>" + membrane.name + "</extra>",
        )
        fired, taken_back = np.flatnonzero(membrane.z > 0), np.flatnonzero(membrane.z < 0)
        figure.add_scatter(
            x=fired + 1,
            y=membrane.v_before[fired].astype(np.float32),
            mode="markers",
            name=f"spikes ({len(fired)})",
            showlegend=len(membranes) == 1,
            marker={**membrane.style.marker(9), "line": {"width": 1, "color": "white"}},
            hovertemplate="spike at t = %{x}<br>v before reset = %{y:.4g}<extra></extra>",
        )
        if taken_back.size:
            figure.add_scatter(
                x=taken_back + 1,
                y=membrane.v_before[taken_back].astype(np.float32),
                mode="markers",
                name=f"spikes taken back ({len(taken_back)})",
                showlegend=len(membranes) == 1,
                marker={**membrane.style.marker(11), "symbol": "triangle-down-open", "line": {"width": 2}},
                hovertemplate="spike −1 at t = %{x}<br>v before reset = %{y:.4g}<extra></extra>",
            )
    thresholds = sorted({round(membrane.theta, 9) for membrane in membranes})
    for theta in thresholds:
        figure.add_hline(
            y=theta,
            line={"color": theme.GREY, "dash": "dash", "width": 1.5},
            annotation={"text": f"θ = {theta:.4g}", "x": 1, "xanchor": "left", "yanchor": "middle"},
        )
    return figure


def convergence_figure(membranes: Sequence[DrawnMembrane]) -> Figure:
    """Draw the decoded value a_hat(t) = theta n(t) / t as it approaches the ANN's activation (grey line)."""
    figure = theme.new_figure(240, theme.STEP, "decoded â(t) (activation units)")
    figure.update_layout(margin={"r": 84})
    theme.steps_axis(figure, max((len(membrane.x) for membrane in membranes), default=32))
    for membrane in membranes:
        figure.add_scatter(
            x=np.arange(1, len(membrane.z) + 1),
            y=membrane.decoded.astype(np.float32),
            mode="lines",
            name=membrane.name,
            line=membrane.style.line,
            hovertemplate="t = %{x}<br>â = %{y:.4g}<extra>" + membrane.name + "</extra>",
        )
    if membranes:
        figure.add_hline(
            y=membranes[0].a,
            line={"color": theme.GREY, "width": 1.5},
            annotation={"text": f"a = {membranes[0].a:.4g}", "x": 1, "xanchor": "left", "yanchor": "middle"},
        )
    return figure


def current_figure(membranes: Sequence[DrawnMembrane]) -> Figure:
    """Draw the input current x(t) per step."""
    figure = theme.new_figure(240, theme.STEP, theme.CURRENT)
    theme.steps_axis(figure, max((len(membrane.x) for membrane in membranes), default=32))
    for membrane in membranes:
        figure.add_scatter(
            x=np.arange(1, len(membrane.x) + 1),
            y=membrane.x.astype(np.float32),
            mode="lines",
            name=membrane.name,
            line={**membrane.style.line, "shape": "hvh"},
            hovertemplate="t = %{x}<br>x = %{y:.4g}<extra>" + membrane.name + "</extra>",
        )
    return figure


def scores_figure(classes: Sequence[str], ann: np.ndarray, snn: np.ndarray, label: int | None = None) -> Figure:
    """Draw the class scores [K] of ANN and SNN side by side; the true class is marked by a star."""
    names = [f"{name} ★" if i == label else name for i, name in enumerate(classes)]
    figure = theme.new_figure(330, "class score (logit)", "class")
    for name, values, colour, pattern in (("ANN", ann, theme.ANN.colour, ""), ("SNN", snn, theme.YOURS.colour, "/")):
        figure.add_bar(
            x=values.astype(np.float32),
            y=names,
            name=name,
            orientation="h",
            marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate="%{y}: %{x:.3f}<extra>" + name + "</extra>",
        )
    figure.update_layout(barmode="group", bargap=0.25, margin={"l": 96})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def first_spikes_figure(times: Sequence[tuple[str, theme.Style, Mapping[str, float]]]) -> Figure:
    """Draw per layer the median step of the first spike; times: a line each, its name, style, and step by site."""
    figure = theme.new_figure(340, "layer", "median first spike (time-step)")
    for name, style, by_site in times:
        figure.add_scatter(
            x=short_names(list(by_site)),
            y=np.array(list(by_site.values())),
            name=name,
            mode="lines+markers",
            line=style.line,
            marker=style.marker(8),
            hovertemplate="%{x}<br>step %{y}<extra>" + name + "</extra>",
        )
    figure.update_xaxes(tickangle=-60, automargin=True)
    figure.update_yaxes(rangemode="tozero")
    return figure


def raster_figure(spikes: np.ndarray, theta_step: int = 1) -> Figure:
    """Draw a spike raster, spikes uint8 [T, n]: dark where silent, bright where the neuron fired."""
    figure = theme.new_figure(260, theme.STEP, "neuron (evenly spaced sample)")
    theme.steps_axis(figure, len(spikes))
    figure.add_heatmap(
        z=np.ascontiguousarray(spikes.T),
        x0=1,
        dx=theta_step,
        colorscale=theme.colour_scale(),
        showscale=False,
        hovertemplate="t = %{x}<br>neuron %{y}<br>spike %{z}<extra></extra>",
        zmin=0,
        zmax=1,
    )
    return figure
