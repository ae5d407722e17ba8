"""What a link carries: the settings, how the pages show them, and the pinned runs to compare with.

`Display` never enters a simulation: it is how a page looks at results, and the theory page's one neuron.
This module knows neither Streamlit nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from explorer.study.settings import TABLE, Field, Settings, changes, clamp, from_table

MAX_PINS = 4
ABLATIONS = {
    "none": "None",
    "v_init": "v_init by T",
    "start": "Initialisation kinds",
    "percentile": "Threshold percentile by T",
    "scale": "One layer's threshold",
    "potential": "One layer's potential",
}
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
        "ablation",
        "Ablation",
        "none",
        "Runs many settings side by side on your evaluation images, refined live.",
        options=ABLATIONS,
    ),
    Field("log_axis", "Logarithmic T axis", True, "Shows the first steps as wide as the many last ones."),
    Field(
        "published",
        "Published OPI figures",
        True,
        "Bu et al. 2022, full CIFAR-10 test set, networks trained with their recipe; ours are other weights and fewer "
        "images.",
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
        "Only images on which the SNN errs",
        False,
        "Among the first images of the present settings: the label is missed, or, of images without labels, the ANN's "
        "answer.",
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
    ablation: str = "none"
    log_axis: bool = True
    published: bool = True
    squared: bool = False
    only_wrong: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything that decides what is on screen, except which page."""

    settings: Settings = field(default_factory=Settings)
    display: Display = field(default_factory=Display)
    pins: tuple[Settings, ...] = ()


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
    pins = [changes(pin) for pin in scene.pins]
    return changes(scene.settings) | ({"show": show} if show else {}) | ({"pins": pins} if pins else {})


def unpack(raw: Mapping[str, Any]) -> Scene:
    """Return a scene from untrusted values: unknown names are dropped, the rest is put into range."""
    pins = raw.get("pins")
    kept = [clamp(pin).look() for pin in pins if isinstance(pin, Mapping)] if isinstance(pins, list) else []
    return Scene(clamp(raw), clamp_display(raw.get("show")), tuple(kept[:MAX_PINS]))


assert [one.name for one in DISPLAY] == [one.name for one in fields(Display)]
