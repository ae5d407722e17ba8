"""A grid as a paper needs it: rows, CSV, a LaTeX table, and a paragraph on what was done."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from explorer.engine.methods import names
from explorer.engine.neurons import INTEGRATE_AND_FIRE, LAWS
from explorer.engine.theory import wilson
from explorer.study import keys, nouns
from explorer.study.settings import PER, Settings
from explorer.study.statistics import Comparison, adjusted, compare
from explorer.study.sweep import AS_IT_IS, Reading, Sweep


@dataclass(frozen=True, eq=False)
class Row:
    """One cell: its labels, its reading, its Wilson interval (one seed), and its comparison with the reference."""

    labels: tuple[str, ...]
    reading: Reading
    low: float
    high: float
    against: Comparison | None = None
    adjusted: float | None = None


def rows(sweep: Sweep, readings: Sequence[Reading | None], reference: int | None = 0) -> list[Row]:
    """Return the cells that are known; compared with the cell of this number, or with none (fast, while refining)."""
    base = readings[reference] if reference is not None and reference < len(readings) else None
    found, others = [], []
    for reading in readings:
        if reading is None:
            continue
        labels = tuple(axis.label(v) for axis, v in zip(sweep.axes, reading.cell.values, strict=True))
        low, high = wilson(reading.right.sum(), reading.n)
        found.append(Row(labels, reading, float(low), float(high)))
        others.append(None if base is None or reading is base else compare(reading.right, base.right))
    ps = adjusted([None if other is None else other.p for other in others])
    return [
        Row(row.labels, row.reading, row.low, row.high, other, p)
        for row, other, p in zip(found, others, ps, strict=True)
    ]


HEAD = (
    *("images", "seeds", "top1", "deviation", "low95", "high95", "ann_top1"),
    *("difference", "difference_low95", "difference_high95", "gained", "lost", "p_mcnemar", "p_adjusted", "labelled"),
)


def grid_csv(sweep: Sweep, table: Sequence[Row]) -> str:
    """Return the grid as CSV: a line a cell, shares in 0..1."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*(axis.kind for axis in sweep.axes), *HEAD])
    for row in table:
        r, c = row.reading, row.against
        against = [""] * 5 if c is None else [*map(_six, (c.difference, c.low, c.high)), c.gained, c.lost]
        writer.writerow(
            [
                *row.labels,
                *(r.n, r.seeds, _six(r.mean), _six(r.deviation), _six(row.low), _six(row.high), _six(r.ann)),
                *against,
                *(_six(None if c is None else c.p), _six(row.adjusted), r.labelled),
            ]
        )
    return out.getvalue()


def _interval(c: Comparison) -> str:
    difference, low, high = (f"${100 * x:+.2f}$" for x in (c.difference, c.low, c.high))
    return f"{difference} [{low}, {high}]"


def _six(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def latex(sweep: Sweep, table: Sequence[Row], caption: str = "") -> str:
    """Return the grid as a LaTeX table (booktabs); accuracy in per cent, differences in percentage points."""
    seeds = any(row.reading.deviation is not None for row in table)
    labelled = all(row.reading.labelled for row in table)
    what = "top-1" if labelled else "agreement"
    head = [*(_tex(axis.title) for axis in sweep.axes), rf"{what} (\%)", r"95\,\% interval", "difference (pp)", "$p$"]
    lines = []
    for row in table:
        r, c = row.reading, row.against
        spread = rf" $\pm$ {100 * r.deviation:.2f}" if seeds and r.deviation is not None else ""
        lines.append(
            [
                *map(_tex, row.labels),
                f"{100 * r.mean:.2f}{spread}",
                f"{100 * row.low:.2f} to {100 * row.high:.2f}",
                "reference" if c is None else _interval(c),
                "" if row.adjusted is None else (f"{row.adjusted:.3f}" if row.adjusted >= 0.001 else "$<$ 0.001"),
            ]
        )
    first, *rest = (" & ".join(line) + r" \\" for line in [head, *lines])
    columns = "l" * len(sweep.axes) + "rrrr"
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{_tex(caption)}}}",
            f"  \\begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            f"    {first}",
            r"    \midrule",
            *(f"    {line}" for line in rest),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


TEX = {
    **{plain: f"\\{plain}" for plain in "&%#_{}$"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "θ": r"$\theta$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


def methods(sweep: Sweep, table: Sequence[Row], device: str, note: str = "") -> str:
    """Return a paragraph on what was done: network, images, thresholds, potentials, grid, statistics, versions."""
    s = sweep.base
    labelled = all(row.reading.labelled for row in table)
    n = table[0].reading.n if table else 0
    varied = " and ".join(
        f"{axis.title} ({', '.join(axis.label(v) for v in axis.values[:24])}{', …' if len(axis.values) > 24 else ''})"
        for axis in sweep.axes
    )
    random = any(run.random for cell in sweep.cells() for run in cell.runs)
    seeds = sweep.seeds or (s.starts_seed,)
    kinds = {axis.kind for axis in sweep.axes}
    T_note = "" if "T" in kinds else f" Each image was shown for T = {nouns.count(s.T, 'time-step')}."
    images = nouns.count(n, "image")
    measured = "Top-1 accuracy" if labelled else "Agreement with the ANN's class"
    parts = [
        *_conversion(s, kinds),
        f"Varied: {varied}.{_change(sweep)}{T_note}",
        f"{measured} was measured on the first {images} of {_source(s)}{f' ({note})' if note else ''}, "
        "the same ones in every cell.",
        f"The ANN reaches {100 * table[0].reading.ann:.2f} % on them." if labelled and table else "",
        f"Random initial potentials were drawn with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; "
        "given are mean and standard deviation over seeds."
        if random
        else "Nothing in it is random.",
        "Cells were compared with the reference cell image by image: difference with a 95 % percentile bootstrap "
        "interval over images (2,000 resamples), and, for single seeds, McNemar's exact test, adjusted for their "
        "number by Benjamini and Hochberg.",
        f"Simulated on {device or 'the CPU'}, {version()}.",
    ]
    return " ".join(filter(None, parts)) + "\n"


def _conversion(s: Settings, kinds: set[str]) -> list[str]:
    """Return how the network became a spiking one: the neuron, thresholds and starts, or the method."""
    if not s.method and "method" not in kinds:
        law = "integrate-and-fire" if s.law == INTEGRATE_AND_FIRE.name else LAWS[s.law].title.lower()
        return [
            f"The network {keys.label(s.network)} was converted to a spiking network of {law} neurons with "
            "soft reset (v(t) = v(t-1) + x(t), a spike and v - theta where v >= theta, v(0) = v_init theta), constant "
            "input current, and class scores averaged over time.",
            _thresholds(s, kinds),
            _start(s, kinds),
        ]
    told = f"The network {keys.label(s.network)} was converted to a spiking network, constant input current, by "
    if "method" in kinds:
        return [f"{told}the methods compared, each with its own thresholds, starts and neurons unless varied."]
    scale = "" if s.scale == 1 or "scale" in kinds else f" Its thresholds were multiplied by {s.scale:g}."
    layers = f" Layers with settings of their own: {_sites(s)}." if s.sites else ""
    fitted = ", fitted anew for every T" if s.depends_on_T else ""
    from explorer.engine.methods import parse

    method = parse(s.method)
    return [
        f"{told}the method “{names.title(s.method)}” ({method.citation}), as implemented by this explorer under the "
        f"name {s.method}{fitted}, on at most {method.images} calibration images.{scale}{layers}"
    ]


def _source(s: Settings) -> str:
    return "the CIFAR-10 test set" if s.source == Settings().source else keys.label(s.source)


def _thresholds(s: Settings, kinds: set[str]) -> str:
    per = PER[s.per]
    rule = {
        "percentile": f"the {s.p:g}th percentile of the activations ({per})",
        "max": f"the largest activation ({per})",
        "clip": "the clip that the network was trained with",
        "mse": f"the value of least squared error of the T-step staircase ({per})",
    }[s.rule]
    if kinds & {"rule", "p"}:
        rule = f"varied ({per}; the percentile rule takes {s.p:g} % where the grid names no other)"
    found = "" if s.rule == "clip" and "rule" not in kinds else ", found on 256 calibration images"
    scale = "" if s.scale == 1 or "scale" in kinds else f", times {s.scale:g}"
    layers = f" Layers with settings of their own: {_sites(s)}." if s.sites else ""
    return f"Thresholds were {rule}{scale}{found}.{layers}"


def _sites(s: Settings) -> str:
    return "; ".join(
        name
        + ("" if scale is None else f" threshold scale {scale:g}")
        + ("" if v_init is None else f" v_init {v_init:g}")
        for name, scale, v_init in s.sites
    )


def _start(s: Settings, kinds: set[str]) -> str:
    if kinds & {"v_init", "start"}:
        return "The initial potential was varied."
    return {
        "constant": f"The initial potential was {s.v_init:g} of the threshold.",
        "uniform": f"The initial potential was uniform, {s.v_init:g} ± {s.spread:g} of the threshold.",
        "gaussian": f"The initial potential was normal, mean {s.v_init:g} and deviation {s.spread:g} of the threshold.",
    }[s.start]


def _change(sweep: Sweep) -> str:
    if not any(axis.kind == "layer" for axis in sweep.axes):
        return ""
    what, amount = sweep.change
    told = f"its threshold times {amount:g}" if what == "scale" else f"its v_init {amount:g}"
    return f" One layer at a time was changed ({told}); “{AS_IT_IS}” is the network without that."


def version() -> str:
    """Return the versions that the numbers rest on."""
    names = ("torch", "numpy", "numba")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"conversion explorer {_own_version()}, Python {platform.python_version()}, {found}"


def _own_version() -> str:
    try:
        return metadata.version("snn-conversion-explorer")
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        try:
            text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
            return str(tomllib.loads(text)["project"]["version"])
        except (OSError, ValueError, KeyError):
            return "(version unknown)"
