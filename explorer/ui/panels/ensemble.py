"""Random starts as an ensemble: is it more right, and surer with reason, than one run?"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import streamlit as st

from explorer.engine.errors import ExplorerError
from explorer.study import keys, nouns
from explorer.study.settings import Settings
from explorer.ui import cache

MOST_IMAGES = 64  # each is run nine times, in the visitor's own thread


def draw(settings: Settings) -> None:
    """Draw the table of the ensemble, its members and the single run, on the first images."""
    st.subheader("Random starts as an ensemble")
    few = replace(settings.of_run(), images=min(settings.images, MOST_IMAGES), image=0)
    try:
        with st.spinner("Running eight starts…"):
            found = cache.ensemble(few)
    except ExplorerError as error:
        st.error(keys.plain(str(error)), icon=":material/error:")
        return
    random, half = found.random, found.half
    rows = {
        "Run": [f"{random.members} random starts together", "one of them (mean)", "one run, v_init = 1/2"],
        "Top-1 (%)": [f"{100 * x:.1f}" for x in (random.top1, mean(random.top1_each), half.top1)],
        "Calibration error (%)": [
            f"{100 * x:.1f}"
            for x in (random.calibration_error, mean(random.calibration_error_each), half.calibration_error)
        ],
        "Two starts disagree (%)": [f"{100 * random.disagreement:.1f}", "", ""],
    }
    st.dataframe(rows, hide_index=True)
    drawn = "as set" if settings.random else "uniform in [0, 1)"
    st.caption(
        f"The first {nouns.count(random.images, 'image')} at T = {settings.T}, starts {drawn} in every layer, "
        f"seeds 0 to {random.members - 1}. "
        "Together: the mean of the runs' probabilities (softmax of the scores). Calibration error: how far confidence "
        "lies from accuracy, in 15 bins of confidence, weighted by images; of so few images it is never zero. "
        "Differences of a few points are within chance."
    )
