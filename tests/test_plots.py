"""Figures carry units and the numbers they were given; theory formulas agree with the stepped neuron."""

import numpy as np
import pytest

from explorer.engine.theory import staircase_counts
from explorer.plots import accuracy, membrane, rates, theme, theory


def stepped_trace(name="v", T=12, x=0.3, v_init=0.5, theta=1.0):
    before, after, fired = theory.step(x, theta, T, v_init)
    return membrane.Trace(name, np.full(T, x), before, after, fired, theta, v_init * theta, min(max(x, 0), theta))


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


def test_trace_decodes_to_the_activation():
    trace = stepped_trace(T=64, x=0.3)
    assert trace.decoded[-1] == pytest.approx(0.3, abs=1 / 64)
    t, v = membrane.sawtooth(trace)
    assert v[0] == 0.5 and len(t) == len(v) == 129


def titles(figure):
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def test_axes_carry_units():
    curve = accuracy.Curve("a", np.array([0.1, 0.9]), np.array([0.0, 0.8]), np.array([0.2, 1.0]), 50)
    assert "steps" in titles(accuracy.accuracy_figure([curve], 0.9))[0]
    assert "%" in titles(accuracy.accuracy_figure([curve], 0.9))[1]
    assert "activation units" in titles(membrane.membrane_figure([stepped_trace()]))[1]
    assert "%" in titles(rates.layer_error_figure(["a"], np.array([0.1]), np.array([0.0])))[1]


def test_membrane_figure_marks_spikes_and_threshold():
    trace = stepped_trace()
    figure = membrane.membrane_figure([trace])
    assert list(figure.data[1].x) == list(np.flatnonzero(trace.z) + 1)
    assert figure.layout.shapes[0].y0 == 1.0


def test_steps_to_reach_counts_from_where_accuracy_stays():
    assert accuracy.steps_to_reach(np.array([0.1, 0.9, 0.5, 0.9, 0.9]), 0.8) == 4
    assert accuracy.steps_to_reach(np.array([0.9, 0.9]), 0.8) == 1
    assert accuracy.steps_to_reach(np.array([0.9, 0.1]), 0.8) is None


def test_grid_marks_the_best_row_of_each_column():
    grid = np.array([[0.1, 0.5], [0.7, np.nan]])
    marks = accuracy.grid_figure(grid, [8, 16], [0.0, 0.5], "T", "v_init").data[1]
    assert list(marks.y) == ["0.5", "0.0"]


def test_a_grid_shows_what_was_run_and_no_values_between():
    """99.9 and 100 are as wide as 95 and 97, and no tick stands where nothing was run."""
    figure = accuracy.grid_figure(np.ones((3, 2)), [1, 2], ["95", "99.9", "100"], "T", "percentile (%)")
    assert figure.layout.yaxis.type == figure.layout.xaxis.type == "category"
    assert list(figure.data[0].y) == ["95", "99.9", "100"]


def test_short_names_stay_unique():
    assert rates.short_names(["layer1", "L1"]) == ["1: L1", "2: L1"]


def contrast(colour, background):
    def luminance(hex_colour):
        channels = [int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(colour), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", theme.COLORWAY)
def test_line_colours_can_be_seen_in_light_and_dark(colour):
    assert contrast(colour, "#ffffff") >= 2.9 and contrast(colour, "#0e1117") >= 3.0
