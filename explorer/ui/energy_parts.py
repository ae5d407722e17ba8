"""The parts of the energy page. Estimates only: their assumptions stand beside the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import accuracy, rates, theme
from explorer.study.results import alike
from explorer.study.runner import Job
from explorer.study.settings import Settings
from explorer.ui import cache, frame
from explorer.ui.components import chart

MAC_PJ, ADD_PJ = 4.6, 0.9


def durations(T: int) -> list[int]:
    """Return the numbers of steps that are compared: T first, then halves of it."""
    return list(dict.fromkeys([T, *(max(1, T // 2**k) for k in (1, 2, 3))]))


def energy(constant: int, additions: dict[str, float]) -> float:
    """Return the SNN's energy per image in microjoules: constant multiply-accumulates once, and all additions."""
    return (constant * MAC_PJ + sum(additions.values()) * ADD_PJ) * 1e-6


def _wanted(settings: Settings) -> list[Settings]:
    """Return the runs that the page needs: one, read after fewer steps, unless thresholds depend on T."""
    base = settings.look()
    return [replace(base, T=T) for T in (durations(base.T) if base.rule == "mse" else [base.T])]


def ask(view: frame.View) -> list[Job]:
    """Ask for the present run, and for shorter ones where those are other runs."""
    return cache.runner().want(frame.owner(), _wanted(view.settings))


def draw(view: frame.View) -> None:
    """Draw spikes per neuron, operations per layer and energy against T and accuracy."""
    jobs = ask(view)
    results = alike([job.result for job in jobs])  # read once: the worker replaces them as it goes on
    result, macs = results[0], cache.macs(view.settings.network)
    frame.assumptions(view.settings, jobs, results)
    if not result.images:
        st.caption("The first images are being simulated.")
        return
    steps = durations(result.T)
    ended = [result.after(T) for T in steps] if len(jobs) == 1 else results
    known = [
        (one, cache.additions(frame.without_image(replace(view.settings, T=T))))
        for T, one in zip(steps, ended, strict=True)
        if one.images
    ]
    known.sort(key=lambda pair: pair[0].T)
    work = next(work for one, work in known if one.T == result.T)
    done = {name: work.additions[name] for name in macs}
    ann, snn = sum(macs.values()) * MAC_PJ * 1e-6, energy(work.constant, done)
    columns = st.columns(4)
    columns[0].metric(
        "Spikes per neuron", f"{result.spikes_per_neuron:.2f}", help=f"mean over all sites, in T = {result.T} steps"
    )
    columns[1].metric("Additions / ANN's MACs", f"{sum(done.values()) / sum(macs.values()):.2f}")
    columns[2].metric("SNN energy (µJ per image)", f"{snn:.3g}")
    columns[3].metric("ANN energy (µJ per image)", f"{ann:.3g}")
    st.caption(
        f"Assumptions: {MAC_PJ} pJ per 32-bit multiply-accumulate, {ADD_PJ} pJ per addition in 45 nm (Horowitz, ISSCC 2014); "  # noqa: E501
        "memory, which often costs more, is left out. Additions are counted, neuron by neuron, on the first "
        f"{work.images} images: each spike adds one weight in every neuron it reaches, along shortcuts too; average "
        "pools are folded into the weights behind them. The constant current of the first layer is multiplied once."
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
            np.array([result.rate(s) * result.T for s in sites]),
            f"spikes per neuron in T = {result.T}",
        )
        chart(theme.sample(figure, result.images, jobs[0].goal), "sparsity", "Spikes per neuron by layer.", note=note)
    with right:
        st.subheader("Additions against multiplications")
        figure = theme.new_figure(140 + 20 * len(macs), "operations per image (millions)", "")
        names = rates.short_names(list(macs))
        for name, numbers, colour in (
            ("ANN: multiply-accumulates", macs, theme.BLUE),
            ("SNN: additions", done, theme.ORANGE),
        ):
            figure.add_bar(
                y=names,
                x=np.array(list(numbers.values())) / 1e6,
                name=name,
                orientation="h",
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.3f} million<extra>" + name + "</extra>",
            )
        figure.update_yaxes(autorange="reversed", automargin=True)
        chart(theme.sample(figure, work.images), "operations", "Operations per layer of both networks.", note=note)
    st.subheader("Energy against time-steps and accuracy")
    figure = theme.new_figure(
        340, "energy (µJ per image, estimated)", theme.ACCURACY if result.labelled else theme.AGREEMENT
    )
    figure.add_scatter(
        x=[energy(one.constant, one.additions) for _, one in known],
        y=[100 * r.top1[-1] for r, _ in known],
        mode="lines+markers+text",
        text=[f"T = {r.T}" for r, _ in known],
        textposition="bottom right",
        name="SNN",
        marker={"size": 9},
        hovertemplate="%{text}<br>%{x:.3g} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.add_scatter(
        x=[ann],
        y=[100 * result.ann_top1],
        mode="markers",
        name="ANN",
        marker={"symbol": "star", "size": 14, "color": theme.ORANGE},
        hovertemplate="ANN<br>%{x:.3g} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.update_yaxes(range=[0, 105])
    figure.update_xaxes(rangemode="tozero")
    theme.sample(figure, result.images, jobs[0].goal)
    chart(figure, "energy", f"Energy against accuracy; the ANN takes {ann:.3g} µJ.", note=note)
