"""The one table of settings: it drives widgets, clamping, the share link, presets and the exported script.

`Settings` is frozen and hashable: together with the images it names, it decides every number on screen.
This module knows neither Streamlit nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from explorer.engine.methods import names
from explorer.engine.neurons import INTEGRATE_AND_FIRE, LAWS
from explorer.limits import limits
from explorer.study import keys, nouns

RULES = {
    "percentile": "Percentile of the activations",
    "max": "Largest activation",
    "clip": "Trained clip",
    "mse": "Least squared error at T",
}
STARTS = {"constant": "Constant", "uniform": "Uniform random", "gaussian": "Gaussian random"}
DEVICES = {"auto": "Automatic"} | ({"cpu": "CPU", "cuda": "CUDA GPU"} if limits().free_device else {})
PER = {"site": "one per layer", "channel": "one per channel"}
MAX_SITES, METHOD_MAX = 400, 240


@dataclass(frozen=True)
class Field:
    """One setting: how it is named, what it may be, where it starts, and what to tell the visitor."""

    name: str
    label: str
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    options: Mapping[str, str] | None = None

    def clamp(self, value: Any) -> Any:
        """Return the nearest allowed value; the default where there is none (wrong type, not finite)."""
        if self.options is not None:
            return value if isinstance(value, str) and value in self.options else self.default
        if self.name == "source" and isinstance(value, str) and not limits().admits_source(value):
            return self.default
        if self.name == "method":
            return tidy(value)
        if isinstance(self.default, str):
            return printable(value, 300) if isinstance(value, str) else self.default
        if isinstance(self.default, bool):
            return value if isinstance(value, bool) else self.default
        if not is_number(value):
            return self.default
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        value = min(max(value, low), high)
        return round(value) if isinstance(self.default, int) else float(value)


def printable(text: str, most: int) -> str:
    """Return a text from outside without control characters and what is no character at all, cut to a length."""
    return "".join(letter for letter in text if letter.isprintable())[:most]


def tidy(method: Any) -> str:
    """Return a method in a line as it may stand in settings; "" for what names no method."""
    text = printable(method, METHOD_MAX) if isinstance(method, str) else ""
    key, fields = names.split(text)
    return names.joined(key, fields) if key in names.NAMES else ""


def is_number(value: Any) -> bool:
    """Tell whether a value from outside is a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


TABLE = (
    Field("network", "Network", "resnet20-relu", "The network that is converted. “More…” takes your own."),
    Field(
        "source",
        "Images",
        "embedded",
        "What the networks are shown. Pictures without labels give no accuracy: the curves then show how often the "
        "spiking network agrees with the ANN. A CIFAR-10 network shown such pictures is still calibrated on CIFAR-10's "
        "training images; any other network on the pictures themselves.",
    ),
    Field(
        "images",
        "Evaluation images",
        256,
        "Accuracy is measured on this many images, some at a time.",
        16,
        limits().images,
        16,
    ),
    Field(
        "T", "Time-steps T", 32, "How long every image is shown to the spiking network, in steps.", 1, limits().steps, 1
    ),
    Field(
        "rule",
        "Threshold rule",
        "percentile",
        "How thresholds come from activations of calibration images. A network trained with a clip brings its own.",
        options=RULES,
    ),
    Field(
        "p",
        "Percentile",
        99.9,
        "Share of activations (zeros included) that lie below the threshold, in percent.",
        50.0,
        100.0,
        0.01,
    ),
    Field(
        "per", "Thresholds", "site", "One threshold for the whole layer, or one for each of its channels.", options=PER
    ),
    Field(
        "scale",
        "Threshold scale",
        1.0,
        "Multiplies the calibrated thresholds, except of layers with a scale of their own.",
        0.1,
        3.0,
        0.05,
    ),
    Field(
        "method",
        "Conversion method",
        "",
        "One of the literature's methods, with its own thresholds, starts and neurons; or none: then thresholds and "
        "potentials are as chosen below. Scale and changes of single layers act on top of what a method finds.",
    ),
    Field(
        "law",
        "Neuron",
        INTEGRATE_AND_FIRE.name,
        "What a neuron does in a step. Signed ones take a spike back when they have sent too much, because charge that "
        "came early was taken back later.",
        options={law.name: law.title for law in LAWS.values()},
    ),
    Field(
        "start",
        "Initial potential",
        "constant",
        "What v(0) is: the same share of the threshold everywhere, or random.",
        options=STARTS,
    ),
    Field(
        "v_init",
        "v_init (share of the threshold)",
        0.5,
        "Initial potential v(0) = v_init × θ. OPI's choice is one half. For random starts: the mean.",
        -0.5,
        1.5,
        0.05,
    ),
    Field(
        "spread",
        "Spread (share of the threshold)",
        0.5,
        "Uniform: half the width of the interval. Gaussian: the standard deviation.",
        0.0,
        1.0,
        0.05,
    ),
    Field("seed", "Seed", 0, "Fixes the random initial potentials.", 0, 9999, 1),
    Field(
        "device", "Device", "auto", "Where the simulation runs. Automatic takes CUDA if it is there.", options=DEVICES
    ),
    Field("image", "Image number", 0, "Which evaluation image the single-image plots show.", 0, 9999, 1),
    Field("layer", "Layer", "", "The site (one ReLU call) whose neuron and rates are shown. Empty: chosen for you."),
    Field("channel", "Channel", 0, "Channel of the neuron.", 0, 4095, 1),
    Field("row", "Row", 0, "Row of the neuron in its feature map.", 0, 1023, 1),
    Field("column", "Column", 0, "Column of the neuron in its feature map.", 0, 1023, 1),
)
BY_NAME = {field.name: field for field in TABLE}
SCALE_RANGE, V_INIT_RANGE = (0.05, 4.0), (-1.0, 2.0)


@dataclass(frozen=True)
class Settings:
    """Everything the screen depends on. sites: (name, scale or None, v_init or None) per changed layer, sorted."""

    network: str = "resnet20-relu"
    source: str = "embedded"
    images: int = 256
    T: int = 32
    rule: str = "percentile"
    p: float = 99.9
    per: str = "site"
    scale: float = 1.0
    method: str = ""
    law: str = INTEGRATE_AND_FIRE.name
    start: str = "constant"
    v_init: float = 0.5
    spread: float = 0.5
    seed: int = 0
    device: str = "auto"
    image: int = 0
    layer: str = ""
    channel: int = 0
    row: int = 0
    column: int = 0
    sites: tuple[tuple[str, float | None, float | None], ...] = ()

    def site(self, name: str) -> tuple[float | None, float | None]:
        """Return (scale, v_init) of one layer; None where it follows the whole network."""
        return next(((scale, v_init) for site, scale, v_init in self.sites if site == name), (None, None))

    def with_site(self, name: str, scale: float | None, v_init: float | None) -> Settings:
        """Return a copy in which one layer has these settings."""
        rest = [entry for entry in self.sites if entry[0] != name]
        if scale is not None or v_init is not None:
            rest.append((name, scale, v_init))
        return replace(self, sites=tuple(sorted(rest, key=lambda entry: entry[0])))

    def of_run(self) -> Settings:
        """Return the settings without what only chooses the single image and neuron: equal ones share a simulation."""
        return replace(self, image=0, layer="", channel=0, row=0, column=0)

    @property
    def depends_on_T(self) -> bool:
        """Whether thresholds or whatever else a method finds are made for one T."""
        if self.method:
            return not names.anytime(self.method)
        return self.rule == "mse"

    @property
    def random(self) -> bool:
        """Whether starts are drawn by the seed."""
        if not self.method:
            return self.start != "constant"
        return names.split(self.method)[1].get("v_init", "").startswith(("uniform", "gaussian"))

    @property
    def starts_seed(self) -> int:
        """The seed by which starts are drawn: the method's own where one is in force."""
        told = names.split(self.method)[1].get("seed", "0") if self.method else ""
        return int(told) if told.isdecimal() else self.seed

    def seeded(self, seed: int) -> Settings:
        """Return a copy with another seed."""
        if not self.method:
            return replace(self, seed=seed)
        return replace(self, method=names.with_field(self.method, "seed", str(seed) if seed else None))

    def describe(self) -> str:
        """Return one line that names the run: for captions, pins and exports."""
        scale = "" if self.scale == 1 else f", θ × {self.scale:g}"
        layers = ""
        if len(self.sites) == 1:
            layers = f", {self._changed()}"
        elif self.sites:
            layers = f", {len(self.sites)} layers changed"
        if self.method:
            fitted = f", fitted for T = {self.T}" if self.depends_on_T else ""
            return f"{keys.label(self.network)}, {names.title(self.method)}{fitted}{scale}{layers}"
        rule = {"percentile": f"p{self.p:g}", "max": "max", "clip": "trained clip", "mse": "least squares"}[self.rule]
        per = " per channel" if self.per == "channel" and self.rule != "clip" else ""
        v_init = {"constant": f"v_init {self.v_init:g}"}.get(
            self.start, f"{self.start} v_init {self.v_init:g} ± {self.spread:g}, seed {self.seed}"
        )
        law = "" if self.law == INTEGRATE_AND_FIRE.name else f", {LAWS[self.law].title.lower()}"
        return f"{keys.label(self.network)}, {rule}{per}{scale}{law}, {v_init}{layers}"

    def _changed(self) -> str:
        return ", ".join(
            name + ("" if scale is None else f" θ × {scale:g}") + ("" if v_init is None else f" v_init {v_init:g}")
            for name, scale, v_init in self.sites
        )

    def note(self, images: int | None = None) -> str:
        """Return the line a figure is exported with: all settings, and the images or the one neuron it shows."""
        layers = self._changed() if len(self.sites) > 1 else ""
        neuron = f", {self.layer}, channel {self.channel}, row {self.row}, column {self.column}" if self.layer else ""
        shown = f"image {self.image}{neuron}" if images is None else nouns.count(images, "image")
        return f"{self.describe()}{f' ({layers})' if layers else ''}, T = {self.T}; {keys.label(self.source)}: {shown}"


def _clamp_share(value: Any, span: tuple[float, float]) -> float | None:
    return float(min(max(value, span[0]), span[1])) if is_number(value) else None


def clamp_sites(raw: Any) -> tuple[tuple[str, float | None, float | None], ...]:
    """Return per-layer settings with every entry in its range; entries that are no settings are left out."""
    entries = {}
    for entry in list(raw)[:MAX_SITES] if isinstance(raw, list | tuple) else ():
        if isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], str):
            scale, v_init = _clamp_share(entry[1], SCALE_RANGE), _clamp_share(entry[2], V_INIT_RANGE)
            if scale is not None or v_init is not None:
                name = printable(entry[0], 200)
                entries[name] = (name, scale, v_init)
    return tuple(entries[name] for name in sorted(entries))


def from_table(table: tuple[Field, ...], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every field of a table from untrusted ones, each put into its range."""
    return {field.name: field.clamp(raw.get(field.name, field.default)) for field in table}


def clamp(raw: Mapping[str, Any]) -> Settings:
    """Return settings from untrusted values: unknown names are dropped, the rest is put into range."""
    return Settings(**from_table(TABLE, raw), sites=clamp_sites(raw.get("sites", ())))


def changes(chosen: Any) -> dict[str, Any]:
    """Return what differs from the defaults of a dataclass (as `Settings`), as plain JSON values."""
    plain, default = asdict(chosen), asdict(type(chosen)())
    return {name: value for name, value in plain.items() if value != default[name]}


def with_start(settings: Settings, v_init: float) -> Settings:
    """Return a copy in which every potential starts at this share of its threshold; thresholds stay as they are."""
    sites = tuple((name, scale, None) for name, scale, _ in settings.sites if scale is not None)
    if settings.method:
        return replace(settings, method=names.with_start(settings.method, f"{v_init:g}"), sites=sites)
    return replace(settings, start="constant", v_init=v_init, sites=sites)


def zero_start(settings: Settings) -> Settings:
    """The usual conversion before OPI: every potential starts at zero, thresholds as calibrated."""
    return replace(with_start(replace(settings, method=""), 0.0), scale=1.0, sites=())


def opi(settings: Settings) -> Settings:
    """OPI: every potential starts at half its threshold, thresholds as calibrated. [Bu2022]"""
    return replace(with_start(replace(settings, method=""), 0.5), scale=1.0, sites=())


PRESETS = {"Zero start": zero_start, "OPI, half threshold": opi}

assert [field.name for field in TABLE] == [field.name for field in fields(Settings)][:-1]
