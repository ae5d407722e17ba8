"""The ablation page: own grids from start to files; pins; going on to more steps. And what links hide or get wrong."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.study import link
from explorer.study.scene import Display, Scene
from explorer.ui import frame
from explorer.ui.panels import paper as files
from tests.app_help import ROOT, SMALL, chart, errors, held, metric, open_app, settle, values

QUICK = replace(SMALL, T=4)
OWN = Display(
    ablation="own", grid_1="v_init", grid_1_values="0.1, 0.9", grid_2="T", grid_2_values="2, 4", grid_images=32
)


def open_grid(display=OWN, settings=QUICK):
    return settle(open_app(Scene(settings, display), "accuracy_and_ablation"))


def start(at):
    """Start the grid and wait until it is complete."""
    at.button(key="grid_start").click().run()
    end = time.monotonic() + 90
    while not [frame for frame in at.dataframe if "p adjusted" in frame.value.columns]:
        assert time.monotonic() < end
        time.sleep(0.1)
        at.run()
    return settle(at)


def test_an_own_grid_is_started_measured_and_taken_away():
    at = open_grid()
    assert any("4 cells from 2 runs of 32 images" in caption.value for caption in at.caption)
    assert not [c for c in at.get("plotly_chart") if c.key == "ablation_own_plain"], "it waits to be started"
    start(at)
    figure = chart(at, "ablation_own")
    grid = values(figure["data"][0]["z"]).reshape(2, 2)
    shown = held(at)["shown"]
    rows = {tuple(row.labels): row.reading.mean for row in shown.grid.rows}
    assert grid[1, 1] == pytest.approx(100 * rows["0.9", "4"]) and len(rows) == 4
    assert figure["layout"]["xaxis"]["title"]["text"].endswith("N = 32")
    high = next(line for line in shown.grid.lines if line.settings.v_init == 0.9)
    assert rows["0.9", "2"] == high.result.right[:, 1].mean() and high.result.images == 32
    table = next(frame.value for frame in at.dataframe if "p adjusted" in frame.value.columns)
    assert len(table) == 4 and table["p (McNemar)"].notna().sum() == 3
    assert files.bundle(shown, 8)[:2] == b"PK" and "resnet20-relu" in files.text(shown, "methods")
    assert "v_init 0.9" in files.text(shown, "script")
    at.button(key="grid_stop").click().run()
    assert at.button(key="grid_start"), "what is known stays, and it can be started again"
    assert chart(at, "ablation_own")


def test_a_refused_cell_is_left_out_and_the_rest_is_compared():
    display = replace(OWN, grid_1="method", grid_1_values="opi, qcfs, signed", grid_2="none", grid_images=16)
    at = start(open_grid(display))
    table = next(frame.value for frame in at.dataframe if "p adjusted" in frame.value.columns)
    assert len(table) == 2 and table["p (McNemar)"].notna().sum() == 1
    assert any("Left out: method Quantisation clip-floor-shift" in c.value for c in at.caption)
    rows = held(at)["shown"].grid.rows
    assert len(rows) == 2 and rows[1].against is not None


def test_another_reference_changes_the_differences():
    at = start(open_grid())

    def differences():
        return next(frame.value for frame in at.dataframe if "p adjusted" in frame.value.columns)["difference (pp)"]

    before = differences()
    at.selectbox(key="grid_reference_4").set_value(3).run()
    after = differences()
    assert np.isnan(before[0]) and np.isnan(after[3]) and after[0] == -before[3]


def test_several_seeds_give_a_deviation():
    display = replace(OWN, grid_1="start", grid_1_values="half, uniform", grid_2="none", grid_seeds="0:2")
    at = start(open_grid(replace(display, grid_images=16)))
    table = next(frame.value for frame in at.dataframe if "p adjusted" in frame.value.columns)
    assert np.isnan(table["deviation (%)"][0]) and table["deviation (%)"][1] >= 0


@pytest.mark.parametrize(
    ("display", "words"),
    [
        (replace(OWN, grid_1_values="0:1:0"), "no range"),
        (replace(OWN, grid_2_values="0.5"), "whole numbers"),
        (replace(OWN, grid_2="v_init", grid_2_values="0"), "varied twice"),
        (replace(OWN, grid_1_values="-1:2:0.001"), "at most"),
        (replace(OWN, grid_seeds="x"), "Seeds"),
    ],
)
def test_a_grid_that_cannot_be_run_is_explained(display, words):
    at = open_grid(display)
    assert words in errors(at) and not at.exception and chart(at, "accuracy")


def test_a_layer_axis_says_what_is_changed():
    display = replace(OWN, grid_1="layer", grid_1_values="act1", grid_2="none", grid_images=16)
    at = start(open_grid(display))
    at.selectbox(key="set_grid_change").set_value("v_init").run()
    at.number_input(key="set_grid_amount").set_value(0.0).run()
    start(at)
    assert "v_init = 0 in this layer only" in chart(at, "ablation_own")["layout"]["xaxis"]["title"]["text"]


def test_more_steps_are_offered_where_they_are_needed():
    at = open_grid(Display())
    assert metric(at, "v_init = 0") == "> 4"
    at.button(key="further_64").click().run()
    assert at.slider(key="set_T").value == 64 and not at.exception


def names(at):
    lines = [trace for trace in chart(at, "accuracy")["data"] if trace.get("mode") == "lines+markers"]
    return {trace["name"]: trace["line"]["color"] for trace in lines}


def test_pins_have_names_colours_of_their_own_and_go_one_by_one():
    at = settle(open_app(QUICK))
    at.button(key="pin").click().run()
    assert any("(pin " in name for name in names(settle(at))), "a pinned default is seen to be pinned"
    at.slider(key="set_v_init").set_value(0.2).run()
    at.button(key="pin").click().run()
    at.slider(key="set_v_init").set_value(0.3).run()
    field = next(t for t in at.text_input if t.key.startswith("pin_name_1"))
    field.set_value("low start").run()
    shown = names(settle(at))
    assert "pin low start" in shown and len(set(shown.values())) == len(shown)
    colour = shown["pin low start"]
    at.button(key="unpin_0").click().run()
    assert [pin.name for pin in held(at)["pins"]] == ["low start"]
    assert names(settle(at))["pin low start"] == colour, "its colour stays when another goes"


def test_a_rule_that_does_not_fit_its_network_is_replaced_and_said_in_the_menus_words():
    at = open_app(replace(QUICK, rule="clip"))
    assert not at.error and at.selectbox(key="set_rule").value == "percentile"
    assert "“Trained clip” needs a network" in at.warning[0].value and chart(at, "membrane")


def test_what_a_link_hides_is_hidden_in_the_pages_too():
    at = AppTest.from_file(str(ROOT / "explorer" / "app.py"), default_timeout=120)
    at.query_params[link.PARAMETER] = link.encode(Scene(QUICK))
    at.query_params[link.HIDE] = "thresholds"
    at.run()
    at.switch_page("../pages/rates_and_errors.py").run()
    labels = [block.label for block in at.expander]
    assert not any("Threshold equaliser" in label for label in labels)
    assert any("Potential equaliser" in label for label in labels)


def test_the_theory_page_has_one_T_and_one_v_init():
    at = open_app(page="theory")
    keys = {slider.key for slider in at.slider}
    assert {"set_theory_T", "set_theory_v_init"} <= keys and not keys & {"set_T", "set_v_init", "set_scale"}
    at.switch_page("../pages/explorer.py").run()
    assert {"set_T", "set_v_init"} <= {slider.key for slider in at.slider}


@pytest.mark.parametrize("layer", ["act1", "stages.2.2.act1"])
def test_another_layer_shows_a_neuron_that_has_something_to_show(layer):
    at = settle(open_app(SMALL))
    at.selectbox(key="set_layer").set_value(layer).run()
    marks = next(trace for trace in chart(at, "membrane")["data"] if trace.get("name", "").startswith("spikes"))
    assert 0 < len(values(marks["x"])) < SMALL.T


def test_a_telling_neuron_spikes_and_is_not_clipped():
    a = np.zeros((3, 2, 2))
    a[1, 0, 1], a[2, 1, 0], a[1, 1, 1] = 0.5, 1.4, 0.9
    look = SimpleNamespace(a={"x": a, "flat": a.ravel()}, theta={"x": np.ones((1, 1, 1)), "flat": np.ones(1)})
    assert frame.telling(look, "x") == (1, 0, 1) and frame.telling(look, "x", 2) == (2, 1, 0)
    assert frame.telling(look, "flat") == (5, 0, 0)
