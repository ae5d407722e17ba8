"""A neuron's membrane: potential, threshold, spikes and resets, and what its spikes decode to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure
from explorer.plots.rates import short_names

if TYPE_CHECKING:
    from explorer.engine.analysis import Membrane


@dataclass(frozen=True, eq=False)
class DrawnMembrane:
    """One neuron over time under one setting. x, v_before, v, z have shape [T]; the rest are numbers.

    v_before is the potential before the threshold is compared, v the one after the reset. style: how this setting is
    drawn everywhere. value: what the spikes so far stand for at each step, [T], activation units; None: theta n / t.
    muted: nothing of what it fires is sent. before: the same neuron in the phase before the run. skipped: steps that
    the read-out leaves out. sends_later: these are the steps in which it sends, its whole input taken in before.
    stretches: between steps what v is more than v0 grows by t / (t - 1). fires_at: the least potential that fires, in
    thresholds. sized: a step sends one spike, and z is its size.
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
    value: np.ndarray | None = None
    muted: bool = False
    before: DrawnMembrane | None = None
    skipped: int = 0
    sends_later: bool = False
    stretches: bool = False
    fires_at: float = 1.0
    sized: bool = False

    @staticmethod
    def of(name: str, got: Membrane) -> DrawnMembrane:
        """Return an engine's membrane ready to draw."""
        x, v_before, v, z, value = (
            np.asarray(part, dtype=np.float32) for part in (got.x, got.v_before, got.v, got.z, got.decoded)
        )
        return DrawnMembrane(
            *(name, x, v_before, v, z, float(got.theta), float(got.v0), float(got.a)),
            value=value,
            muted=got.muted,
            before=None if got.before is None else DrawnMembrane.of(name, got.before),
            skipped=got.skipped,
            sends_later=got.sends_later,
            stretches=got.stretches,
            fires_at=got.fires_at,
            sized=got.sized,
        )

    @property
    def decoded(self) -> np.ndarray:
        """a_hat(t), [T], activation units."""
        if self.value is not None:
            return self.value
        return self.theta * np.cumsum(self.z) / np.arange(1, len(self.z) + 1)

    @property
    def first_phase(self) -> int:
        """How many steps the phase before the run has."""
        return 0 if self.before is None else len(self.before.x)


def sawtooth(membrane: DrawnMembrane) -> tuple[np.ndarray, np.ndarray]:
    """Return the path (t, v) through every step: up or down by the current, then down by theta at a spike."""
    steps = len(membrane.x)
    t = np.repeat(np.arange(1, steps + 1, dtype=np.float64), 2)
    v = np.stack([membrane.v_before, membrane.v], 1).reshape(-1)
    return np.concatenate([[0.0], t]), np.concatenate([[membrane.v0], v])


def membrane_figure(membranes: Sequence[DrawnMembrane]) -> Figure:
    """Draw v(t) with threshold, spikes and resets, one line per setting; axes in activation units and steps.

    A first phase is drawn before t = 0; spikes of a muted neuron, which are not sent, are hollow and grey.
    """
    figure = theme.new_figure(330, theme.STEP, theme.POTENTIAL)
    figure.update_layout(margin={"r": 84})
    _time(figure, membranes)
    for membrane in membranes:
        t, v = sawtooth(membrane)
        figure.add_scatter(
            x=t,
            y=v.astype(np.float32),
            mode="lines",
            name=membrane.name,
            legendgroup=membrane.name,
            line=membrane.style.line,
            hovertemplate="t = %{x}<br>v = %{y:.4g}<extra>" + membrane.name + "</extra>",
        )
        _spikes(figure, membrane, 0, len(membranes) == 1)
    for membrane in membranes:
        if membrane.before is not None:
            _first_phase(figure, membrane, membrane.before)
    levels = sorted({(round(membrane.fires_at * membrane.theta, 9), membrane.fires_at) for membrane in membranes})
    for level, share in levels:
        figure.add_hline(
            y=level,
            line={"color": theme.GREY, "dash": "dash", "width": 1.5},
            annotation={"text": f"{thresholds(share)} = {level:.4g}", "x": 1, "xanchor": "left", "yanchor": "middle"},
        )
    return figure


def thresholds(share: float) -> str:
    """Return so many thresholds as they are written."""
    return "θ" if share == 1 else f"{share:g}\N{NO-BREAK SPACE}θ"


def _spikes(figure: Figure, membrane: DrawnMembrane, begin: int, alone: bool) -> None:
    """Mark spikes at steps begin + 1 on."""
    fired, taken_back = np.flatnonzero(membrane.z > 0), np.flatnonzero(membrane.z < 0)
    marker = {**membrane.style.marker(9), "line": {"width": 1, "color": "white"}}
    number = len(fired) if membrane.sized else int(membrane.z[fired].sum())
    name, told = f"spikes ({number})", "spike"
    if membrane.muted:
        marker = {"symbol": "circle-open", "size": 9, "color": theme.GREY, "line": {"width": 2}}
        name, told = f"muted: fired, not sent ({len(fired)})", "fired, but muted: nothing is sent"
    figure.add_scatter(
        x=fired + 1 + begin,
        y=membrane.v_before[fired].astype(np.float32),
        mode="markers",
        name=name,
        legendgroup=membrane.name,
        showlegend=not begin and (alone or membrane.muted),
        marker=marker,
        customdata=membrane.z[fired],
        hovertemplate=told + " at t = %{x}, counts %{customdata}<br>v before reset = %{y:.4g}<extra></extra>",
    )
    if taken_back.size:
        figure.add_scatter(
            x=taken_back + 1 + begin,
            y=membrane.v_before[taken_back].astype(np.float32),
            mode="markers",
            name=f"spikes taken back ({len(taken_back)})",
            legendgroup=membrane.name,
            showlegend=alone and not begin,
            marker={**membrane.style.marker(11), "symbol": "triangle-down-open", "line": {"width": 2}},
            customdata=membrane.z[taken_back],
            hovertemplate="taken back at t = %{x}, counts %{customdata}<br>v before reset = %{y:.4g}<extra></extra>",
        )


def _first_phase(figure: Figure, membrane: DrawnMembrane, before: DrawnMembrane) -> None:
    """Draw the phase before the run, and where the run starts."""
    steps, (t, v) = len(before.x), sawtooth(before)
    figure.add_scatter(
        x=t - steps,
        y=v.astype(np.float32),
        mode="lines",
        name=f"{membrane.name}: first phase",
        legendgroup=membrane.name,
        showlegend=False,
        line={**membrane.style.line, "width": 1.3},
        hovertemplate="first phase, t = %{x}<br>v = %{y:.4g}<extra>" + membrane.name + "</extra>",
    )
    _spikes(figure, before, -steps, False)
    moved = abs(membrane.v0 - before.v0) > 1e-6 * membrane.theta
    figure.add_scatter(
        x=[0],
        y=[membrane.v0],
        mode="markers",
        name=f"v(0) moved to {membrane.v0:.4g}" if moved else f"v(0) = {membrane.v0:.4g}, as before",
        legendgroup=None if moved else membrane.name,
        showlegend=moved,
        marker={**membrane.style.marker(11), "symbol": "circle-open", "line": {"width": 2.5}},
        hovertemplate="the run starts at v(0) = %{y:.4g}<extra></extra>",
    )


def _time(figure: Figure, membranes: Sequence[DrawnMembrane], before: bool = True) -> None:
    """Let the x axis count steps; shade a first phase (if it is drawn), and the steps that the read-out leaves out."""
    steps = max((len(membrane.x) for membrane in membranes), default=32)
    first = max((membrane.first_phase for membrane in membranes), default=0) if before else 0
    skipped = max((membrane.skipped for membrane in membranes), default=0)
    theme.steps_axis(figure, steps + first)
    for begin, end, told in ((-first, 0.0, "first phase"), (0.0, skipped + 0.5 if skipped else 0.0, "not read out")):
        if end > begin:
            figure.add_shape(
                type="rect",
                x0=begin,
                x1=end,
                xref="x",
                y0=0,
                y1=1,
                yref="y domain",
                line={"width": 0},
                fillcolor=theme.translucent(theme.GREY, 0.16),
                layer="below",
            )
            figure.add_annotation(
                text=told, x=begin, xref="x", xanchor="left", y=1, yref="y domain", yanchor="top", showarrow=False
            )


def _mode(steps: int) -> str:
    """A line of one point cannot be seen: it is marked."""
    return "lines" if steps > 1 else "markers"


def convergence_figure(membranes: Sequence[DrawnMembrane]) -> Figure:
    """Draw the decoded value a_hat(t), mostly theta n(t) / t, as it approaches the ANN's activation (grey line)."""
    figure = theme.new_figure(240, theme.STEP, "decoded â(t) (activation units)")
    figure.update_layout(margin={"r": 84})
    _time(figure, membranes, before=False)
    for membrane in membranes:
        figure.add_scatter(
            x=np.arange(1, len(membrane.z) + 1),
            y=membrane.decoded.astype(np.float32),
            mode=_mode(len(membrane.z)),
            marker=membrane.style.marker(7),
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
    """Draw the input current x(t) per step, that of a first phase before t = 0."""
    figure = theme.new_figure(240, theme.STEP, theme.CURRENT)
    _time(figure, membranes)
    for membrane in membranes:
        figure.add_scatter(
            x=np.arange(1, len(membrane.x) + 1),
            y=membrane.x.astype(np.float32),
            mode=_mode(len(membrane.x)),
            marker=membrane.style.marker(7),
            name=membrane.name,
            legendgroup=membrane.name,
            line={**membrane.style.line, "shape": "hvh"},
            hovertemplate="t = %{x}<br>x = %{y:.4g}<extra>" + membrane.name + "</extra>",
        )
        if membrane.before is not None:
            figure.add_scatter(
                x=np.arange(1 - membrane.first_phase, 1),
                y=membrane.before.x.astype(np.float32),
                mode=_mode(membrane.first_phase),
                marker=membrane.style.marker(7),
                name=f"{membrane.name}: first phase",
                legendgroup=membrane.name,
                showlegend=False,
                line={**membrane.style.line, "shape": "hvh", "width": 1.3},
                hovertemplate="first phase, t = %{x}<br>x = %{y:.4g}<extra>" + membrane.name + "</extra>",
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
    """Draw a spike raster, what spikes count int8 [T, n]: dark where silent, bright where the neuron fired."""
    figure = theme.new_figure(260, theme.STEP, "neuron (evenly spaced sample)")
    theme.steps_axis(figure, len(spikes))
    figure.add_heatmap(
        z=np.ascontiguousarray(spikes.T),
        x0=1,
        dx=theta_step,
        colorscale=theme.colour_scale(),
        showscale=False,
        hovertemplate="t = %{x}<br>neuron %{y}<br>spike %{z}<extra></extra>",
        zmin=min(0, int(spikes.min(initial=0))),
        zmax=max(1, int(spikes.max(initial=1))),
    )
    return figure
