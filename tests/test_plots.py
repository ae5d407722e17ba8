"""Figures carry units and the numbers they were given; theory formulas agree with the stepped neuron."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.engine.theory import staircase_counts
from explorer.plots import accuracy, energy, membrane, methods, rates, sweep, theme, theory, tuning
from explorer.plots.figure import Figure
from explorer.study import published

ROOT = Path(__file__).resolve().parents[1]


def stepped(name="v", T=12, x=0.3, v_init=0.5, theta=1.0):
    before, after, fired = theory.step(x, theta, T, v_init)
    a = min(max(x, 0), theta)
    return membrane.DrawnMembrane(name, np.full(T, x), before, after, fired, theta, v_init * theta, a)


@pytest.mark.parametrize("v_init", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("T", [1, 4, 16])
def test_staircase_is_the_stepped_neuron(T, v_init):
    for x in (np.arange(-3, 40) + 0.37) / 31:
        fired = theory.step(float(x), 1.0, T, v_init)[2]
        assert fired.sum() == staircase_counts(np.array(x), 1.0, T, v_init)


def test_zero_start_is_biased_and_half_start_is_not():
    x = theory.inputs("uniform", 2.0)
    mean0, square0 = theory.moments(x, 2.0, 8, 0.0)
    mean, square = theory.moments(x, 2.0, 8, 0.5)
    assert mean0 == pytest.approx(-2.0 / 16, rel=1e-3)
    assert square0 == pytest.approx(4.0 / (3 * 64), rel=1e-3)
    assert mean == pytest.approx(0, abs=1e-4)
    assert square == pytest.approx(4.0 / (12 * 64), rel=1e-3)
    assert theory.best_start(x, 2.0, 8) == pytest.approx(0.5, abs=0.011)


def test_half_normal_inputs_have_the_stated_deviation():
    x = theory.inputs("half-normal", 3.0)
    assert np.sqrt((x**2).mean()) == pytest.approx(1.0, rel=1e-2)


def test_a_membrane_decodes_to_the_activation():
    one = stepped(T=64, x=0.3)
    assert one.decoded[-1] == pytest.approx(0.3, abs=1 / 64)
    t, v = membrane.sawtooth(one)
    assert v[0] == 0.5 and len(t) == len(v) == 129


def titles(figure):
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def test_axes_carry_units():
    curve = accuracy.Curve("a", np.array([0.1, 0.9]), np.array([0.0, 0.8]), np.array([0.2, 1.0]), 50)
    assert "steps" in titles(accuracy.accuracy_figure([curve], 0.9).checked())[0]
    assert "%" in titles(accuracy.accuracy_figure([curve], 0.9).checked())[1]
    assert "activation units" in titles(membrane.membrane_figure([stepped()]).checked())[1]
    assert "%" in titles(rates.layer_error_figure(["a"], np.array([0.1]), np.array([0.0])).checked())[1]


def two_phases():
    """Return a neuron whose start was moved after a first phase, and a muted one."""
    before = stepped("a", T=3)
    return [
        replace(stepped("a", v_init=0.2), before=before, skipped=2),
        replace(stepped("b"), before=replace(before, name="b"), muted=True),
    ]


def every_figure():
    """Return every figure that the pages draw, by name, from small made-up data."""
    curve = accuracy.Curve("a", np.array([0.1, 0.9]), np.array([0.0, 0.8]), np.array([0.2, 1.0]), 50)
    x, parts = np.array([0.1, 0.2]), {part: np.array([0.1, -0.1]) for part in (*rates.PARTS, "total")}
    one = np.ones(3)
    line = methods.MethodLine("a", "opi", np.array([1, 2]), np.array([3, 4]), x, x / 2, x * 2, theme.method_style(3))
    return {
        "accuracy": accuracy.accuracy_figure(
            [curve, curve],
            0.9,
            True,
            [
                accuracy.Marks("paper", (8, 16), (66.2, 87.2), notes=("", " (from memory)")),
                accuracy.Marks("ours", (8,), (55.3,), (54.3,), (56.3,)),
            ],
        ),
        "grid": accuracy.grid_figure(np.ones((2, 2)), [1, 2], ["a", "b"], "time-steps T", "v_init (share of θ)"),
        "bars": accuracy.bars_figure(["a"], x[:1], "change (percentage points)"),
        "membrane": membrane.membrane_figure([stepped()]),
        "two phases": membrane.membrane_figure(two_phases()),
        "two phases' current": membrane.current_figure(two_phases()),
        "decoded": membrane.convergence_figure([stepped()]),
        "current": membrane.current_figure([stepped()]),
        "scores": membrane.scores_figure(["cat", "dog"], x, x),
        "raster": membrane.raster_figure(np.ones((4, 3), np.uint8)),
        "first spikes": membrane.first_spikes_figure([("a", theme.YOURS, {"act1": 2.0})]),
        "before and after": rates.before_after_figure(["a"], x[:1], x[:1]),
        "histogram": rates.histogram_figure(np.ones((2, 2)), one, one, 8, 0.5),
        "layer error": rates.layer_error_figure(["a"], x[:1], x[:1]),
        "parts": rates.parts_figure(["a", "b"], parts),
        "squared parts": rates.parts_figure(["a", "b"], parts, squared=True),
        "potential": rates.potential_figure(one, np.linspace(-1, 2, 4)),
        "map": rates.map_figure(np.ones((3, 3)), "rms error (% of θ)", (1, 1)),
        "tiles": rates.tiles_figure(np.ones((5, 2, 2)), (0, 0, 0)),
        "operations": energy.operations_figure({"act1": 10}, {"act1": 20.0}),
        "energy": energy.energy_figure([1, 2], [0.1, 0.2], [0.5, 0.6], (0.4, 0.9)),
        "line": sweep.line_figure([0.0, 0.5], x, x, x, "v_init (share of θ)", theme.ACCURACY, 0.9),
        "words": sweep.bars_figure(["max", "clip"], x, x, x, "threshold rule", theme.ACCURACY),
        "waterfall": sweep.waterfall_figure(["a", "b"], x[:2], "calibration", theme.ACCURACY),
        "methods": methods.methods_figure([line, line], 0.9, False),
        "latency": methods.methods_figure([line], None, True, labelled=False),
        "starts": methods.starts_figure(["a", "b"], x, x, x, 8),
        "windows": methods.windows_figure(np.triu(np.ones((3, 3), int)), 4, 1),
        "staircase": theory.staircase_figure(1.0, 8, 0.5, 0.3),
        "theory error": theory.error_figure(1.0, 8, 0.5),
        "theory square": theory.square_figure(x, 1.0, 8, 0.5),
        "density": theory.density_figure(x, 1.0),
        "loss": tuning.loss_figure([2.0, 1.0], [(0, 2.0), (2, 1.0)], 2),
        "tuned": tuning.accuracy_figure([(0, 0.5), (2, 0.6)], (x[:2], x[:2]), 0.9, 2, True),
        "thresholds moved": tuning.threshold_figure({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.9}),
        "certain": theory.certain_figure(["a", "b"], {"never above θ": [0.5, 1.0], "never above 0": [0.0, 0.25]}),
        "width": theory.width_figure(["a", "b"], [0.1, 2.0], [1.5, 30.0]),
    }


FIGURES = {name: figure.checked() for name, figure in every_figure().items()}
# Axes of words or of plain counts: what they count is their unit.
UNITLESS = (
    "calibration",
    "layer",
    "class",
    "channel",
    "row",
    "column",
    "time-step",
    "threshold rule",
    "v(T) / θ",
    "a / θ",
    "neuron",
    "method",
)
PLOTTED = {file.stem for file in (ROOT / "explorer" / "plots").glob("*.py")} - {"__init__", "figure", "theme", "paper"}


def test_every_figure_of_the_package_is_among_them():
    from inspect import getmembers, isfunction

    modules = [accuracy, membrane, methods, rates, energy, sweep, theory, tuning]
    assert {module.__name__.rpartition(".")[2] for module in modules} == PLOTTED
    made = {name for m in modules for name, _ in getmembers(m, isfunction) if name.endswith("_figure")}
    source = "".join(line for line in inspect.getsource(every_figure))
    assert [name for name in made if f".{name}(" not in source] == []


@pytest.mark.parametrize("name", FIGURES)
def test_the_browser_gets_what_plotly_itself_would_send(name):
    assert json.loads(every_figure()[name].to_json()) == json.loads(FIGURES[name].to_json())


def test_a_word_that_plotly_does_not_know_is_found():
    with pytest.raises(ValueError, match="colour"):
        Figure().add_bar(y=[1], colour="red").checked()
    with pytest.raises(TypeError, match="object cannot be sent"):
        Figure().add_bar(y=object()).to_json()


def test_what_is_no_number_is_sent_as_nothing_and_whole_numbers_as_small_as_they_fit():
    figure = Figure().add_bar(y=[1.0, float("nan")], x=np.array([1, 300]), customdata=np.array(["a", "b"]))
    sent = json.loads(figure.to_json())["data"][0]
    assert sent["y"] == [1.0, None] and sent["x"]["dtype"] == "i2" and sent["customdata"] == ["a", "b"]


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_title_with_its_unit(name):
    figure = FIGURES[name]
    for title in titles(figure):
        assert title, f"{name}: an axis without a title"
        assert "(" in title or any(word in title for word in UNITLESS), f"{name}: {title!r} has no unit"
    for trace in figure.data:
        if trace.type == "heatmap" and trace.showscale is not False:
            assert "(" in trace.colorbar.title.text, f"{name}: colours without a unit"


@pytest.mark.parametrize("name", FIGURES)
def test_every_kind_of_mark_has_a_legend_entry_or_stands_alone(name):
    """More than one kind of line, mark or bar: each is named in the legend (bands belong to their line)."""
    figure = FIGURES[name]
    shown = [t for t in figure.data if (t.type != "heatmap" and t.hoverinfo != "skip") or t.name]
    groups = {t.legendgroup or t.name or i for i, t in enumerate(shown)}
    entries = {t.legendgroup or t.name for t in shown if t.name and t.showlegend is not False}
    if len(groups) > 1:
        assert groups == entries, f"{name}: {groups - entries} not in the legend"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_carries_its_number_of_images_in_its_title(name):
    figure = theme.sample(every_figure()[name], 48, 256)
    assert "N = 48 of 256" in titles(figure.checked())[0]
    assert titles(theme.sample(every_figure()[name], 256, 256).checked())[0].endswith("N = 256")


def test_a_meaning_is_drawn_the_same_everywhere():
    styles = [theme.YOURS, theme.ZERO, theme.HALF, theme.ANN, *theme.PINS]
    for part in ("colour", "symbol"):
        assert len({getattr(style, part) for style in styles}) == len(styles)
    assert len({(style.dash, style.symbol) for style in styles}) == len(styles)
    curve = accuracy.Curve("a", np.ones(4), np.ones(4), np.ones(4), 9, style=theme.HALF)
    one = membrane.DrawnMembrane("a", *[np.ones(4)] * 3, np.ones(4), 1.0, 0.5, 1.0, theme.HALF)
    lines = [
        accuracy.accuracy_figure([curve], None).data[1],
        membrane.membrane_figure([one]).data[0],
        membrane.first_spikes_figure([("a", theme.HALF, {"act1": 1.0})]).data[0],
        energy.energy_figure([1], [0.1], [0.5], (0.4, 0.9), theme.HALF).data[0],
    ]
    assert {(line["line"]["color"], line["line"]["dash"]) for line in lines} == {(theme.HALF.colour, theme.HALF.dash)}


@pytest.mark.parametrize("T", [1, 2, 8])
def test_few_steps_have_whole_ticks(T):
    curve = accuracy.Curve("a", np.ones(T), np.ones(T), np.ones(T), 9)
    assert accuracy.accuracy_figure([curve], None).layout["xaxis"]["dtick"] == 1
    assert membrane.membrane_figure([stepped(T=T)]).layout["xaxis"]["dtick"] == 1


def test_windows_without_a_step_are_left_empty_and_the_own_one_is_marked():
    figure = methods.windows_figure(np.array([[1, 2], [0, 4]]), 4, 1)
    assert np.isnan(figure.data[0]["z"]).tolist() == [[False, False], [True, False]]
    assert figure.data[0]["z"][1, 1] == 100 and (figure.data[1]["x"], figure.data[1]["y"]) == ([2], [1])


def test_many_methods_are_told_apart():
    styles = [theme.method_style(i) for i in range(35)]
    assert len({(style.colour, style.dash) for style in styles}) == 35 and theme.YOURS.colour not in {
        style.colour for style in styles
    }


def test_membrane_figure_marks_spikes_and_threshold():
    one = stepped()
    figure = membrane.membrane_figure([one])
    assert list(figure.data[1]["x"]) == list(np.flatnonzero(one.z) + 1)
    assert figure.layout["shapes"][0]["y0"] == 1.0


def test_steps_to_reach_counts_from_where_accuracy_stays():
    assert accuracy.steps_to_reach(np.array([0.1, 0.9, 0.5, 0.9, 0.9]), 0.8) == 4
    assert accuracy.steps_to_reach(np.array([0.9, 0.9]), 0.8) == 1
    assert accuracy.steps_to_reach(np.array([0.9, 0.1]), 0.8) is None
    assert accuracy.steps_to_reach(np.array([np.nan, np.nan, np.nan, 0.9]), 0.8) == 4, "no answer before"


def test_grid_marks_the_best_row_of_each_column():
    grid = np.array([[0.1, 0.5], [0.7, np.nan]])
    marks = accuracy.grid_figure(grid, [8, 16], [0.0, 0.5], "T", "v_init").data[1]
    assert list(marks["y"]) == ["0.5", "0.0"]


def test_a_grid_shows_what_was_run_and_no_values_between():
    """99.9 and 100 are as wide as 95 and 97, and no tick stands where nothing was run."""
    figure = accuracy.grid_figure(np.ones((3, 2)), [1, 2], ["95", "99.9", "100"], "T", "percentile (%)")
    assert figure.layout["yaxis"]["type"] == figure.layout["xaxis"]["type"] == "category"
    assert list(figure.data[0]["y"]) == ["95", "99.9", "100"]


def test_short_names_stay_unique():
    assert rates.short_names(["layer1", "L1"]) == ["1: L1", "2: L1"]


def contrast(colour, background):
    def luminance(hex_colour):
        channels = [int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(colour), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*theme.COLORWAY, *(style.colour for style in theme.PINS)])
def test_line_colours_can_be_seen_in_light_and_dark(colour):
    assert contrast(colour, "#ffffff") >= 2.9 and contrast(colour, "#0e1117") >= 3.0


@pytest.mark.parametrize("v_init", [0.0, 0.5, -0.4, 1.3])
def test_the_staircase_over_the_histogram_is_that_of_the_theory(v_init):
    T, edges_a, edges_r = 8, np.linspace(0, 1.5, 31), np.linspace(0, 1.1, 21)
    figure = rates.histogram_figure(np.ones((30, 20)), edges_a, edges_r, T, v_init)
    line = figure.data[-1]
    assert line["line"]["shape"] == "hv" and len(line["x"]) == len(line["y"]) <= T + 3
    x = np.random.default_rng(0).uniform(0, 1.5, 500)
    drawn = line["y"][np.searchsorted(line["x"], x, side="right") - 1]
    assert np.allclose(drawn, staircase_counts(x, 1.0, T, v_init) / T)
    assert set(drawn) > {0.5}


def test_names_from_links_are_no_markup():
    figure = Figure().add_scatter(x=[1], y=[1], name='<a href="https://evil.example">prize</a>').add_bar(x=[1], y=[2])
    assert figure.data[0]["name"] == '&lt;a href="https://evil.example">prize&lt;/a>' and "name" not in figure.data[1]


@pytest.mark.parametrize("family", ["resnet20-relu", "vgg16-clip"])
def test_no_two_networks_have_the_same_mark(family):
    marks = [
        *(accuracy.Marks(f"published {i}", (8,), (50.0,)) for i, _ in enumerate(published.beside(family, "CIFAR-10"))),
        *(accuracy.Marks(own.network, (8,), (50.0,), (49.0,), (51.0,)) for own in published.ours(family, "CIFAR-10")),
    ]
    curve = accuracy.Curve("yours", np.ones(8), np.ones(8), np.ones(8), 10)
    drawn = accuracy.accuracy_figure([curve], None, False, marks).data[-len(marks) :]
    assert len({(one["marker"]["symbol"], one["marker"]["color"]) for one in drawn}) == len(marks) >= 2
