"""What a drawing reads of its session, and what closed drawers leave out."""

import streamlit as st

from explorer.study.settings import Settings
from explorer.ui import session, state
from tests.app_help import open_app, pull

NOTHING = session.Entry("tested", list)


class Counted(dict):
    looked = 0

    def setdefault(self, key, default=None):
        self.looked += key == session.ALL
        return super().setdefault(key, default)


def test_entries_are_one_key_and_found_once_in_a_drawing(monkeypatch):
    kept = Counted()
    monkeypatch.setattr(st, "session_state", kept)
    assert not NOTHING.known() and NOTHING.get() == [] and NOTHING.known() and set(kept) == {session.ALL}
    looked = kept.looked
    with session.at_hand(), session.at_hand():
        NOTHING.get().append(1)
        NOTHING.put([*NOTHING.get(), 2])
    assert kept.looked == looked + 1 and kept[session.ALL] == {"tested": [1, 2]}
    monkeypatch.setattr(st, "session_state", Counted())
    assert NOTHING.get() == [], "another session after the drawing"


def test_a_drawing_reads_settings_once_and_again_after_a_change(monkeypatch):
    kept = Counted()
    monkeypatch.setattr(st, "session_state", kept)
    state.put(Settings(T=8))
    with state.drawing():
        first = state.scene()
        kept[state.key("T")] = 9
        assert state.scene() is first and state.current().T == 8, "read once"
        state.change(T=10)
        assert state.current().T == 10 and state.scene() is not first
        with state.drawing():
            assert state.scene() is state.scene()
    kept[state.key("T")] = 11
    assert state.current().T == 11, "outside of a drawing nothing is kept"


def test_closed_drawers_draw_nothing_and_open_ones_stay_open():
    at = open_app()
    keys = {button.key for button in at.button}
    assert "undo" in keys and not keys & {"tour_0", "open_images"} and not at.multiselect
    pull(at, "tour", "images")
    assert {"tour_0", "open_images"} <= {button.key for button in at.button} and at.slider(key="set_images").value == 16
    at.switch_page("../pages/theory.py").run()
    assert at.button(key="tour_0") and not at.exception
