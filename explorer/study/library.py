"""What all visitors of a server share: networks, images, thresholds, spike trains. Read-only once it is here.

Everything is found by frozen settings. Reading and computing hold no lock but that of the one thing asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from explorer.limits import limits
from explorer.study import keys
from explorer.study.memo import kept
from explorer.study.settings import Settings
from explorer.study.shelf import Shelf

E = TypeVar("E", bound=Exception)
CALIBRATION_IMAGES = 256
SMALL_PIXELS = 64  # a side
SMALL_BLOCK, LARGE_BLOCK = 32, 8  # images whose ANN answers are computed together
OWN_NETWORKS, OWN_NETWORKS_BYTES = 30, 2**30
OWN_PICTURES, OWN_PICTURES_BYTES = 60, 256 * 2**20


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network, traced, with its card; source says how to open an uploaded one from its file.

    parcel: what an uploaded one is read from, for the process that computes; that of the server has no `network`.
    """

    network: Any
    card: Any
    source: Any = None
    clips_trained: bool = False
    parcel: tuple[Any, ...] = ()


@kept(1)
def own_networks() -> Shelf[Loaded]:
    """Return the networks that visitors uploaded."""
    return Shelf(OWN_NETWORKS, OWN_NETWORKS_BYTES)


@kept(1)
def own_pictures() -> Shelf[Any]:
    """Return the picture sets that visitors uploaded."""
    return Shelf(OWN_PICTURES, OWN_PICTURES_BYTES)


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


def _without(name: str, error: E) -> E:
    """Return a fault that names the upload that is missing, for whoever can bring it."""
    error.upload = name  # type: ignore[attr-defined]
    return error


def fitting_rule(rule: str, name: str) -> str:
    """Return the threshold rule to go on with when a network is chosen: its trained clip if it has one.

    Another rule than percentile and clip was chosen on purpose and stays.
    """
    from explorer.study import catalogue

    if rule not in ("percentile", "clip"):
        return rule
    found = own_networks().get(name) if keys.is_upload(name) else None
    clips = catalogue.trained_clip(name) if found is None else found.clips_trained
    return "clip" if clips else "percentile"


def loaded(name: str) -> Loaded:
    """Return a network, loaded and traced.

    Raises:
        ExplorerError: it cannot be had.
    """
    if not keys.is_upload(name):
        return _pretrained(name)
    found = own_networks().get(name)
    if found is None:
        from explorer.engine.errors import CheckpointError

        raise _without(name, CheckpointError(gone(name)))
    return found


@kept(4)
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
        raise _without(name, DataError(gone(name)))
    return found


def dataset(name: str) -> str:
    """Return "CIFAR-10" where a source's evaluation images are the first ones of its test set, in their order; else "".

    So are the embedded images, and a CIFAR-10 folder whose test set has as many images as it should, of which the first
    2,000 have the embedded ones' labels and pixels. Class folders are drawn by a seed and never count.
    """
    from explorer.engine.errors import ExplorerError
    from explorer.zoo import data

    try:
        found = source(name)
        return "CIFAR-10" if isinstance(found, data.Embedded) or data.is_test_set(found) else ""
    except ExplorerError:
        return ""


class Pictures:
    """The evaluation images of one source as one network wants them, read only as far as somebody asked."""

    def __init__(self, network: str, name: str) -> None:
        self._network, self._name = network, name
        self._lock = threading.Lock()
        self._read: Any = None
        self._asked = 0
        self._answers: dict[int, np.ndarray] = {}

    @property
    def block(self) -> int:
        """How many images the ANN answers at once: always the same ones together, whoever asks."""
        return SMALL_BLOCK if loaded(self._network).card.input_size <= SMALL_PIXELS else LARGE_BLOCK

    def first(self, n: int) -> Any:
        """Return the first n images (uint8) with their labels; fewer where there are no more.

        Raises:
            DataError: they cannot be read.
        """
        from explorer.zoo import data

        with self._lock:
            if self._read is None or (len(self._read) == self._asked < n):
                asked = -(-n // SMALL_BLOCK) * SMALL_BLOCK
                self._read = data.load_images(source(self._name), loaded(self._network).card, n=asked)
                self._asked = asked
            return self._read.take(n)

    def available(self, n: int) -> int:
        """Return how many images there are of so many."""
        return len(self.first(n))

    def inputs(self, begin: int, end: int) -> Any:
        """Return images [begin, end), normalised for the network: float32 [B, C, H, W]."""
        from explorer.zoo.images import normalise

        return normalise(self.first(end).images[begin:], loaded(self._network).card)

    def answers(self, begin: int, end: int) -> np.ndarray:
        """Return the class that the ANN gives to each of images [begin, end): int64 [B]."""
        size = self.block
        parts = [self._block(i) for i in range(begin // size, -(-end // size))]
        return np.concatenate(parts)[begin % size :][: end - begin]

    def _block(self, i: int) -> np.ndarray:
        if i not in self._answers:
            inputs = self.inputs(i * self.block, (i + 1) * self.block)
            self._answers[i] = loaded(self._network).network.forward(inputs).argmax(1).numpy()
        return self._answers[i]

    def expected(self, begin: int, end: int) -> np.ndarray:
        """Return the class that counts as right: the label, or without labels the ANN's answer; int64 [B]."""
        labels = self.first(end).labels
        return self.answers(begin, end) if labels is None else np.asarray(labels[begin:end])


@kept(6)
def pictures(network: str, name: str) -> Pictures:
    """Return the images of a source (its name, as `source` takes it) for a network."""
    return Pictures(network, name)


def calibration_key(settings: Settings) -> Settings:
    """Return the settings with all that does not enter the thresholds set to the defaults."""
    kept_fields = replace(Settings(), rule=settings.rule, p=settings.p, per=settings.per)
    return replace(kept_fields, T=settings.T) if settings.rule == "mse" else kept_fields


@kept(48)
def calibration(network: str, name: str, key: Settings, stop: Callable[[], bool] | None = None) -> Any:
    """Return the thresholds of a rule, found on calibration images (256 of them) of an image source."""
    from explorer import engine
    from explorer.study.translate import calibration_spec
    from explorer.zoo import data
    from explorer.zoo.images import Inputs

    card = loaded(network).card
    origin = data.calibration_source(source(name), card)
    chosen = data.load_images(origin, card, n=CALIBRATION_IMAGES, part="calibration")
    return engine.calibrate(loaded(network).network, Inputs(chosen.images, card), calibration_spec(key), stop=stop)


@kept(128)
def fitted(
    network: str,
    name: str,
    method: str,
    T: int,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Return a method, as written in a line, fitted on calibration images of an image source; see `Method.fit`.

    T: 0 where the method finds the same for every T.
    """
    from explorer.engine import methods

    chosen = methods.parse(method)
    images = calibration_inputs(network, name, chosen.images)
    told = {"on_progress": on_progress} if on_progress and chosen.tells_progress else {}
    return chosen.fit(loaded(network).network, T or 1, images, stop, **told)


def calibration_inputs(network: str, name: str, n: int) -> Any:
    """Return so many calibration images of an image source, normalised: float32 [N, C, H, W]; fewer if there are."""
    from explorer.zoo import data
    from explorer.zoo.images import normalise

    card = loaded(network).card
    chosen = data.load_images(data.calibration_source(source(name), card), card, n=n, part="calibration")
    return normalise(chosen.images, card)


@kept(1)
def store() -> Any:
    """Return the shared store of spike trains."""
    from explorer import engine

    return engine.SpikeStore(budget_bytes=limits().store_mib * 2**20)
