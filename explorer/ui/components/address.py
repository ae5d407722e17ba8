"""The browser's address, kept up to date: reloading it, a bookmark or a copy of it opens the same view again."""

from __future__ import annotations

import streamlit as st

from explorer.study import link
from explorer.ui import state
from explorer.ui.components.source import source

_ADDRESS = st.components.v2.component("explorer_address", html="<span hidden></span>\n", js=source("address.js"))


def address(page: str) -> None:
    """Write the present scene into the address bar, without a new entry in the browser's history; shows nothing.

    page: its title; when it changes, the address has lost what was written there.
    """
    query = {link.PARAMETER: link.encode(state.scene()), link.HIDE: ",".join(sorted(state.hidden()))}
    _ADDRESS(key="address", data={"query": query, "plain": link.encode(link.Scene()), "page": page})
