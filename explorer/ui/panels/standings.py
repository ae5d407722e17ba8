"""The table of methods by T: what is asked for, how far it is, the table itself and its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import streamlit as st

from explorer.engine.methods.names import NAMES, split
from explorer.plots import methods as drawn
from explorer.plots import theme
from explorer.plots.figure import Figure
from explorer.study import energy, keys, nouns, ranking
from explorer.study.ranking import Entry, Point, Row
from explorer.study.results import Result
from explorer.study.runner import Job
from explorer.study.settings import Settings
from explorer.ui import cache, frame, state
from explorer.ui.session import METHODS_STOPPED, STANDINGS, STANDINGS_VERSION

BACKGROUND = "background-color: #009E7333"
BEST, SHARED = "●", "○"  # the best of a column; those that share the lead
NAME_WIDTH, T_WIDTH = 290, 78  # pixels: the longest name, with what stands before it; a value with its mark
COSTS = ("latency", "bits", "spikes", "additions (M)", "energy (µJ)")
Starts = list[tuple[Entry, Entry, Entry]]


@dataclass(eq=False)
class Standings:
    """What the page compares, and how far it is: runs are asked for stage by stage.

    listed: the conversions; steps: the T at which they are read; starts: each with v(0) = 0, its own, theta / 2, if
    that was asked for. faults: why runs failed.
    """

    settings: Settings
    listed: list[Entry]
    steps: tuple[int, ...]
    starts: Starts
    stage: int = 0
    faults: dict[Settings, str] = field(default_factory=dict)

    @property
    def T(self) -> int:
        """The visitor's number of steps."""
        return self.steps[-1]

    @cached_property
    def stages(self) -> list[list[Settings]]:
        """The runs, cheapest first; those of the starts behind those of the table of the same kind."""
        table = ranking.stages(self.listed, self.steps)
        more = ranking.stages([entry for three in self.starts for entry in three], [self.T])
        return [runs for pair in zip(table, more, strict=True) for runs in pair if runs]

    @cached_property
    def runs(self) -> list[Settings]:
        """All runs, each once."""
        return list(dict.fromkeys(run for stage in self.stages for run in stage))

    def asked(self) -> list[Settings]:
        """The runs of the stages begun."""
        return list(dict.fromkeys(run for stage in self.stages[: self.stage + 1] for run in stage))


def present(settings: Settings) -> Standings:
    """Return what the page compares under these settings; how far it is is kept while they stay."""
    show = state.display()
    images, steps = show.methods_images, ranking.durations(settings.T)
    listed = ranking.entries(settings, images)
    starts = ranking.start_entries(settings, images) if show.methods_starts else []
    before = STANDINGS.get()
    if before is None or (before.listed, before.steps, before.starts) != (listed, steps, starts):
        faults = {} if before is None else before.faults
        STANDINGS.put(Standings(settings, listed, steps, starts, faults=faults))
    found = STANDINGS.get()
    assert found is not None
    return found


def ask(now: Standings) -> list[Job]:
    """Ask for the stages begun, and for the next one once they are complete; for none while the visitor stopped it.

    What was asked for stays asked for, so that no run is stopped in between.
    """
    if METHODS_STOPPED.get():
        return cache.runner().want(frame.owner(), [])
    while True:
        runs = now.asked()
        jobs = cache.runner().want(frame.owner(), runs)
        for run, job in zip(runs, jobs, strict=True):
            now.faults.pop(run, None)
            if job.error:
                now.faults[run] = job.error
        if now.stage + 1 >= len(now.stages) or not all(job.done for job in jobs):
            return jobs
        now.stage += 1


def aim(now: Standings) -> int:
    """Return on how many images all is measured: the source may have fewer than the table asks for."""
    first = now.listed[0].settings
    return cache.available(first.network, first.source, first.images)


def known(now: Standings) -> dict[Settings, Result]:
    """Return what is known of every run."""
    return {run: cache.runner().known(run) for run in now.runs}


def progress(now: Standings, results: Mapping[Settings, Result], jobs: Sequence[Job]) -> None:
    """Say how far the measuring is, and offer to stop it or to go on."""
    goal = aim(now)
    left = [run for run in now.runs if results[run].images < goal and run not in now.faults]
    seen = sum(min(result.images, goal) for result in results.values())
    row = st.container(horizontal=True, vertical_alignment="center")
    if not left:
        device = next((result.device for result in results.values() if result.device), "")
        row.caption(f":material/check: complete · {nouns.count(len(now.runs), 'run')} · {device}")
        return
    stopped = METHODS_STOPPED.get()
    label, icon = ("Go on", ":material/play_arrow:") if stopped else ("Stop", ":material/stop:")
    row.button(label, key="methods_stop", icon=icon, on_click=_toggle)
    waiting = list(dict.fromkeys(f"{_title(run)}, T = {run.T}" for run in left))
    told = "; ".join(waiting[:2]) + (f" and {len(waiting) - 2} more" if len(waiting) > 2 else "")
    sign = ":material/pause: stopped" if stopped else ":material/sync: refining, cheapest first"
    row.caption(f"{sign} · {len(now.runs) - len(left)} of {len(now.runs)} runs · still to come: {told}")
    st.progress(min(1.0, seen / max(1, goal * len(now.runs))))


def _toggle() -> None:
    METHODS_STOPPED.put(not METHODS_STOPPED.get())
    st.rerun()  # the button stands in a fragment, but the page asks


def _title(run: Settings) -> str:
    return NAMES[split(run.method)[0]].title if run.method else "plain conversion"


def table(now: Standings, rows: Sequence[Row], chosen: str, on_choose: Callable[[str], None]) -> None:
    """Draw the table; a click on a row chooses its conversion. chosen: the explorer's present method."""
    import pandas as pd

    columns = [f"T = {T}" for T in now.steps]
    listed = []
    for row in rows:
        mark = "▶ " if row.entry.method == chosen and not row.entry.yours else ""
        shares = [np.nan if T not in row.points else 100 * row.points[T].top1 for T in now.steps]
        listed.append([mark + row.entry.title, *shares, *costs(now, row)])
    data = pd.DataFrame(listed, columns=["method", *columns, *COSTS])
    styled = data.style
    digits = dict(zip(COSTS, (0, 0, 2, 2, 1), strict=True))
    styled = styled.format({name: f"{{:.{n}f}}" for name, n in digits.items()})
    styled = styled.format("{:.1f}", subset=columns)
    colours = pd.DataFrame("", index=data.index, columns=data.columns)
    for T, column in zip(now.steps, columns, strict=True):
        leading = ranking.leaders([row.points.get(T) for row in rows])
        alone = sum(leading) == 1
        styled = styled.format(f"{{:.1f}} {BEST if alone else SHARED}", subset=(data.index[leading], column))
        if alone:
            colours.loc[leading, column] = BACKGROUND
    styled = styled.apply(lambda _: colours, axis=None)
    number = st.column_config.NumberColumn
    key = _key(rows, chosen)
    st.dataframe(
        styled,
        hide_index=True,
        width="stretch",
        height=38 + 35 * len(rows),
        key=key,
        on_select=lambda: _clicked(key, rows, on_choose),
        selection_mode="single-row",
        placeholder="…" if any(T not in row.points for row in rows for T in now.steps) else "–",
        column_config={
            "method": st.column_config.TextColumn(pinned=True, width=NAME_WIDTH),
            **{column: number(width=T_WIDTH) for column in columns},
            "latency": number(help=f"Steps from the image to the answer after T = {now.T}."),
            "bits": number(help="Bits that tell what one neuron sends in one step."),
            "spikes": number(help=f"Spikes per neuron and image in T = {now.T}, first phases included."),
            "additions (M)": number(help="Synaptic additions per image, in millions, counted on the first 16 images."),
            "energy (µJ)": number(help="Estimate per image at 45 nm, arithmetic alone: see Energy and sparsity."),
        },
        alt=f"Accuracy of {len(rows)} conversions at T = {', '.join(map(str, now.steps))}.",
    )


def _key(rows: Sequence[Row], chosen: str) -> str:
    """Return the table's key: another one, and so a table without a selection, where the row it has is not chosen.

    While it is the same the table stays, sorted as the visitor sorted it.
    """
    key = f"methods_table_{STANDINGS_VERSION.get()}"
    marked = _selected(key, rows)
    if marked is None or marked.entry.method == chosen:
        return key
    STANDINGS_VERSION.put(STANDINGS_VERSION.get() + 1)
    return f"methods_table_{STANDINGS_VERSION.get()}"


def _selected(key: str, rows: Sequence[Row]) -> Row | None:
    selected = st.session_state[key]["selection"]["rows"] if key in st.session_state else []
    return rows[selected[0]] if selected and selected[0] < len(rows) else None


def highest(now: Standings, rows: Sequence[Row]) -> str:
    """Return the highest value at each T with its 95 % interval, and how many share its lead."""
    told = []
    for T in now.steps:
        points = [row.points.get(T) for row in rows]
        there = [(point.top1, row.entry.title, point) for row, point in zip(rows, points, strict=True) if point]
        if there:
            top, title, point = max(there, key=lambda one: one[0])
            others = sum(ranking.leaders(points)) - 1
            mark = f" {SHARED} shared with {others}" if others > 0 else "" if others else f" {BEST}"
            told.append(f"T = {T}: {keys.plain(title)} {100 * top:.1f} % ({interval(point)}){mark}")
    return " · ".join(told)


def interval(point: Point, between: str = "–") -> str:
    """Return a point's 95 % interval in per cent, as written."""
    low, high = point.interval
    return f"{100 * low:.1f}{between}{100 * high:.1f}"


def _clicked(key: str, rows: Sequence[Row], on_choose: Callable[[str], None]) -> None:
    row = _selected(key, rows)
    on_choose("" if row is None else row.entry.method)  # none: it was clicked once more
    st.rerun()


def costs(now: Standings, row: Row) -> list[float]:
    """Return what an answer after T steps costs, in the order of COSTS; NaN for what is not known."""
    point = row.points.get(now.T)
    if point is None:
        return [np.nan] * len(COSTS)
    spikes = np.nan if point.spikes_per_neuron is None else point.spikes_per_neuron
    if point.additions is None:
        return [point.latency, point.bits, spikes, np.nan, np.nan]
    spent = energy.spiking(cache.constant(now.settings.network), {"all": point.additions})
    return [point.latency, point.bits, spikes, point.additions / 1e6, spent]


def figure(now: Standings, rows: Sequence[Row], chosen: str, ann: float | None, labelled: bool) -> Figure:
    """Return accuracy against T, or against latency, a line a conversion; the explorer's own is drawn on top."""
    lines = []
    for row in rows:
        points = [row.points[T] for T in now.steps if T in row.points]
        if points:
            mine = row.entry.yours or row.entry.method == chosen
            style = theme.YOURS if mine else theme.method_style(list(NAMES).index(row.entry.method))
            low, high = np.array([point.interval for point in points]).T
            T, wait = np.array([point.T for point in points]), np.array([point.latency for point in points])
            top1 = np.array([point.top1 for point in points])
            lines.append(drawn.MethodLine(row.entry.title, row.entry.method, T, wait, top1, low, high, style))
    lines.sort(key=lambda line: line.style == theme.YOURS)
    return drawn.methods_figure(lines, ann, state.display().methods_latency, labelled)


def refused(rows: Sequence[Row]) -> None:
    """List what was left out, and why."""
    told: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        for T, why in row.refused.items():
            told.setdefault(why, []).append((row.entry.title, T))
    if told:
        st.caption("**Left out:**")
    for why, whom in told.items():
        names = ", ".join(dict.fromkeys(name for name, _ in whom))
        at = ", ".join(str(T) for T in dict.fromkeys(T for _, T in whom))
        st.caption(f"{keys.plain(names)} at T = {at}: {keys.plain(why)}")
