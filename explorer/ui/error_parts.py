"""The parts of the page on rates and errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.plots import accuracy, rates, theme
from explorer.study.results import EDGES_A, EDGES_V, PARTS, rate_edges
from explorer.study.runner import Job
from explorer.ui import cache, frame, state, widgets
from explorer.ui.components import chart, equaliser
from explorer.ui.explorer_parts import effective, histogram, latest, staircase_start


def equalisers(view: frame.View) -> None:
    """Draw one slider a layer for the threshold scale and one for v_init; they act while dragged."""
    settings, names = view.settings, list(view.look.shapes)
    banks = (
        ("scale", "Threshold equaliser: scale per layer", 0.1, 2.0, 0),
        ("v_init", "Potential equaliser: v_init per layer", -0.5, 1.5, 1),
    )
    for what, title, low, high, index in banks:

        def moved(site: str, value: float, index: int = index) -> None:
            now = state.current()
            entry = list(now.site(site))
            entry[index] = round(value, 2)
            state.change(sites=now.with_site(site, entry[0], entry[1]).sites, layer=site)

        values = [effective(settings, name)[index] for name in names]
        with st.expander(title, expanded=what == "scale", icon=":material/equalizer:"):
            equaliser(
                names,
                values,
                [settings.site(name)[index] is not None for name in names],
                title.split(":")[1].strip(),
                min(low, *values),
                max(high, *values),
                f"equaliser_{what}",
                moved,
            )
    st.button("Reset layers", key="reset_layers", disabled=not settings.sites, on_click=lambda: state.change(sites=()))
    widgets.select("layer", view.look.shapes)
    widgets.toggle("squared")


def ask(view: frame.View) -> list[Job]:
    """Ask for the present run."""
    return cache.runner().want(frame.owner(), [view.settings.look()], errors=True)


def draw(view: frame.View) -> None:
    """Draw everything that refines with the run."""
    job = ask(view)[0]
    result = job.result  # read once: the worker replaces it as it goes on
    frame.assumptions(view.settings, [job], [result])
    settings, result, _ = latest(view, result, bool(result.sites))
    if settings.layer not in result.sites:
        if not job.error:
            st.caption("The first images are being simulated.")
        return
    names = list(result.sites)
    squared = state.display().squared
    parts = {part: np.array([result.sites[name].share(part, squared) for name in names]) for part in PARTS}
    parts["total"] = np.array(
        [result.sites[name].mean_square if squared else result.sites[name].mean for name in names]
    )
    st.subheader("Error by layer and cause")
    chart(
        theme.sample(rates.parts_figure(names, parts, squared), result.error_images),
        "parts",
        "Error per layer in four parts that add up. Click a bar to choose its layer.",
        on_click=lambda point: frame.choose_layer(view, str(point["custom"])),
        note=settings.note(result.error_images),
    )
    histogram(view, settings, result)
    left, right = st.columns(2)
    sums = result.sites[settings.layer]
    with left:
        st.subheader("Potentials at the end")
        chart(
            theme.sample(rates.potential_figure(sums.potentials, EDGES_V), result.error_images),
            "potentials",
            f"Distribution of v(T) / θ in {settings.layer}.",
            note=f"{settings.note(result.error_images)}, {settings.layer}",
        )
        st.caption(
            f"{100 * sums.below / sums.n:.1f} % below 0 (negative input, or more sent than received), "
            f"{100 * sums.above / sums.n:.1f} % above θ (could not send it all: at most one spike a step). "
            "What lies beyond the axis is counted at its ends."
        )
    with right:
        st.subheader("Worst channels")
        rms = np.sqrt(sums.channel_squared / sums.channel_n)
        worst = np.argsort(-rms)[:10]
        figure = accuracy.bars_figure(
            [f"channel {c}" for c in worst], 100 * rms[worst], "root mean square error (% of θ)", 300
        )
        chart(
            theme.sample(figure, result.error_images),
            "worst",
            f"The ten worst channels of {settings.layer}.",
            note=f"{settings.note(result.error_images)}, {settings.layer}",
            on_click=lambda point: frame.choose_layer(view, settings.layer, int(str(point["y"]).split()[-1])),
        )
        st.caption("Click a bar to look into its channel below.")
    if job.done:
        _channel(view)


def _channel(view: frame.View) -> None:
    """Draw one channel's rates and its error by place; a click chooses the neuron, whose four causes are listed."""
    s, now = view.settings, state.current()
    if now.channel != s.channel and replace(now, channel=s.channel) == s:
        st.rerun()  # typed below, in this part of the page alone: the rest follows
    seen = cache.channel(replace(s.look(), layer=s.layer, channel=s.channel, images=16))
    st.subheader(f"Inside channel {s.channel} of {s.layer}")
    size = view.look.shapes[s.layer][0]
    widgets.number("channel", size - 1)
    left, right = st.columns(2)
    note = f"{s.note(seen.images)}, {s.layer}, channel {s.channel}"
    with left:
        sums = seen.sums
        chart(
            theme.sample(
                rates.histogram_figure(sums.histogram, EDGES_A, rate_edges(s.T), s.T, staircase_start(s)), seen.images
            ),
            "channel_histogram",
            f"Decoded rate against activation in channel {s.channel}.",
            note=note,
        )
        st.caption(
            f"{seen.images} images: mean error {100 * sums.mean:+.2f} % of θ, root mean square "
            f"{100 * sums.mean_square**0.5:.2f} % of θ."
        )
    with right:
        chart(
            theme.sample(rates.map_figure(100 * seen.rms, "rms error (% of θ)", (s.row, s.column), 360), seen.images),
            "channel_map",
            f"Error by place in channel {s.channel}. Click a cell to choose its neuron.",
            on_click=lambda point: state.change(row=int(point["y"]), column=int(point["x"])),
            note=note,
        )
    st.markdown(f"Mean error of the neuron at row {s.row}, column {s.column}, by cause (% of θ, {seen.images} images):")
    shown = {part: float(values[s.row, s.column]) for part, values in seen.parts.items()}
    for column, (part, value) in zip(st.columns(5), [*shown.items(), ("total", sum(shown.values()))], strict=True):
        column.metric(part, f"{100 * value:+.2f}")
    pages = st.session_state.get("pages", {})
    if "membrane_lab" in pages:
        st.page_link(pages["membrane_lab"], label="See this neuron in the membrane lab", icon=":material/ssid_chart:")
