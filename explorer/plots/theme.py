"""Colours, dashes, fonts and axis titles of every figure, in one place.

The line colours keep a contrast of about 3:1 on white and on the dark background and can be told apart with the common
colour-vision deficiencies (Okabe and Ito's set); dash and marker differ as well, so that colour never stands alone.
Text and grid colours are left to the page, which knows whether it is light or dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from explorer.plots.figure import Figure

BLUE, GREEN, ORANGE, PINK = "#0072B2", "#009E73", "#D55E00", "#CC79A7"
GREY = "#808891"
PURPLE, BROWN, TEAL, OLIVE = "#8A63B8", "#A8683A", "#1F8A99", "#7A7F2E"
COLORWAY = [BLUE, ORANGE, GREEN, PINK]
SCALE = "cividis"


@dataclass(frozen=True)
class Style:
    """How one meaning is drawn, on every page: colour, dash and marker, so that colour never stands alone."""

    colour: str
    dash: str
    symbol: str

    @property
    def line(self) -> dict[str, object]:
        """Plotly's line of this style."""
        return {"color": self.colour, "dash": self.dash, "width": 2}

    def marker(self, size: float) -> dict[str, object]:
        """Plotly's marker of this style."""
        return {"color": self.colour, "symbol": self.symbol, "size": size}


YOURS = Style(BLUE, "solid", "circle")
ZERO = Style(ORANGE, "dash", "square")
HALF = Style(GREEN, "12px,2px", "diamond")
ANN = Style(GREY, "dash", "star")
PINS = (
    Style(PURPLE, "dashdot", "triangle-up"),
    Style(BROWN, "longdash", "triangle-down"),
    Style(TEAL, "longdashdot", "cross"),
    Style(OLIVE, "dashdot", "pentagon"),
)
METHODS = (ORANGE, GREEN, PINK, PURPLE, BROWN, TEAL, OLIVE)
METHOD_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
METHOD_SYMBOLS = ("square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon", "star", "hexagon")
CHOSEN = PINK  # the outline or mark of what the visitor chose
GAIN, LOSS = BLUE, ORANGE  # signed bars
CAUSES = {"clipping": BLUE, "quantisation": ORANGE, "unevenness": GREEN, "inherited": PINK}
SERIES = (YOURS, ZERO, HALF, *PINS)  # settings that have no meaning of their own: told apart, and named by the legend


def style(role: str) -> Style:
    """Return how a run is drawn: 'yours', 'zero', 'half', or 'pin' with its number from 0."""
    if role.startswith("pin"):
        return PINS[int(role[3:]) % len(PINS)]
    return {"yours": YOURS, "zero": ZERO, "half": HALF}[role]


def method_style(i: int) -> Style:
    """Return how the i-th of many methods is drawn: the legend names it."""
    dash = METHOD_DASHES[i // len(METHODS) % len(METHOD_DASHES)]
    return Style(METHODS[i % len(METHODS)], dash, METHOD_SYMBOLS[i % len(METHOD_SYMBOLS)])


@cache
def colour_scale() -> list[list[object]]:
    """Return plotly's stops of the scale of all heat maps, share and colour."""
    from plotly.colors import get_colorscale

    return [list(stop) for stop in get_colorscale(SCALE)]


STEP = "time-step t"
POTENTIAL = "potential v (activation units)"
CURRENT = "input current x (activation units)"
ACTIVATION = "ANN activation a (activation units)"
DECODED = "decoded â = θ n / T (activation units)"
ACCURACY = "top-1 accuracy (%)"
AGREEMENT = "agreement with the ANN (%)"
SHARE_A = "ANN activation a / θ"
SHARE_DECODED = "decoded â / θ (plain spikes: n / T)"


def new_figure(height: int, x: str, y: str) -> Figure:
    """Return an empty figure in house style: transparent, axes titled with units, zoom kept over updates."""
    figure = Figure()
    axis = {"zeroline": False, "gridcolor": "rgba(128,136,145,0.22)"}
    return figure.update_layout(
        height=height,
        margin={"l": 62, "r": 16, "t": 34, "b": 48},
        colorway=COLORWAY,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        uirevision="keep",
        hovermode="closest",
        font={"size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        xaxis={"title": {"text": x}} | axis,
        yaxis={"title": {"text": y}} | axis,
    )


def steps_axis(figure: Figure, T: int) -> Figure:
    """Let the x axis, which counts time-steps, have ticks at whole steps only."""
    if T <= 12:
        figure.update_xaxes(dtick=1)
    return figure


def sample(figure: Figure, n: int, goal: int | None = None) -> Figure:
    """Write into a figure, behind the title of its x axis, on how many images it rests; goal: on how many it will."""
    told = f"N = {n:,}" + (f" of {goal:,}" if goal is not None and goal > n else "")
    title = figure.layout["xaxis"]["title"]["text"]
    return figure.update_xaxes(title={"text": f"{title}; {told}" if title else told})


def translucent(colour: str, alpha: float) -> str:
    """Return the hex colour as rgba with this opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
