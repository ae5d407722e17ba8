"""What every page has around its content: title, messages, the last good result, the line of assumptions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from explorer.study import compare, keys, nouns
from explorer.study.settings import RULES, Settings
from explorer.ui import cache, fragments, journal, state
from explorer.ui.components import preload
from explorer.ui.fitting import fitting
from explorer.ui.session import ASKED, MESSAGE, OWNER, PENDING, PLACED, TITLE
from explorer.ui.turns import REFINING, TURNS

if TYPE_CHECKING:
    from explorer.study.results import Result
    from explorer.study.runner import Job

LAYOUT = Path(__file__).with_name("layout.css")
PACE, PACE_EACH = 0.3, 0.04  # seconds between looks for news: at least, and more for each visitor
DRAWN, FOLLOWS, WATCHED = "live", "follows", "watched"  # the parts of a page that do so
PATIENCE = 2.0  # seconds after which a look without news ends
TELLING = 0.55  # activation, as a share of theta, of the neuron shown first: it spikes often and is not clipped


@contextmanager
def drawing(later: float = 0.0) -> Iterator[None]:
    """Draw a page, or a part of one, in this visitor's turn; later: seconds by which others may go before."""
    with TURNS.take(later, cache.moved_on), state.drawing():
        yield


def top(title: str) -> None:
    """Draw the page's title and the message left by the last action, until the visitor dismisses it.

    What another page asked for is wanted no longer.
    """
    if TITLE.get() not in (None, title):
        cache.runner().want(owner(), [])
    TITLE.put(title)
    st.html(LAYOUT)
    st.title(title)
    preload()
    with st.container():  # always there, so that what stands below keeps its place
        message = MESSAGE.get()
        if message:
            st.warning(keys.plain(message), icon=":material/info:")
            st.button("Dismiss", key="dismiss", icon=":material/close:", type="tertiary", on_click=state.dismiss)


def require_place() -> None:
    """Stop the page of a visitor for whom a public server has no place."""
    runner = cache.runner()
    if not runner.knows(owner()) and journal.is_full(runner.load(), known=False):
        st.error("All places on this server are taken. Reload this page in a minute.", icon=":material/group:")
        st.stop()


def question(text: str) -> None:
    """Say which question the page answers."""
    st.markdown(f":gray[{text}]")


def owner() -> str:
    """Return a name for this visitor in the queue of simulations; see `cache.lost`."""
    import uuid

    if not OWNER.get():
        context = get_script_run_ctx()
        OWNER.put(f"{uuid.uuid4().hex}@{context.session_id if context else ''}")
    return OWNER.get()


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
    if ASKED.get() != settings.of_run():
        cache.runner().want(owner(), [])  # a control moved: the old run ends before the new one begins
        ASKED.put(settings.of_run())
    with st.container():
        return _view(settings)


def _view(settings: Settings) -> View:
    try:
        one = one_image(settings)
        told = nullcontext() if cache.look.has(one) else st.spinner("Loading the network and simulating one image…")
        with told, fitting(settings) as on_progress:
            look = cache.look(one, stop=cache.moved_on, on_progress=on_progress)
    except Exception as error:
        good = state.last_good()
        if good is None and _mend(settings, error):
            st.rerun()
        st.error(keys.plain(words(error)), icon=":material/error:")
        if good is None:
            st.button("Start from the defaults", key="start_anew", icon=":material/restart_alt:", on_click=state.anew)
            st.stop()
        st.caption(
            f"Shown below: the last good result ({keys.plain(good.describe())}, T = {good.T}; image {good.image}"
            f"{f', layer {keys.plain(good.layer)}' if good.layer else ''}). Controls of one image act again once "
            "the settings can be used."
        )
        return View(good, cache.look(one_image(good)))
    settings = _with_neuron(settings, look)
    state.good(settings)
    return View(settings, look)


def _mend(settings: Settings, error: Exception) -> bool:
    """Tell whether a threshold rule that does not fit its network (from a link) was replaced by one that does."""
    from explorer.engine.errors import SpecError

    if settings.rule != "clip" or not isinstance(error, SpecError):
        return False
    try:
        cache.look(one_image(replace(settings, rule="percentile")))
    except Exception:
        return False
    label = keys.label(settings.network)
    state.say(
        f"“{RULES['clip']}” needs a network that was trained with a clip, and {label} was not: "
        f"“{RULES['percentile']}” is used instead."
    )
    PENDING.put({"rule": "percentile"})
    return True


def words(error: Exception) -> str:
    """Return what to tell the visitor about a fault."""
    from explorer.engine.errors import ExplorerError

    if isinstance(error, ExplorerError):
        return str(error)
    return f"Something in the app failed ({type(error).__name__}: {error}). Change a setting or reset to go on."


def one_image(settings: Settings, layer: str = "") -> Settings:
    """Return what the view of one image (of one of its layers) depends on: settings without the neuron."""
    return replace(settings.of_run(), image=settings.image, images=16, layer=layer)


def _with_neuron(settings: Settings, look: Any) -> Settings:
    """Return settings whose layer and neuron exist: a telling neuron where the visitor chose a layer but none in it."""
    names = list(look.shapes)
    layer = settings.layer
    place: tuple[int, ...] = (settings.channel, settings.row, settings.column)
    before = PLACED.get()
    if layer not in look.shapes:
        layer = names[len(names) // 2]
        place = telling(look, layer)
    elif before is not None and before[0] != layer and before[1] == place:
        place = telling(look, layer)
    shape = (*look.shapes[layer], 1, 1)[:3]
    place = tuple(min(i, n - 1) for i, n in zip((*place, 0, 0)[:3], shape, strict=True))
    channel, row, column = place
    state.place(layer=layer, channel=channel, row=row, column=column)
    PLACED.put((layer, place))
    return state.current()


def telling(look: Any, layer: str, channel: int | None = None) -> tuple[int, int, int]:
    """Return channel, row and column of a neuron with something to show: it spikes often and is not clipped."""
    import numpy as np

    share = look.a[layer] / look.theta[layer]
    share = np.where(share > 0, np.abs(share - TELLING), np.inf)  # a silent one only where all are
    among = share if channel is None else share[channel]
    found = [int(i) for i in np.unravel_index(int(among.argmin()), among.shape)]
    place = (*([] if channel is None else [channel]), *found, 0, 0)
    return place[0], place[1], place[2]


def membrane(view: View, name: str, settings: Settings) -> Any:
    """Return the membrane of the chosen neuron under these settings, in their colour."""
    from explorer.plots import theme

    one = one_image(replace(settings, image=view.settings.image), view.settings.layer)
    got = cache.membrane(one, name, neuron_index(view.settings, view.look))
    return replace(got, style=theme.style(compare.role(settings)))


def plain_number(value: float) -> str:
    """Return a number with four digits; minus is the sign that figures use."""
    return f"{value:.4g}".replace("-", "−")


def choose_layer(view: View, layer: str, channel: int | None = None) -> None:
    """Make a layer, or one of its channels, the chosen one, with a neuron that has something to show."""
    if layer in view.look.shapes:
        place = telling(view.look, layer, channel)
        state.change(layer=layer, channel=place[0], row=place[1], column=place[2])


def neuron_index(settings: Settings, look: Any) -> int:
    """Return the flat index of the chosen neuron in its layer."""
    import numpy as np

    shape = look.shapes[settings.layer]
    return int(np.ravel_multi_index((settings.channel, settings.row, settings.column)[: len(shape)], shape))


def assumptions(settings: Settings, jobs: list[Job], results: list[Result]) -> None:
    """Draw the line that says on what the numbers rest; results: what is shown of the first jobs, on the same images.

    Faults of further jobs, a grid's, are told where their results would stand.
    """
    seen = max((result.images for result in results), default=0)
    behind = any(one.images < job.goal for job, one in zip(jobs, results) if job.error is None)  # drawn before the end
    running = behind or any(not job.done for job in jobs)
    device = next((result.device for result in results if result.device), "")
    seed = f" · seed {settings.starts_seed}" if settings.random else ""
    code = _code(next((result for result in results if result.images), None))
    faults = list(dict.fromkeys(job.error for job in jobs[: len(results)] if job.error))
    source = keys.plain(keys.label(settings.source) + _how_chosen(settings, jobs))
    of = f"{seen} of {jobs[0].goal}" if running and jobs else f"{seen}"
    if running:
        status = f":material/sync: refining{_ahead()}"
    else:
        status = ":material/error: failed" if faults else ":material/check: complete"
    st.caption(
        f"{status} · {of} evaluation image{'' if of == '1' else 's'} ({source}) · "
        f"T = {settings.T}{code}{seed} · {keys.plain(settings.describe())} · {device}"
    )
    for fault in faults:
        st.error(keys.plain(fault), icon=":material/error:")
    silent = results[0].silent() if results else []
    if silent:
        st.warning(
            f"No neuron of {', '.join(silent[:3])}{' …' if len(silent) > 3 else ''} fired on any image: "
            "lower the threshold scale there, raise v_init, or take more time-steps.",
            icon=":material/volume_off:",
        )


def _code(result: Result | None) -> str:
    """Return what an answer costs beyond T steps of one bit, where it does."""
    if result is None:
        return ""
    late = f", answer after {result.T + result.extra} steps" if result.extra else ""
    return late + (f", {result.bits} bits a neuron and step" if result.bits > 1 else "")


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign; minus is the sign that figures use."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _how_chosen(settings: Settings, jobs: list[Job]) -> str:
    """Return how the images of a folder were chosen, where they are fewer than asked for or drawn by a seed."""
    if settings.source == Settings().source or keys.is_upload(settings.source) or not jobs:
        return ""
    note = cache.note(settings.network, settings.source, jobs[0].goal)
    return f": {note}" if note else ""


def _ahead() -> str:
    n = cache.runner().ahead(owner())
    return f", {nouns.count(n, 'other visitor')} before you" if n else ""


def _reached(jobs: list[Job]) -> tuple[bool, bool]:
    """Return how far runs are, as far as the rest of the page shows it: errors (or a first point), all of it."""
    first = jobs[0] if jobs else None
    began = first is not None and bool(first.result.error_images if first.errors else first.result.images)
    return began, all(job.done for job in jobs)


def asked(ask: Callable[[], list[Job]]) -> tuple[list[Job], tuple[bool, bool]]:
    """Ask for runs and return them and how far they are; done only if nothing else is asked for after them."""
    jobs = ask()
    while True:
        reached = _reached(jobs)
        if not reached[1]:
            return jobs, reached
        before, jobs = jobs, ask()
        if [job.run for job in jobs] == [job.run for job in before]:
            return jobs, reached


def _news(jobs: list[Job]) -> tuple[Any, ...]:
    """Return what a drawing of these runs depends on, as long as the settings stay; who is before them is no news."""
    return tuple((job.run.result.images, job.run.result.error_images, job.error, job.done) for job in jobs)


def live(ask: Callable[[], list[Job]], draw: Callable[[], None], follow: Callable[[], None] | None = None) -> None:
    """Ask for runs, draw them, and draw them again whenever there is news while they refine.

    What else on the page shows them follows when errors are known (or a first point, where none are asked for) and at
    the end: follow() alone, if given, which draws below; else the whole page. A page that nobody looks at any more
    stops asking.
    """
    jobs, reached = asked(ask)
    if not _ahead():  # who has to wait in line sees so at once
        cache.wait(jobs, 0.15)
        jobs, reached = asked(ask)
    drawn, told, scene = _news(jobs), _ahead(), state.scene()
    runs = itertools.count()

    def part(body: Callable[[], None]) -> Callable[[], None]:
        def drawn_anew() -> None:
            with drawing(REFINING):
                if state.scene() != scene:  # a control in here was moved, which concerns the page
                    st.rerun()
                body()

        return drawn_anew

    def watch() -> None:
        nonlocal jobs, drawn, reached, told
        if not next(runs):
            return  # the page has just been drawn
        before = reached
        jobs, reached = asked(ask)
        patience = time.monotonic() + PATIENCE
        while drawn == _news(jobs) and time.monotonic() < patience and not cache.moved_on():
            cache.wait(jobs, 0.1)
        jobs, reached = asked(ask)
        if (drawn, told, before) == (_news(jobs), _ahead(), reached):
            return
        drawn, told = _news(jobs), _ahead()
        if reached == before:
            fragments.rerun_after([DRAWN])
        elif follow is not None:
            fragments.rerun_after([DRAWN, FOLLOWS, *([WATCHED] if reached[1] else [])])
        else:
            st.rerun()

    def watched() -> None:
        nonlocal runs
        runs = itertools.count()
        if not reached[1]:
            pace = PACE + PACE_EACH * cache.runner().load().visitors  # in a full hall more seldom
            st.fragment(watch, run_every=pace)()

    st.fragment(part(draw), key=DRAWN)()
    if follow is not None:
        st.fragment(part(follow), key=FOLLOWS)()
    st.fragment(watched, key=WATCHED)()
