"""The choice of a conversion method, its settings, and what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from explorer.engine.methods import names
from explorer.plots import rates
from explorer.study import keys
from explorer.study.settings import Settings
from explorer.study.told import Option
from explorer.ui import cache, frame, state
from explorer.ui.components import chart
from explorer.ui.fitting import CALIBRATIONS

SHARED = ("threshold", "v_init", "law", "seed")  # settings that all methods have
PLAIN = "As chosen below"


def choose() -> None:
    """Draw the choice of a method and the settings of the one chosen."""
    text = st.session_state[state.key("method")]
    key, fields = names.split(text)
    st.session_state["method_key"] = key
    st.selectbox(
        "Conversion method",
        ["", *names.NAMES],
        format_func=lambda one: names.NAMES[one].title if one else PLAIN,
        key="method_key",
        help=state.help("method"),
        on_change=lambda: state.change(method=st.session_state["method_key"]),
    )
    if not key:
        return
    with st.expander(f"Settings of “{names.NAMES[key].title}”", icon=":material/tune:"):
        told = cache.told(key)
        st.caption(f"{told.about} ({told.citation})")
        own = [one for one in told.options if one.name not in SHARED]
        for option in [*own, *(one for one in told.options if one.name in SHARED)]:
            _control(option, fields.get(option.name))


def calibrate() -> None:
    """Draw the button that fits the network to the present number of steps."""
    settings = state.current()
    key = names.split(settings.method)[0]
    if key in CALIBRATIONS:
        st.session_state["calibration_code"] = key
    chosen = st.segmented_control(
        "Calibrate for T: a spike counts",
        list(CALIBRATIONS),
        format_func=lambda code: CALIBRATIONS[code],
        default=None if key in CALIBRATIONS else "calibrate",
        key="calibration_code",
        required=True,
        help="With plain spikes a neuron sends one bit a step. Signed ones can be taken back, which needs two, and "
        "makes up for charge that came early.",
        on_change=_other_code,
    )
    st.button(
        f"Calibrate for T = {settings.T}",
        key="calibrate",
        icon=":material/auto_fix_high:",
        type="primary",
        width="stretch",
        disabled=key == chosen,
        help="Layer by layer, on the spikes that really arrive, every channel gets the threshold, shifts and worth of "
        "a spike with which it errs least from the ANN. No training, no labels; evaluation images are never looked at. "
        "Whenever T changes, it is done anew for that T.",
        on_click=lambda: state.change(method=chosen),
    )


def _other_code() -> None:
    """Calibrate anew where a calibration is in force and the other code is chosen."""
    if names.split(state.current().method)[0] in CALIBRATIONS:
        state.change(method=st.session_state["calibration_code"])


def _control(option: Option, written: str | None) -> None:
    """Draw one setting of a method by its kind; what is as by default is not written."""
    key, label, default = f"method_field_{option.name}", option.name.replace("_", " "), option.default
    value = default if written is None else _read(default, written)
    st.session_state[key] = value
    how: dict[str, Any] = {"key": key, "help": option.help, "on_change": _written(option, key)}
    if isinstance(default, bool):
        st.toggle(label, **how)
    elif isinstance(default, int):
        st.number_input(label, int(option.low or 0), int(option.high or 0), **how)
    elif isinstance(default, float):
        st.number_input(label, option.low, option.high, format="%.4g", **how)
    elif option.choices:
        st.selectbox(label, list(option.choices), **how)
    else:
        st.text_input(label, max_chars=60, **how)


def _read(default: object, text: str) -> Any:
    """Return a written value as its widget takes it; the default where it does not read (the fit then says so)."""
    try:
        if isinstance(default, bool):
            return text.lower() in ("true", "1", "yes")
        return type(default)(text) if isinstance(default, int | float) else text
    except ValueError:
        return default


def _written(option: Option, key: str) -> Callable[[], None]:
    def change() -> None:
        value = st.session_state[key]
        shown = str(value).strip() or str(option.default)
        told = None if value == option.default else shown
        state.change(method=names.with_field(state.current().method, option.name, told))

    return change


def found(view: frame.View) -> None:
    """Draw what the chosen method found, where it is more than thresholds and starts."""
    settings, facts = view.settings, view.look.facts
    if not settings.method:
        return
    with st.expander(f"What “{names.title(settings.method)}” found", icon=":material/fact_check:", expanded=True):
        for line in lines(settings, facts, len(view.look.shapes)):
            st.markdown(f"* {keys.plain(line)}")
        if facts.layers:
            sites = [row[0] for row in facts.layers]
            shares = np.array([[100 * value for value in row[1:]] for row in facts.layers])
            chart(
                rates.before_after_figure(sites, shares[:, 0], shares[:, 1]),
                "calibrated_layers",
                "Error of every layer before and after calibration.",
                note=f"{settings.note(0)}".replace(": 0 images", ""),
            )
            st.caption(
                "Mean square of â − a over that of a, in per cent, on the calibration images that were fitted; each "
                "layer gets the spikes of those calibrated before it. Before: its neurons as they were, the same input."
            )


def lines(settings: Settings, facts: Any, sites: int) -> list[str]:
    """Return what there is to say of a conversion beside its thresholds and starts."""
    told = []
    if facts.extra:
        told.append(f"An answer takes {settings.T + facts.extra} steps: {facts.extra} more than T.")
    if facts.bits > 1:
        told.append(f"What a neuron sends in a step takes {facts.bits} bits.")
    if facts.skipped:
        told.append(f"The read-out leaves out the first {facts.skipped} steps, but never the last 4.")
    if facts.amplitudes:
        told.append(f"In {len(facts.amplitudes)} of {sites} layers a spike is worth something else than the threshold.")
    if facts.shifted:
        told.append(f"In {len(facts.shifted)} of {sites} layers the current is shifted.")
    if facts.layers:
        told.append(f"Weights refitted: {'yes' if facts.refitted else 'no'}.")
    if facts.held is not None:
        images, opi, own = facts.held
        told.append(
            f"On {images} calibration images held back it agrees with the ANN on {100 * own:.1f} %, half-threshold "
            f"starts alone on {100 * opi:.1f} %"
            + ("." if facts.kept else ": those are kept, since calibration would do worse.")
        )
    return told or ["Thresholds and starts alone; see the table of layers."]
