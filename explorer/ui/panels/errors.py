"""Decoded rate against activation for the chosen layer, and the error per layer: on two pages."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.plots import rates, theme
from explorer.study import compare, nouns
from explorer.study.results import EDGES_A, SHARE_MAX, Result, rate_edges
from explorer.study.settings import Settings
from explorer.ui import frame
from explorer.ui.components import chart


def histogram(view: frame.View, settings: Settings, mine: Result) -> None:
    """Draw decoded rate against activation for the chosen layer, and the error per layer."""
    sums = mine.sites.get(settings.layer)
    if sums is None:
        st.caption("Rates and errors appear with the first images.")
        return
    left, right = st.columns(2)
    with left:
        st.subheader("Rate against activation")
        chart(
            staircase_figure(view, settings, sums.histogram, mine.error_images),
            "histogram",
            f"Decoded rate against activation in {settings.layer}.",
            note=settings.note(mine.error_images),
        )
        st.caption(
            f"{settings.layer}, {nouns.count(mine.error_images, 'image')}: mean error "
            f"{frame.signed(100 * sums.mean)} % of θ, root mean square "
            f"{100 * sums.mean_square**0.5:.2f} % of θ. Neurons silent in both networks are not "
            f"drawn; what passes {SHARE_MAX:g} θ is drawn at the edge."
        )
    with right:
        st.subheader("Error per layer")
        names = list(mine.sites)
        rms = np.array([mine.sites[name].mean_square ** 0.5 for name in names])
        mean = np.array([mine.sites[name].mean for name in names])
        chart(
            theme.sample(rates.layer_error_figure(names, rms, mean, settings.layer), mine.error_images),
            "layer_error",
            f"Error per layer; the largest is in {names[int(rms.argmax())]}. Click a bar to choose the layer.",
            on_click=lambda point: frame.choose_layer(view, str(point["custom"])),
            note=settings.note(mine.error_images),
        )
        st.caption(
            f"â − a in per cent of each layer's threshold, {nouns.count(mine.error_images, 'image')}. Click a bar to "
            "choose its layer."
        )


def staircase_figure(view: frame.View, settings: Settings, histogram: np.ndarray, images: int):
    """Return the figure of decoded rate against activation, with the staircase of the chosen layer if it has one."""
    start = view.look.stairs.get(settings.layer) if settings.of_run() == view.settings.of_run() else None
    style = theme.style(compare.role(settings))
    facts, edges = view.look.facts, rate_edges(settings.T)
    most = facts.most if facts.bounded else np.inf
    figure = rates.histogram_figure(histogram, EDGES_A, edges, settings.T, start, style, most)
    return theme.sample(figure, images)
