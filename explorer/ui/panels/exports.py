"""Files to take away, made at the click of what is on screen then; each carries its number of images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import streamlit as st

from explorer.plots import theme
from explorer.study import compare
from explorer.study.report import Row
from explorer.study.script import Line, script
from explorer.study.settings import Settings
from explorer.study.sweep import Sweep
from explorer.study.tables import curve_csv, settings_json
from explorer.ui.session import SHOWN


@dataclass(frozen=True, eq=False)
class GridShown:
    """A grid of settings as it is on screen."""

    sweep: Sweep
    rows: list[Row]
    lines: list[Line]
    device: str
    title: str


@dataclass(eq=False)
class Shown:
    """The runs that the page's charts show now; the charts renew it as often as they are drawn."""

    settings: Settings = field(default_factory=Settings)
    lines: list[Line] = field(default_factory=list)
    styles: list[theme.Style] = field(default_factory=list)
    log: bool = False
    grid: GridShown | None = None

    def everything(self) -> list[Line]:
        """Return all runs on the page of which something is known: the curves', then the grid's, each by a name."""
        lines = [*self.known(), *(self.grid.lines if self.grid is not None else [])]
        names = compare.distinct([line.name for line in lines])
        return [replace(line, name=name) for line, name in zip(lines, names, strict=True)]

    def known(self) -> list[Line]:
        """Return the runs of which something is known, the visitor's own first."""
        return [line for line in self.lines if line.result.images]


def shown() -> Shown:
    """Return what this visitor's page shows."""
    now = SHOWN.get()
    if now is None:
        now = Shown()
        SHOWN.put(now)
    return now


def buttons() -> None:
    """Draw the download buttons; files are made when they are asked for, of the page's grid too if there is one."""
    now = shown()
    row = st.container(horizontal=True)
    row.download_button(
        "Export as script",
        lambda: script(now.everything()) if now.known() else "# Nothing was simulated yet when this was exported.\n",
        "run.py",
        "text/x-python",
        key="export_script",
        icon=":material/code:",
        on_click="ignore",
        help="A Python file that makes every run on this page again, on exactly the images it is shown with then.",
    )
    row.download_button(
        "Settings (JSON)",
        lambda: settings_json(now.settings, {line.name: (line.settings, line.result) for line in now.everything()}),
        "settings.json",
        "application/json",
        key="export_json",
        on_click="ignore",
    )
    row.download_button(
        "Curves (CSV)",
        lambda: curve_csv({line.name: line.result for line in now.everything()}),
        "accuracy.csv",
        "text/csv",
        key="export_csv",
        on_click="ignore",
    )
