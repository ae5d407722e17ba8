"""A fine-tuning as it goes: loss, accuracy on the images held back, and thresholds by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from explorer.plots import rates, theme
from explorer.plots.figure import Figure

UPDATES = "update (batches of training images)"


def loss_figure(losses: Sequence[float], looks: Sequence[tuple[int, float]], updates: int) -> Figure:
    """Draw the loss of each batch, and on the held-back images at every look (update, loss), the start's included."""
    figure = theme.new_figure(300, UPDATES, "loss (nats)")
    figure.add_scatter(
        x=np.arange(1, len(losses) + 1, dtype=np.int32),
        y=np.asarray(losses, np.float32),
        mode="lines",
        name="training batches",
        line={"color": theme.translucent(theme.BLUE, 0.45), "width": 1.5},
    )
    figure.add_scatter(
        x=np.asarray([at for at, _ in looks], np.int32),
        y=np.asarray([loss for _, loss in looks], np.float32),
        mode="lines+markers",
        name="held-back images",
        line={"color": theme.ORANGE},
    )
    return figure.update_xaxes(range=[0, updates]).update_yaxes(rangemode="tozero")


def accuracy_figure(
    looks: Sequence[tuple[int, float]],
    bands: tuple[np.ndarray, np.ndarray],
    ann: float,
    updates: int,
    labelled: bool,
) -> Figure:
    """Draw accuracy on the held-back images at every look, the start first, its 95 % band, and the ANN's; 0..1."""
    figure = theme.new_figure(300, UPDATES, theme.ACCURACY if labelled else theme.AGREEMENT)
    at = np.asarray([update for update, _ in looks], np.int32)
    shares = np.asarray([share for _, share in looks])
    low, high = bands
    figure.add_scatter(
        x=np.concatenate([at, at[::-1]]),
        y=(100 * np.concatenate([high, low[::-1]])).astype(np.float32),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=theme.translucent(theme.YOURS.colour, 0.15),
        hoverinfo="skip",
        name="95 % interval",
    )
    figure.add_scatter(
        x=at, y=(100 * shares).astype(np.float32), mode="lines+markers", name="tuned", line={"color": theme.BLUE}
    )
    for name, value, line in (
        ("start (calibrated)", shares[0], {"color": theme.GREEN, "dash": "dot"}),
        ("ANN", ann, {"color": theme.ANN.colour, "dash": theme.ANN.dash}),
    ):
        figure.add_scatter(x=[0, updates], y=[100 * float(value)] * 2, mode="lines", name=name, line=line)
    return figure.update_xaxes(range=[0, updates])


def threshold_figure(theta: Mapping[str, float], start: Mapping[str, float]) -> Figure:
    """Draw how far each layer's mean threshold has moved from where it started, in per cent."""
    names = list(theta)
    change = np.asarray([100 * (theta[name] / start[name] - 1) for name in names])
    figure = theme.new_figure(120 + 18 * len(names), "change of the mean threshold since the start (%)", "layer")
    figure.add_bar(
        y=rates.short_names(names),
        x=change.astype(np.float32),
        orientation="h",
        marker={"color": theme.BLUE},
        hovertemplate="%{y}: %{x:+.2f} %<extra></extra>",
        showlegend=False,
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True)
