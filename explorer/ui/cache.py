"""What pages ask for, kept by frozen settings and shared between visitors: read-only.

A close look is computed in the visitor's own thread and given up as soon as he moves on.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import streamlit as st

from explorer.engine.finetune.progress import Progress
from explorer.plots.membrane import DrawnMembrane
from explorer.study import process, uploads
from explorer.study.executor import Executor, Inline
from explorer.study.library import (  # noqa: F401 (what pages and windows need of it)
    fitting_rule,
    gone,
    missing,
    own_networks,
    own_pictures,
    store,
)
from explorer.study.memo import Kept, kept
from explorer.study.results import Result, SiteSums
from explorer.study.runner import Job, Runner
from explorer.study.seen import Channel, Described, Look, Taken, Windows, Work
from explorer.study.settings import Settings
from explorer.study.told import Told
from explorer.study.tuning import Made, Opened, Wanted
from explorer.study.workshop import Workshop
from explorer.ui.session import ALL
from explorer.ui.turns import TURNS

if TYPE_CHECKING:
    from explorer.zoo.own import NetworkSource

LOOK_BYTES = 96 * 2**20  # of close looks that are kept: of large networks, few
V = TypeVar("V")


class Shared(Kept[V]):
    """A kept function that lets other pages be drawn while its value is computed, or waited for."""

    def __call__(self, *key: Hashable, **beside: Any) -> V:
        """Return the kept value of these arguments; compute and keep it if there is none."""
        if self.has(*key):
            return super().__call__(*key, **beside)
        with TURNS.elsewhere():
            return super().__call__(*key, **beside)


def shared(entries: int, budget: int | None = None) -> Callable[[Callable[..., V]], Shared[V]]:
    """Keep the last so many results of a function, of at most so many bytes of arrays together: see `Shared`."""
    return lambda make: Shared(make, entries, budget)


@st.cache_data(max_entries=1, ttl=60, show_spinner=False)
def names() -> list[str]:
    """Return the networks that can be chosen, by name (read from the model cards: no torch needed)."""
    from explorer.study import catalogue

    return catalogue.names()


def serving() -> bool:
    """Tell whether this is a running server, and no test."""
    from streamlit.runtime import Runtime, get_instance

    return st.runtime.exists() and type(get_instance()) is Runtime  # AppTest has a stand-in


@kept(1)
def executor() -> Executor:
    """Return what computes: a process beside a running server, this process elsewhere (in tests)."""
    return process.make(uploads.supply) if serving() else Inline()


class Remote:
    """The queue's instrument, wherever simulations run."""

    def available(self, settings: Settings, n: int) -> int:
        """Return how many images there are of so many."""
        return executor().call("explorer.study.measure:ENGINE.available", settings, n)

    def advance(
        self, settings: Settings, begin: int, end: int, stop: Callable[[], bool], pause: Callable[[], bool]
    ) -> Result:
        """Return what images [begin, end) show, or the first of them."""
        asks = {"stop": stop, "pause": pause}
        return executor().call("explorer.study.measure:ENGINE.advance", settings, begin, end, asks=asks)

    def ready(self, settings: Settings) -> bool:
        """Tell whether a method's conversion is at hand."""
        return executor().call("explorer.study.measure:ENGINE.ready", settings)

    def prepare(self, settings: Settings, stop: Callable[[], bool]) -> None:
        """Fit a method, which may take long."""
        executor().call("explorer.study.measure:ENGINE.prepare", settings, asks={"stop": stop})

    def errors(self, settings: Settings, images: int, stop: Callable[[], bool]) -> dict[str, SiteSums]:
        """Return the conversion errors of the first images."""
        return executor().call("explorer.study.measure:ENGINE.errors", settings, images, asks={"stop": stop})


@kept(1)
def runner() -> Runner:
    """Return the one queue of runs."""
    atexit.register(executor().close)
    return Runner(Remote, lost)


def lost(owner: str) -> bool:
    """Tell whether a visitor's browser has no connection to this server; owner ends in "@" and his session's name."""
    session = owner.partition("@")[2]
    if not session:
        return False
    try:
        return not st.runtime.get_instance().is_active_session(session)
    except RuntimeError:  # there is no server: tests ask, or it ends
        return False


class RemoteTrainer:
    """What the workshop drives, wherever networks are trained."""

    def begin(
        self,
        id: str,
        wanted: Wanted,
        stop: Callable[[], bool] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Opened:
        """Open a fine-tuning."""
        asks = {"stop": stop} if stop else {}
        tells = {"on_progress": on_progress} if on_progress else {}
        return executor().call("explorer.study.tuning:begin", id, wanted, asks=asks, tells=tells)

    def advance(self, id: str, seconds: float) -> list[Progress]:
        """Do a slice of it."""
        return executor().call("explorer.study.tuning:advance", id, seconds)

    def finish(self, id: str, wanted: Wanted) -> Made:
        """Return its best state as a file."""
        return executor().call("explorer.study.tuning:finish", id, wanted)

    def drop(self, id: str) -> None:
        """Forget it."""
        executor().call("explorer.study.tuning:drop", id)


@kept(1)
def workshop() -> Workshop:
    """Return the one queue of fine-tunings; they wait while simulations wait."""
    return Workshop(RemoteTrainer(), lambda: runner().load().waiting > 0, lost)


@shared(64)
def tunable(network: str) -> str:
    """Return the architecture that a network's fine-tuned weights fit; "" if there is none."""
    return executor().call("explorer.study.tuning:architecture", network)


def moved_on() -> bool:
    """Let Streamlit end this script run here if the visitor has moved a control meanwhile; False if not."""
    st.session_state.get(ALL)  # reading the session is where a run may be ended
    return False


def wait(jobs: list[Job], seconds: float) -> None:
    """Wait for news of runs, at most this long; other pages are drawn meanwhile."""
    with TURNS.elsewhere():
        runner().wait(jobs, seconds)


def aside(work: str, *args: Any, stop: Callable[[], bool] | None = moved_on) -> Any:
    """Have something short computed for one visitor, beside the queue of runs.

    work: the name of a function of `measure`, or of another module with that before it.
    """
    name = work if ":" in work else f"explorer.study.measure:{work}"
    with runner().aside():
        return executor().call(name, *args, asks={} if stop is None else {"stop": stop})


@shared(4, LOOK_BYTES)
def images(network: str, source: str, n: int = 1) -> np.ndarray:
    """Return the first n evaluation images of a source, uint8, as the network wants them."""
    return executor().call("explorer.study.measure:first", network, source, n)


@shared(64)
def available(network: str, source: str, n: int) -> int:
    """Return how many images a source has of so many."""
    return executor().call("explorer.study.measure:available", network, source, n)


@shared(16)
def dataset(source: str) -> str:
    """Return which known test set a source holds; see `library.dataset`."""
    return executor().call("explorer.study.library:dataset", source)


@shared(64)
def note(network: str, source: str, n: int) -> str:
    """Return how the first n images of a source were chosen, in words."""
    return executor().call("explorer.study.measure:how_chosen", network, source, n)


@shared(16)
def describe(network: str) -> Described:
    """Return what the conversion does to a network."""
    return executor().call("explorer.study.measure:describe", network)


def take_network(file: str, content: bytes, source: NetworkSource, preset: str, tell: Callable[[str], None]) -> Taken:
    """Have an uploaded network read where it will be simulated; keep what brings it there again."""
    args = (file, content, source, preset)
    with TURNS.elsewhere():
        taken: Taken = executor().call("explorer.study.uploads:take_network", *args, tells={"tell": tell})
    if taken.key:
        uploads.note_network(taken, *args)
    return taken


def take_pictures(files: Sequence[tuple[str, bytes]], network: str) -> str:
    """Have uploaded pictures checked where they will be simulated; return their key."""
    with TURNS.elsewhere():
        key = executor().call("explorer.study.uploads:take_pictures", files, network)
    return uploads.note_pictures(key, files)


@shared(64, LOOK_BYTES)
def look(
    settings: Settings,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Look:
    """Return one image seen closely; the neuron does not matter. on_progress: how far a method's fit is."""
    if not settings.method:
        return aside("look", settings, stop=stop)
    asks = {"stop": stop} if stop else {}
    tells = {"on_progress": on_progress} if on_progress else {}
    return executor().call("explorer.study.measure:look", settings, asks=asks, tells=tells)  # a fit may take long


@shared(256)
def membrane(settings: Settings, name: str, neuron: int) -> DrawnMembrane:
    """Return one neuron's membrane, ready to draw."""
    return DrawnMembrane.of(name, aside("membrane", settings, neuron, stop=None))


@shared(24, LOOK_BYTES)
def rasters(settings: Settings, neurons: int = 200) -> dict[str, np.ndarray]:
    """Return spike rasters of every site on the chosen image."""
    return aside("rasters", settings, neurons)


@shared(64, LOOK_BYTES)
def channel(settings: Settings) -> Channel:
    """Return the errors of one channel, neuron by neuron; image, row and column do not matter."""
    return aside("channel", settings)


@shared(16)
def ensemble(settings: Settings) -> Any:
    """Return random starts of a setting as an ensemble; settings without image, layer and neuron."""
    return aside("explorer.study.ensemble:starts", settings)


@shared(64)
def certainty(settings: Settings, radius: float) -> Any:
    """Return what is certain in a box around the chosen image; settings without layer and neuron."""
    return aside("explorer.study.bounds:certainty", settings, radius)


@shared(256)
def additions(settings: Settings) -> Work:
    """Return the operations of the first images; settings without image and neuron."""
    return aside("additions", settings)


@shared(128, LOOK_BYTES)
def windows(settings: Settings, begin: int, end: int) -> Windows:
    """Return accuracy of images [begin, end) over every read-out window; settings: a run's key."""
    return aside("windows", settings, begin, end)


@shared(8)
def constant(network: str) -> int:
    """Return multiply-accumulates per image that are done once."""
    return executor().call("explorer.study.measure:constant", network)


@shared(64)
def told(method: str) -> Told:
    """Return what a method says of itself; by its key."""
    return executor().call("explorer.study.told:told", method)


@shared(8)
def macs(network: str) -> dict[str, int]:
    """Return multiply-accumulates per image by site."""
    return executor().call("explorer.study.measure:macs", network)
