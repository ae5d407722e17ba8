"""The table of layers: thresholds, potentials, rates and errors; scale and v_init are edited in place."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.study import nouns
from explorer.study.results import Result
from explorer.study.settings import SCALE_RANGE, V_INIT_RANGE, Settings
from explorer.ui import frame, state
from explorer.ui.session import TABLE_SITES, TABLE_VERSION

EDITED = {"scale": "thresholds", "v_init": "potential"}  # columns, and the parts of the sidebar they belong to


def effective(view: frame.View, name: str) -> tuple[float, float]:
    """Return the threshold scale and v_init that a layer has; of a method, the mean of what it found."""
    settings = view.settings
    scale, v_init = settings.site(name)
    own = view.look.start[name] if settings.method else settings.v_init
    return (settings.scale if scale is None else scale), (own if v_init is None else v_init)


def draw(view: frame.View, result: Result) -> None:
    """Draw the table for a result of the present settings; what a link hides is shown, and cannot be edited."""
    import pandas as pd

    settings = view.settings
    st.subheader("Thresholds and potentials, layer by layer")
    names, known = list(view.look.shapes), result.sites
    calibrated = [float(np.mean(view.look.theta[name])) / (effective(view, name)[0]) for name in names]
    table = pd.DataFrame(
        {
            "layer": names,
            "threshold": calibrated,
            "scale": [effective(view, name)[0] for name in names],
            "v_init": [effective(view, name)[1] for name in names],
            "rate": [result.rate(name) if result.images else np.nan for name in names],
            "error": [100 * known[name].mean_square ** 0.5 if name in known else np.nan for name in names],
        }
    )
    if TABLE_SITES.get() != settings.sites:
        _renew_table()  # layers were changed elsewhere: what was typed here before must not hide that
    key = f"layers_{settings.network}_{TABLE_VERSION.get()}"
    TABLE_SITES.put(settings.sites)
    locked = [column for column, group in EDITED.items() if group in state.hidden()]
    number = st.column_config.NumberColumn
    st.data_editor(
        table,
        key=key,
        hide_index=True,
        width="stretch",
        disabled=["layer", "threshold", "rate", "error", *locked],
        on_change=_edited,
        args=(key, tuple(names)),
        height=min(38 * (len(names) + 1), 420),
        column_config={
            "threshold": number("θ as calibrated (activation units)", format="%.4g", help="Mean over channels."),
            "scale": number("scale", format="%.3g", step=0.01, help="θ = scale × calibrated θ."),
            "v_init": number("v_init (share of θ)", format="%.3g", step=0.01, help="v(0) = v_init × θ."),
            "rate": number("rate (spikes per step)", format="%.4f"),
            "error": number("error, rms (% of θ)", format="%.2f"),
        },
    )
    st.caption(f"Rates: {nouns.count(result.images, 'image')}; errors: {nouns.count(result.error_images, 'image')}.")
    if not locked:
        reset(settings)


def reset(settings: Settings) -> None:
    """Draw the button that lets all layers follow the whole network again."""
    st.button("Reset layers", key="reset_layers", disabled=not settings.sites, on_click=lambda: state.change(sites=()))


def _renew_table() -> None:
    """Have the next table start without the cells typed so far."""
    TABLE_VERSION.put(TABLE_VERSION.get() + 1)


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
    TABLE_SITES.put(state.current().sites)
