"""The parts of the energy page. Estimates only: their assumptions stand beside the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import accuracy, rates, theme
from explorer.ui import cache, frame
from explorer.ui.components import chart
from explorer.ui.results import Result
from explorer.ui.runner import Job

MAC_PJ, ADD_PJ = 4.6, 0.9


def durations(T: int) -> list[int]:
    """Return the numbers of steps that are compared: T first, then halves of it."""
    return list(dict.fromkeys([T, *(max(1, T // 2**k) for k in (1, 2, 3))]))


def operations(macs: dict[str, int], result: Result) -> dict[str, float]:
    """Return synaptic operations per image of the weights that feed each site and the readout.

    A weight adds once per spike of the neuron before it: multiply-accumulates x rate x T, with the mean rate of the site
    before in order. The first layer sees pixels, not spikes: its current is computed once, by multiplication.
    """  # noqa: E501
    names = list(macs)
    rate = [result.rate(name) for name in names]
    return {name: macs[name] * (rate[i - 1] * result.T if i else 0.0) for i, name in enumerate(names)}


def energy(macs: dict[str, int], result: Result) -> float:
    """Return the SNN's energy per image in microjoules."""
    first = next(iter(macs.values()))
    return (first * MAC_PJ + sum(operations(macs, result).values()) * ADD_PJ) * 1e-6


def ask(view: frame.View) -> list[Job]:
    """Ask for the present run and for shorter ones."""
    base = replace(view.settings.look(), images=min(view.settings.images, 64))
    return cache.runner().want(frame.owner(), [replace(base, T=T) for T in durations(base.T)])


def draw(view: frame.View) -> None:
    """Draw spikes per neuron, operations per layer and energy against T and accuracy."""
    jobs = ask(view)
    result, macs = jobs[0].result, cache.macs(view.settings.network)
    frame.assumptions(view.settings, jobs)
    if not result.images:
        st.caption("The first images are being simulated.")
        return
    ann, snn = sum(macs.values()) * MAC_PJ * 1e-6, energy(macs, result)
    done = operations(macs, result)
    columns = st.columns(4)
    columns[0].metric(
        "Spikes per neuron", f"{result.spikes_per_neuron:.2f}", help=f"mean over all sites, in T = {result.T} steps"
    )
    columns[1].metric("Additions / ANN's MACs", f"{sum(done.values()) / sum(macs.values()):.2f}")
    columns[2].metric("SNN energy (µJ per image)", f"{snn:.1f}")
    columns[3].metric("ANN energy (µJ per image)", f"{ann:.1f}")
    st.caption(
        f"Assumptions: {MAC_PJ} pJ per 32-bit multiply-accumulate, {ADD_PJ} pJ per addition in 45 nm (Horowitz, ISSCC 2014); "  # noqa: E501
        "memory, which often costs more, is left out; input spikes of a layer are counted at the mean rate of the "
        "layer before; the first layer's constant current is computed once by multiplication."
    )
    note = view.settings.note(result.images) + f". Estimate: {MAC_PJ} pJ a MAC, {ADD_PJ} pJ an addition."
    left, right = st.columns(2)
    sites = list(result.spikes)
    with left:
        st.subheader("Spikes per neuron, by layer")
        figure = accuracy.bars_figure(
            rates.short_names(sites),
            np.array([result.rate(s) * result.T for s in sites]),
            f"spikes per neuron in T = {result.T}",
        )
        chart(figure, "sparsity", "Spikes per neuron by layer.", note=note)
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
        chart(figure, "operations", "Operations per layer of both networks.", note=note)
    st.subheader("Energy against time-steps and accuracy")
    known = sorted((job.result for job in jobs if job.result.images), key=lambda r: r.T)
    figure = theme.new_figure(
        340, "energy (µJ per image, estimated)", theme.ACCURACY if result.labelled else theme.AGREEMENT
    )
    figure.add_scatter(
        x=[energy(macs, r) for r in known],
        y=[100 * r.top1[-1] for r in known],
        mode="lines+markers+text",
        text=[f"T = {r.T}" for r in known],
        textposition="bottom right",
        name="SNN",
        marker={"size": 9},
        hovertemplate="%{text}<br>%{x:.1f} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.add_scatter(
        x=[ann],
        y=[100 * result.ann_top1],
        mode="markers",
        name="ANN",
        marker={"symbol": "star", "size": 14, "color": theme.ORANGE},
        hovertemplate="ANN<br>%{x:.1f} µJ<br>%{y:.1f} %<extra></extra>",
    )
    figure.update_yaxes(range=[0, 105])
    figure.update_xaxes(rangemode="tozero")
    chart(figure, "energy", f"Energy against accuracy; the ANN takes {ann:.1f} µJ.", note=note)
