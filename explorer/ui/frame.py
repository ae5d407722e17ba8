"""What every page has around its content: title, messages, the last good result, the line of assumptions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from explorer.ui import cache, keys, state
from explorer.ui.components import preload
from explorer.ui.settings import Settings

if TYPE_CHECKING:  # it imports torch, and the frame is to appear before that
    from explorer.ui.runner import Job

LAYOUT = Path(__file__).with_name("layout.css")
OWNER = "owner"
TELLING = 0.55  # activation, as a share of theta, of the neuron shown first: it spikes often and is not clipped


def top(title: str) -> None:
    """Draw the page's title and the message left by the last action, until the visitor dismisses it."""
    st.html(LAYOUT)
    st.title(title)
    preload()
    message = st.session_state.get("message")
    if message:
        st.warning(keys.plain(message), icon=":material/info:")
        st.button("Dismiss", key="dismiss", icon=":material/close:", type="tertiary", on_click=state.dismiss)


def question(text: str) -> None:
    """Say which question the page answers."""
    st.markdown(f":gray[{text}]")


def owner() -> str:
    """Return a name for this visitor in the queue of simulations."""
    import uuid

    return st.session_state.setdefault(OWNER, uuid.uuid4().hex)


@dataclass(frozen=True, eq=False)
class View:
    """What is on screen: the settings that worked and the image seen through them."""

    settings: Settings
    look: Any


def view() -> View:
    """Return the present view; where the settings cannot be used, say so and return the last good one.

    Stops the page if nothing ever worked, with a way to begin anew.
    """
    settings = state.current()
    if st.session_state.get("asked") != settings.look():
        cache.runner().want(owner(), [])  # a control moved: the old run ends before the new one begins
        st.session_state["asked"] = settings.look()
    try:
        with st.spinner("Loading the network and simulating one image…"):
            look = cache.look(one_image(settings))
    except Exception as error:
        st.error(keys.plain(words(error)), icon=":material/error:")
        good = state.last_good()
        if good is None:
            st.button("Start from the defaults", key="start_anew", icon=":material/restart_alt:", on_click=state.anew)
            st.stop()
        st.caption(f"Shown below: the last good result ({keys.plain(good.describe())}, T = {good.T}).")
        return View(good, cache.look(one_image(good)))
    settings = _with_neuron(settings, look)
    state.good(settings)
    return View(settings, look)


def words(error: Exception) -> str:
    """Return what to tell the visitor about a fault."""
    from explorer.engine.errors import ExplorerError

    if isinstance(error, ExplorerError):
        return str(error)
    return f"Something in the app failed ({type(error).__name__}: {error}). Change a setting or reset to go on."


def one_image(settings: Settings) -> Settings:
    """Return what the view of one image depends on: the recipe without the neuron."""
    return replace(settings.look(), image=settings.image, images=16)


def _with_neuron(settings: Settings, look: Any) -> Settings:
    """Return settings whose layer and neuron exist: a telling one is chosen where the visitor chose none."""
    import numpy as np

    names = list(look.shapes)
    layer = settings.layer
    position: tuple[int, ...] = (settings.channel, settings.row, settings.column)
    if layer not in look.shapes:
        layer = names[len(names) // 2]
        telling = np.abs(look.a[layer] / look.theta[layer] - TELLING).argmin()
        position = tuple(int(i) for i in np.unravel_index(int(telling), look.shapes[layer]))
    shape = (*look.shapes[layer], 1, 1)[:3]
    position = (*position, 0, 0)[:3]
    channel, row, column = (min(i, n - 1) for i, n in zip(position, shape, strict=True))
    state.place(layer=layer, channel=channel, row=row, column=column)
    return state.current()


def neuron_index(settings: Settings, look: Any) -> int:
    """Return the flat index of the chosen neuron in its layer."""
    import numpy as np

    shape = look.shapes[settings.layer]
    return int(np.ravel_multi_index((settings.channel, settings.row, settings.column)[: len(shape)], shape))


def assumptions(settings: Settings, jobs: list[Job]) -> None:
    """Draw the line that says on what the numbers rest."""
    results = [job.result for job in jobs]
    seen = results[0].images if results else 0
    running = [job for job in jobs if not job.done]
    device = next((result.device for result in results if result.device), "")
    seed = f" · seed {settings.seed}" if settings.start != "constant" else ""
    faults = list(dict.fromkeys(job.error for job in jobs if job.error))
    if running:
        least = min(running, key=lambda job: job.result.images / job.goal)
        status = f":material/sync: refining, {least.result.images} of {least.goal} images{_ahead()}"
    else:
        status = ":material/error: failed" if faults else ":material/check: complete"
    st.caption(
        f"{status} · {count(seen, 'evaluation image')} ({keys.plain(keys.label(settings.source))}) · T = {settings.T}"
        f"{seed} · {keys.plain(settings.describe())} · {device}"
    )
    for fault in faults:
        st.error(keys.plain(fault), icon=":material/error:")
    silent = results[0].silent() if results and seen else []
    if silent:
        st.warning(
            f"No neuron of {', '.join(silent[:3])}{' …' if len(silent) > 3 else ''} fired on any image: "
            "lower the threshold scale there, raise v_init, or take more time-steps.",
            icon=":material/volume_off:",
        )


def count(n: int, what: str) -> str:
    """Return a number with its noun in the plural where it must be."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def _ahead() -> str:
    n = cache.runner().ahead(owner())
    return f", {count(n, 'run')} of other visitors ahead of yours" if n else ""


def live(jobs: list[Job], draw) -> None:
    """Call draw() now and again while the runs refine; the rest of the page follows at the first and the last result."""  # noqa: E501
    cache.runner().wait(jobs, 0.15)
    running = any(not job.done for job in jobs)
    empty = bool(jobs) and not jobs[0].result.images

    def body() -> None:
        finished = running and (all(job.done for job in jobs) or (empty and jobs[0].result.images > 0))
        draw()
        if finished:
            st.rerun()

    st.fragment(body, run_every=0.3 if running else None)()
