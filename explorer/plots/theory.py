"""One neuron at constant input: the staircase, its error, and the mean square of the error against v_init.

The staircase and the neuron are the engine's own, which need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from explorer.engine.theory import neuron, staircase
from explorer.plots import theme
from explorer.plots.figure import Figure

POINTS = 20_000


def error(x: np.ndarray, theta: float, T: int, v_init: float) -> np.ndarray:
    """Return a_hat - clip(x, 0, theta), activation units."""
    return staircase(x, theta, T, v_init) - np.clip(x, 0, theta)


def inputs(kind: str, theta: float, layer: np.ndarray | None = None) -> np.ndarray:
    """Return evenly weighted sample inputs of a distribution: quantiles, so that nothing is random.

    uniform: between 0 and theta. half-normal: deviation theta / 3. layer: the given activations, scaled by the caller.
    """
    q = (np.arange(POINTS) + 0.5) / POINTS
    match kind:
        case "half-normal":
            z = np.linspace(0, 6, 60_001)
            cdf = np.cumsum(np.exp(-z * z / 2))
            return theta / 3 * np.interp(q, cdf / cdf[-1], z)
        case "layer" if layer is not None and layer.size:
            return np.quantile(layer, q)
    return theta * q


def moments(x: np.ndarray, theta: float, T: int, v_init: float) -> tuple[float, float]:
    """Return the mean and the mean square of the error over the sample x."""
    e = error(x, theta, T, v_init)
    return float(e.mean()), float((e * e).mean())


def best_start(x: np.ndarray, theta: float, T: int) -> float:
    """Return the v_init in 0, 0.01, ..., 1 with the least mean squared error over the sample x."""
    grid = np.linspace(0, 1, 101)
    return float(grid[int(np.argmin([moments(x, theta, T, v)[1] for v in grid]))])


def unbiased_start(x: np.ndarray, theta: float, T: int) -> float:
    """Return the v_init in 0, 0.01, ..., 1 whose mean error over the sample x is nearest to zero."""
    grid = np.linspace(0, 1, 101)
    return float(grid[int(np.argmin([abs(moments(x, theta, T, v)[0]) for v in grid]))])


def staircase_figure(theta: float, T: int, v_init: float, x0: float) -> Figure:
    """Draw the decoded value against constant input, the clip it stands for, and the visitor's input x0."""
    figure = theme.new_figure(340, "constant input x (activation units)", "decoded â (activation units)")
    x = np.linspace(-0.1 * theta, 1.3 * theta, 3000)
    figure.add_scatter(
        x=x,
        y=np.clip(x, 0, theta),
        mode="lines",
        name="clip(x, 0, θ)",
        line={"color": theme.ANN.colour, "dash": "solid", "width": 2},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=staircase(x, theta, T, v_init),
        mode="lines",
        name="staircase â",
        line={"color": theme.BLUE, "width": 2},
        hovertemplate="x = %{x:.3g}<br>â = %{y:.3g}<extra></extra>",
    )
    y0 = float(staircase(np.array(x0), theta, T, v_init))
    figure.add_scatter(
        x=[x0],
        y=[y0],
        mode="markers",
        name="your input",
        marker={"color": theme.CHOSEN, "size": 12, "symbol": "diamond"},
        hovertemplate="x = %{x:.3g}<br>â = %{y:.3g}<extra></extra>",
    )
    return figure


def error_figure(theta: float, T: int, v_init: float) -> Figure:
    """Draw the error â - clip(x, 0, theta) against constant input."""
    figure = theme.new_figure(260, "constant input x (activation units)", "error â − clip (activation units)")
    x = np.linspace(-0.1 * theta, 1.3 * theta, 3000)
    figure.add_scatter(
        x=x,
        y=error(x, theta, T, v_init),
        mode="lines",
        name="error",
        showlegend=False,
        line={"color": theme.BLUE},
        hovertemplate="x = %{x:.3g}<br>error %{y:.3g}<extra></extra>",
    )
    figure.add_hline(y=0, line={"color": theme.GREY, "dash": "dash", "width": 1})
    figure.update_yaxes(range=[-1.25 * theta / T, 1.25 * theta / T])
    return figure


def square_figure(x: np.ndarray, theta: float, T: int, v_init: float) -> Figure:
    """Draw the mean squared error against v_init over the sample x, with the visitor's v_init."""
    figure = theme.new_figure(260, "v_init (share of θ)", "mean squared error (units²)")
    grid = np.linspace(-0.2, 1.2, 57)
    figure.add_scatter(
        x=grid,
        y=[moments(x, theta, T, v)[1] for v in grid],
        mode="lines",
        name="mean squared error",
        line={"color": theme.BLUE, "width": 2},
        hovertemplate="v_init = %{x:.2f}<br>mean square %{y:.3g}<extra></extra>",
    )
    figure.add_scatter(
        x=[v_init],
        y=[moments(x, theta, T, v_init)[1]],
        mode="markers",
        name="yours",
        marker={"color": theme.CHOSEN, "size": 13, "symbol": "diamond"},
        hovertemplate="yours: %{x:.2f}<br>mean square %{y:.3g}<extra></extra>",
    )
    figure.update_yaxes(rangemode="tozero")
    return figure


def density_figure(x: np.ndarray, theta: float) -> Figure:
    """Draw how the inputs are distributed."""
    figure = theme.new_figure(260, "input x (activation units)", "share of inputs (%)")
    width = theta / 40
    share, edges = np.histogram(x, np.arange(max(52, np.ceil(np.quantile(x, 0.999) / width)) + 1) * width)
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=100 * share / x.size,
        showlegend=False,
        marker={"color": theme.GREY},
        width=width,
        hovertemplate="x ≈ %{x:.3g}<br>%{y:.2f} %<extra></extra>",
    )
    mark = {"text": "θ", "y": 1, "xanchor": "left", "yanchor": "top"}
    figure.add_vline(x=theta, line={"color": theme.GREY, "dash": "dash"}, annotation=mark)
    return figure


def certain_figure(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Figure:
    """Draw, per site, the shares of neurons (0 to 1) about which the bounds say something."""
    figure = theme.new_figure(400, "layer", "share of neurons (%)")
    for (label, values), style in zip(shares.items(), theme.SERIES, strict=False):
        figure.add_scatter(
            x=list(names),
            y=[100 * value for value in values],
            mode="lines+markers",
            name=label,
            line=style.line,
            marker=style.marker(7),
            hovertemplate="%{x}<br>%{y:.1f} %<extra>" + label + "</extra>",
        )
    return _by_layer(figure.update_yaxes(range=[-3, 103]))


def width_figure(names: Sequence[str], width: Sequence[float], looseness: Sequence[float]) -> Figure:
    """Draw, per site, the bounds' mean width in thetas and how many times wider they are than what was sampled.

    On a logarithmic scale: both grow by about the same factor with each layer that nothing clips.
    """
    figure = theme.new_figure(400, "layer", "width (logarithmic)")
    for label, values, style in (("width / θ", width, theme.YOURS), ("width / sampled width", looseness, theme.ZERO)):
        figure.add_scatter(
            x=list(names),
            y=list(values),
            mode="lines+markers",
            name=label,
            line=style.line,
            marker=style.marker(7),
            hovertemplate="%{x}<br>%{y:.3g}<extra>" + label + "</extra>",
        )
    figure.add_hline(y=1, line={"color": theme.GREY, "dash": "dash", "width": 1})
    return _by_layer(figure.update_yaxes(type="log", exponentformat="power"))


def _by_layer(figure: Figure) -> Figure:
    """Give the names of layers room."""
    return figure.update_xaxes(automargin=True, tickangle=-90, tickfont={"size": 11})


def step(x: float, theta: float, T: int, v_init: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (v before the threshold, v after the reset, spikes), each [T], of one neuron at constant input x."""
    return neuron(np.full(T, x), theta, v_init)
