"""The parts of the membrane lab, top to bottom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import membrane, rates, theme
from explorer.study import keys
from explorer.study.settings import Settings
from explorer.ui import cache, frame, state, widgets
from explorer.ui.components import chart, player
from explorer.ui.explorer_parts import picture, place, references

THUMBNAILS, LOOKED_THROUGH = 8, 48


def images(view: frame.View) -> None:
    """Draw thumbnails to choose from, all images or only those the SNN gets wrong."""
    columns = st.columns([1, 3])
    widgets.number("image", at=columns[0])
    only_wrong = widgets.toggle("only_wrong", at=columns[1])
    last = max(view.settings.image + THUMBNAILS, LOOKED_THROUGH)
    every = cache.images(view.settings.network, view.settings.source, last).images
    start = max(0, min(view.settings.image, len(every) - THUMBNAILS))
    choice = list(range(start, start + THUMBNAILS))
    if only_wrong:
        job = cache.runner().want(frame.owner(), [replace(view.settings.look(), images=LOOKED_THROUGH)])[0]
        cache.runner().wait([job], 4.0)
        known = job.result
        wrong, seen = known.wrong, known.images
        choice = ([i for i in wrong if i >= view.settings.image] or wrong)[:THUMBNAILS]
        row = st.container(horizontal=True, vertical_alignment="center")
        what = "are wrong" if known.labelled else "are answered otherwise than by the ANN"
        row.caption(
            f"{len(wrong)} of the first {frame.count(seen, 'image')} {what} at T = {view.settings.T}."
            + ("" if job.done else " Not all have been looked at yet.")
        )
        if not job.done:
            row.button("Look further", key="look_further", icon=":material/search:")
    for column, i in zip(st.columns(THUMBNAILS), [i for i in choice if i < len(every)], strict=False):
        with column:
            picture(np.asarray(every[i]), 72)
            st.button(
                str(i),
                key=f"pick_{i}",
                on_click=lambda i=i: state.change(image=i),
                width="stretch",
                type="primary" if i == view.settings.image else "secondary",
            )


def rate_map(view: frame.View) -> None:
    """Draw all feature maps of the layer as firing rates; a click on a cell chooses that neuron."""
    settings, look = view.settings, view.look
    widgets.select("layer", look.shapes)
    shape = (*look.shapes[settings.layer], 1, 1)[:3]
    rate = (look.counts[settings.layer] / settings.T).reshape(shape)
    cell = rates.place_of(shape, settings.channel, settings.row, settings.column)
    figure = rates.map_figure(rates.tiles(rate), "rate (spikes per step)", cell, 440)

    def clicked(point: dict) -> None:
        found = rates.tile_at(shape, int(point["y"]), int(point["x"]))
        if found is not None:
            state.change(channel=found[0], row=found[1], column=found[2])

    chart(
        figure,
        "rate_map",
        f"Firing rates of {settings.layer}: every channel's feature map. Click a cell.",
        on_click=clicked,
    )
    place(shape, st.columns(3))
    st.caption(
        f"Each tile is one channel of {settings.layer}. Click a cell, or type the neuron's place, to see its membrane below."  # noqa: E501
    )


def _starts(settings: Settings) -> dict[str, Settings]:
    named = references(settings)
    return named if settings in named.values() else {**named, "yours": settings}


def _trace(view: frame.View, name: str, settings: Settings) -> membrane.Trace:
    one = frame.one_image(replace(settings, image=view.settings.image), view.settings.layer)
    return cache.trace(one, name, frame.neuron_index(view.settings, view.look))


def three_starts(view: frame.View) -> None:
    """Draw membrane, decoded value and input current under zero start, half start and yours."""
    traces = [_trace(view, name, settings) for name, settings in _starts(view.settings).items()]
    s = view.settings
    st.subheader(f"Neuron {s.layer}, channel {s.channel}, row {s.row}, column {s.column}")
    chart(membrane.membrane_figure(traces), "lab_membrane", "Membrane potential under up to three settings.", time=True)
    left, right = st.columns(2)
    with left:
        alt = f"Decoded value approaching a = {traces[0].a:.3g}."
        chart(membrane.convergence_figure(traces), "lab_decoded", alt, time=True)
    with right:
        chart(membrane.current_figure(traces), "lab_current", "Input current per step.", time=True)
    st.caption(
        f"Image {s.image}, T = {s.T}, {keys.plain(s.describe())}, {view.look.device}. The current differs between "
        "settings because the layers before start differently, too."
    )


def play(view: frame.View) -> None:
    """Play the equation and the class scores step by step, in the browser."""
    st.subheader("Play time")
    st.caption("The line in the charts of time stands where the player does. Click in one of them to go to a step.")
    player(_trace(view, "yours", view.settings), view.look.snn, view.look.classes, "player")


def raster(view: frame.View) -> None:
    """Draw the spikes of a sample of the layer's neurons."""
    spikes = cache.rasters(frame.one_image(view.settings))[view.settings.layer]
    st.subheader("Spike raster of the layer")
    chart(
        membrane.raster_figure(spikes[:, :: max(1, spikes.shape[1] // 100)]),
        "raster",
        f"Spikes of {view.settings.layer} over {view.settings.T} steps.",
        time=True,
    )


def first_times(spikes: dict[str, np.ndarray]) -> dict[str, float]:
    """Return per site the median step of the first spike among its neurons that fire; NaN for a silent site."""
    times = {}
    for name, z in spikes.items():
        fired = z.any(0)
        times[name] = float(np.median(z[:, fired].argmax(0) + 1)) if fired.any() else float("nan")
    return times


def first_spikes(view: frame.View) -> None:
    """Draw when each layer first fires: zero start delays every layer, and the delays add up."""
    st.subheader("Time of the first spike, layer by layer")
    figure = theme.new_figure(340, "", "median first spike (time-step)")
    for i, (name, settings) in enumerate(_starts(view.settings).items()):
        times = first_times(cache.rasters(frame.one_image(settings)))
        figure.add_scatter(
            x=rates.short_names(list(times)),
            y=np.array(list(times.values())),
            name=name,
            mode="lines+markers",
            line={"color": theme.COLORWAY[i], "dash": theme.DASHES[i]},
            marker={"symbol": theme.SYMBOLS[i], "size": 8},
            hovertemplate="%{x}<br>step %{y}<extra>" + name + "</extra>",
        )
    figure.update_xaxes(tickangle=-60, automargin=True)
    figure.update_yaxes(rangemode="tozero")
    chart(figure, "first_spikes", "Median time of the first spike per layer, with and without initial potential.")
    st.caption("Median over up to 200 neurons a layer, of those that fire within T steps on this image.")
