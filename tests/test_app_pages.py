"""Every other page of issue-level controls: moving one changes the result; formulas behind the pages."""

import re
from dataclasses import replace

import numpy as np
import pytest

from explorer.plots import rates
from explorer.study import link, published
from explorer.study.scene import Scene
from explorer.ui import tour
from tests.app_help import ROOT, SMALL, chart, held, metric, open_app, pull, settle, values


@pytest.mark.parametrize(("name", "value"), [("theory_v_init", 0.3), ("theory_T", 3), ("theory_theta", 2.0)])
def test_theory_sliders_change_the_numbers(name, value):
    at = open_app(page="theory")
    before = metric(at, "Mean squared error (units²)")
    at.slider(key=f"set_{name}").set_value(value).run()
    assert not at.exception and metric(at, "Mean squared error (units²)") != before


def test_theory_bounds_follow_the_radius():
    at = open_app(page="theory")
    assert not [m for m in at.metric if m.label == "Class in the box"], "the page is quick until asked"
    at.toggle(key="set_theory_bounds").set_value(True).run()
    at.slider(key="set_theory_radius").set_value(-14.0).run()
    assert not at.exception and metric(at, "Class in the box").endswith(": certain")
    narrow = chart(at, "theory_certain")["data"][0]["y"]
    at.slider(key="set_theory_radius").set_value(1.0).run()
    assert not at.exception and metric(at, "Class in the box").endswith(": not certain")
    wide = chart(at, "theory_certain")["data"][0]["y"]
    assert sum(values(wide)) < sum(values(narrow)) and len(values(wide)) == 19


def test_theory_input_and_distribution_act():
    at = open_app(page="theory")
    equation = at.latex[0].value
    at.slider(key="set_theory_x").set_value(0.9).run()
    assert at.latex[0].value != equation
    assert metric(at, "Zero mean error at v_init") in ("0.49", "0.50", "0.51")
    at.slider(key="set_theory_T").set_value(1).run()
    at.radio(key="set_theory_inputs").set_value("half-normal").run()
    assert metric(at, "Zero mean error at v_init") not in ("0.49", "0.50", "0.51")
    assert metric(at, "Least squared error at v_init") in ("0.49", "0.50", "0.51")
    at.radio(key="set_theory_inputs").set_value("layer").run()
    assert not at.exception and "scaled so that its threshold" in str([c.value for c in at.caption])


def test_lab_shows_three_settings_and_follows_the_neuron():
    at = open_app(replace(SMALL, v_init=0.3), "membrane_lab")
    assert not at.exception
    names = [trace["name"] for trace in chart(at, "lab_membrane")["data"] if trace["mode"] == "lines"]
    assert names == ["v_init = 0", "v_init = 1/2", "yours"]
    before = values(chart(at, "lab_membrane")["data"][0]["y"])
    at.number_input(key="set_channel").set_value(2).run()
    assert not np.array_equal(values(chart(at, "lab_membrane")["data"][0]["y"]), before)
    at.button(key="pick_3").click().run()
    assert at.number_input(key="set_image").value == 3
    assert len(chart(at, "first_spikes")["data"]) == 3 and chart(at, "raster") and chart(at, "rate_map")
    layer = at.selectbox(key="set_layer").value
    at.selectbox(key="set_layer").set_value("act1").run()
    assert layer != "act1" and not at.exception
    at.toggle(key="set_only_wrong").set_value(True).run()
    assert not at.exception and "are wrong at T = 8" in str([c.value for c in at.caption])


def test_zero_start_delays_the_first_spikes():
    at = open_app(page="membrane_lab")
    zero, half = chart(at, "first_spikes")["data"]
    assert np.nanmean(np.array(zero["y"] if isinstance(zero["y"], list) else values(zero["y"]), float)) > np.nanmean(
        np.array(half["y"] if isinstance(half["y"], list) else values(half["y"]), float)
    )


def test_tiles_and_their_inverse():
    shape = (5, 3, 4)
    sheet = rates.tiles(np.arange(60, dtype=float).reshape(shape))
    for channel, row, column in np.ndindex(shape):
        place = rates.place_of(shape, channel, row, column)
        assert rates.tile_at(shape, *place) == (channel, row, column)
        assert sheet[place] == np.ravel_multi_index((channel, row, column), shape)
    assert rates.tile_at(shape, 3, 0) is None


def test_error_parts_add_up_and_controls_act():
    at = settle(open_app(page="rates_and_errors"))
    for squared in (False, True):
        at.toggle(key="set_squared").set_value(squared).run()
        data = {trace["name"]: values(trace["y"]) for trace in chart(at, "parts")["data"]}
        total = sum(data[name] for name in ("clipping", "quantisation", "unevenness", "inherited"))
        assert np.allclose(total, data["total"], atol=1e-3) and np.abs(data["total"]).max() > 0
    before = values(chart(at, "potentials")["data"][0]["y"])
    at.selectbox(key="set_layer").set_value("act1").run()
    assert not np.array_equal(values(chart(at, "potentials")["data"][0]["y"]), before)
    assert len(values(chart(at, "worst")["data"][0]["x"])) == 10
    before = values(chart(at, "channel_histogram")["data"][0]["z"])
    at.number_input(key="set_channel").set_value(5).run()
    assert not np.array_equal(values(chart(at, "channel_histogram")["data"][0]["z"]), before)
    parts = [
        float(metric(at, name).replace("−", "-")) for name in ("clipping", "quantisation", "unevenness", "inherited")
    ]
    assert abs(sum(parts) - float(metric(at, "total").replace("−", "-"))) < 0.03 and any(parts)


def test_bursts_are_drawn_at_the_rates_they_have():
    from explorer.plots.rates import histogram_figure
    from explorer.study import measure
    from explorer.study.results import EDGES_A, rate_edges

    highest = {}
    for method in ("opi", "burst"):
        settings = replace(SMALL, network="resnet20-clip", method=method, T=4, layer="act1", channel=0)
        seen = measure.channel(settings)
        edges = rate_edges(settings.T)
        rows = np.flatnonzero(seen.sums.histogram.any(0))
        assert np.isclose(edges[rows[-1] + 1] + edges[rows[-1]], 2 * {"opi": 1, "burst": 1.5}[method])
        figure = histogram_figure(seen.sums.histogram, EDGES_A, edges, settings.T, None)
        highest[method] = figure.layout["yaxis"]["range"][1]
    assert highest["opi"] == 1.125 and highest["burst"] == 1.625


def test_the_channels_of_a_layer_make_up_its_errors():
    from explorer.study import measure

    at = settle(open_app(page="rates_and_errors"))
    layer = at.selectbox(key="set_layer").value
    result = held(at)["shown_result"][1].sites[layer]
    one = [measure.channel(replace(SMALL, layer=layer, channel=c)) for c in range(len(result.channel_total))]
    assert np.allclose([c.sums.total for c in one], result.channel_total, rtol=1e-4, atol=1e-2)
    assert np.array_equal(sum(c.sums.histogram for c in one), result.histogram)
    assert np.allclose([np.sum(c.rms**2) * c.images for c in one], result.channel_squared, rtol=1e-3)


@pytest.mark.parametrize("kind", ["v_init", "start", "percentile", "scale", "potential"])
def test_ablations_run_and_draw(kind):
    at = open_app(replace(SMALL, T=4), "accuracy_and_ablation")
    at.segmented_control(key="set_ablation").set_value(kind).run()
    settle(at, 150)
    figure = chart(at, f"ablation_{kind}")
    if kind == "v_init":
        grid = values(figure["data"][0]["z"]).reshape(11, 4)
        assert not np.array_equal(grid[0], grid[5])
    assert figure["data"]


def test_accuracy_layers_and_axis_act():
    at = settle(open_app(page="accuracy_and_ablation"))
    marks = {trace["name"]: trace for trace in chart(at, "accuracy")["data"] if trace.get("mode") == "markers"}
    assert {"Bu et al. 2022, ResNet-20 (ANN 92.74), from memory", "Bu et al. 2022b, ResNet-20 (ANN 91.77)"} < set(marks)
    assert not any("VGG-16" in name for name in marks), "of another family"
    ours = next(trace for name, trace in marks.items() if name.startswith("resnet20-clip here"))
    assert "10,000 images" in ours["name"] and np.all(values(ours["error_y"]["array"]) > 0)
    assert chart(at, "accuracy")["layout"]["xaxis"]["type"] == "log"
    at.toggle(key="set_published").set_value(False).run()
    at.toggle(key="set_log_axis").set_value(False).run()
    assert not any(trace.get("mode") == "markers" for trace in chart(at, "accuracy")["data"])
    assert chart(at, "accuracy")["layout"]["xaxis"].get("type") != "log"


def test_energy_grows_with_time():
    at = settle(open_app(page="energy"))
    x = values(chart(at, "energy")["data"][0]["x"])
    assert len(x) == 4 and np.all(np.diff(x) > 0)
    bars = {trace["name"]: values(trace["x"]) for trace in chart(at, "operations")["data"]}
    multiplied, added = bars["ANN: multiply-accumulates"], bars["SNN: additions"]
    assert added[0] == 0 and np.all(added[1:] > 0)
    snn = 1e6 * (multiplied[0] * 4.6 + added.sum() * 0.9) * 1e-6
    assert float(metric(at, "SNN energy per image").split()[0]) == pytest.approx(snn, abs=0.06)
    assert x[-1] == pytest.approx(snn, rel=1e-5)
    assert float(metric(at, "ANN energy per image").split()[0]) == pytest.approx(40.8e6 * 4.6e-6, rel=0.05)


@pytest.mark.parametrize("i", range(5))
def test_tour_stations_set_the_app(i):
    station = tour.stations()[i]
    assert (ROOT / "pages" / f"{station.page}.py").exists() and station.scene != Scene()


def test_a_tour_button_opens_its_settings():
    at = pull(open_app(), "tour")
    at.button(key="tour_2").click().run()
    assert not at.exception and at.slider(key="set_scale").value == 2.0 and at.selectbox(key="set_rule").value == "max"


def test_the_tour_has_a_link_for_each_published_figure():
    at = pull(open_app(), "tour")
    text = next(m.value for m in at.markdown if "accuracy_and_ablation?view=" in m.value).replace("\u00a0", " ")
    found = dict(re.findall(r"\[(T = \d+: [\d.]+ %)\]\(\S+?view=([\w-]+)\)", text))
    scene, _ = link.admit(link.decode(found["T = 16: 93.38 %"]))
    now = scene.settings
    assert (now.network, now.method, now.T, now.rule) == ("vgg16-clip", "opi", 16, "clip")
    figures = [(one, T) for one in published.PUBLISHED for T in one.top1]
    shipped = [one for one in figures if published.reproduction(*one, "embedded", "auto") is not None]
    assert len(found) == len(shipped) > 10


def test_numbers_in_the_lessons_are_true():
    from explorer.plots import theory
    from explorer.study.energy import ADD_PJ, MAC_PJ

    text = (ROOT / "assets/lessons/theory.md").read_text()
    x = theory.inputs("uniform", 1.0)
    (mean0, square0), (_, square) = theory.moments(x, 1.0, 8, 0.0), theory.moments(x, 1.0, 8, 0.5)
    for number in (f"{mean0:.4f}", f"{square0:.5f}", f"{square:.5f}"):
        assert number in text, number
    energy = (ROOT / "assets/lessons/energy.md").read_text()
    assert f"{ADD_PJ} pJ" in energy and f"{MAC_PJ} pJ" in energy and f"{MAC_PJ / ADD_PJ:.1f}" in energy
