"""Grids of settings: one or two of them varied, on many images, with several seeds where something is random.

A grid asks for as few runs as it can: where thresholds do not depend on T, all T are read from one run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from explorer.engine.errors import ExplorerError
from explorer.engine.methods.names import CALIBRATION_PARTS, CALIBRATIONS, NAMES, split, with_field
from explorer.limits import limits
from explorer.study.results import Result, alike
from explorer.study.settings import RULES, Settings, with_start

MAX_RUNS, MAX_VALUES, MAX_SEEDS = (256 if limits().free_device else 64), 256, 20
MAX_CELLS = 4096 if limits().free_device else 2048
AS_IT_IS = "as it is"
Value = float | str


class SweepError(ExplorerError):
    """A grid that cannot be run; the message says what to write instead."""


STARTS: dict[str, Callable[[Settings], Settings]] = {
    "zero": lambda s: with_start(s, 0.0),
    "half": lambda s: with_start(s, 0.5),
    "uniform": lambda s: replace(with_start(s, 0.5), start="uniform", spread=0.5),
    "gaussian": lambda s: replace(with_start(s, 0.5), start="gaussian", spread=0.2),
}
METHOD_STARTS = {"zero": "0", "half": "0.5", "uniform": "uniform:0:1", "gaussian": "gaussian:0.5:0.2"}
START_WORDS = {"zero": "zero", "half": "half", "uniform": "uniform in [0, 1)", "gaussian": "Gaussian 0.5 ± 0.2"}


@dataclass(frozen=True)
class Kind:
    """What can be varied: its title with unit; its range where it is a number, else the words to choose from."""

    title: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    words: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether values are numbers."""
        return self.high > self.low


PARTS = {
    "opi": "nothing calibrated",
    "law": "spikes may be taken back",
    **CALIBRATION_PARTS,
}  # of a calibration, in the order in which they are added; a method's field each
CALIBRATED_STARTS, CALIBRATED_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0), (4, 8, 16, 32)

KINDS = {
    "v_init": Kind("v_init (share of θ)", -1.0, 2.0),
    "scale": Kind("threshold scale (factor)", 0.05, 4.0),
    "p": Kind("percentile (%)", 50.0, 100.0),
    "T": Kind("time-steps T", 1, limits().steps, whole=True),
    "method": Kind("method", words=tuple(NAMES)),
    "rule": Kind("threshold rule", words=tuple(RULES)),
    "start": Kind("initial potential", words=tuple(STARTS)),
    "layer": Kind("layer changed"),
    "part": Kind("calibration, parts added one by one", words=tuple(PARTS)),
}
ORDER = ("method", "part", "rule", "p", "scale", "start", "v_init", "layer", "T")  # in which axes act on the settings


@dataclass(frozen=True)
class Axis:
    """One setting that is varied, and the values it takes, in the order in which they are shown."""

    kind: str
    values: tuple[Value, ...]

    @property
    def title(self) -> str:
        """The axis title with its unit."""
        return KINDS[self.kind].title

    def label(self, value: Value) -> str:
        """Return how a value is written."""
        if self.kind == "start":
            return START_WORDS[str(value)]
        if self.kind == "method":
            return NAMES[str(value)].title
        if self.kind == "part":
            return PARTS[str(value)] if value == "opi" else f"+ {PARTS[str(value)]}"
        if self.kind == "rule":
            return RULES[str(value)]
        return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Cell:
    """One point of a grid: the values of its axes, its runs (one a seed), and after how many steps they are read."""

    values: tuple[Value, ...]
    runs: tuple[Settings, ...]
    T: int


@dataclass(frozen=True)
class Sweep:
    """A grid around base. change: what happens to the layer of a `layer` axis: ('scale' or 'v_init', amount)."""

    base: Settings
    axes: tuple[Axis, ...]
    images: int
    seeds: tuple[int, ...] = ()
    change: tuple[str, float] = ("scale", 0.8)

    def cells(self) -> list[Cell]:
        """Return the points of the grid, the last axis fastest.

        Raises:
            SweepError: they are too many.
        """
        points = math.prod(len(axis.values) for axis in self.axes)
        if points > MAX_CELLS:
            raise SweepError(f"The grid has {points:,} cells, at most {MAX_CELLS:,}. Take fewer values.")
        return _cells(self)

    def runs(self) -> list[Settings]:
        """Return the runs that the grid needs, each once.

        Raises:
            SweepError: they, or the cells, are too many.
        """
        found = list(dict.fromkeys(run for cell in self.cells() for run in cell.runs))
        if len(found) > MAX_RUNS:
            raise SweepError(f"The grid needs {len(found)} runs, at most {MAX_RUNS}. Take fewer values or seeds.")
        return found

    def _cell(self, values: tuple[Value, ...]) -> Cell:
        chosen = dict(zip((axis.kind for axis in self.axes), values, strict=True))
        settings = replace(self.base.of_run(), images=self.images)
        for kind in ORDER:
            if kind in chosen and kind != "T":
                settings = self._apply(settings, kind, chosen[kind])
        T = int(chosen.get("T", settings.T))
        own = settings.depends_on_T  # what it finds is for this T
        longest = T if own else max([int(v) for axis in self.axes if axis.kind == "T" for v in axis.values] or [T])
        settings = replace(settings, T=longest)
        seeds = self.seeds or (settings.starts_seed,)
        runs = tuple(settings.seeded(seed) for seed in seeds) if settings.random else (settings,)
        return Cell(values, runs, T)

    def _apply(self, settings: Settings, kind: str, value: Value) -> Settings:
        match kind, value:
            case "v_init", float() | int():
                constant = settings.start == "constant" or bool(settings.method)
                return with_start(settings, float(value)) if constant else replace(settings, v_init=float(value))
            case "scale", float() | int():
                return replace(settings, scale=float(value))
            case "method", str():
                return replace(settings, method=value)
            case "part", str():
                return replace(settings, method=_with_parts(calibration_of(settings), value))
            case "p", float() | int() if settings.method:
                return replace(settings, method=with_field(settings.method, "threshold", f"percentile:{value:g}"))
            case "rule", str() if settings.method:
                return replace(settings, method=with_field(settings.method, "threshold", value))
            case "start", str() if settings.method:
                return replace(settings, method=with_field(settings.method, "v_init", METHOD_STARTS[value]))
            case "p", float() | int():
                return replace(settings, rule="percentile", p=float(value))
            case "rule", str():
                return replace(settings, rule=value)
            case "start", str():
                return STARTS[value](settings)
            case "layer", str() if value != AS_IT_IS:
                scale, v_init = settings.site(value)
                what, amount = self.change
                if what == "scale":
                    return settings.with_site(value, amount * (scale or settings.scale), v_init)
                return settings.with_site(value, scale, amount)
        return settings


@lru_cache(16)
def _cells(sweep: Sweep) -> list[Cell]:
    return [sweep._cell(values) for values in product(*(axis.values for axis in sweep.axes))]


def calibration_of(settings: Settings) -> str:
    """Return the calibration in force, in a line; the one for plain spikes where another method is."""
    return settings.method if split(settings.method)[0] in CALIBRATIONS else "calibrate"


def _parts_of(method: str) -> tuple[str, ...]:
    """Return the parts that a calibration has, in the order in which they are added."""
    key, fields = split(method)
    signed = key == "calibrate-signed"
    steps = fields.get("fit_steps", "0" if signed else "2") != "0"
    absent = {name for name in PARTS if fields.get(name, "false" if name == "fit_weights" else "true") == "false"}
    absent |= (set() if signed else {"law"}) | (set() if steps else {"fit_steps"})
    return tuple(name for name in PARTS if name not in absent)


def _with_parts(method: str, last: str) -> str:
    """Return a calibration with its parts up to one of them, without the later ones."""
    parts = _parts_of(method)
    for name in parts[parts.index(last) + 1 :]:
        value = {"law": "integrate_and_fire", "fit_steps": "0"}.get(name, "false")
        method = with_field(method, name, value)
    return method


@dataclass(frozen=True, eq=False)
class Reading:
    """One cell as measured: share of right answers after T steps, mean over seeds and its deviation, on n images.

    right: share of seeds in which each image is answered rightly, float [n]. deviation: None with one seed.
    """

    cell: Cell
    n: int
    mean: float
    deviation: float | None
    right: np.ndarray
    seeds: int
    labelled: bool
    ann: float


def read(sweep: Sweep, known: Mapping[Settings, Result]) -> list[Reading | None]:
    """Return the cells in order, all on the same first images; None where a run has not begun."""
    runs = sweep.runs()
    alikes = dict(zip(runs, alike([known[run] for run in runs]), strict=True))
    found: list[Reading | None] = []
    for cell in sweep.cells():
        results = [alikes[run] for run in cell.runs]
        if not all(result.images for result in results):
            found.append(None)
            continue
        each = np.stack([result.right[:, cell.T - 1] for result in results]).astype(float)
        shares = each.mean(1)
        found.append(
            Reading(
                cell,
                results[0].images,
                float(shares.mean()),
                float(shares.std(ddof=1)) if len(results) > 1 else None,
                each.mean(0),
                len(results),
                results[0].labelled,
                results[0].ann_top1,
            )
        )
    return found


def seconds_left(sweep: Sweep, known: Mapping[Settings, Result]) -> float | None:
    """Return an estimate of the machine time that these runs still need; None before anything was measured."""
    paces = {run: result.seconds.mean() / run.T for run, result in known.items() if result.images}
    if not paces:
        return None
    usual = float(np.mean(list(paces.values())))
    return sum(max(0, sweep.images - one.images) * run.T * paces.get(run, usual) for run, one in known.items())


def parse(kind: str, text: str, layers: Sequence[str] = ()) -> tuple[Value, ...]:
    """Return the values that a text lists: `0, 0.25, 0.5`, `0:1:0.1` (from, to, step), `4:64:*2`, or words.

    For layers, an empty text means all of them, each changed alone, beside none changed.

    Raises:
        SweepError: it does not read so, or a value is out of range.
    """
    rule = KINDS[kind]
    if kind == "layer" and not text.strip():
        return (AS_IT_IS, *layers)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise SweepError(f"{rule.title}: no value. Write {_example(kind, layers)}.")
    if not rule.is_number:
        words = (AS_IT_IS, *layers) if kind == "layer" else rule.words
        wrong = next((part for part in parts if part not in words), None)
        if wrong is not None:
            raise SweepError(f"{rule.title}: {wrong!r} is none of {', '.join(words[:8])}.")
        return tuple(dict.fromkeys([AS_IT_IS, *parts] if kind == "layer" else parts))
    values = list(dict.fromkeys(value for part in parts for value in _numbers(kind, part)))
    if len(values) > MAX_VALUES:
        raise SweepError(f"{rule.title}: {len(values)} values, at most {MAX_VALUES}. Take a larger step.")
    return tuple(values)


def _numbers(kind: str, part: str) -> Iterator[float]:
    rule = KINDS[kind]
    ends = part.split(":")
    try:
        low, high = float(ends[0]), float(ends[min(1, len(ends) - 1)])
        times = len(ends) == 3 and ends[2].startswith("*")
        step = float(ends[2].lstrip("*")) if len(ends) == 3 else 1.0
    except ValueError:
        raise SweepError(f"{rule.title}: {part!r} cannot be read. Write {_example(kind)}.") from None
    bad = len(ends) > 3 or not np.isfinite([low, high, step]).all() or step <= (1 if times else 0) or low > high
    if bad or (times and low <= 0):
        raise SweepError(f"{rule.title}: {part!r} is no range. Write {_example(kind)}.")
    if not times and (high - low) / step > MAX_VALUES:
        raise SweepError(f"{rule.title}: {part!r} has more values than the {MAX_VALUES} at most. Take a larger step.")
    value, i = low, 0
    while value <= high + 1e-9 * max(1.0, abs(high)):
        shown = round(value, 9)
        if not rule.low <= shown <= rule.high or (rule.whole and shown != round(shown)):
            whole = "whole numbers " if rule.whole else ""
            raise SweepError(f"{rule.title}: {whole}{rule.low:g} to {rule.high:g}, got {shown:g}.")
        yield int(shown) if rule.whole else shown
        i += 1
        value = low * step**i if times else low + i * step


def _example(kind: str, layers: Sequence[str] = ()) -> str:
    if not KINDS[kind].is_number:
        return ", ".join((KINDS[kind].words or tuple(layers))[:3])
    return {"T": "8, 16, 32 or 4:64:*2", "p": "99, 99.9, 99.99 or 95:100:1"}.get(kind, "0, 0.25, 0.5 or 0:1:0.1")


def seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a text lists: `0, 1, 2` or `0:4`.

    Raises:
        SweepError: it does not read so, or they are too many.
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition(":")
        if not first.isdecimal() or not (last or first).isdecimal() or max(len(first), len(last)) > 4:
            raise SweepError(f"Seeds: {part!r} cannot be read. Write 0, 1, 2 or 0:4 (whole numbers from 0 to 9999).")
        found += range(int(first), int(last or first) + 1)
    found = list(dict.fromkeys(found))
    if len(found) > MAX_SEEDS:
        raise SweepError(f"Seeds: {len(found)}, at most {MAX_SEEDS}.")
    return tuple(found)


def preset(kind: str, base: Settings, layers: Sequence[str]) -> Sweep | None:
    """Return a ready grid around these settings, by its name in `scene.ABLATIONS`; None where there is no such grid."""
    calibration = calibration_of(base)
    if kind == "parts":
        return Sweep(replace(base, method=calibration), (Axis("part", _parts_of(calibration)),), base.images)
    if kind == "calibrated":
        few = Axis("T", tuple(T for T in CALIBRATED_STEPS if limits().steps >= T))
        return Sweep(replace(base, method=calibration), (Axis("v_init", CALIBRATED_STARTS), few), base.images)
    steps = Axis("T", tuple(range(1, base.T + 1)))
    layer = Axis("layer", (AS_IT_IS, *layers))
    axes: dict[str, tuple[Axis, ...]] = {
        "v_init": (Axis("v_init", tuple(round(0.1 * i, 1) for i in range(11))), steps),
        "start": (Axis("start", tuple(STARTS)), steps),
        "percentile": (Axis("p", (95.0, 97.0, 98.0, 99.0, 99.5, 99.9, 99.99, 100.0)), steps),
        "scale": (layer,),
        "potential": (layer,),
    }
    if kind not in axes:
        return None
    constant = replace(base, start="constant") if kind == "v_init" else base
    change = ("v_init", 0.0) if kind == "potential" else ("scale", 0.8)
    return Sweep(constant, axes[kind], base.images, (), change)
