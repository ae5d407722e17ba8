"""Files to take away, made at the click of what is on screen then; each carries its number of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from explorer.study.script import Line, script
from explorer.study.settings import Settings
from explorer.study.tables import curve_csv, settings_json

SHOWN = "shown"


@dataclass(eq=False)
class Shown:
    """The runs that the page's charts show now; the charts renew it as often as they are drawn."""

    settings: Settings = field(default_factory=Settings)
    lines: list[Line] = field(default_factory=list)

    def known(self) -> list[Line]:
        """Return the runs of which something is known, the visitor's own first."""
        return [line for line in self.lines if line.result.images]


def shown() -> Shown:
    """Return what this visitor's page shows."""
    return st.session_state.setdefault(SHOWN, Shown())


def buttons() -> None:
    """Draw the download buttons; files are made when they are asked for."""
    now = shown()
    row = st.container(horizontal=True)
    row.download_button(
        "Export as script",
        lambda: script(now.known()) if now.known() else "# Nothing was simulated yet when this was exported.\n",
        "run.py",
        "text/x-python",
        key="export_script",
        icon=":material/code:",
        on_click="ignore",
        help="A Python file that makes every run on this page again, on exactly the images it is shown with then.",
    )
    row.download_button(
        "Settings (JSON)",
        lambda: settings_json(now.settings, {line.name: (line.settings, line.result) for line in now.known()}),
        "settings.json",
        "application/json",
        key="export_json",
        on_click="ignore",
    )
    row.download_button(
        "Curves (CSV)",
        lambda: curve_csv({line.name: line.result for line in now.known()}),
        "accuracy.csv",
        "text/csv",
        key="export_csv",
        on_click="ignore",
    )
