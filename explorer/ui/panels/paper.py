"""Files for a paper, made at the click: vector figures, tables, a methods paragraph, a script, all of it in a ZIP."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict

import numpy as np
import streamlit as st

from explorer.plots import paper
from explorer.plots.paper import Format
from explorer.study import report
from explorer.study.script import script
from explorer.study.tables import curve_csv
from explorer.ui.panels import comparison, exports, grid
from explorer.ui.panels.exports import Shown

FORMS: tuple[Format, ...] = ("svg", "pdf")
TEXTS = {"grid.csv": "csv", "grid.tex": "tex", "methods.txt": "methods", "grid.py": "script"}


def draw(has_grid: bool) -> None:
    """Draw the choice of width and font size, and the buttons; has_grid: the grid's files, too."""
    now = exports.shown()
    with st.container(), st.expander("Files for a paper", icon=":material/article:", expanded=False):
        row = st.columns(3)
        width = paper.WIDTHS[
            row[0].selectbox(
                "Width of figures",
                list(paper.WIDTHS),
                format_func=lambda name: f"{paper.WIDTHS[name]:g} mm (one {name})",
                key="paper_width",
                persist_state="session",
            )
        ]
        size = float(row[1].number_input("Font size (points)", 5, 14, 8, key="paper_size", persist_state="session"))
        buttons = st.container(horizontal=True)
        for form in FORMS:
            _button(
                buttons, f"Curves ({form.upper()})", lambda form=form: curves(now, form, width, size), f"curves.{form}"
            )
        if has_grid:
            for form in FORMS:
                _button(
                    buttons, f"Grid ({form.upper()})", lambda form=form: figure(now, form, width, size), f"grid.{form}"
                )
            _button(buttons, "Grid (CSV)", lambda: text(now, "csv"), "grid.csv")
            _button(buttons, "Grid (LaTeX)", lambda: text(now, "tex"), "grid.tex")
            _button(buttons, "Methods", lambda: text(now, "methods"), "methods.txt")
            _button(buttons, "Script of the grid", lambda: text(now, "script"), "grid.py")
        _button(buttons, "All of it (ZIP)", lambda: bundle(now, size), "explorer.zip")


def _button(at, label, make, name) -> None:
    at.download_button(label, make, name, key=f"paper_{name}", on_click="ignore", icon=":material/download:")


def curves(now: Shown, form: Format, width: float, size: float) -> bytes:
    """Return the page's accuracy curves for print."""
    known = now.known()
    drawn = [
        comparison.as_curve(line.name, line.result, style)
        for line, style in zip(now.lines, now.styles, strict=True)
        if line.result.images and line.result.labelled == known[0].result.labelled
    ]
    ann = known[0].result.ann_top1 if known and known[0].result.labelled else None
    note = now.settings.note(known[0].result.images if known else 0)
    return paper.curves(drawn, ann, form, width, size, log=now.log, note=note)


def figure(now: Shown, form: Format, width: float, size: float) -> bytes:
    """Return the grid's figure for print; nothing where no cell is known yet."""
    shown = now.grid
    if shown is None or not shown.rows:
        return b""
    sweep, readings = shown.sweep, [row.reading for row in shown.rows]
    n, unit, axis = readings[0].n, grid.unit_of(readings), sweep.axes[0]
    about, shape = f"{shown.title} around {sweep.base.note(n)}.", grid.shape_of(sweep)
    note = f"{about} {grid.interval_told(readings, sweep)}"
    if shape == "heat" and len(readings) == len(sweep.cells()):
        values, y, x = grid.matrix(sweep, readings)
        return paper.grid(values, x, y, sweep.axes[1].title, axis.title, unit, form, width, size, n, note)
    if shape == "curves" and len(readings) == len(sweep.cells()):
        ann = readings[0].ann if readings[0].labelled else None
        return paper.curves(grid.curves_of(sweep, readings), ann, form, width, size, note=note)
    if shape == "line" and len(readings) == len(sweep.cells()):
        at, mean, low, high = grid.spread(sweep, readings)
        ann = readings[0].ann if readings[0].labelled else None
        return paper.line([float(x) for x in at], mean, low, high, axis.title, unit, ann, form, width, size, n, note)
    if shape == "change" and all(row.against for row in shown.rows[1:]):
        against = [row.against for row in shown.rows[1:]]
        values, low, high = (
            100 * np.array([getattr(c, name) for c in against]) for name in ("difference", "low", "high")
        )
        labels = [row.labels[0] for row in shown.rows[1:]]
        note = f"{about} Bars: 95 % intervals of the difference, by bootstrap over images."
        return paper.bars(
            labels, values, low, high, axis.title, grid.change_unit(sweep, readings), form, width, size, n, note
        )
    labels = [", ".join(row.labels) for row in shown.rows]
    mean = 100 * np.array([reading.mean for reading in readings])
    low, high = 100 * np.array([grid.ends(reading) for reading in readings], float).T
    note = f"{about} {grid.bars_told(readings)}"
    return paper.bars(labels, mean, low, high, axis.title, unit, form, width, size, n, note)


def text(now: Shown, what: str) -> str:
    """Return one of the grid's texts: 'csv', 'tex', 'methods' or 'script'."""
    shown = now.grid
    if shown is None or not shown.rows:
        return ""
    match what:
        case "csv":
            return report.grid_csv(shown.sweep, shown.rows)
        case "tex":
            n = shown.rows[0].reading.n
            return report.latex(shown.sweep, shown.rows, f"{shown.title}; {shown.sweep.base.note(n)}.")
        case "methods":
            return report.methods(shown.sweep, shown.rows, shown.device)
    return script(shown.lines)


def bundle(now: Shown, size: float) -> bytes:
    """Return a ZIP of everything: figures at both widths, tables, methods, settings, scripts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, width in paper.WIDTHS.items():
            for form in FORMS:
                archive.writestr(f"curves-{name}.{form}", curves(now, form, width, size))
                if now.grid is not None:
                    archive.writestr(f"grid-{name}.{form}", figure(now, form, width, size))
        archive.writestr("curves.csv", curve_csv({line.name: line.result for line in now.known()}))
        archive.writestr("settings.json", json.dumps(asdict(now.settings), indent=1))
        if now.known():
            archive.writestr("curves.py", script(now.known()))
        if now.grid is not None:
            for name, what in TEXTS.items():
                archive.writestr(name, text(now, what))
    return out.getvalue()
