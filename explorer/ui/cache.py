"""All caches of the app, keyed by frozen recipes. What comes out is shared between visitors: read-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from explorer.ui.settings import Settings

STORE_BYTES = 600 * 2**20
MAX_IMAGES = 2000


@dataclass(frozen=True, eq=False)
class Loaded:
    """A pretrained network, traced, with its card."""

    network: Any
    card: Any


@st.cache_data(max_entries=1, ttl=60, show_spinner=False)
def names() -> list[str]:
    """Return the networks that can be chosen, by name (read from the model cards: no torch needed)."""
    from explorer.ui import catalogue

    return catalogue.names()


@st.cache_resource(max_entries=4, show_spinner=False)
def loaded(name: str) -> Loaded:
    """Load and trace a network."""
    import torch

    from explorer import engine
    from explorer.zoo import registry

    torch.set_num_threads(min(torch.get_num_threads(), 4))
    module, card = registry.load(name)
    return Loaded(engine.trace(module, card.example()), card)


@st.cache_resource(max_entries=4, show_spinner=False)
def images(network: str, source: str) -> Any:
    """Return the evaluation images, uint8, as the network wants them."""
    from explorer.zoo import data

    return data.load_images(data.data_source(source), loaded(network).card, n=MAX_IMAGES)


@st.cache_resource(max_entries=80, show_spinner=False)
def inputs(network: str, source: str, begin: int, end: int) -> Any:
    """Return images [begin, end) normalised for the network, float32 [B, C, H, W]."""
    from explorer.zoo.images import normalise

    return normalise(images(network, source).images[begin:end], loaded(network).card)


def calibration_key(settings: Settings) -> Settings:
    """Return the settings with all that does not enter the thresholds set to the defaults."""
    kept = replace(Settings(), rule=settings.rule, p=settings.p, per=settings.per)
    return replace(kept, T=settings.T) if settings.rule == "mse" else kept


@st.cache_resource(max_entries=32, show_spinner=False)
def calibration(network: str, source: str, key: Settings) -> Any:
    """Return the thresholds of a rule, found on calibration images (256 of them)."""
    from explorer import engine
    from explorer.ui.recipes import calibration_spec
    from explorer.zoo import data
    from explorer.zoo.images import normalise

    card = loaded(network).card
    chosen = data.load_images(data.data_source(source), card, n=256, part="calibration")
    return engine.calibrate(loaded(network).network, normalise(chosen.images, card), calibration_spec(key))


@st.cache_resource(show_spinner=False)
def store() -> Any:
    """Return the shared store of spike trains."""
    from explorer import engine

    return engine.SpikeStore(budget_bytes=STORE_BYTES)


@st.cache_resource(show_spinner=False)
def runner() -> Any:
    """Return the one queue of simulations."""
    from explorer.ui.runner import Runner

    return Runner()


@st.cache_resource(max_entries=64, show_spinner=False)
def look(settings: Settings) -> Any:
    """Return one image seen closely; the neuron does not matter."""
    from explorer.ui import compute

    with runner().turn():
        return compute.look(settings)


@st.cache_resource(max_entries=256, show_spinner=False)
def trace(settings: Settings, name: str, neuron: int) -> Any:
    """Return one neuron's membrane trace."""
    from explorer.ui import compute

    with runner().turn():
        return compute.trace(settings, name, neuron)


@st.cache_resource(max_entries=24, show_spinner=False)
def rasters(settings: Settings, neurons: int = 200) -> Any:
    """Return spike rasters of every site on the chosen image."""
    from explorer.ui import compute

    with runner().turn():
        return compute.rasters(settings, neurons)


@st.cache_resource(max_entries=64, show_spinner=False)
def channel(settings: Settings) -> Any:
    """Return the errors of one channel, neuron by neuron; image, row and column do not matter."""
    from explorer.ui import compute

    with runner().turn():
        return compute.channel(settings)


@st.cache_resource(max_entries=8, show_spinner=False)
def macs(network: str) -> Any:
    """Return multiply-accumulates per image by site."""
    from explorer.ui import compute

    return compute.macs(network)
