"""Decoded rate against activation, error per layer and its parts, potentials at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from explorer.engine.theory import PARTS, staircase
from explorer.plots import theme
from explorer.plots.figure import Figure


def histogram_figure(
    counts: np.ndarray,
    edges_a: np.ndarray,
    edges_r: np.ndarray,
    T: int,
    v_init: float | None,
    style: theme.Style = theme.YOURS,
    most: float = 1,
) -> Figure:
    """Draw the 2-D histogram counts [activation, rate] with identity, clip and staircase lines; shares of theta.

    most: how many thresholds a step can be worth; infinite: nothing clips.
    """
    figure = theme.new_figure(380, theme.SHARE_A, theme.SHARE_DECODED)
    shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan).astype(np.float32)
    centres_a, centres_r = (edges_a[1:] + edges_a[:-1]) / 2, (edges_r[1:] + edges_r[:-1]) / 2
    figure.add_heatmap(
        z=shown.T,
        x=centres_a,
        y=centres_r,
        colorscale=theme.colour_scale(),
        customdata=counts.T.astype(np.int64),
        colorbar={
            "title": {"text": "neurons × images (log)", "side": "right"},
            "thickness": 12,
            "tickvals": [0, 1, 2, 3, 4, 5, 6],
            "ticktext": ["1", "10", "100", "10³", "10⁴", "10⁵", "10⁶"],
        },
        hovertemplate="a/θ ≈ %{x:.2f}<br>rate ≈ %{y:.2f}<br>%{customdata} values<extra></extra>",
    )
    top = float(edges_a[-1])
    seen = max(np.flatnonzero(counts.any(0)), default=0)  # rates above 1 are drawn where there are any
    highest = float(min(max(edges_r[seen + 1], 1 + edges_r[1]), edges_r[-1]))
    lines = [("identity â = a", [0, min(top, highest)], [0, min(top, highest)], theme.GREY, "dot")]
    if np.isfinite(most):
        reached, bound = min(float(most), top), "θ" if most == 1 else f"{most:g}θ"
        lines.append((f"clip(a, 0, {bound})", [0, reached, top], [0, reached, reached], theme.ANN.colour, "solid"))
    for name, x, y, colour, dash in lines:
        figure.add_scatter(
            x=x, y=y, mode="lines", name=name, line={"color": colour, "dash": dash, "width": 2}, hoverinfo="skip"
        )
    if v_init is not None and T <= 64:
        jumps = (np.arange(1, T + 1) - v_init) / T
        share = np.concatenate([[0.0], jumps[(jumps > 0) & (jumps < top)], [top]])
        within = (share[1:] + share[:-1]) / 2
        steps = staircase(within, 1.0, T, v_init).astype(np.float32)
        figure.add_scatter(
            x=share.astype(np.float32),
            y=np.append(steps, steps[-1]),
            mode="lines",
            hoverinfo="skip",
            name=f"staircase, T = {T}",
            line={**style.line, "width": 1.5, "shape": "hv"},
        )
    figure.update_xaxes(range=[-0.02, top])
    figure.update_yaxes(range=[-0.04, highest])
    return figure


def layer_error_figure(names: Sequence[str], rms: np.ndarray, mean: np.ndarray, chosen: str | None = None) -> Figure:
    """Draw per layer the root mean square and the mean of (a_hat - a) / theta, in percent of the threshold."""
    figure = theme.new_figure(360, "layer", "error â − a (% of θ)")
    ticks = short_names(names)
    outline = [2.5 if name == chosen else 0 for name in names]
    figure.add_bar(
        x=ticks,
        y=(rms * 100).astype(np.float32),
        name="root mean square",
        customdata=list(names),
        marker={"color": theme.BLUE, "line": {"color": theme.CHOSEN, "width": outline}},
        hovertemplate="%{customdata}<br>rms %{y:.2f} % of θ<extra></extra>",
    )
    figure.add_scatter(
        x=ticks,
        y=(mean * 100).astype(np.float32),
        name="mean (bias)",
        mode="lines+markers",
        customdata=list(names),
        line={"color": theme.ORANGE, "width": 1.5},
        marker={"symbol": "diamond", "size": 8},
        hovertemplate="%{customdata}<br>mean %{y:.2f} % of θ<extra></extra>",
    )
    figure.update_xaxes(showgrid=False, tickangle=-60, type="category", automargin=True)
    return figure


def short_names(names: Sequence[str]) -> list[str]:
    """Return names cut to what fits under a bar, still unique."""
    short = [name.replace("stages.", "s").replace("features.", "f").replace("layer", "L") for name in names]
    return short if len(set(short)) == len(short) else [f"{i + 1}: {name}" for i, name in enumerate(short)]


def parts_figure(names: Sequence[str], parts: Mapping[str, np.ndarray], squared: bool = False) -> Figure:
    """Draw the parts of the error per layer as stacked bars, [sites] each, with their total as markers."""
    unit = "mean squared error (% of θ²)" if squared else "mean error (% of θ)"
    figure = theme.new_figure(380, "layer", unit)
    ticks = short_names(names)
    for i, part in enumerate(PARTS):
        figure.add_bar(
            x=ticks,
            y=(parts[part] * 100).astype(np.float32),
            name=part,
            customdata=list(names),
            marker={"color": theme.CAUSES[part], "pattern": {"shape": ["", "/", ".", "x"][i]}},
            hovertemplate="%{customdata}<br>" + part + " %{y:.3g} %<extra></extra>",
        )
    total = parts["total"]
    figure.add_scatter(
        x=ticks,
        y=(total * 100).astype(np.float32),
        mode="markers",
        name="total",
        customdata=list(names),
        marker={"symbol": "line-ew-open", "size": 16, "color": theme.GREY, "line": {"width": 3}},
        hovertemplate="%{customdata}<br>total %{y:.3g} %<extra></extra>",
    )
    figure.update_layout(barmode="relative")
    figure.update_xaxes(showgrid=False, tickangle=-60, type="category", automargin=True)
    return figure


def potential_figure(counts: np.ndarray, edges: np.ndarray) -> Figure:
    """Draw the distribution of v(T) / theta: below 0 is charge owed, above 1 charge that could not be sent.

    Drawn from -2 to 3; how many lie beyond is written at either end, because silent neurons may lie far below.
    """
    low, high = -2.0, 3.0
    figure = theme.new_figure(300, "potential at the end, v(T) / θ", "share of neurons (%)")
    centres = (edges[1:] + edges[:-1]) / 2
    share = 100 * counts / max(counts.sum(), 1)
    shown = (centres > low) & (centres < high)
    colour = np.where(centres < 0, theme.BLUE, np.where(centres > 1, theme.ORANGE, theme.GREEN))
    figure.add_bar(
        x=centres[shown].astype(np.float32),
        y=share[shown].astype(np.float32),
        marker={"color": colour[shown].tolist()},
        width=float(edges[1] - edges[0]),
        showlegend=False,
        hovertemplate="v/θ ≈ %{x:.2f}<br>%{y:.2f} %<extra></extra>",
    )
    for x in (0.0, 1.0):
        figure.add_vline(x=x, line={"color": theme.GREY, "dash": "dash", "width": 1.2})
    beyond = {
        "left": f"← {share[centres < low].sum():.1f} % below {low:g}",
        "right": f"{share[centres > high].sum():.1f} % above {high:g} →",
    }
    for side, text in beyond.items():
        figure.add_annotation(
            text=text, x=float(side == "right"), xanchor=side, y=1.1, xref="paper", yref="paper", showarrow=False
        )
    figure.update_xaxes(range=[low, high])
    return figure


def map_figure(values: np.ndarray, unit: str, chosen: tuple[int, int] | None = None, height: int = 330) -> Figure:
    """Draw a feature map [H, W] as a heat map with square cells; the chosen (row, column) is outlined."""
    figure = theme.new_figure(height, "column", "row")
    figure.add_heatmap(
        z=values.astype(np.float32),
        colorscale=theme.colour_scale(),
        zmin=0,
        colorbar={"title": {"text": unit, "side": "right"}, "thickness": 12},
        hovertemplate="row %{y}, column %{x}<br>" + unit + " %{z:.3f}<extra>click to look inside</extra>",
    )
    if chosen is not None:
        row, column = chosen
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"color": theme.CHOSEN, "width": 3},
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, scaleanchor="x", constrain="domain")
    figure.update_xaxes(showgrid=False, constrain="domain")
    return figure


def tiles_figure(rate: np.ndarray, chosen: tuple[int, int, int], unit: str = "spikes per step") -> Figure:
    """Draw all channels of rate [C, H, W], in that unit, side by side; axes count channels, not pixels."""
    channels, rows, columns = rate.shape
    across = int(np.ceil(np.sqrt(channels)))
    figure = map_figure(tiles(rate), f"rate ({unit})", place_of(rate.shape, *chosen), 440)
    for update, size, first, title in (
        (figure.update_xaxes, columns, range(across), "channels further on"),
        (figure.update_yaxes, rows, range(0, channels, across), "first channel of the row"),
    ):
        every = max(1, len(first) // 12)
        at = [i * (size + 1) + (size - 1) / 2 for i in range(len(first))]
        update(title={"text": title}, tickvals=at[::every], ticktext=[str(c) for c in first][::every])
    hover = f"rate %{{z:.3f}} {unit}<extra>click to look inside</extra>"
    figure.data[0]["hovertemplate"] = hover
    return figure


def tiles(values: np.ndarray) -> np.ndarray:
    """Return channels [C, H, W] laid side by side with one empty cell between them: [rows, columns]."""
    channels, height, width = values.shape
    across = int(np.ceil(np.sqrt(channels)))
    sheet = np.full((-(-channels // across) * (height + 1) - 1, across * (width + 1) - 1), np.nan, np.float32)
    for c in range(channels):
        top, left = c // across * (height + 1), c % across * (width + 1)
        sheet[top : top + height, left : left + width] = values[c]
    return sheet


def tile_at(shape: tuple[int, int, int], row: int, column: int) -> tuple[int, int, int] | None:
    """Return (channel, row, column) of a cell of the sheet; None between channels."""
    channels, height, width = shape
    across = int(np.ceil(np.sqrt(channels)))
    channel = row // (height + 1) * across + column // (width + 1)
    inside = row % (height + 1) < height and column % (width + 1) < width and channel < channels
    return (channel, row % (height + 1), column % (width + 1)) if inside else None


def place_of(shape: tuple[int, int, int], channel: int, row: int, column: int) -> tuple[int, int]:
    """Return the cell of the sheet where a neuron lies: the inverse of `tile_at`."""
    across = int(np.ceil(np.sqrt(shape[0])))
    return channel // across * (shape[1] + 1) + row, channel % across * (shape[2] + 1) + column


def before_after_figure(sites: Sequence[str], before: np.ndarray, after: np.ndarray) -> Figure:
    """Draw each layer's error before and after a calibration, in per cent of the mean square activation."""
    figure = theme.new_figure(280, "layer", "error (% of E[a²])")
    for name, values, style in (("before", before, theme.ZERO), ("after", after, theme.YOURS)):
        figure.add_bar(
            x=short_names(sites),
            y=values.astype(np.float32),
            name=name,
            marker={"color": style.colour},
            customdata=list(sites),
            hovertemplate="%{customdata}<br>" + name + " %{y:.3g} %<extra></extra>",
        )
    figure.update_layout(barmode="group")
    return figure
