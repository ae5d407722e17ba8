"""What a link carries: the settings, how the pages show them, and the pinned runs to compare with.

`Display` never enters a simulation: it is how a page looks at results, and the theory page's one neuron.
This module knows neither Streamlit nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from explorer.limits import limits
from explorer.study.settings import TABLE, Field, Settings, changes, clamp, from_table, is_number, printable

MAX_PINS, PIN_NAME_MAX = 4, 40
GRID_IMAGES = 10_000 if limits().images >= 2000 else limits().images  # a public server measures fewer
ABLATIONS = {
    "none": "None",
    "v_init": "v_init by T",
    "start": "Initialisation kinds",
    "percentile": "Threshold percentile by T",
    "scale": "One layer's threshold",
    "potential": "One layer's potential",
    "ensemble": "Random starts as an ensemble",
    "parts": "Parts of the calibration",
    "calibrated": "v_init under calibration",
    "own": "Own grid",
}
VARIED = {
    "v_init": "v_init",
    "scale": "Threshold scale",
    "p": "Percentile",
    "T": "Time-steps T",
    "method": "Conversion method",
    "rule": "Threshold rule",
    "start": "Kind of initial potential",
    "layer": "One layer at a time",
}
CHANGES = {"scale": "its threshold, times", "v_init": "its v_init, set to"}
INPUTS = {
    "uniform": "Uniform between 0 and θ",
    "half-normal": "Half-normal, deviation θ / 3",
    "layer": "The chosen layer's own",
}

DISPLAY = (
    Field(
        "theory_theta",
        "Threshold θ (activation units)",
        1.0,
        "The neuron fires when its potential reaches θ; each spike takes θ away and stands for θ / T.",
        0.25,
        4.0,
        0.05,
    ),
    Field("theory_T", "Time-steps T", 8, "How many steps the neuron gets: so many steps the staircase has.", 1, 64, 1),
    Field(
        "theory_v_init",
        "v_init (share of θ)",
        0.0,
        "Potential before the first step, v(0) = v_init × θ. Drag it and watch the squared error.",
        -0.5,
        1.5,
        0.01,
    ),
    Field("theory_x", "Input x (share of θ)", 0.42, "Constant input of the neuron drawn below.", -0.1, 1.3, 0.01),
    Field(
        "theory_inputs",
        "Inputs are distributed",
        "uniform",
        "Over which inputs the error is averaged.",
        options=INPUTS,
    ),
    Field(
        "theory_bounds",
        "Bounds for a box of inputs",
        False,
        "Which neurons of the chosen network can never exceed their threshold, whatever the input in a small box "
        "around the chosen image, and whether its class is certain there.",
    ),
    Field(
        "theory_radius",
        "Radius of the box (power of ten of a pixel level)",
        -4.0,
        "0 is one of the 255 levels of a pixel, −3 a thousandth of one.",
        -14.0,
        1.0,
        0.5,
    ),
    Field(
        "ablation",
        "Ablation",
        "none",
        "Runs many settings side by side on your evaluation images, refined live.",
        options=ABLATIONS,
    ),
    Field("grid_1", "Vary", "v_init", "The setting that is varied.", options=VARIED),
    Field(
        "grid_1_values",
        "Values",
        "0:1:0.1",
        "Numbers such as 0, 0.25, 0.5; a range from:to:step, 0:1:0.1; a doubling range 4:64:*2; or words. Of layers: "
        "names, or nothing for all.",
    ),
    Field("grid_2", "And vary", "none", "A second setting, or none.", options={"none": "Nothing else", **VARIED}),
    Field("grid_2_values", "Values of the second", "", "As for the first."),
    Field("grid_change", "Of the layer, change", "scale", "What happens to the one layer.", options=CHANGES),
    Field("grid_amount", "Amount", 0.8, "The factor of its threshold, or its v_init.", -1.0, 4.0, 0.05),
    Field(
        "grid_images",
        "Images of the grid",
        256,
        "The first so many of the source, up to all there are (10,000 of a whole CIFAR-10 test set).",
        16,
        GRID_IMAGES,
        16,
    ),
    Field("grid_seeds", "Seeds", "0", "For random initial potentials: 0, 1, 2 or 0:4. Mean and deviation are given."),
    Field("log_axis", "Logarithmic T axis", True, "Shows the first steps as wide as the many last ones."),
    Field(
        "published",
        "Published figures, and ours",
        True,
        "Grey: of papers, for networks of the same family with their own weights, on CIFAR-10's 10,000 test images. "
        "Purple, with intervals: our networks of that family on the same images, measured once. Shown where "
        "the images are CIFAR-10's test images.",
    ),
    Field(
        "methods_images",
        "Images of the table",
        64,
        "Each method is measured on the first so many of the source, the same ones. The fewer, the sooner all of them "
        "are there, and the fewer differences can be told from chance.",
        16,
        limits().images,
        16,
    ),
    Field(
        "methods_latency",
        "Against latency",
        False,
        "Draws accuracy against the steps from the image to the answer, first phases and waiting layers included, in "
        "place of T.",
    ),
    Field(
        "methods_starts",
        "Also with v_init 0 and 1/2",
        False,
        "OPI's claim is that a start at one half helps other methods, too. One more run a method.",
    ),
    Field(
        "methods_windows",
        "Measure every read-out window",
        False,
        "Scores are the mean current over all steps; this reads them over every run of steps, i + 1 to j.",
    ),
    Field(
        "squared",
        "Squared error",
        False,
        "Signed: parts add up to the mean error. Squared: each part's share of the mean squared error, the mean of "
        "part times total.",
    ),
    Field(
        "only_wrong",
        "Only images that the SNN misses",
        False,
        "Among the first images of the present settings: the label is missed, or, of images without labels, the ANN's "
        "answer is not given.",
    ),
)


@dataclass(frozen=True)
class Display:
    """How the pages show results; nothing here is simulated."""

    theory_theta: float = 1.0
    theory_T: int = 8
    theory_v_init: float = 0.0
    theory_x: float = 0.42
    theory_inputs: str = "uniform"
    theory_bounds: bool = False
    theory_radius: float = -4.0
    ablation: str = "none"
    grid_1: str = "v_init"
    grid_1_values: str = "0:1:0.1"
    grid_2: str = "none"
    grid_2_values: str = ""
    grid_change: str = "scale"
    grid_amount: float = 0.8
    grid_images: int = 256
    grid_seeds: str = "0"
    log_axis: bool = True
    published: bool = True
    methods_images: int = 64
    methods_latency: bool = False
    methods_starts: bool = False
    methods_windows: bool = False
    squared: bool = False
    only_wrong: bool = False


@dataclass(frozen=True)
class Pin:
    """A run kept for comparison: its settings, its name, and the slot that gives it its colour on all pages."""

    settings: Settings
    name: str = ""
    slot: int = 0

    @property
    def title(self) -> str:
        """What it is called: the name it was given, or what it is."""
        return self.name or f"{self.settings.describe()}, T = {self.settings.T}"

    @property
    def network(self) -> str:
        """The network it needs."""
        return self.settings.network

    @property
    def source(self) -> str:
        """The images it needs."""
        return self.settings.source


@dataclass(frozen=True)
class Scene:
    """Everything that decides what is on screen, except which page."""

    settings: Settings = field(default_factory=Settings)
    display: Display = field(default_factory=Display)
    pins: tuple[Pin, ...] = ()


FIELDS = (*TABLE, *DISPLAY)
BY_NAME = {one.name: one for one in FIELDS}


def clamp_display(raw: Any) -> Display:
    """Return display choices from untrusted values, each put into its range."""
    return Display(**from_table(DISPLAY, raw if isinstance(raw, Mapping) else {}))


def differences(one: Scene, other: Scene) -> tuple[str, ...]:
    """Return what differs between two scenes: names of fields, layers and `pins`."""
    names = [f"{part}.{f.name}" for part in ("settings", "display") for f in fields(getattr(one, part))]
    changed = [name for name in names if attrgetter(name)(one) != attrgetter(name)(other)]
    layers = sorted({name for name, *_ in set(one.settings.sites) ^ set(other.settings.sites)})
    return (*changed, *layers, *(["pins"] if one.pins != other.pins else []))


def pack(scene: Scene) -> dict[str, Any]:
    """Return what differs from the defaults, as plain JSON values: settings at the top, `show` and `pins` beside."""
    show = changes(scene.display)
    pins = [
        changes(pin.settings) | ({"name": pin.name} if pin.name else {}) | ({"slot": pin.slot} if pin.slot else {})
        for pin in scene.pins
    ]
    return changes(scene.settings) | ({"show": show} if show else {}) | ({"pins": pins} if pins else {})


def unpack(raw: Mapping[str, Any]) -> Scene:
    """Return a scene from untrusted values: unknown names are dropped, the rest is put into range."""
    listed = raw.get("pins")
    pins: list[Pin] = []
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and len(pins) < MAX_PINS:
            pins.append(_pin(entry, {pin.slot for pin in pins}))
    return Scene(clamp(raw), clamp_display(raw.get("show")), tuple(pins))


def _pin(raw: Mapping[str, Any], taken: set[int]) -> Pin:
    """Return a pin from untrusted values, in a slot that no other has."""
    name, slot = raw.get("name"), raw.get("slot", 0)
    free = [i for i in range(MAX_PINS) if i not in taken]
    return Pin(
        clamp(raw).of_run(),
        printable(name, PIN_NAME_MAX) if isinstance(name, str) else "",
        slot if is_number(slot) and slot in free else free[0],
    )


assert [one.name for one in DISPLAY] == [one.name for one in fields(Display)]
