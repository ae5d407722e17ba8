"""The parts of the page on rates and errors."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.plots import accuracy, rates
from explorer.ui import cache, frame, state
from explorer.ui.components import chart, equaliser
from explorer.ui.explorer_parts import _effective, histogram
from explorer.ui.results import EDGES_V, PARTS
from explorer.ui.runner import Job
from explorer.ui.settings import BY_NAME


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

        with st.expander(title, expanded=what == "scale", icon=":material/equalizer:"):
            equaliser(
                names,
                [_effective(settings, name)[index] for name in names],
                [settings.site(name)[index] is not None for name in names],
                title.split(":")[1].strip(),
                low,
                high,
                f"equaliser_{what}",
                moved,
            )
    st.button("Reset layers", key="reset_layers", disabled=not settings.sites, on_click=lambda: state.change(sites=()))
    st.selectbox(
        BY_NAME["layer"].label,
        list(view.look.shapes),
        key=state.key("layer"),
        help=BY_NAME["layer"].help,
        persist_state="session",
    )


def ask(view: frame.View) -> list[Job]:
    """Ask for the present run."""
    return cache.runner().want(frame.owner(), [view.settings.look()], errors=True)


def draw(view: frame.View) -> None:
    """Draw everything that refines with the run."""
    job = ask(view)[0]
    result = job.result if job.result.sites else st.session_state.get("shown_result")
    frame.assumptions(view.settings, [job])
    if result is None or view.settings.layer not in result.sites:
        st.caption("The first images are being simulated.")
        return
    st.session_state["shown_result"] = result
    names = list(result.sites)
    squared = st.toggle(
        "Squared error",
        key="squared",
        help="Signed: parts add up to the mean error. Squared: each part's "
        "share of the mean squared error, the mean of part times total.",
    )
    parts = {part: np.array([result.sites[name].share(part, squared) for name in names]) for part in PARTS}
    parts["total"] = np.array(
        [result.sites[name].mean_square if squared else result.sites[name].mean for name in names]
    )
    st.subheader("Error by layer and cause")
    chart(
        rates.parts_figure(names, parts, squared),
        "parts",
        "Error per layer in four parts that add up. Click a bar to choose its layer.",
        on_click=lambda point: state.change(layer=str(point["custom"]), channel=0, row=0, column=0),
        note=view.settings.note(result.error_images),
    )
    histogram(view, result)
    left, right = st.columns(2)
    sums = result.sites[view.settings.layer]
    with left:
        st.subheader("Potentials at the end")
        chart(
            rates.potential_figure(sums.potentials, EDGES_V),
            "potentials",
            f"Distribution of v(T) / θ in {view.settings.layer}.",
        )
        st.caption(
            f"{100 * sums.below / sums.n:.1f} % below 0 (sent more than received), {100 * sums.above / sums.n:.1f} % "
            "above θ (could not send it all: at most one spike a step). The axis leaves out the outermost 0.2 %: "
            "press Autoscale in the chart's bar to see them."
        )
    with right:
        st.subheader("Worst channels")
        rms = np.sqrt(sums.channel_squared / sums.channel_n)
        worst = np.argsort(-rms)[:10]
        figure = accuracy.bars_figure(
            [f"channel {c}" for c in worst], 100 * rms[worst], "root mean square error (% of θ)", 300
        )
        chart(
            figure,
            "worst",
            f"The ten worst channels of {view.settings.layer}.",
            on_click=lambda point: state.change(channel=int(str(point["y"]).split()[-1]), row=0, column=0),
        )
        pages = st.session_state.get("pages", {})
        if "membrane_lab" in pages:
            st.page_link(
                pages["membrane_lab"],
                label=f"Open channel {view.settings.channel} in the membrane lab",
                icon=":material/ssid_chart:",
            )
