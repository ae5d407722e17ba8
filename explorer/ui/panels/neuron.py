"""Pictures, and the choice of a neuron: on several pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from explorer.ui import widgets


def picture(pixels: np.ndarray, width: int = 150) -> None:
    """Show a small image without blurring its pixels (layout.css sees to that)."""
    st.image(pixels, width=width)


def place(shape: tuple[int, ...], columns: Sequence[Any]) -> None:
    """Draw the choice of channel, row and column in a layer of this shape."""
    for column, name, size in zip(columns, ("channel", "row", "column"), (*shape, 1, 1)[:3], strict=False):
        widgets.number(name, size - 1, at=column)
