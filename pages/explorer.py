"""Explorer: how do thresholds, initial potentials and time decide what the spiking network gets right?"""

import numpy as np
import streamlit as st

from explorer.engine.theory import wilson
from explorer.plots import accuracy, membrane, theme
from explorer.study import compare, keys
from explorer.study.results import alike
from explorer.ui import frame, tour, widgets
from explorer.ui.components import chart
from explorer.ui.panels import comparison, errors, exports, layer_table, method
from explorer.ui.panels.neuron import picture, place

CLASSES = 10


def image_and_scores(view):
    """Draw the image, the classes both networks choose, and the class scores."""
    look, T = view.look, view.settings.T
    left, right = st.columns([1, 3])
    with left:
        widgets.number("image")
        picture(look.picture)
        if look.label is not None:
            st.caption(f"True class: **{keys.plain(look.classes[look.label])}**")
        for name, scores in (("ANN", look.ann), (f"SNN, T = {T}", look.snn[-1])):
            best = int(scores.argmax())
            mark = "" if look.label is None else (" :material/check:" if best == look.label else " :material/close:")
            st.markdown(f"{name}: **{keys.plain(look.classes[best])}**{mark}")
    with right:
        shown = np.argsort(-look.ann)[:CLASSES] if len(look.ann) > CLASSES else np.arange(len(look.ann))
        label = None if look.label is None or look.label not in shown else int(np.flatnonzero(shown == look.label)[0])
        names = compare.distinct([look.classes[i] for i in shown])
        chart(
            membrane.scores_figure(names, look.ann[shown], look.snn[-1][shown], label),
            "scores",
            f"Class scores of ANN and SNN after {T} steps; the SNN says {look.classes[int(look.snn[-1].argmax())]}.",
        )


def one_neuron(view):
    """Draw the choice of a neuron, its membrane, and the equation with its numbers."""
    settings, look = view.settings, view.look
    st.subheader("One neuron's membrane")
    columns = st.columns([3, 1, 1, 1])
    widgets.select("layer", look.shapes, at=columns[0])
    place(look.shapes[settings.layer], columns[1:])
    neuron = frame.membrane(view, "v(t)", settings)
    n = int(neuron.z.sum())
    chart(
        membrane.membrane_figure([neuron]),
        "membrane",
        f"Membrane potential over {settings.T} steps; its spikes count {n}.",
    )
    said, counted = float(neuron.decoded[-1]), neuron.theta * n / settings.T
    sum_ = f"θ n / T = {neuron.theta:.4g} × {n} / {settings.T} = " if abs(said - counted) < 1e-5 * neuron.theta else ""
    st.caption(
        f"The spikes of T = {settings.T} steps count {n}: â = {sum_}**{frame.plain_number(said)}**; "
        f"the ANN says a = **{neuron.a:.4g}**. {'Muted: nothing of it is sent. ' if neuron.muted else ''}"
        f"v(0) = {frame.plain_number(neuron.v0)} activation units. Image {settings.image}, {look.device}."
    )


def curves(view, named):
    """Draw accuracy against T and the errors; refined while images come in, all curves on the same images."""
    jobs = comparison.ask(named)
    known = [job.result for job in jobs]  # read once: the worker replaces them as it goes on
    results = alike(known)
    settings, mine, waiting = comparison.latest(view, jobs[0], results[0], bool(results[0].images))
    if waiting:
        named = [compare.Named("settings before", settings.of_run(), compare.role(settings)), *named[1:]]
        mine, *results[1:] = alike([mine, *results[1:]])
    results[0] = mine
    comparison.keep(settings, named, results)
    what = "Accuracy" if mine.labelled else "Agreement with the ANN"
    st.subheader(f"{what} against time-steps")
    with st.container():
        if mine.images:
            headline(mine, jobs[0].goal)
    shown = comparison.curves_of(named, results)
    figure = accuracy.accuracy_figure(shown, mine.ann_top1 if mine.images and mine.labelled else None)
    value = f"{100 * shown[0].top1[-1]:.1f} % for yours" if shown else "first images are being simulated"
    chart(
        theme.sample(figure, mine.images, jobs[0].goal),
        "accuracy",
        f"{what} against time-steps with 95 % intervals: {value}.",
        note=settings.note(mine.images),
    )
    with st.container():
        frame.assumptions(settings, jobs, results)
    errors.histogram(view, settings, mine if waiting else known[0])


def headline(mine, goal):
    """Draw the main numbers of the visitor's run."""
    low, high = wilson(mine.hits[-1:], mine.images)
    columns = st.columns(4)
    columns[0].metric(
        "SNN top-1" if mine.labelled else "SNN agrees with ANN",
        f"{100 * mine.top1[-1]:.1f} %",
        help=f"95 % interval: {100 * low[0]:.1f} to {100 * high[0]:.1f} %",
    )
    columns[1].metric("ANN top-1", f"{100 * mine.ann_top1:.1f} %" if mine.labelled else "no labels")
    columns[2].metric("Images so far", f"{mine.images} of {max(goal, mine.images)}")
    columns[3].metric(
        "Spikes per neuron", f"{mine.spikes_per_neuron:.2f}", help=f"mean over all sites, in T = {mine.T} steps"
    )


frame.question("How do thresholds, initial potentials and time decide what the spiking network gets right?")
view = frame.view()
image_and_scores(view)
one_neuron(view)
named = comparison.runs(view)
exports.shown().grid = None
frame.live(
    lambda: comparison.ask(named),
    lambda: curves(view, named),
    lambda: layer_table.draw(view, comparison.ask(named)[0].result),
)
method.found(view)
comparison.pins()
exports.buttons()
tour.lesson("explorer")
