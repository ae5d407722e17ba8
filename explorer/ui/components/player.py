"""The player: one recording, played step by step in the browser without asking the server again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import streamlit as st

from explorer.plots.membrane import DrawnMembrane, thresholds
from explorer.ui.components.source import source

_PLAYER = st.components.v2.component(
    "explorer_player", html=source("player.html"), css=source("player.css"), js=source("player.js")
)


def player(membrane: DrawnMembrane, scores: np.ndarray, classes: Sequence[str], key: str) -> None:
    """Play one neuron's equation with its numbers, and the class scores [T, K] (at most ten classes) as they grow.

    Of a neuron that sends a code later, what is left to send is played. Scores are NaN where there is no answer yet.

    It says which curve it plays, by its name and colour.
    """
    chosen = np.argsort(-scores[-1])[:10] if scores.shape[1] > 10 else np.arange(scores.shape[1])
    record = {
        "x": membrane.x.tolist(),
        "before": membrane.v_before.tolist(),
        "v": membrane.v.tolist(),
        "z": [int(z) for z in membrane.z],
        "v0": membrane.v0,
        "theta": membrane.theta,
        "a": membrane.a,
        "decoded": membrane.decoded.tolist(),
        "muted": membrane.muted,
        "later": membrane.sends_later,
        "stretches": membrane.stretches,
        "sized": membrane.sized,
        "held": (membrane.v_before - membrane.x).tolist(),
        "fires": membrane.fires_at * membrane.theta,
        "level": thresholds(membrane.fires_at),
        "scores": [None if np.isnan(row).any() else np.round(row, 4).tolist() for row in scores[:, chosen]],
        "classes": [classes[i] for i in chosen],
        "name": membrane.name,
        "colour": membrane.style.colour,
    }
    _PLAYER(key=key, data={"record": json.dumps(record)})
