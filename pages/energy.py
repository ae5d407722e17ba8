"""Energy and sparsity: how many spikes and additions does the answer cost, against the ANN's multiplications?"""

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import accuracy, rates, theme
from explorer.plots.energy import energy_figure, operations_figure
from explorer.study import compare, energy, nouns
from explorer.study.case import run_key
from explorer.study.energy import ADD_PJ, MAC_PJ
from explorer.study.results import alike
from explorer.ui import cache, frame, tour
from explorer.ui.components import chart


def wanted(settings):
    """Return the runs that the page needs: one, read after fewer steps, unless thresholds depend on T."""
    base = settings.of_run()
    return [replace(base, T=T) for T in (energy.durations(base.T) if base.depends_on_T else [base.T])]


def ask(view):
    """Ask for the present run, and for shorter ones where those are other runs."""
    return cache.runner().want(frame.owner(), wanted(view.settings))


def draw(view):
    """Draw spikes per neuron, operations per layer and energy against T and accuracy."""
    jobs = ask(view)
    results = alike([job.result for job in jobs])  # read once: the worker replaces them as it goes on
    result = results[0]
    with st.container():
        frame.assumptions(view.settings, jobs, results)
    if not result.images:
        st.caption("The first images are being simulated.")
        return
    steps = energy.durations(result.T)
    ended = [result.after(T) for T in steps] if len(jobs) == 1 else results
    known = [(one, cache.additions(run_key(replace(view.settings, T=one.T)))) for one in ended if one.images]
    known.sort(key=lambda pair: pair[0].T)
    macs = cache.macs(view.settings.network)
    work = next(work for one, work in known if one.T == result.T)
    ann = energy.multiplying(macs)
    headline(result, work, macs, ann)
    st.caption(
        f"Assumptions: {MAC_PJ} pJ per 32-bit multiply-accumulate, {ADD_PJ} pJ per addition in 45 nm (Horowitz, ISSCC "
        "2014); memory, which often costs more, is left out. Additions are counted, neuron by neuron, on the first "
        f"{nouns.count(work.images, 'image')}: each spike adds one weight in every neuron it reaches, along shortcuts "
        "too; average pools are folded into the weights behind them. The constant current of the first layer is "
        "multiplied once."
    )
    note = (
        f"{view.settings.note(result.images)} (additions: {work.images}). "
        f"Estimate: {MAC_PJ} pJ a MAC, {ADD_PJ} pJ an addition, 45 nm."
    )
    left, right = st.columns(2)
    sites = list(result.spikes)
    with left:
        st.subheader("Spikes per neuron, by layer")
        figure = accuracy.bars_figure(
            rates.short_names(sites),
            np.array([result.rate(site) * result.T for site in sites]),
            f"spikes per neuron in T = {result.T}{phases(result)}",
        )
        goal = jobs[0].goal
        chart(theme.sample(figure, result.images, goal), "sparsity", "Spikes per neuron by layer.", note=note)
    with right:
        st.subheader("Additions against multiplications")
        figure = operations_figure(macs, {name: work.additions[name] for name in macs})
        chart(theme.sample(figure, work.images), "operations", "Operations per layer of both networks.", note=note)
    st.subheader("Energy against time-steps and accuracy")
    figure = energy_figure(
        [one.T for one, _ in known],
        [energy.spiking(one.constant, one.additions) for _, one in known],
        [one.top1[-1] for one, _ in known],
        (ann, result.ann_top1),
        theme.style(compare.role(view.settings)),
        result.labelled,
    )
    theme.sample(figure, result.images, goal)
    chart(figure, "energy", f"Energy against accuracy; the ANN takes {energy.told(ann)}.", note=note)


def phases(result):
    """Return what is counted beside the T steps, as it is written behind them; codes spread T steps over layers."""
    return f" and {result.extra} before them" if result.extra and result.answers_from == 1 else ""


def headline(result, work, macs, ann):
    """Draw the main numbers."""
    columns = st.columns(4)
    columns[0].metric(
        "Spikes per neuron",
        f"{result.spikes_per_neuron:.2f}",
        help=f"mean over all sites, in T = {result.T} steps{phases(result)}",
    )
    done = sum(work.additions[name] for name in macs)
    columns[1].metric("Additions / ANN's MACs", f"{done / sum(macs.values()):.2f}")
    columns[2].metric("SNN energy per image", energy.told(energy.spiking(work.constant, work.additions)))
    columns[3].metric("ANN energy per image", energy.told(ann))


frame.question("How many spikes and additions does the answer cost, against the ANN's multiplications?")
view = frame.view()
frame.live(lambda: ask(view), lambda: draw(view))
tour.lesson("energy")
