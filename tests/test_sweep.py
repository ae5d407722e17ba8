"""Grids: what values mean, which runs they need, how they are read, compared and written down."""

import csv
import io
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine import methods
from explorer.engine.methods import names
from explorer.plots import paper
from explorer.study import report, statistics, sweep
from explorer.study.compare import distinct
from explorer.study.results import Result
from explorer.study.script import Line, script
from explorer.study.settings import Settings
from explorer.study.sweep import AS_IT_IS, KINDS, Axis, Sweep, SweepError
from explorer.ui.panels import grid
from explorer.ui.panels import paper as files
from explorer.ui.panels.exports import GridShown, Shown

BASE = Settings(images=16, T=8)
LAYERS = ("act1", "act2")


@pytest.mark.parametrize(
    ("kind", "text", "values"),
    [
        ("v_init", "0, 0.25,0.5", (0.0, 0.25, 0.5)),
        ("v_init", "0:1:0.1", tuple(round(0.1 * i, 1) for i in range(11))),
        ("v_init", "-0.5:0:0.25, 0, 1", (-0.5, -0.25, 0.0, 1.0)),
        ("p", "99.9, 99.99, 99.999", (99.9, 99.99, 99.999)),
        ("T", "4:64:*2", (4, 8, 16, 32, 64)),
        ("T", "1:3", (1, 2, 3)),
        ("scale", "0.5:0.7:0.1", (0.5, 0.6, 0.7)),
        ("start", "zero, half", ("zero", "half")),
        ("rule", "max,percentile", ("max", "percentile")),
        ("layer", "", (AS_IT_IS, "act1", "act2")),
        ("layer", "act2", (AS_IT_IS, "act2")),
    ],
)
def test_values_are_read(kind, text, values):
    assert sweep.parse(kind, text, LAYERS) == values


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("v_init", "", "no value"),
        ("v_init", "many", "cannot be read. Write 0, 0.25"),
        ("v_init", "0:1:0", "no range"),
        ("v_init", "1:0:0.1", "no range"),
        ("v_init", "nan", "no range"),
        ("v_init", "0:1:1e-9", "at most"),
        ("v_init", "3", "-1 to 2, got 3"),
        ("T", "0.5", "whole numbers 1 to 256, got 0.5"),
        ("T", "4:64:*1", "no range"),
        ("T", "300", "1 to 256"),
        ("p", "99:101:1", "50 to 100"),
        ("start", "thirds", "none of zero, half"),
        ("layer", "nowhere", "none of as it is, act1"),
        ("scale", "1:2:3:4", "no range"),
    ],
)
def test_values_that_cannot_be_run_are_explained(kind, text, words):
    with pytest.raises(SweepError, match=re.escape(words)):
        sweep.parse(kind, text, LAYERS)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.text("0123456789.:*,-+einfa zerohalf", max_size=30))
def test_whatever_is_typed_is_read_or_explained(kind, text):
    try:
        values = sweep.parse(kind, text, LAYERS)
    except SweepError as error:
        assert len(str(error)) > 20
    else:
        assert values and len(set(values)) == len(values) <= sweep.MAX_VALUES


@pytest.mark.parametrize(("text", "found"), [("0", (0,)), ("0, 1,7", (0, 1, 7)), ("0:3", (0, 1, 2, 3)), ("", ())])
def test_seeds_are_read(text, found):
    assert sweep.seeds(text) == found


@pytest.mark.parametrize("text", ["a", "1.5", "-1", "0:9999", "1:2:3"])
def test_seeds_that_are_none_are_explained(text):
    with pytest.raises(SweepError, match="Seeds"):
        sweep.seeds(text)


def test_all_times_are_read_from_one_run_unless_thresholds_depend_on_them():
    axes = (Axis("v_init", (0.0, 0.5)), Axis("T", (2, 4, 8)))
    cells = Sweep(BASE, axes, 32).cells()
    assert [(c.values, c.T) for c in cells[:3]] == [((0.0, 2), 2), ((0.0, 4), 4), ((0.0, 8), 8)]
    assert {run.T for run in Sweep(BASE, axes, 32).runs()} == {8} and len(Sweep(BASE, axes, 32).runs()) == 2
    own = Sweep(replace(BASE, rule="mse"), axes, 32)
    assert sorted(run.T for run in own.runs()) == [2, 2, 4, 4, 8, 8] and all(run.images == 32 for run in own.runs())


@pytest.mark.parametrize(
    ("axis", "base", "expected"),
    [
        (Axis("v_init", (0.3,)), BASE, {"v_init": 0.3, "start": "constant"}),
        (Axis("v_init", (0.3,)), replace(BASE, start="uniform"), {"v_init": 0.3, "start": "uniform"}),
        (Axis("scale", (1.5,)), BASE, {"scale": 1.5}),
        (Axis("p", (99.0,)), replace(BASE, rule="max"), {"p": 99.0, "rule": "percentile"}),
        (Axis("rule", ("mse",)), BASE, {"rule": "mse"}),
        (Axis("start", ("gaussian",)), BASE, {"start": "gaussian", "spread": 0.2}),
        (Axis("T", (5,)), BASE, {"T": 5}),
    ],
)
def test_every_axis_acts_on_its_setting(axis, base, expected):
    (run,) = Sweep(base, (axis,), 64).runs()
    assert {name: getattr(run, name) for name in expected} == expected and run.images == 64


def test_a_layer_is_changed_alone_and_keeps_what_it_had():
    base = replace(BASE, scale=2.0, sites=(("act2", None, 0.1),))
    plain, one, two = Sweep(base, (Axis("layer", (AS_IT_IS, *LAYERS)),), 16, change=("scale", 0.5)).runs()
    assert plain.sites == base.sites
    assert one.site("act1") == (1.0, None) and one.site("act2") == (None, 0.1) and two.site("act2") == (1.0, 0.1)
    *_, last = Sweep(base, (Axis("layer", (AS_IT_IS, "act2")),), 16, change=("v_init", 0.7)).runs()
    assert last.site("act2") == (None, 0.7)


def test_seeds_matter_to_random_starts_only():
    axes = (Axis("start", ("half", "uniform")),)
    runs = Sweep(BASE, axes, 16, (0, 1, 2)).runs()
    assert len(runs) == 4 and {run.seed for run in runs if run.start == "uniform"} == {0, 1, 2}


def test_too_many_runs_are_refused():
    axes = (Axis("v_init", tuple(i / 100 for i in range(100))), Axis("scale", (0.5, 1.0, 1.5)))
    with pytest.raises(SweepError, match="300 runs, at most 256"):
        Sweep(BASE, axes, 16).runs()


def test_too_many_cells_are_refused_before_they_are_made():
    axes = (Axis("v_init", tuple(i / 100 for i in range(60))), Axis("T", tuple(range(1, 101))))
    with pytest.raises(SweepError, match="6,000 cells, at most 4,096"):
        Sweep(BASE, axes, 16).cells()


@pytest.mark.parametrize(
    "base", [replace(BASE, seed=3, start="uniform"), replace(BASE, method="opi:v_init=uniform:0:1,seed=3")]
)
def test_the_seed_in_force_stays_unless_others_are_asked_for_and_names_tell_them_apart(base):
    axes = (Axis("scale", (0.8, 1.0)),)
    assert {run.starts_seed for run in Sweep(base, axes, 16).runs()} == {3} == {base.starts_seed}
    several = Sweep(base, axes, 16, (0, 1, 2))
    names = grid.run_names(several)
    assert (
        list(names.values())[:3] == [f"scale 0.8, seed {seed}" for seed in range(3)] and len(set(names.values())) == 6
    )
    assert "seed 0, 1, 2" in grid._assumptions(several, 16).replace("seeds", "seed")
    lines = [Line(name, run, result(1, n=16)) for run, name in names.items()]
    assert all(script(lines).count(f"{name!r}") == 1 for name in names.values()), "each keeps a place of its own"


@pytest.mark.parametrize("given_", [["a", "a", "a (2)"], ["a (2)", "a", "a"], ["b", "b", "b"], []])
def test_names_are_made_distinct_from_all_that_are_there(given_):
    found = distinct(given_)
    assert len(set(found)) == len(given_), "each is another"
    assert all(two == one or two.startswith(f"{one} (") for one, two in zip(given_, found, strict=True))
    assert set(given_) <= set(found), "a name that is there once stays"


@pytest.mark.parametrize("rule", ["mse", "max"])
def test_a_curve_of_a_grid_holds_what_its_cells_hold(rule):
    """Where thresholds depend on T every T is another run; one run read early would be another conversion."""
    swept = sweep.preset("start", replace(BASE, rule=rule, T=4), LAYERS)
    known = {run: result(i, n=50, T=run.T) for i, run in enumerate(swept.runs())}
    readings = sweep.read(swept, known)
    assert len(known) == (16 if rule == "mse" else 4)
    for i, curve in enumerate(grid.curves_of(swept, readings)):
        assert np.allclose(curve.top1, [reading.mean for reading in readings[4 * i : 4 * i + 4]])
        assert (curve.low <= curve.top1).all() and (curve.top1 <= curve.high).all()


def test_bars_are_the_same_on_screen_and_in_print_and_told():
    swept = Sweep(BASE, (Axis("start", ("half", "uniform")),), 16, (0, 1, 2))
    readings = sweep.read(swept, {run: result(i, n=50) for i, run in enumerate(swept.runs())})
    _, mean, low, high = grid.spread(swept, readings)
    assert high[1] - mean[1] == pytest.approx(readings[1].deviation) and high[0] > mean[0] > low[0]
    assert [grid.ends(reading) for reading in readings] == list(zip(low, high, strict=True))
    assert "one standard deviation over the seeds" in grid.bars_told(readings)
    assert "Wilson" in grid.bars_told(readings) and "deviation" not in grid.bars_told(readings[:1])
    assert grid.interval_told(readings, swept) == grid.bars_told(readings)


def result(seed, n=200, T=8, share=0.6, ann=0.9):
    rng = np.random.default_rng(seed)
    right = rng.random((n, T)) < share
    return Result(T, right, rng.random(n) < ann, {}, {}, {}, np.full(n, 0.01), device="CPU, 2 threads")


def test_cells_are_read_on_the_same_images_and_seeds_are_averaged():
    swept = Sweep(BASE, (Axis("start", ("half", "uniform")), Axis("T", (4, 8))), 200, (0, 1, 2))
    known = {run: result(i, n=200 - 10 * i) for i, run in enumerate(swept.runs())}
    readings = sweep.read(swept, known)
    assert {r.n for r in readings} == {170}
    half4, _, uniform4, uniform8 = readings
    run = swept.runs()[0]
    assert half4.mean == known[run].right[:170, 3].mean() and half4.deviation is None
    shares = [known[run].right[:170, 7].mean() for run in swept.runs()[1:]]
    assert uniform8.mean == pytest.approx(np.mean(shares)) and uniform8.deviation == pytest.approx(
        np.std(shares, ddof=1)
    )
    assert uniform4.seeds == 3 and set(np.unique(uniform4.right)) <= {0, 1 / 3, 2 / 3, 1}
    known[swept.runs()[0]] = Result.empty(8)
    assert sweep.read(swept, known)[0] is None and sweep.read(swept, known)[2].n == 170


def test_time_left_counts_images_steps_and_pace():
    swept = Sweep(BASE, (Axis("v_init", (0.0, 0.5)),), 300)
    known = dict(zip(swept.runs(), (result(0), Result.empty(8))))
    assert sweep.seconds_left(swept, known) == pytest.approx(100 * 0.01 + 300 * 0.01)
    assert sweep.seconds_left(swept, dict.fromkeys(swept.runs(), Result.empty(8))) is None


def test_mcnemar_is_scipys_binomial_on_discordant_images():
    from scipy import stats

    a, b = np.zeros(100), np.zeros(100)
    a[:30], b[10:25] = 1, 1  # 15 images only a, none only b
    found = statistics.compare(a, b)
    assert (found.gained, found.lost) == (15, 0) and found.difference == pytest.approx(0.15)
    assert found.p == pytest.approx(stats.binomtest(15, 15, 0.5).pvalue)
    same = statistics.compare(a, a)
    assert same.p == 1 and same.low == same.high == same.difference == 0


@pytest.mark.parametrize("levels", [(0, 1), (0, 1 / 3, 2 / 3, 1)])
def test_the_interval_is_the_bootstrap_over_images(levels):
    from scipy import stats

    rng = np.random.default_rng(3)
    a, b = rng.choice(levels, 400), rng.choice(levels, 400)
    found = statistics.compare(a, b)
    expected = stats.bootstrap((a - b,), np.mean, n_resamples=5000, method="percentile", rng=rng).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.012) and found.high == pytest.approx(expected.high, abs=0.012)
    assert (found.p is None) == (len(levels) > 2)


def test_intervals_hold_as_often_as_they_say():
    """Of runs that are equally good, about 5 % look different; of p values, at most 5 % lie below 0.05."""
    rng = np.random.default_rng(1)
    found = [statistics.compare(*(rng.random((2, 300)) < 0.7).astype(float)) for _ in range(300)]
    outside = np.mean([not c.low <= 0 <= c.high for c in found])
    assert 0.02 < outside < 0.09 and np.mean([c.p < 0.05 for c in found]) < 0.06


def test_p_values_are_adjusted_for_their_number():
    assert statistics.adjusted([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.04), 0.04]
    assert statistics.adjusted([None]) == [None]


SHAPES = {
    "line": (Axis("v_init", (0.0, 0.25, 0.5)),),
    "bars": (Axis("rule", ("max", "percentile")),),
    "waterfall": (Axis("part", ("opi", "fit_threshold", "fit_shift")),),
    "change": (Axis("layer", (AS_IT_IS, "act1", "act2")),),
    "heat": (Axis("v_init", (0.0, 0.5)), Axis("scale", (0.8, 1.0, 1.2))),
    "curves": (Axis("start", ("zero", "half")), Axis("T", tuple(range(1, 9)))),
}


def shown(shape, images=200):
    swept = Sweep(BASE, SHAPES[shape], images)
    known = {run: result(i, n=images) for i, run in enumerate(swept.runs())}
    readings = sweep.read(swept, known)
    lines = [Line(f"run {i}", run, known[run]) for i, run in enumerate(swept.runs())]
    table = report.rows(swept, readings)
    now = Shown(BASE, lines[:2], [grid.theme.YOURS, grid.theme.ZERO])
    now.grid = GridShown(swept, table, lines, "CPU, 2 threads", "A grid")
    return now, swept, readings


@pytest.mark.parametrize("shape", SHAPES)
def test_every_grid_has_its_figure_on_screen_and_in_print(shape):
    now, swept, readings = shown(shape)
    assert grid.shape_of(swept) == shape
    drawn = grid.figure_of(swept, readings).checked()
    assert drawn.layout.xaxis.title.text and drawn.layout.yaxis.title.text
    for width in paper.WIDTHS.values():
        svg = files.figure(now, "svg", width, 8).decode()
        measured = float(re.search(r'width="([\d.]+)pt"', svg)[1]) / 72 * 25.4
        assert measured == pytest.approx(width, abs=0.1) and "N = 200" in svg
        sizes = {float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)}
        assert sizes and sizes <= {7.0, 8.0}
        assert files.figure(now, "pdf", width, 8).startswith(b"%PDF")
    assert files.figure(now, "svg", 85, 8) == files.figure(now, "svg", 85, 8), "the same figure is the same file"


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_say_what_was_measured(shape):
    now, swept, readings = shown(shape)
    rows = list(csv.DictReader(io.StringIO(files.text(now, "csv"))))
    assert len(rows) == len(swept.cells())
    for row, reading in zip(rows, readings, strict=True):
        assert float(row["top1"]) == pytest.approx(reading.mean, abs=1e-6) and row["images"] == "200"
    assert rows[0]["p_mcnemar"] == "" and 0 <= float(rows[1]["p_adjusted"]) <= 1
    tex = files.text(now, "tex")
    assert tex.count(r"\\") == len(rows) + 1 and r"\begin{tabular}" in tex and "reference" in tex
    body = tex[tex.index(r"\toprule") :]
    assert not re.search(r"(?<!\\)[%#_]", body), "every special letter is escaped"
    assert f"{100 * readings[1].mean:.2f}" in tex
    told = files.text(now, "methods")
    for word in ("resnet20-relu", "percentile", "first 200 images", "McNemar", "CPU, 2 threads", "torch 2."):
        assert word in told, word


def test_the_bundle_holds_everything_and_its_scripts_compile():
    now, *_ = shown("heat")
    with zipfile.ZipFile(io.BytesIO(files.bundle(now, 9))) as archive:
        names = set(archive.namelist())
        assert {
            "curves-column.svg",
            "curves-page.pdf",
            "grid-column.pdf",
            "grid.csv",
            "grid.tex",
            "methods.txt",
        } <= names
        for name in ("curves.py", "grid.py"):
            compile(archive.read(name), name, "exec")
        assert json.loads(archive.read("settings.json"))["T"] == 8


def test_a_script_makes_a_grid_again(tmp_path):
    from explorer.study.measure import Engine

    swept = Sweep(replace(BASE, T=3), (Axis("start", ("half", "uniform")),), 16, (0, 4))
    engine, never = Engine(), lambda: False
    lines = [Line(repr(run), run, engine.advance(run, 0, 16, never, never)) for run in swept.runs()]
    (tmp_path / "grid.py").write_text(script(lines), encoding="utf-8")
    from tests.app_help import ROOT

    command = [sys.executable, str(tmp_path / "grid.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for printed, line in zip(done.stdout.splitlines(), lines, strict=True):
        assert f"top-1 {line.result.top1[-1]:.6f} on 16 images, T = 3" in printed and repr(line.name)[1:-1] in printed


def test_the_parts_of_a_calibration_are_added_one_by_one():
    plain = sweep.preset("parts", Settings(method="cos"), ["a"])
    assert plain.base.method == "calibrate", "another method is none of its parts"
    texts = [cell.runs[0].method for cell in plain.cells()]
    assert texts[-1] == "calibrate" and "law" not in plain.axes[0].values
    for earlier, later, part in zip(texts, texts[1:], plain.axes[0].values[1:]):
        off = {name for name, value in names.split(earlier)[1].items() if value in ("false", "0")}
        still = {name for name, value in names.split(later)[1].items() if value in ("false", "0")}
        assert off - still == {part}
    signed = sweep.preset("parts", Settings(method="calibrate-signed"), ["a"])
    first = methods.parse(signed.cells()[0].runs[0].method)
    assert first.spiking_law == "integrate_and_fire" and not any(
        getattr(first, part) for part in sweep.PARTS if part.startswith("fit")
    )
    assert methods.parse(signed.cells()[-1].runs[0].method) == methods.parse("calibrate-signed")
    assert "fit_steps" not in signed.axes[0].values, "the signed calibration has no such part"
    for key in names.CALIBRATIONS:  # every part asked for is switched off first, weights too
        whole = sweep.preset("parts", Settings(method=f"{key}:fit_weights=true"), ["a"])
        none = methods.parse(whole.cells()[0].runs[0].method)
        assert not any(getattr(none, part) for part in names.CALIBRATION_PARTS)
        assert whole.axes[0].values[-1] == "fit_weights"
        assert methods.parse(whole.cells()[-1].runs[0].method).fit_weights


def test_starts_under_calibration_are_fitted_for_each_start_and_T():
    shown = sweep.preset("calibrated", Settings(T=8), ["a"])
    runs = shown.runs()
    assert len(runs) == 20 and {run.T for run in runs} == {4, 8, 16, 32}
    assert {methods.parse(run.method).v_init for run in runs} == {"0", "0.25", "own", "0.75", "1"}
