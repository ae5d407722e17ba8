"""All caches of the app, keyed by frozen recipes. What comes out is shared between visitors: read-only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from explorer.ui import keys
from explorer.ui.settings import Settings
from explorer.ui.shelf import Shelf

STORE_BYTES = 600 * 2**20
MAX_IMAGES = 2000
SMALL_PIXELS = 64  # a side: 80 slices of 32 such images are 120 MiB; of 224 pixels, 1.4 GiB
OWN_NETWORKS, OWN_NETWORKS_BYTES = 30, 2**30
OWN_PICTURES, OWN_PICTURES_BYTES = 60, 256 * 2**20


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, traced, with its card; source says how to open an uploaded one from its file."""

    network: Any
    card: Any
    source: Any = None


@st.cache_data(max_entries=1, ttl=60, show_spinner=False)
def names() -> list[str]:
    """Return the networks that can be chosen, by name (read from the model cards: no torch needed)."""
    from explorer.ui import catalogue

    return catalogue.names()


@st.cache_resource(show_spinner=False)
def own_networks() -> Shelf[Loaded]:
    """Return the networks that visitors uploaded."""
    return Shelf(OWN_NETWORKS, OWN_NETWORKS_BYTES)


@st.cache_resource(show_spinner=False)
def own_pictures() -> Shelf[Any]:
    """Return the picture sets that visitors uploaded."""
    return Shelf(OWN_PICTURES, OWN_PICTURES_BYTES)


def fitting_rule(rule: str, name: str) -> str:
    """Return the threshold rule to go on with when a network is chosen: its trained clip if it has one.

    Another rule than percentile and clip was chosen on purpose and stays.
    """
    from explorer.ui import catalogue

    if rule not in ("percentile", "clip"):
        return rule
    found = own_networks().get(name) if keys.is_upload(name) else None
    clips = catalogue.trained_clip(name) if found is None else all(s.trained_clip for s in found.network.sites)
    return "clip" if clips else "percentile"


def missing(name: str, kind: str) -> bool:
    """Tell whether a name stands for an upload that is not here (any more); kind: 'network' or 'source' of images."""
    shelf: Shelf[Any] = own_networks() if kind == "network" else own_pictures()
    return keys.is_upload(name) and shelf.get(name) is None


def gone(name: str) -> str:
    """Return what to tell a visitor about a missing upload."""
    return (
        f"{keys.label(name)} was uploaded, and is not on this server: uploads are kept until the server restarts or "
        "newer ones take their place, and a link does not carry them. Upload the file again."
    )


def loaded(name: str) -> Loaded:
    """Return a network, loaded and traced.

    Raises:
        ExplorerError: it cannot be had.
    """
    if not keys.is_upload(name):
        return _pretrained(name)
    found = own_networks().get(name)
    if found is None:
        from explorer.engine import CheckpointError

        raise CheckpointError(gone(name))
    return found


@st.cache_resource(max_entries=4, show_spinner=False)
def _pretrained(name: str) -> Loaded:
    import torch

    from explorer import engine
    from explorer.zoo import registry

    torch.set_num_threads(min(torch.get_num_threads(), 4))
    module, card = registry.load(name)
    return Loaded(engine.trace(module, card.example()), card)


def source(name: str) -> Any:
    """Return the image source of a name: 'embedded', a folder, or an upload's key.

    Raises:
        DataError: there is no such folder or upload.
    """
    from explorer.engine import DataError
    from explorer.zoo import data

    if not keys.is_upload(name):
        return data.data_source(name)
    found = own_pictures().get(name)
    if found is None:
        raise DataError(gone(name))
    return found


@st.cache_resource(max_entries=4, show_spinner=False)
def images(network: str, name: str) -> Any:
    """Return the evaluation images of a source, uint8, as the network wants them."""
    from explorer.zoo import data

    return data.load_images(source(name), loaded(network).card, n=MAX_IMAGES)


def inputs(network: str, name: str, begin: int, end: int) -> Any:
    """Return images [begin, end) normalised for the network, float32 [B, C, H, W]; only small ones are kept."""
    small = loaded(network).card.input_size <= SMALL_PIXELS
    return _kept_inputs(network, name, begin, end) if small else _inputs(network, name, begin, end)


@st.cache_resource(max_entries=80, show_spinner=False)
def _kept_inputs(network: str, name: str, begin: int, end: int) -> Any:
    return _inputs(network, name, begin, end)


def _inputs(network: str, name: str, begin: int, end: int) -> Any:
    from explorer.zoo.images import normalise

    return normalise(images(network, name).images[begin:end], loaded(network).card)


def calibration_key(settings: Settings) -> Settings:
    """Return the settings with all that does not enter the thresholds set to the defaults."""
    kept = replace(Settings(), rule=settings.rule, p=settings.p, per=settings.per)
    return replace(kept, T=settings.T) if settings.rule == "mse" else kept


@st.cache_resource(max_entries=32, show_spinner=False)
def calibration(network: str, name: str, key: Settings) -> Any:
    """Return the thresholds of a rule, found on calibration images (256 of them) of an image source."""
    from explorer import engine
    from explorer.ui.recipes import calibration_spec
    from explorer.zoo import data
    from explorer.zoo.images import normalise

    card = loaded(network).card
    chosen = data.load_images(data.calibration_source(source(name), card), card, n=256, part="calibration")
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


@st.cache_resource(max_entries=256, show_spinner=False)
def additions(settings: Settings) -> Any:
    """Return the operations of the first images; settings without image and neuron."""
    from explorer.ui import compute

    with runner().turn():
        return compute.additions(settings)


@st.cache_resource(max_entries=8, show_spinner=False)
def macs(network: str) -> Any:
    """Return multiply-accumulates per image by site."""
    from explorer.ui import compute

    return compute.macs(network)
