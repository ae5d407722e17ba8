"""Rates and errors: where does the conversion error come from, by layer, channel and cause?"""

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.engine.theory import PARTS
from explorer.plots import accuracy, rates, theme
from explorer.study import nouns
from explorer.study.results import EDGES_V, ERROR_IMAGES
from explorer.ui import cache, frame, state, tour, widgets
from explorer.ui.components import chart, equaliser
from explorer.ui.panels import comparison, errors, layer_table
from explorer.ui.session import PAGES

BANKS = (
    ("scale", "thresholds", "Threshold equaliser: scale per layer", 0.1, 2.0),
    ("v_init", "potential", "Potential equaliser: v_init per layer", -0.5, 1.5),
)


def equalisers(view):
    """Draw one slider a layer for the threshold scale and one for v_init; they act while dragged."""
    settings, names = view.settings, list(view.look.shapes)
    for index, (what, group, title, low, high) in enumerate(BANKS):
        if group in state.hidden():
            continue

        def moved(site, value, index=index):
            now = state.current()
            entry = list(now.site(site))
            entry[index] = round(value, 2)
            state.change(sites=now.with_site(site, entry[0], entry[1]).sites, layer=site)

        values = [layer_table.effective(view, name)[index] for name in names]
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
    if not {group for _, group, *_ in BANKS} <= state.hidden():
        layer_table.reset(settings)


def ask(view):
    """Ask for the present run."""
    return cache.runner().want(frame.owner(), [view.settings.of_run()], errors=True)


def draw(view):
    """Draw everything that refines with the run."""
    job = ask(view)[0]
    result = job.result  # read once: the worker replaces it as it goes on
    row = st.container()
    settings, result, _ = comparison.latest(view, job, result, bool(result.sites))
    with row:
        frame.assumptions(settings, [job], [result])
    if settings.layer not in result.sites:
        if not job.error:
            st.caption("The first images are being simulated.")
        return
    by_cause(view, settings, result)
    errors.histogram(view, settings, result)
    left, right = st.columns(2)
    with left:
        potentials(settings, result, view.look.facts)
    with right:
        worst_channels(view, settings, result)
    if job.done:
        one_channel(view)


def by_cause(view, settings, result):
    """Draw the error of every layer in its four parts."""
    names, squared = list(result.sites), state.display().squared
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


def potentials(settings, result, facts):
    """Draw where the membranes of the chosen layer stand at the end."""
    sums = result.sites[settings.layer]
    sent = nouns.count(facts.most, "spike") if facts.bounded else f"a spike of {facts.most} θ"
    st.subheader("Potentials at the end")
    chart(
        theme.sample(rates.potential_figure(sums.potentials, EDGES_V), result.error_images),
        "potentials",
        f"Distribution of v(T) / θ in {settings.layer}.",
        note=f"{settings.note(result.error_images)}, {settings.layer}",
    )
    st.caption(
        f"{100 * sums.below / sums.n:.1f} % below 0 (negative input, or more sent than received), "
        f"{100 * sums.above / sums.n:.1f} % above θ (could not send it all: at most {sent} a step). "
        "What lies beyond the axis is counted at its ends."
    )


def worst_channels(view, settings, result):
    """Draw the ten channels of the chosen layer with the largest errors; a click looks into one."""
    sums = result.sites[settings.layer]
    st.subheader("Worst channels")
    rms = np.sqrt(sums.channel_squared / sums.channel_n)
    worst = np.argsort(-rms)[:10]
    figure = accuracy.bars_figure(
        [f"channel {c}" for c in worst], 100 * rms[worst], "root mean square error (% of θ)", 300, y="channel"
    )
    chart(
        theme.sample(figure, result.error_images),
        "worst",
        f"The ten worst channels of {settings.layer}.",
        note=f"{settings.note(result.error_images)}, {settings.layer}",
        on_click=lambda point: frame.choose_layer(view, settings.layer, int(str(point["y"]).split()[-1])),
    )
    st.caption("Click a bar to look into its channel below.")


def one_channel(view):
    """Draw one channel's rates and its error by place; a click chooses the neuron, whose four causes are listed."""
    s, now = view.settings, state.current()
    if now.channel != s.channel and replace(now, channel=s.channel) == s:
        st.rerun()  # typed below, in this part of the page alone: the rest follows
    seen = cache.channel(replace(s.of_run(), layer=s.layer, channel=s.channel, images=ERROR_IMAGES))
    st.subheader(f"Inside channel {s.channel} of {s.layer}")
    widgets.number("channel", view.look.shapes[s.layer][0] - 1)
    left, right = st.columns(2)
    note = f"{s.note(seen.images)}, {s.layer}, channel {s.channel}"
    with left:
        sums = seen.sums
        chart(
            errors.staircase_figure(view, s, sums.histogram, seen.images),
            "channel_histogram",
            f"Decoded rate against activation in channel {s.channel}.",
            note=note,
        )
        st.caption(
            f"{nouns.count(seen.images, 'image')}: mean error {frame.signed(100 * sums.mean)} % of θ, root mean square "
            f"{100 * sums.mean_square**0.5:.2f} % of θ."
        )
    with right:
        figure = rates.map_figure(100 * seen.rms, "rms error (% of θ)", (s.row, s.column), 360)
        chart(
            theme.sample(figure, seen.images),
            "channel_map",
            f"Error by place in channel {s.channel}. Click a cell to choose its neuron.",
            on_click=lambda point: state.change(row=int(point["y"]), column=int(point["x"])),
            note=note,
        )
    images = nouns.count(seen.images, "image")
    st.markdown(f"Mean error of the neuron at row {s.row}, column {s.column}, by cause (% of θ, {images}):")
    shown = {part: float(values[s.row, s.column]) for part, values in seen.parts.items()}
    for column, (part, value) in zip(st.columns(5), [*shown.items(), ("total", sum(shown.values()))], strict=True):
        column.metric(part, frame.signed(100 * value))
    if "membrane_lab" in PAGES.get():
        lab = PAGES.get()["membrane_lab"]
        st.page_link(lab, label="See this neuron in the membrane lab", icon=":material/ssid_chart:")


frame.question("Where does the conversion error come from: which layer, which channel, which cause?")
view = frame.view()
with st.container():
    equalisers(view)
widgets.select("layer", view.look.shapes)
widgets.toggle("squared")
frame.live(lambda: ask(view), lambda: draw(view))
tour.lesson("rates_and_errors")
