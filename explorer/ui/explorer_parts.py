"""The parts of the Explorer page, top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st

from explorer.plots import accuracy, membrane, rates, theme
from explorer.study import keys
from explorer.study.results import EDGES_A, Result, alike, rate_edges, wilson
from explorer.study.runner import Job
from explorer.study.script import Line
from explorer.study.settings import SCALE_RANGE, V_INIT_RANGE, Settings, with_start
from explorer.ui import cache, exports, frame, state, widgets
from explorer.ui.components import chart


def picture(pixels: np.ndarray, width: int = 150) -> None:
    """Show a small image without blurring its pixels."""
    factor = max(1, round(width / pixels.shape[1]))
    st.image(np.repeat(np.repeat(pixels, factor, 0), factor, 1), width=width)


def image_and_scores(view: frame.View) -> None:
    """Draw the image, the classes both networks choose, and all class scores."""
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
        shown = np.argsort(-look.ann)[:10] if len(look.ann) > 10 else np.arange(len(look.ann))
        label = None if look.label is None or look.label not in shown else int(np.flatnonzero(shown == look.label)[0])
        figure = membrane.scores_figure(
            _distinct([look.classes[i] for i in shown]), look.ann[shown], look.snn[-1][shown], label
        )
        chart(
            figure,
            "scores",
            f"Class scores of ANN and SNN after {T} steps; the SNN says {look.classes[int(look.snn[-1].argmax())]}.",
        )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names no two of which are equal: a number is added to one that was there before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def place(shape: tuple[int, ...], columns: Sequence[Any]) -> None:
    """Draw the choice of channel, row and column in a layer of this shape."""
    for column, name, size in zip(columns, ("channel", "row", "column"), (*shape, 1, 1)[:3], strict=False):
        widgets.number(name, size - 1, at=column)


def neuron(view: frame.View) -> None:
    """Draw the choice of a neuron and its membrane trace."""
    settings, look = view.settings, view.look
    st.subheader("One neuron's membrane")
    columns = st.columns([3, 1, 1, 1])
    widgets.select("layer", look.shapes, at=columns[0])
    place(look.shapes[settings.layer], columns[1:])
    trace = cache.trace(frame.one_image(settings, settings.layer), "v(t)", frame.neuron_index(settings, look))
    chart(
        membrane.membrane_figure([trace]),
        "membrane",
        f"Membrane potential over {settings.T} steps; {int(trace.z.sum())} spikes.",
    )
    n = int(trace.z.sum())
    st.caption(
        f"{n} spikes in T = {settings.T} steps: â = θ n / T = {trace.theta:.4g} × {n} / {settings.T} = "
        f"**{trace.theta * n / settings.T:.4g}**; the ANN says a = **{trace.a:.4g}**. "
        f"v(0) = {trace.v0:.4g} activation units. Image {settings.image}, {look.device}."
    )


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs this page shows: yours first, then the two references, then pins; names run alongside."""

    wanted: list[Settings]
    names: list[str]

    def ask(self) -> list[Job]:
        """Return the jobs, in order, asking for them."""
        return cache.runner().want(frame.owner(), self.wanted, errors=True)


def runs(view: frame.View) -> Runs:
    """Return yours, zero start, half start (unless they are yours) at your thresholds, and the pinned settings."""
    yours = view.settings.look()
    named: dict[Settings, str] = {yours: "yours"}
    for name, other in references(yours).items():
        named[other] = f"yours: {name}" if other == yours else name
    for pin in state.pins():
        named.setdefault(replace(pin, images=yours.images, device=yours.device), f"pin: {pin.describe()}, T = {pin.T}")
    return Runs(list(named), _distinct(list(named.values())))


def references(settings: Settings) -> dict[str, Settings]:
    """Return the two starts that everything is compared with, at these thresholds, by name."""
    return {"v_init = 0": with_start(settings, 0.0), "v_init = 1/2": with_start(settings, 0.5)}


def as_curve(name: str, result: Result) -> accuracy.Curve:
    """Return a run's accuracy with its interval, ready to draw; agreement with the ANN where there are no labels."""
    low, high = wilson(result.hits, result.images)
    return accuracy.Curve(name, result.top1, low, high, result.images, result.labelled)


def curves(view: frame.View, asked: Runs) -> None:
    """Draw accuracy against T; refined while images come in, all curves on the same images."""
    jobs = asked.ask()
    results = alike([job.result for job in jobs])  # read once: the worker replaces them as it goes on
    settings, mine, waiting = latest(view, results[0], bool(results[0].images))
    if waiting:
        mine, *results[1:] = alike([mine, *results[1:]])
    results[0] = mine
    keep(settings, asked, results)
    what = "Accuracy" if mine.labelled else "Agreement with the ANN"
    st.subheader(f"{what} against time-steps")
    if mine.images:
        low, high = wilson(mine.hits[-1:], mine.images)
        columns = st.columns(4)
        columns[0].metric(
            "SNN top-1" if mine.labelled else "SNN agrees with ANN",
            f"{100 * mine.top1[-1]:.1f} %",
            help=f"95 % interval: {100 * low[0]:.1f} to {100 * high[0]:.1f} %",
        )
        columns[1].metric("ANN top-1", f"{100 * mine.ann_top1:.1f} %" if mine.labelled else "no labels")
        columns[2].metric("Images so far", f"{mine.images} of {max(jobs[0].goal, mine.images)}")
        columns[3].metric(
            "Spikes per neuron", f"{mine.spikes_per_neuron:.2f}", help=f"mean over all sites, in T = {mine.T} steps"
        )
    names = ["settings before" if waiting else asked.names[0], *asked.names[1:]]
    shown = [as_curve(name, result) for name, result in zip(names, results, strict=True) if result.images]
    figure = accuracy.accuracy_figure(shown, mine.ann_top1 if mine.images and mine.labelled else None)
    theme.sample(figure, mine.images, jobs[0].goal)
    value = f"{100 * shown[0].top1[-1]:.1f} % for yours" if shown else "first images are being simulated"
    chart(
        figure,
        "accuracy",
        f"{what} against time-steps with 95 % intervals: {value}.",
        note=settings.note(mine.images),
    )
    frame.assumptions(view.settings, jobs, results)
    histogram(view, settings, jobs[0].result if not waiting else mine)


def keep(
    settings: Settings, asked: Runs, results: list[Result], more: Sequence[tuple[str, Settings, Result]] = ()
) -> None:
    """Note what the charts show, for the files that are made of it; settings: those of the first run."""
    own = [settings, *asked.wanted[1:]]
    lines = [*zip(asked.names, own, results, strict=True), *more]
    names = _distinct([name for name, *_ in lines])
    now = exports.shown()
    now.settings = settings
    now.lines = [Line(name, *line[1:]) for name, line in zip(names, lines, strict=True)]


def latest(view: frame.View, result: Result, known: bool) -> tuple[Settings, Result, bool]:
    """Return what to draw: this result if it is known, else the last one of the same network, its settings with it.

    Returns settings, result, and whether it is the one before, which is then said on the page.
    """
    if known:
        st.session_state["shown_result"] = view.settings, result
        return view.settings, result, False
    settings, before = st.session_state.get("shown_result", (None, None))
    if settings is None or settings.network != view.settings.network:
        return view.settings, result, False
    st.caption(
        ":material/hourglass_top: The first images of the new settings are being simulated; until then, those before: "
        f"{keys.plain(settings.describe())}, T = {settings.T}."
    )
    return replace(settings, layer=view.settings.layer), before, True


def histogram(view: frame.View, settings: Settings, mine: Result) -> None:
    """Draw decoded rate against activation for the chosen layer, and the error per layer."""
    sums = mine.sites.get(settings.layer)
    if sums is None:
        st.caption("Rates and errors appear with the first images.")
        return
    left, right = st.columns(2)
    with left:
        st.subheader("Rate against activation")
        start = staircase_start(settings)
        chart(
            theme.sample(
                rates.histogram_figure(sums.histogram, EDGES_A, rate_edges(mine.T), mine.T, start), mine.error_images
            ),
            "histogram",
            f"Decoded rate against activation in {settings.layer}.",
            note=settings.note(mine.error_images),
        )
        st.caption(
            f"{settings.layer}, {mine.error_images} images: mean error {100 * sums.mean:+.2f} % of θ, root mean "
            f"square {100 * sums.mean_square**0.5:.2f} % of θ. Neurons silent in both networks are not drawn."
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
            f"â − a in per cent of each layer's threshold, {mine.error_images} images. Click a bar to choose its layer."
        )


def layers(view: frame.View, asked: Runs) -> None:
    """Draw the table of layers; scale and v_init are edited in place."""
    import pandas as pd

    settings, result = view.settings, asked.ask()[0].result
    st.subheader("Thresholds and potentials, layer by layer")
    names, known = list(view.look.shapes), result.sites
    calibrated = [float(np.mean(view.look.theta[name])) / (effective(settings, name)[0]) for name in names]
    table = pd.DataFrame(
        {
            "layer": names,
            "threshold": calibrated,
            "scale": [effective(settings, name)[0] for name in names],
            "v_init": [
                settings.site(name)[1] if settings.site(name)[1] is not None else settings.v_init for name in names
            ],
            "rate": [result.rate(name) if result.images else np.nan for name in names],
            "error": [100 * known[name].mean_square ** 0.5 if name in known else np.nan for name in names],
        }
    )
    if st.session_state.get("table_sites") != settings.sites:
        _renew_table()  # layers were changed elsewhere: what was typed here before must not hide that
    key = f"layers_{settings.network}_{st.session_state['table_version']}"
    st.session_state["table_sites"] = settings.sites
    number = st.column_config.NumberColumn
    st.data_editor(
        table,
        key=key,
        hide_index=True,
        width="stretch",
        disabled=["layer", "threshold", "rate", "error"],
        on_change=_edited,
        args=(key, tuple(names)),
        height=min(38 * (len(names) + 1), 420),
        column_config={
            "threshold": number("θ as calibrated (activation units)", format="%.4g", help="Mean over channels."),
            "scale": number("scale", format="%.3g", step=0.01, help="θ = scale × calibrated θ. Edit me."),
            "v_init": number("v_init (share of θ)", format="%.3g", step=0.01, help="v(0) = v_init × θ. Edit me."),
            "rate": number("rate (spikes per step)", format="%.4f"),
            "error": number("error, rms (% of θ)", format="%.2f"),
        },
    )
    st.caption(f"Rates: {result.images} images; errors: {result.error_images} images.")
    row = st.container(horizontal=True)
    row.button("Reset layers", key="reset_layers", disabled=not settings.sites, on_click=lambda: state.change(sites=()))
    row.button("Pin this run", key="pin", icon=":material/keep:", on_click=state.pin)
    row.button("Forget pins", key="unpin", disabled=not state.pins(), on_click=state.unpin)


def staircase_start(settings: Settings) -> float | None:
    """Return v_init of the chosen layer, for its staircase; None where it is random."""
    v_init = settings.site(settings.layer)[1]
    return settings.v_init if v_init is None and settings.start == "constant" else v_init


def effective(settings: Settings, name: str) -> tuple[float, float]:
    scale, v_init = settings.site(name)
    return (settings.scale if scale is None else scale), (settings.v_init if v_init is None else v_init)


def _renew_table() -> None:
    """Have the next table start without the cells typed so far."""
    st.session_state["table_version"] = st.session_state.get("table_version", 0) + 1


def _edited(key: str, names: tuple[str, ...]) -> None:
    """Take over edited cells; a value out of range leaves the layer as it was and is explained."""
    ranges = {"scale": ("threshold scale", SCALE_RANGE), "v_init": ("v_init", V_INIT_RANGE)}
    settings = state.current()
    for row, cells in st.session_state[key]["edited_rows"].items():
        name = names[int(row)]
        scale, v_init = settings.site(name)
        faults = [
            f"{name}, {what}: {low:g} to {high:g}, got {cells[column]:g}. The layer is as it was."
            for column, (what, (low, high)) in ranges.items()
            if cells.get(column) is not None and not low <= cells[column] <= high
        ]
        if faults:
            state.say(" ".join(faults))
            _renew_table()
            continue
        if None in cells.values():
            _renew_table()  # an emptied cell follows the whole network again and shows its value
        settings = settings.with_site(name, cells.get("scale", scale), cells.get("v_init", v_init))
    state.change(sites=settings.sites)
    st.session_state["table_sites"] = state.current().sites
