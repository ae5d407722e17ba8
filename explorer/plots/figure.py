"""A figure as plain values: what plotly.js draws, written down without asking plotly's Python classes for each word.

Forty visitors look at five figures each while runs refine. Built from `plotly.graph_objects`, which checks every
attribute, they took two thirds of the server's time; the tests check all of them instead (`Figure.checked`).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

CODES = {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"} | {
    "float32": "f4",
    "float64": "f8",
}
SMALL = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)
NO_TEMPLATE = {"data": {"scatter": [{"type": "scatter"}]}}


class Figure:
    """Traces and a layout in plotly.js's words; arrays stay NumPy until they are sent."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {"template": NO_TEMPLATE}

    def _add(self, kind: str, trace: Mapping[str, Any]) -> Figure:
        given = {name: value for name, value in trace.items() if value is not None}
        if "name" in given:
            given["name"] = given["name"].replace("<", "&lt;")  # a pin's may come from a link, and plotly.js reads HTML
        self.data.append({"type": kind} | given)
        return self

    def add_scatter(self, **trace: Any) -> Figure:
        """Add lines or markers."""
        return self._add("scatter", trace)

    def add_bar(self, **trace: Any) -> Figure:
        """Add bars."""
        return self._add("bar", trace)

    def add_heatmap(self, **trace: Any) -> Figure:
        """Add a heat map."""
        return self._add("heatmap", trace)

    def add_shape(self, **shape: Any) -> Figure:
        """Add a shape, such as a rectangle."""
        self.layout.setdefault("shapes", []).append(shape)
        return self

    def add_annotation(self, **annotation: Any) -> Figure:
        """Add a text."""
        self.layout.setdefault("annotations", []).append(annotation)
        return self

    def add_hline(self, y: float, line: Mapping[str, Any], annotation: Mapping[str, Any] | None = None) -> Figure:
        """Add a horizontal line across the figure, with a text if given."""
        if annotation is not None:
            self.add_annotation(xref="x domain", y=y, yref="y", showarrow=False, **annotation)
        return self.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=y, y1=y, yref="y", line=line)

    def add_vline(self, x: float, line: Mapping[str, Any], annotation: Mapping[str, Any] | None = None) -> Figure:
        """Add a vertical line across the figure, with a text if given."""
        if annotation is not None:
            self.add_annotation(yref="y domain", x=x, xref="x", showarrow=False, **annotation)
        return self.add_shape(type="line", y0=0, y1=1, yref="y domain", x0=x, x1=x, xref="x", line=line)

    def update_layout(self, **layout: Any) -> Figure:
        """Change the layout; mappings are merged."""
        _merge(self.layout, layout)
        return self

    def update_xaxes(self, **axis: Any) -> Figure:
        """Change the x axis."""
        return self.update_layout(xaxis=axis)

    def update_yaxes(self, **axis: Any) -> Figure:
        """Change the y axis."""
        return self.update_layout(yaxis=axis)

    def to_json(self) -> str:
        """Return what the browser draws; arrays in plotly.js's binary form."""
        plain = {"data": self.data, "layout": self.layout}
        try:
            return json.dumps(plain, default=_packed, allow_nan=False, separators=(",", ":"))
        except ValueError:  # JSON knows no NaN, plotly.js none but null
            return json.dumps(_without_nan(plain), default=_packed, allow_nan=False, separators=(",", ":"))

    def checked(self) -> go.Figure:
        """Return the same as plotly's own figure.

        Raises:
            ValueError: a word or a value is none that plotly knows.
        """
        import plotly.graph_objects as go

        return go.Figure({"data": self.data, "layout": self.layout})


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value


def _packed(value: Any) -> Any:
    """Return an array or a number of NumPy as JSON has it: numbers as bytes, whole ones as small as they fit."""
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be sent to the browser")
    if value.dtype.kind in "iu" and value.dtype.itemsize == 8:
        low, high = (int(value.min()), int(value.max())) if value.size else (0, 0)
        fits = [kind for kind in SMALL if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
        value = value.astype(fits[0] if fits else np.float64)
    if value.dtype.name not in CODES or not value.size:
        return value.tolist()
    shape = {"shape": ", ".join(map(str, value.shape))} if value.ndim > 1 else {}
    content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"dtype": CODES[value.dtype.name], "bdata": content} | shape


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
