"""Figures for print: a column or a page wide, vector, with the journal's font size; drawn by Matplotlib, white."""

from __future__ import annotations

import io
import textwrap
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from explorer.plots import theme
from explorer.plots.accuracy import Curve

WIDTHS = {"column": 85.0, "page": 170.0}  # millimetres
MM = 1 / 25.4
DASHES = {
    "solid": "-",
    "12px,2px": (0, (12, 2)),
    "dash": (0, (5, 2)),
    "dot": (0, (1, 1.5)),
    "dashdot": (0, (5, 2, 1, 2)),
    "longdash": (0, (9, 2)),
    "longdashdot": (0, (9, 2, 1, 2)),
}
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "pentagon": "p",
    "star": "*",
}
Format = Literal["svg", "pdf"]
WRITING = threading.Lock()  # how fonts are written is a setting of the whole process


def _figure(width: float, height: float, size: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * MM, height * MM), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=size)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _written(figure: Any, axes: Any, form: Format, size: float, x: str, y: str, note: str) -> bytes:
    """Return the file: text stays text (SVG) or embedded outlines of fonts (PDF); nothing in it depends on the day."""
    import matplotlib

    wide, high = figure.get_size_inches() / MM
    axes.set_xlabel(_folded(x, 0.75 * wide, size), fontsize=size)
    axes.set_ylabel(_folded(y, 0.75 * high, size), fontsize=size)
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(handles, labels, fontsize=size - 1, frameon=False)
    out = io.BytesIO()
    metadata = {"svg": {"Date": None, "Description": note}, "pdf": {"CreationDate": None, "Subject": note}}[form]
    with WRITING, matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "explorer"}):
        figure.savefig(out, format=form, metadata=metadata)
    return out.getvalue()


def curves(
    shown: Sequence[Curve],
    ann: float | None,
    form: Format,
    width: float,
    size: float,
    log: bool = False,
    note: str = "",
) -> bytes:
    """Draw accuracy (%) against T with 95 % bands; width in millimetres, size of text in points."""
    figure, axes = _figure(width, 0.68 * width if width < 120 else 0.5 * width, size)
    for curve in shown:
        t = np.arange(1, len(curve.top1) + 1)
        colour = curve.style.colour
        axes.fill_between(t, 100 * curve.low, 100 * curve.high, color=colour, alpha=0.15, linewidth=0)
        every = max(1, len(t) // 12)
        axes.plot(
            t,
            100 * curve.top1,
            color=colour,
            linestyle=DASHES[curve.style.dash],
            marker=MARKERS[curve.style.symbol],
            markersize=size * 0.45,
            markevery=every,
            linewidth=1.2,
            label=curve.name,
        )
    labelled = all(curve.labelled for curve in shown)
    if ann is not None:
        axes.axhline(100 * ann, color=theme.GREY, linestyle=DASHES["dash"], linewidth=1, label="ANN")
    if log:
        _log(axes, max((len(curve.top1) for curve in shown), default=1))
    axes.set_ylim(0, 102)
    unit = theme.ACCURACY if labelled else theme.AGREEMENT
    return _written(figure, axes, form, size, f"time-steps T{_n(shown[0].n if shown else 0)}", unit, note)


def _folded(text: str, room: float, size: float) -> str:
    """Return a title in lines that fit so many millimetres."""
    return textwrap.fill(text, max(8, int(room / (0.19 * size))))


def _log(axes: Any, T: int) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    ticks = [2**k for k in range(9) if 2**k <= T]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _n(n: int) -> str:
    return f"; N = {n:,}" if n else ""


def line(
    x: Sequence[float],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    title: str,
    unit: str,
    ann: float | None,
    form: Format,
    width: float,
    size: float,
    n: int = 0,
    note: str = "",
) -> bytes:
    """Draw shares (0..1) with intervals against a number that was varied."""
    figure, axes = _figure(width, 0.68 * width if width < 120 else 0.5 * width, size)
    axes.errorbar(
        x,
        100 * mean,
        yerr=np.maximum(0, 100 * np.stack([mean - low, high - mean])),
        color=theme.YOURS.colour,
        ecolor=theme.GREY,
        marker=MARKERS[theme.YOURS.symbol],
        markersize=size * 0.5,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=1.5,
        label="SNN",
    )
    if ann is not None:
        axes.axhline(100 * ann, color=theme.GREY, linestyle=DASHES["dash"], linewidth=1, label="ANN")
    return _written(figure, axes, form, size, title + _n(n), unit, note)


def bars(
    labels: Sequence[str],
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    title: str,
    unit: str,
    form: Format,
    width: float,
    size: float,
    n: int = 0,
    note: str = "",
) -> bytes:
    """Draw numbers, in unit, with intervals, by words that were varied."""
    figure, axes = _figure(width, 24 + len(labels) * size * 0.6, size)
    colour = np.where(values < 0, theme.LOSS, theme.GAIN)
    gap = np.maximum(0, np.stack([values - low, high - values]))
    axes.barh(range(len(labels)), values, color=colour, xerr=gap, error_kw={"ecolor": theme.GREY, "elinewidth": 0.8})
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.invert_yaxis()
    return _written(figure, axes, form, size, unit + _n(n), title, note)


def grid(
    values: np.ndarray,
    x: Sequence[str],
    y: Sequence[str],
    x_title: str,
    y_title: str,
    unit: str,
    form: Format,
    width: float,
    size: float,
    n: int = 0,
    note: str = "",
) -> bytes:
    """Draw a heat map of values [y, x], in unit."""
    figure, axes = _figure(width, 0.62 * width if width < 120 else 0.45 * width, size)
    drawn = axes.pcolormesh(values, cmap=theme.SCALE, rasterized=False)
    for axis, labels in ((axes.xaxis, x), (axes.yaxis, y)):
        every = max(1, -(-len(labels) // 12))
        axis.set_ticks([i + 0.5 for i in range(0, len(labels), every)], list(labels)[::every], fontsize=size)
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label(unit, fontsize=size)
    bar.ax.tick_params(labelsize=size)
    return _written(figure, axes, form, size, x_title + _n(n), y_title, note)
