"""Membrane lab: what does one neuron do, step by step, and what does its start change?"""

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import membrane, rates, theme
from explorer.study import compare, keys, nouns
from explorer.ui import cache, frame, state, tour, widgets
from explorer.ui.components import chart, player
from explorer.ui.panels.neuron import picture, place

THUMBNAILS, LOOKED_THROUGH = 8, 48


def images(view):
    """Draw thumbnails to choose from, all images or only those the SNN misses."""
    columns = st.columns([1, 3])
    widgets.number("image", at=columns[0])
    only_wrong = widgets.toggle("only_wrong", at=columns[1])
    last = max(view.settings.image + THUMBNAILS, LOOKED_THROUGH)
    every = cache.images(view.settings.network, view.settings.source, last)
    start = max(0, min(view.settings.image, len(every) - THUMBNAILS))
    choice = range(start, start + THUMBNAILS)
    with st.container():
        if only_wrong:
            choice = missed(view)
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


def missed(view):
    """Return the images, from the chosen one on, that the SNN misses, and say how many were looked at."""
    job = cache.runner().want(frame.owner(), [replace(view.settings.of_run(), images=LOOKED_THROUGH)])[0]
    cache.wait([job], 4.0)
    known = job.result
    what = "are wrong" if known.labelled else "are answered otherwise than by the ANN"
    row = st.container(horizontal=True, vertical_alignment="center")
    row.caption(
        f"{len(known.wrong)} of the first {nouns.count(known.images, 'image')} {what} at T = {view.settings.T}."
        + ("" if job.done else " Not all have been looked at yet.")
    )
    if not job.done:
        row.button("Look further", key="look_further", icon=":material/search:")
    return ([i for i in known.wrong if i >= view.settings.image] or known.wrong)[:THUMBNAILS]


def rate_map(view):
    """Draw all feature maps of the layer as firing rates; a click on a cell chooses that neuron."""
    settings, look = view.settings, view.look
    widgets.select("layer", look.shapes)
    shape = (*look.shapes[settings.layer], 1, 1)[:3]
    rate = (look.counts[settings.layer] / settings.T).reshape(shape)
    unit = "share of θ, decoded" if look.facts.decoded else "spikes per step"
    figure = rates.tiles_figure(rate, (settings.channel, settings.row, settings.column), unit)

    def clicked(point):
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
        f"Each tile is one channel of {settings.layer}: the first of its row plus so many further on. Click a cell, or "
        "type the neuron's place, to see its membrane below."
    )


def starts(settings):
    """Return the settings that are drawn side by side: both references, and the visitor's if it is another."""
    named = compare.references(settings)
    others = all(one.settings != settings for one in named)
    return [*named, *([compare.Named("yours", settings, "yours")] if others else [])]


def three_starts(view):
    """Draw membrane, player, decoded value and input current under zero start, half start and yours."""
    s = view.settings
    drawn = [frame.membrane(view, one.name, one.settings) for one in starts(s)]
    st.subheader(f"Neuron {s.layer}, channel {s.channel}, row {s.row}, column {s.column}")
    chart(membrane.membrane_figure(drawn), "lab_membrane", "Membrane potential under up to three settings.", time=True)
    mine = next(t for t, one in zip(drawn, starts(s), strict=True) if one.settings == s)
    of_method(mine, view.look.facts)
    player(mine, view.look.snn, view.look.classes, "player")
    left, right = st.columns(2)
    with left:
        alt = f"Decoded value approaching a = {drawn[0].a:.3g}."
        chart(membrane.convergence_figure(drawn), "lab_decoded", alt, time=True)
    with right:
        chart(membrane.current_figure(drawn), "lab_current", "Input current per step.", time=True)
    st.caption(
        f"Image {s.image}, T = {s.T}, {keys.plain(s.describe())}, {view.look.device}. The current differs between "
        "settings because the layers before start differently, too. The line in the charts of time stands where the "
        "player does; click in one of them to go to a step."
    )


def of_method(mine, facts):
    """Say what a method does to this neuron."""
    if mine.muted:
        st.caption(
            ":material/volume_off: **Muted**: after the first phase nothing was left of its potential, so its ANN "
            "value is taken for zero. It integrates and fires as drawn, hollow and grey, and nothing is sent."
        )
    if mine.before is not None:
        moved = f"moved its start from v(0) = {frame.plain_number(mine.before.v0)} to {frame.plain_number(mine.v0)}"
        what = moved if abs(mine.v0 - mine.before.v0) > 1e-6 * mine.theta else "left its start as it was"
        first = f"the first of {facts.rounds} rounds of it" if facts.rounds > 1 else "the first phase"
        together = f"{first}; together they" if facts.rounds > 1 else f"{first}, which"
        st.caption(f"The {nouns.count(mine.first_phase, 'step')} before t = 0 are {together} {what}.")
    if mine.skipped:
        st.caption(f"The read-out leaves out steps 1 to {mine.skipped}, which are shaded: scores begin behind them.")
    if mine.sends_later:
        st.caption(
            f"“yours” sends a code: it takes in its whole input first, {nouns.count(len(mine.x), 'step')} at the mean "
            "current drawn below, and then sends. It starts at what there is to send, and every spike "
            "takes off what it stands for."
        )


def raster(view):
    """Draw the spikes of a sample of the layer's neurons."""
    spikes = cache.rasters(frame.one_image(view.settings))[view.settings.layer]
    st.subheader("Spike raster of the layer")
    chart(
        membrane.raster_figure(spikes[:, :: max(1, spikes.shape[1] // 100)]),
        "raster",
        f"Spikes of {view.settings.layer} over {view.settings.T} steps.",
        time=True,
    )


def first_times(spikes, later):
    """Return per site the median step of the first spike among its neurons that fire; NaN for a silent site.

    later: how many steps after the run's first each site's first sending step is, by site; none: no site waits.
    """
    times = {}
    for name, z in spikes.items():
        spikes_sent = z > 0
        fired = spikes_sent.any(0)
        first = float(np.median(spikes_sent[:, fired].argmax(0) + 1)) if fired.any() else float("nan")
        times[name] = first + later.get(name, 0)
    return times


def first_spikes(view):
    """Draw when each layer first fires: zero start delays every layer, and the delays add up."""
    st.subheader("Time of the first spike, layer by layer")
    look, T = view.look, view.settings.T
    waits = {name: T * (depth - 1) for name, depth in look.depths.items()} if look.facts.coded else {}
    times = []
    for one in starts(view.settings):
        later = waits if one.settings == view.settings else {}
        spikes = cache.rasters(frame.one_image(one.settings))
        times.append((one.name, theme.style(one.role), first_times(spikes, later)))
    figure = membrane.first_spikes_figure(times)
    chart(figure, "first_spikes", "Median time of the first spike per layer, with and without initial potential.")
    steps = nouns.count(T, "step")
    codes = f" “yours” sends codes: each layer begins {steps} after the layer before it." if waits else ""
    st.caption("Median over up to 200 neurons a layer, of those that fire within T steps on this image." + codes)


frame.question("What does one neuron do, step by step, and what does its start change?")
view = frame.view()
images(view)
rate_map(view)
three_starts(view)
raster(view)
first_spikes(view)
tour.lesson("membrane_lab")
