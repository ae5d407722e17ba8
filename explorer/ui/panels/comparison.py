"""The visitor's run beside the references and his pins: what is asked for and drawn, and the pins' controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.engine.theory import wilson
from explorer.plots import accuracy, theme
from explorer.study import compare, keys
from explorer.study.compare import Named
from explorer.study.results import Result
from explorer.study.runner import Job
from explorer.study.scene import PIN_NAME_MAX, Pin
from explorer.study.script import Line
from explorer.study.settings import Settings
from explorer.ui import cache, frame, state
from explorer.ui.panels import exports
from explorer.ui.session import LATEST


def runs(view: frame.View) -> list[Named]:
    """Return the runs that stand side by side: yours first."""
    return compare.comparison(view.settings, state.pins())


def ask(named: Sequence[Named], more: Sequence[Settings] = ()) -> list[Job]:
    """Return the jobs of these runs, in order, asking for them; the first with its conversion errors."""
    return cache.runner().want(frame.owner(), [*(one.settings for one in named), *more], errors=True)


def as_curve(name: str, result: Result, style: theme.Style) -> accuracy.Curve:
    """Return a run's accuracy with its interval, ready to draw; agreement with the ANN where there are no labels."""
    low, high = (np.where(result.answered, bound, np.nan) for bound in wilson(result.hits, result.images))
    return accuracy.Curve(name, result.top1, low, high, result.images, result.labelled, style)


def curves_of(named: Sequence[Named], results: Sequence[Result]) -> list[accuracy.Curve]:
    """Return the curves of the runs of which something is known, all with labels or all without, as the first has.

    Where one is left out for that, it is said on the page.
    """
    known = [(one, result) for one, result in zip(named, results, strict=True) if result.images]
    alike = [(one, result) for one, result in known if result.labelled == known[0][1].labelled]
    others = [one.name for one, result in known if result.labelled != known[0][1].labelled]
    if others:
        st.caption(
            f"Not drawn: {keys.plain(', '.join(others))}. Only one of accuracy and agreement with the ANN is known of "
            "all, and one axis holds one of them."
        )
    return [as_curve(one.name, result, theme.style(one.role)) for one, result in alike]


def keep(
    settings: Settings,
    named: Sequence[Named],
    results: Sequence[Result],
    log: bool = False,
) -> None:
    """Note what the charts show, for the files that are made of it; settings: those of the first run."""
    now = exports.shown()
    now.settings, now.log = settings, log
    now.lines = [Line(one.name, one.settings, result) for one, result in zip(named, results, strict=True)]
    now.styles = [theme.style(one.role) for one in named]


def latest(view: frame.View, job: Job, result: Result, known: bool) -> tuple[Settings, Result, bool]:
    """Return what to draw: this result if it is known, else the last one of the same network on the same images.

    Returns settings, result, and whether it is the one before, which is then said on the page.
    """
    if known:
        LATEST.put((view.settings, result))
        return view.settings, result, False
    settings, before = LATEST.get() or (None, None)
    same = settings is not None and (settings.network, settings.source) == (view.settings.network, view.settings.source)
    if settings is None or before is None or not same:
        return view.settings, result, False
    if job.error:
        why = ":material/error: The new settings failed. Shown are"
    else:
        why = ":material/hourglass_top: The first images of the new settings are being simulated; until then,"
    st.caption(f"{why} those before: {keys.plain(settings.describe())}, T = {settings.T}.")
    return replace(settings, layer=view.settings.layer), before, True


def pins() -> None:
    """Draw the button that pins a run, and every pin with its name, its colour, and a button that removes it."""
    row = st.container(horizontal=True)
    row.button(
        "Pin this run",
        key="pin",
        icon=":material/keep:",
        on_click=state.pin,
        help="Keeps this run's curve for comparison while you move on, here and in links.",
    )
    row.button("Forget pins", key="unpin", disabled=not state.pins(), on_click=state.unpin)
    with st.container():
        for pin in state.pins():
            _pin_row(pin)


def _pin_row(pin: Pin) -> None:
    mark, name, gone = st.columns([1, 12, 2], vertical_alignment="center")
    style = theme.style(f"pin{pin.slot}")
    mark.html(f'<div title="colour of this pin" style="width:28px;border-top:4px solid {style.colour}"></div>')
    key = f"pin_name_{pin.slot}_{pin.name}"  # another name is another field: none keeps what was typed elsewhere
    name.text_input(
        "Name of this pin",
        value=pin.name,
        key=key,
        placeholder=pin.title,
        max_chars=PIN_NAME_MAX,
        label_visibility="collapsed",
        on_change=lambda: state.name_pin(pin.slot, st.session_state.get(key, pin.name)),
    )
    gone.button(
        "Remove",
        key=f"unpin_{pin.slot}",
        icon=":material/close:",
        on_click=lambda: state.unpin(but=lambda other: other.slot != pin.slot),
    )
