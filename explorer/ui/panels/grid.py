"""A grid of settings: what is varied, how far it is, its figure, its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import streamlit as st

from explorer.engine.theory import wilson
from explorer.plots import accuracy, theme
from explorer.plots import sweep as drawn
from explorer.plots.figure import Figure
from explorer.study import keys, nouns, report, sweep
from explorer.study.compare import distinct
from explorer.study.memo import kept
from explorer.study.report import Row
from explorer.study.results import Result
from explorer.study.scene import ABLATIONS
from explorer.study.script import Line
from explorer.study.settings import Settings
from explorer.study.sweep import Axis, Reading, Sweep, SweepError
from explorer.ui import cache, frame, state, widgets
from explorer.ui.components import chart
from explorer.ui.panels import exports
from explorer.ui.session import GRID


def choose(view: frame.View) -> Sweep | None:
    """Draw the choice of a grid; return it, or None where there is none (or it cannot be read, which is then said)."""
    kind, layers, base = widgets.segments("ablation") or "none", list(view.look.shapes), view.settings.of_run()
    with st.container():
        if kind != "own":
            return sweep.preset(kind, base, layers)
        try:
            found = _own(base, layers)
            found.runs()
        except SweepError as error:
            st.error(keys.plain(str(error)), icon=":material/error:")
            return None
        _start(found)
    return found


def _own(base: Settings, layers: list[str]) -> Sweep:
    now = state.display()
    first, values, second, others = st.columns([2, 3, 2, 3])
    widgets.select("grid_1", at=first)
    widgets.text("grid_1_values", at=values)
    widgets.select("grid_2", at=second)
    if now.grid_2 != "none":
        widgets.text("grid_2_values", at=others)
    row = st.columns([2, 2, 3, 3])
    widgets.number("grid_images", at=row[0])
    widgets.text("grid_seeds", at=row[1])
    if "layer" in (now.grid_1, now.grid_2):
        widgets.select("grid_change", at=row[2])
        widgets.decimal("grid_amount", at=row[3])
    now = state.display()
    axes = [Axis(now.grid_1, sweep.parse(now.grid_1, now.grid_1_values, layers))]
    if now.grid_2 not in ("none", now.grid_1):
        axes.append(Axis(now.grid_2, sweep.parse(now.grid_2, now.grid_2_values, layers)))
    elif now.grid_2 == now.grid_1:
        raise SweepError("The same setting is varied twice. Choose another second one, or none.")
    return Sweep(base, tuple(axes), now.grid_images, sweep.seeds(now.grid_seeds), (now.grid_change, now.grid_amount))


def _start(grid: Sweep) -> None:
    """Draw the buttons that start and stop an own grid, and how much it asks for."""
    runs = grid.runs()
    row = st.container(horizontal=True, vertical_alignment="center")
    if is_going(grid):
        row.button("Stop", key="grid_stop", icon=":material/stop:", on_click=lambda: GRID.put(None))
    else:
        row.button(
            "Start", key="grid_start", icon=":material/play_arrow:", type="primary", on_click=GRID.put, args=(grid,)
        )
    left = sweep.seconds_left(grid, known(grid))
    told = "" if left is None else f", about {duration(left)} on this machine"
    asked = f"{nouns.count(len(grid.cells()), 'cell')} from {nouns.count(len(runs), 'run')}"
    row.caption(f"{asked} of {grid.images:,} images{told}.")


def is_going(grid: Sweep) -> bool:
    """Tell whether the runs of a grid are asked for: always of a ready one, of an own one once it is started."""
    return state.display().ablation != "own" or GRID.get() == grid


def known(grid: Sweep) -> dict[Settings, Result]:
    """Return what is known of every run of a grid."""
    return {run: cache.runner().known(run) for run in grid.runs()}


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@kept(16)
def _rows(grid: Sweep, reference: int | None, n: int, readings: Sequence[Reading | None] = ()) -> list[Row]:
    return report.rows(grid, readings, reference)


def draw(grid: Sweep) -> None:
    """Draw how far a grid is, its figure, and (once it is complete) its table."""
    results = known(grid)
    faults = {run: fault for run in results if (fault := cache.runner().fault(run))}
    results |= {run: Result.empty(run.T) for run in faults}
    readings = sweep.read(grid, results)
    n = next((reading.n for reading in readings if reading is not None), 0)
    goal = max((_goal(grid, result) for result in results.values()), default=grid.images)
    left = {run: result for run, result in results.items() if run not in faults}
    done = all(result.images >= goal for result in left.values())
    title = _title(grid)
    st.subheader(title)
    with st.container():
        _progress(grid, left, goal, done)
        _left_out(grid, faults)
    if not n:
        exports.shown().grid = None
        if not left:
            st.caption("None of this grid can be run. Choose other values, or another network.")
        else:
            st.caption("The first images are being simulated." if is_going(grid) else "Nothing is known of it yet.")
        return
    rows = _rows(grid, 0, n, readings=readings) if done else report.rows(grid, readings, None)
    figure = theme.sample(figure_of(grid, readings), n, goal)
    kind = state.display().ablation
    alt = f"{title}: {'; '.join(axis.title for axis in grid.axes)}."
    told = interval_told(readings, grid)
    chart(figure, f"ablation_{kind}", alt, note=f"{title} around {grid.base.note(n)}. {told}")
    st.caption(f"{_assumptions(grid, n)} {told}")
    device = next((result.device for result in results.values() if result.device), "")
    lines = [Line(name, run, results[run]) for run, name in run_names(grid).items() if results[run].images]
    exports.shown().grid = exports.GridShown(grid, rows, lines, device, title)
    if done:
        table(grid, readings, n)


def _goal(grid: Sweep, result: Result) -> int:
    return cache.available(grid.base.network, grid.base.source, grid.images) if result.images else grid.images


def _progress(grid: Sweep, results: dict[Settings, Result], goal: int, done: bool) -> None:
    if done:
        return
    seen = sum(result.images for result in results.values())
    left = sweep.seconds_left(grid, results)
    told = "" if left is None else f", about {duration(left)} left"
    state_ = "refining" if is_going(grid) else "stopped"
    st.progress(min(1.0, seen / (goal * len(results))), f"{state_}: {seen:,} of {goal * len(results):,} images{told}")


def _left_out(grid: Sweep, faults: dict[Settings, str]) -> None:
    """Say which cells are not there, and why."""
    for fault in dict.fromkeys(faults.values()):
        names = [run_names(grid)[run] for run, why in faults.items() if why == fault]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        st.caption(f":material/block: Left out: {keys.plain('; '.join(names[:3]) + more)}. {keys.plain(fault)}")


def _title(grid: Sweep) -> str:
    kind = state.display().ablation
    return ABLATIONS[kind] if kind != "own" else " by ".join(axis.title.split(" (")[0] for axis in grid.axes)


@lru_cache(8)
def run_names(grid: Sweep) -> dict[Settings, str]:
    """Return what each run of a grid is called, no two alike: its place on the axes, and its seed if there are more."""
    found: dict[Settings, str] = {}
    for cell in grid.cells():
        for run in cell.runs:
            if run not in found:
                parts = [
                    f"{axis.kind} {axis.label(value)}"
                    for axis, value in zip(grid.axes, cell.values, strict=True)
                    if axis.kind != "T" or run.depends_on_T
                ]
                seed = [f"seed {run.starts_seed}"] if len(cell.runs) > 1 else []
                found[run] = ", ".join([*parts, *seed]) or run.describe()
    return dict(zip(found, distinct(list(found.values())), strict=True))


def _assumptions(grid: Sweep, n: int) -> str:
    seeds = {run.starts_seed for run in grid.runs() if run.random}
    random = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}" if seeds else "nothing random"
    return (
        f"{nouns.count(n, 'image')} each, the same ones in all cells (the first of "
        f"{keys.plain(keys.label(grid.base.source))}), T up to {max(run.T for run in grid.runs())}, {random}; around "
        f"{keys.plain(grid.base.describe())}."
    )


def unit_of(readings: Sequence[Reading | None]) -> str:
    """Return what the shares are: accuracy, or agreement with the ANN."""
    return theme.ACCURACY if all(r.labelled for r in readings if r is not None) else theme.AGREEMENT


def shape_of(grid: Sweep) -> str:
    """Return how a grid is drawn: 'heat', 'curves', 'change', 'line', 'waterfall' or 'bars'."""
    kinds = [axis.kind for axis in grid.axes]
    if len(kinds) == 2:
        whole = kinds[1] == "T" and grid.axes[1].values == tuple(range(1, len(grid.axes[1].values) + 1))
        return "curves" if whole and kinds[0] in ("start", "rule") else "heat"
    if kinds[0] in ("layer", "part"):
        return {"layer": "change", "part": "waterfall"}[kinds[0]]
    return "line" if sweep.KINDS[kinds[0]].is_number else "bars"


def figure_of(grid: Sweep, readings: Sequence[Reading | None]) -> Figure:
    """Return the figure of a grid."""
    unit, axis = unit_of(readings), grid.axes[0]
    match shape_of(grid):
        case "heat":
            values, y, x = matrix(grid, readings)
            return accuracy.grid_figure(values, x, y, grid.axes[1].title, axis.title, unit)
        case "curves":
            return accuracy.accuracy_figure(curves_of(grid, readings), None)
        case "change":
            change = np.array([np.nan if r is None else 100 * r.mean for r in readings])
            words = [axis.label(value) for value in axis.values]
            return accuracy.bars_figure(words[1:], change[1:] - change[0], change_unit(grid, readings))
    labels, mean, low, high = spread(grid, readings)
    if shape_of(grid) == "waterfall":
        return drawn.waterfall_figure([axis.label(x) for x in labels], mean, axis.title, unit)
    if shape_of(grid) == "line":
        ann = next((r.ann for r in readings if r is not None and r.labelled), None)
        return drawn.line_figure([float(x) for x in labels], mean, low, high, axis.title, unit, ann)
    return drawn.bars_figure([axis.label(x) for x in labels], mean, low, high, axis.title, unit)


def matrix(grid: Sweep, readings: Sequence[Reading | None]) -> tuple[np.ndarray, list[str], list[str]]:
    """Return shares in per cent [first axis, second axis] with both axes' labels."""
    rows, columns = ([axis.label(value) for value in axis.values] for axis in grid.axes)
    values = np.array([np.nan if r is None else 100 * r.mean for r in readings]).reshape(len(rows), len(columns))
    return values, rows, columns


def curves_of(grid: Sweep, readings: Sequence[Reading | None]) -> list[accuracy.Curve]:
    """Return a curve against T for each value of the first axis."""
    per = len(grid.axes[1].values)
    found = []
    for i, value in enumerate(grid.axes[0].values):
        row = readings[i * per : (i + 1) * per]
        one = next((r for r in row if r is not None), None)
        if one is not None:
            mean = np.array([np.nan if r is None else r.mean for r in row])  # each T's own run, where these differ
            low, high = wilson(mean * one.n, one.n)
            style = {"zero": theme.ZERO, "half": theme.HALF}.get(str(value), theme.PINS[i % len(theme.PINS)])
            label = grid.axes[0].label(value)
            found.append(accuracy.Curve(label, mean, low, high, one.n, one.labelled, style))
    return found


def change_unit(grid: Sweep, readings: Sequence[Reading | None]) -> str:
    """Return the title of the axis on which the change by one layer is drawn."""
    (what, amount), measured = (
        grid.change,
        "accuracy" if unit_of(readings) == theme.ACCURACY else "agreement with the ANN",
    )
    told = f"threshold × {amount:g}" if what == "scale" else f"v_init = {amount:g} in this layer only"
    return f"change of {measured} at T = {grid.base.T} (percentage points), {told}"


def spread(grid: Sweep, readings: Sequence[Reading | None]) -> tuple[list[Any], np.ndarray, np.ndarray, np.ndarray]:
    """Return values, means and interval ends (0..1) of a grid of one axis: deviation over seeds, or Wilson's."""
    shown = [(v, r) for v, r in zip(grid.axes[0].values, readings, strict=True) if r is not None]
    mean = np.array([r.mean for _, r in shown])
    low, high = np.array([ends(r) for _, r in shown], float).T
    return [v for v, _ in shown], mean, low, high


def ends(reading: Reading) -> tuple[Any, Any]:
    """Return the ends (0..1) of the bar that is drawn on a cell's share: see `interval_told`."""
    if reading.deviation is not None:
        return reading.mean - reading.deviation, reading.mean + reading.deviation
    return wilson(reading.right.sum(), reading.n)


def interval_told(readings: Sequence[Reading | None], grid: Sweep) -> str:
    """Return what the bars in a grid's figure are; nothing where it has none."""
    match shape_of(grid):
        case "heat" | "change" | "waterfall":
            return ""
        case "curves":
            return "Bands: 95 % Wilson intervals."
    return bars_told(readings)


def bars_told(readings: Sequence[Reading | None]) -> str:
    """Return what `ends` are."""
    kinds = {r.deviation is not None for r in readings if r is not None}
    if kinds == {False}:
        return "Bars: 95 % Wilson intervals."
    several = "one standard deviation over the seeds to either side"
    return f"Bars: {several}." if kinds == {True} else f"Bars: {several}; of cells with one run, 95 % Wilson intervals."


def table(grid: Sweep, readings: Sequence[Reading | None], n: int) -> None:
    """Draw all cells with intervals and the paired comparison with a reference cell."""
    import pandas as pd

    cells = [", ".join(a.label(v) for a, v in zip(grid.axes, c.values, strict=True)) for c in grid.cells()]
    reference = st.selectbox(
        "Compare with",
        range(len(cells)),
        format_func=lambda i: cells[i] if i < len(cells) else "",
        key=f"grid_reference_{len(cells)}",
        help="Image by image: McNemar's exact test, and a bootstrap over images of the difference.",
    )
    rows = _rows(grid, int(reference or 0), n, readings=readings)
    now = exports.shown()
    if now.grid is not None:
        now.grid = replace(now.grid, rows=rows)
    listed = []
    for row in rows:
        r, c = row.reading, row.against
        listed.append(
            {
                **{axis.title: label for axis, label in zip(grid.axes, row.labels, strict=True)},
                "right (%)": 100 * r.mean,
                "deviation (%)": None if r.deviation is None else 100 * r.deviation,
                "95 % interval (%)": f"{100 * row.low:.2f} to {100 * row.high:.2f}",
                "difference (pp)": None if c is None else 100 * c.difference,
                "its 95 % interval (pp)": "" if c is None else interval(c.low, c.high),
                "only here right": None if c is None else c.gained,
                "only there right": None if c is None else c.lost,
                "p (McNemar)": None if c is None else c.p,
                "p adjusted": row.adjusted,
            }
        )
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(listed),
        hide_index=True,
        width="stretch",
        key="grid_table",
        column_config={
            "right (%)": number(format="%.2f"),
            "deviation (%)": number(format="%.2f", help="Standard deviation over seeds."),
            "difference (pp)": number(format="%.2f"),
            "p (McNemar)": number(format="%.4f", help="Exact; of single seeds."),
            "p adjusted": number(format="%.4f", help="For their number, by Benjamini and Hochberg."),
        },
    )


def interval(low: float, high: float) -> str:
    """Return an interval of differences in percentage points."""
    return f"{frame.signed(100 * low)} to {frame.signed(100 * high)}"
