"""The controls every page shares; moving any of them simulates anew."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from explorer.study import keys, link
from explorer.study.settings import PRESETS
from explorer.ui import cache, dialogs, state, tour, widgets
from explorer.ui.panels import method
from explorer.ui.session import HISTORY

CONVERSION = frozenset({"time", "calibrate", "method", "thresholds", "potential"})
IDLE = {"theory": CONVERSION}  # what decides nothing on a page
NEEDED = "The other controls of the network act on the other pages; here the sliders beside the figures do."


def draw(page: str = "") -> None:
    """Draw the sidebar: presets, network and images, conversion, simulation, sharing; without what the link hides.

    page: its file's name; what would do nothing there is left out. Every group has a place of its own, so that nothing
    moves (and no expander closes) when another group changes.
    """
    idle = IDLE.get(page, frozenset())
    groups = {
        "presets": lambda: _presets(with_starts=not idle),
        "network": _network,
        "time": lambda: widgets.slider("T"),
        "calibrate": method.calibrate,
        "method": method.choose,
        "thresholds": _thresholds,
        "potential": _potential,
        "images": _images,
        "share": _share,
        "tour": tour.draw,
    }
    for name, group in groups.items():
        with st.container():
            if name not in state.hidden() | idle:
                group()
    if idle:
        st.caption(NEEDED)


def _images() -> None:
    drawer = widgets.drawer("Images and device", ":material/tune:", "images")
    if not drawer.open:
        return
    with drawer:
        _named(
            "source",
            ["embedded"],
            {"embedded": "CIFAR-10, embedded"},
            on_change=lambda: state.change(image=0),  # the one looked at before may not be there
        )
        st.button(
            "Your own images…",
            icon=":material/add_photo_alternate:",
            key="open_images",
            width="stretch",
            on_click=lambda: dialogs.open_dialog("images"),
        )
        widgets.slider("images")
        widgets.select("device")


def _presets(with_starts: bool) -> None:
    for name, preset in PRESETS.items() if with_starts else ():
        st.button(
            name,
            key=f"preset_{name}",
            width="stretch",
            on_click=lambda preset=preset: state.put(preset(state.current())),
        )
    left, right = st.columns(2)
    left.button(
        "Undo",
        icon=":material/undo:",
        key="undo",
        on_click=state.undo,
        width="stretch",
        disabled=len(HISTORY.get()) < 2,
    )
    right.button("Reset", icon=":material/restart_alt:", key="reset", on_click=state.reset, width="stretch")


def _network() -> None:
    _named(
        "network", cache.names(), {}, on_change=lambda: state.change(**dialogs.with_network(state.current().network))
    )
    for column, (name, label, icon, help) in zip(
        st.columns(2),
        (
            ("network", "More…", ":material/upload_file:", "Your own weights, or another of torchvision's networks."),
            ("report", "Report…", ":material/lab_profile:", "What the conversion does to each part of this network."),
        ),
    ):
        column.button(
            label,
            icon=icon,
            key=f"open_{name}",
            help=help,
            width="stretch",
            on_click=lambda name=name: dialogs.open_dialog(name),
        )


def _named(name: str, names: list[str], shown: dict[str, str], on_change: Callable[[], None] | None = None) -> None:
    """Draw a choice among names, the visitor's uploads and what is chosen now, whatever it is."""
    chosen = st.session_state[state.key(name)]
    widgets.select(
        name,
        dict.fromkeys([*names, *dialogs.mine(name), chosen]),
        lambda one: shown.get(one, keys.label(one)),
        on_change,
    )


def _thresholds() -> None:
    if st.session_state[state.key("method")]:
        widgets.slider("scale")
        return
    widgets.select("rule")
    rule = st.session_state[state.key("rule")]
    if rule == "percentile":
        widgets.decimal("p")
    if rule != "clip":
        widgets.select("per")
    widgets.slider("scale")


def _potential() -> None:
    if st.session_state[state.key("method")]:
        return  # the method's own settings
    widgets.select("law")
    widgets.select("start")
    widgets.slider("v_init")
    if st.session_state[state.key("start")] != "constant":
        widgets.slider("spread")
        widgets.number("seed")


def _share() -> None:
    drawer = widgets.drawer("Share this view", ":material/share:", "share")
    if not drawer.open:
        return
    with drawer:
        st.caption("Whoever opens this address sees this page with the same settings.")
        hide = st.multiselect(
            "Hide controls (for a class)",
            list(link.GROUPS),
            format_func=lambda name: link.GROUPS[name],
            key="hide_in_link",
            persist_state="session",
            help="The link opens the app without these parts of the sidebar, so that a class moves only the others.",
        )
        tail = f"?{link.PARAMETER}={link.encode(state.scene())}" + (f"&{link.HIDE}={','.join(hide)}" if hide else "")
        st.code(f"{st.context.url or ''}{tail}", language=None, wrap_lines=True)
