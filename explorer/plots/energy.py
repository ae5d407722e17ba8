"""Operations per layer, and energy against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from explorer.plots import theme
from explorer.plots.figure import Figure
from explorer.plots.rates import short_names


def operations_figure(macs: Mapping[str, float], additions: Mapping[str, float]) -> Figure:
    """Draw the operations per image of both networks by layer, in millions."""
    figure = theme.new_figure(150 + 20 * len(macs), "operations per image (millions)", "layer")
    for name, numbers, style, pattern in (
        ("ANN: multiply-accumulates", macs, theme.ANN, ""),
        ("SNN: additions", additions, theme.YOURS, "/"),
    ):
        figure.add_bar(
            y=short_names(list(macs)),
            x=np.array([numbers[site] for site in macs]) / 1e6,
            name=name,
            orientation="h",
            marker={"color": style.colour, "pattern": {"shape": pattern}},
            hovertemplate="%{y}: %{x:.3f} million<extra>" + name + "</extra>",
        )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def energy_figure(
    steps: Sequence[int],
    energy: Sequence[float],
    accuracy: Sequence[float],
    ann: tuple[float, float],
    style: theme.Style = theme.YOURS,
    labelled: bool = True,
) -> Figure:
    """Draw accuracy (0..1) against energy (microjoules per image) after each of these steps, and the ANN (both)."""
    figure = theme.new_figure(340, "energy (µJ per image, estimated)", theme.ACCURACY if labelled else theme.AGREEMENT)
    figure.add_scatter(
        x=list(energy),
        y=[100 * share for share in accuracy],
        mode="lines+markers+text",
        text=[f"T = {T}" for T in steps],
        textposition="bottom right",
        name="SNN",
        line=style.line,
        marker=style.marker(9),
        hovertemplate="%{text}<br>%{x:.4g} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.add_scatter(
        x=[ann[0]],
        y=[100 * ann[1]],
        mode="markers",
        name="ANN",
        marker=theme.ANN.marker(14),
        hovertemplate="ANN<br>%{x:.4g} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.update_yaxes(range=[0, 105])
    figure.update_xaxes(rangemode="tozero")
    return figure
