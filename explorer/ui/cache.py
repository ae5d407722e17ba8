"""What pages ask for, kept by frozen settings and shared between visitors: read-only.

A close look is computed in the visitor's own thread and given up as soon as he moves on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from explorer.study import library, tuning
from explorer.study.library import (  # noqa: F401 (what pages and windows need of it)
    Loaded,
    fitting_rule,
    gone,
    loaded,
    missing,
    own_networks,
    own_pictures,
    source,
    store,
)
from explorer.study.memo import kept
from explorer.study.runner import Instrument, Runner
from explorer.study.settings import Settings
from explorer.study.told import Told
from explorer.study.workshop import Workshop
from explorer.ui.session import ASKED

LOOK_BYTES = 96 * 2**20  # of close looks that are kept: of large networks, few


@st.cache_data(max_entries=1, ttl=60, show_spinner=False)
def names() -> list[str]:
    """Return the networks that can be chosen, by name (read from the model cards: no torch needed)."""
    from explorer.study import catalogue

    return catalogue.names()


def images(network: str, name: str, n: int = 1) -> Any:
    """Return the first n evaluation images of a source, uint8, as the network wants them."""
    return library.pictures(network, name).first(n)


def _engine() -> Instrument:
    from explorer.study.measure import Engine

    return Engine()


@kept(1)
def runner() -> Runner:
    """Return the one queue of runs."""
    return Runner(_engine)


@kept(1)
def workshop() -> Workshop:
    """Return the one queue of fine-tunings; they wait while simulations wait."""
    return Workshop(tuning, lambda: runner().load().waiting > 0)


@kept(64)
def tunable(network: str) -> str:
    """Return the architecture that a network's fine-tuned weights fit; "" if there is none."""
    return tuning.architecture(network)


def moved_on() -> bool:
    """Let Streamlit end this script run here if the visitor has moved a control meanwhile; False if not."""
    ASKED.get()  # reading the session is where a run may be ended
    return False


@kept(64, LOOK_BYTES)
def look(settings: Settings, stop: Any = None, on_progress: Any = None) -> Any:
    """Return one image seen closely; the neuron does not matter. on_progress: how far a method's fit is."""
    from explorer.study import measure

    if settings.method:  # a fit may take long: slices of others do not wait for it
        return measure.look(settings, stop, on_progress)
    with runner().aside():
        return measure.look(settings, stop)


@kept(256)
def membrane(settings: Settings, name: str, neuron: int) -> Any:
    """Return one neuron's membrane, ready to draw."""
    from explorer.plots.membrane import DrawnMembrane
    from explorer.study import measure

    with runner().aside():
        got = measure.membrane(settings, neuron)
    x, v_before, v, z = (np.asarray(part, dtype=np.float32) for part in (got.x, got.v_before, got.v, got.z))
    return DrawnMembrane(name, x, v_before, v, z, float(got.theta), float(got.v0), float(got.a))


@kept(24, LOOK_BYTES)
def rasters(settings: Settings, neurons: int = 200) -> Any:
    """Return spike rasters of every site on the chosen image."""
    from explorer.study import measure

    with runner().aside():
        return measure.rasters(settings, neurons, moved_on)


@kept(64, LOOK_BYTES)
def channel(settings: Settings) -> Any:
    """Return the errors of one channel, neuron by neuron; image, row and column do not matter."""
    from explorer.study import measure

    with runner().aside():
        return measure.channel(settings, moved_on)


@kept(256)
def additions(settings: Settings) -> Any:
    """Return the operations of the first images; settings without image and neuron."""
    from explorer.study import measure

    with runner().aside():
        return measure.additions(settings, moved_on)


@kept(64)
def told(method: str) -> Told:
    """Return what a method says of itself; by its key."""
    from explorer.study import told

    return told.told(method)


@kept(8)
def macs(network: str) -> Any:
    """Return multiply-accumulates per image by site."""
    from explorer.study import measure

    return measure.macs(network)
