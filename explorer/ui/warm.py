"""Load what the first page needs while its frame is being drawn: torch, the network, its thresholds, one image."""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import suppress
from dataclasses import replace

import streamlit as st

from explorer.study.settings import Settings
from explorer.ui import cache, frame

SWITCH = 0.02  # seconds that a drawing keeps the interpreter before the thread that sends it has it for a moment
GARBAGE = (10_000, 20, 10)  # Python's own, 700, costs a busy server a twentieth of its time


@st.cache_resource(show_spinner=False)
def begin(_settings: Settings) -> threading.Thread:
    """Start loading, once per server: the page asks for the same cached results and waits for them only if it must."""
    thread = threading.Thread(target=_load, args=(_settings,), name="warm", daemon=True)
    thread.start()
    return thread


def _load(settings: Settings) -> None:
    with suppress(Exception):  # the page meets the same error and explains it
        cache.look(frame.one_image(replace(settings, method="")))  # a method's fit shows the page how far it is
    if cache.serving():
        settle()


def settle() -> None:
    """Have the interpreter spare what stays for ever in its searches for garbage, and change threads less often."""
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    sys.setswitchinterval(SWITCH)
