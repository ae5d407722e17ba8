"""The Explorer page: every control changes the result; bad input is explained and the last good result stays."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.study import link
from explorer.study.scene import Display, Pin, Scene
from explorer.study.script import script
from explorer.study.settings import Settings
from explorer.study.tables import curve_csv
from tests.app_help import ROOT, SMALL, chart, errors, held, metric, open_app, pull, settle, values


@pytest.fixture(scope="module")
def settled():
    """The Explorer with a finished small run; tests that change it open their own."""
    return settle(open_app())


def membrane(at):
    return values(chart(at, "membrane")["data"][0]["y"])


def curve(at):
    lines = [trace for trace in chart(at, "accuracy")["data"] if trace.get("mode") == "lines+markers"]
    return values(lines[0]["y"])


def test_first_view_is_useful(settled):
    assert not settled.exception and not settled.error
    names = [trace["name"] for trace in chart(settled, "accuracy")["data"] if trace.get("mode") == "lines+markers"]
    assert names == ["yours: v_init = 1/2", "v_init = 0"]
    assert len(curve(settled)) == SMALL.T
    assert [trace["name"] for trace in chart(settled, "scores")["data"]] == ["ANN", "SNN"]
    assert "16 of 16" in metric(settled, "Images so far")
    assert any("16 evaluation images" in caption.value for caption in settled.caption)


def test_layer_table_is_filled_and_errors_drawn(settled):
    table = settled.dataframe[0].value
    assert len(table) == 19 and table["threshold"].gt(0).all() and table["error"].notna().all()
    assert len(chart(settled, "layer_error")["data"][0]["x"]) == 19
    assert {"identity â = a", "clip(a, 0, θ)"} <= {trace.get("name") for trace in chart(settled, "histogram")["data"]}


@pytest.mark.parametrize(("name", "value"), [("v_init", 0.1), ("scale", 0.6), ("T", 12)])
def test_moving_a_slider_changes_trace_and_curve(name, value):
    at = settle(open_app())
    before, old = membrane(at), curve(at)
    at.slider(key=f"set_{name}").set_value(value).run()
    assert not np.array_equal(membrane(at), before)
    settle(at)
    assert not np.array_equal(curve(at), old)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rule", "max"), ("rule", "mse"), ("per", "channel"), ("start", "uniform"), ("start", "gaussian")],
)
def test_choosing_another_rule_changes_the_trace(name, value):
    at = open_app()
    before = membrane(at)
    at.selectbox(key=f"set_{name}").set_value(value).run()
    assert not at.exception and not at.error
    assert not np.array_equal(membrane(at), before)


def test_a_percentile_is_typed_as_exactly_as_it_is_meant():
    at = open_app()
    before = membrane(at)
    at.number_input(key="set_p").set_value(99.99).run()
    assert not np.array_equal(membrane(at), before)
    assert any("p99.99" in caption.value for caption in settle(at).caption), "said of what is drawn"


def test_spread_and_seed_act_on_random_starts():
    at = open_app(replace(SMALL, start="uniform"))
    seen = [membrane(at)]
    seen.append(membrane(at.number_input(key="set_seed").set_value(5).run()))
    seen.append(membrane(at.slider(key="set_spread").set_value(0.1).run()))
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])


def test_neuron_image_and_number_of_images_act():
    at = open_app()
    before, scores = membrane(at), values(chart(at, "scores")["data"][0]["x"])
    at.number_input(key="set_column").set_value(3).run()
    assert not np.array_equal(membrane(at), before)
    at.selectbox(key="set_layer").set_value("act1").run()
    assert "act1" in str(at.selectbox(key="set_layer").value)
    at.number_input(key="set_image").set_value(1).run()
    assert not np.array_equal(values(chart(at, "scores")["data"][0]["x"]), scores)
    pull(at, "images").slider(key="set_images").set_value(32).run()
    assert "32 of 32" in metric(settle(at), "Images so far")


def test_presets_undo_and_reset():
    at = open_app(replace(SMALL, v_init=0.3, scale=0.8))
    at.button(key="preset_Zero start").click().run()
    assert at.slider(key="set_v_init").value == 0.0 and at.slider(key="set_scale").value == 1.0
    at.button(key="undo").click().run()
    assert at.slider(key="set_v_init").value == 0.3
    at.button(key="preset_OPI, half threshold").click().run()
    assert at.slider(key="set_v_init").value == 0.5
    at.slider(key="set_T").set_value(9).run()
    at.button(key="reset").click().run()
    assert at.slider(key="set_T").value == 32 and not at.exception


def test_a_layer_from_the_link_changes_trace_and_table():
    plain = open_app()
    site = plain.selectbox(key="set_layer").value
    at = settle(
        open_app(
            Settings(
                **{
                    **SMALL.__dict__,
                    "layer": site,
                    "channel": plain.number_input(key="set_channel").value,
                    "row": plain.number_input(key="set_row").value,
                    "column": plain.number_input(key="set_column").value,
                    "sites": ((site, 0.5, 0.25),),
                }
            )
        )
    )
    assert not np.array_equal(membrane(at), membrane(plain))
    row = at.dataframe[0].value.set_index("layer").loc[site]
    assert (row["scale"], row["v_init"]) == (0.5, 0.25)
    at.button(key="reset_layers").click().run()
    assert held(at)["set_sites"] == ()


def test_pins_stay_and_are_forgotten():
    at = settle(open_app())
    at.button(key="pin").click().run()
    at.slider(key="set_v_init").set_value(0.2).run()
    settle(at)
    names = [trace["name"] for trace in chart(at, "accuracy")["data"] if trace.get("mode") == "lines+markers"]
    assert len(names) == 3 and names[0] == "yours"
    at.button(key="unpin").click().run()
    assert held(at)["pins"] == ()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("set_source", "/no/such/folder", "folder|exist|found"), ("set_image", 9999, "Choose 0 to 1999")],
)
def test_bad_input_is_explained_and_the_last_good_result_stays(key, value, words):
    import re

    at = settle(open_app())
    before = membrane(at)
    held(at)["pending"] = {key.removeprefix("set_"): value}
    at.run()
    assert not at.exception and re.search(words, errors(at))
    assert np.array_equal(membrane(at), before)


def test_trained_clip_without_one_is_explained():
    at = open_app()
    at.selectbox(key="set_rule").set_value("clip").run()
    assert not at.exception and "clip" in errors(at)
    assert chart(at, "membrane")


def test_a_damaged_link_is_explained_and_the_defaults_used():
    at = open_app()
    from streamlit.testing.v1 import AppTest

    from tests.app_help import ROOT

    fresh = AppTest.from_file(str(ROOT / "explorer" / "app.py"), default_timeout=120)
    fresh.query_params[link.PARAMETER] = link.encode(Scene(Settings(T=9, v_init=0.125)))[:-5]
    fresh.run()
    assert "damaged" in fresh.warning[0].value or "does not end" in fresh.warning[0].value
    assert fresh.slider(key="set_T").value == 32 and not at.exception


def test_table_edits_are_checked(monkeypatch):
    from explorer.ui import state
    from explorer.ui.panels import layer_table

    session, said = {"k": {"edited_rows": {0: {"scale": -1.0}, 1: {"v_init": 0.25}}}}, []
    changed = {}
    monkeypatch.setattr(layer_table.st, "session_state", session)
    monkeypatch.setattr(state, "current", lambda: Settings())
    monkeypatch.setattr(state, "say", said.append)
    monkeypatch.setattr(state, "change", lambda **values: changed.update(values))
    layer_table._edited("k", ("a", "b"))
    assert "0.05 to 4, got -1" in said[0] and changed["sites"] == (("b", None, 0.25),)


@pytest.mark.parametrize(
    ("page", "where"),
    [pytest.param(None, "checkout", marks=pytest.mark.slow), ("accuracy_and_ablation", "installed")],
)
def test_exported_script_reproduces_what_is_on_screen(tmp_path, page, where):
    """Saved in a folder of its own: run there with the package installed, or from the checkout's root."""
    settings = replace(SMALL, T=4, images=32, v_init=0.3, sites=(("act1", 0.9, 0.5),))
    pinned = Pin(replace(SMALL.of_run(), T=6, rule="max"), "other rule")
    at = open_app(Scene(settings, Display(ablation="start"), (pinned,)), page)
    lines = held(settle(at))["shown"].everything()
    file = tmp_path / "run.py"
    file.write_text(script(lines), encoding="utf-8")
    installed = {"PYTHONPATH": str(ROOT)} if where == "installed" else {}
    done = subprocess.run(
        [sys.executable, str(file), str(tmp_path / "curves.csv")],
        cwd=tmp_path if where == "installed" else ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | installed,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    printed = dict(reversed(text.split(": ", 1)) for text in done.stdout.splitlines())
    assert len(printed) == len(lines) == (4 if page is None else 8)
    for line in lines:
        share = 100 * line.result.top1[-1]
        assert f"top-1 {share / 100:.6f} on 32 images, T = {line.settings.T}" in printed[line.name]
    assert abs(100 * lines[0].result.top1[-1] - curve(at)[-1]) < 1e-4
    shown = curve_csv({line.name: line.result for line in lines})
    assert (tmp_path / "curves.csv").read_text(encoding="utf-8").splitlines() == shown.splitlines()


def test_a_link_can_hide_controls_on_every_page():
    at = AppTest.from_file(str(ROOT / "explorer" / "app.py"), default_timeout=120)
    at.query_params[link.PARAMETER] = link.encode(Scene(replace(SMALL, v_init=0.25)))
    at.query_params[link.HIDE] = "thresholds,potential,nonsense"
    at.run()
    for page in (None, "rates_and_errors"):
        if page:
            at.switch_page(f"../pages/{page}.py").run()
        shown = {slider.key for slider in at.slider}
        assert "set_T" in shown and not shown & {"set_v_init", "set_scale"}
        assert any("v_init 0.25" in caption.value for caption in at.caption)
    pull(at, "share").multiselect(key="hide_in_link").set_value(["tour"]).run()
    assert any("&hide=tour" in code.value for code in at.code)


def test_a_link_to_what_cannot_be_shown_offers_the_defaults():
    at = AppTest.from_file(str(ROOT / "explorer" / "app.py"), default_timeout=120)
    at.query_params[link.PARAMETER] = link.encode(Scene(replace(SMALL, image=5000, sites=(("nope", 1.2, None),))))
    at.query_params[link.HIDE] = "presets,images,network"
    at.run()
    assert at.error and not at.subheader
    at.button(key="start_anew").click().run()
    assert not at.error and at.subheader


def test_reset_keeps_a_trained_clip():
    at = settle(open_app(replace(SMALL, network="resnet20-clip", rule="clip", v_init=0.2)))
    at.button(key="reset").click().run()
    assert at.selectbox(key="set_rule").value == "clip" and at.slider(key="set_v_init").value == 0.5


def test_network_row_and_device_act():
    at = settle(open_app(replace(SMALL, layer="act1", channel=3, row=4, column=5)))
    before = membrane(at)
    at.number_input(key="set_row").set_value(20).run()
    moved = membrane(at)
    assert not np.array_equal(moved, before)
    at.selectbox(key="set_network").set_value("resnet20-clip").run()
    assert not at.error and not np.array_equal(membrane(at), moved)
    assert at.selectbox(key="set_rule").value == "clip", "it was trained with one"
    at.selectbox(key="set_network").set_value("resnet20-relu").run()
    assert not at.error and at.selectbox(key="set_rule").value == "percentile"
    at.selectbox(key="set_rule").set_value("max").run()
    at.selectbox(key="set_network").set_value("resnet20-clip").run()
    assert at.selectbox(key="set_rule").value == "max", "chosen on purpose"
    assert any("resnet20-clip" in caption.value for caption in settle(at).caption)
    pull(at, "images").selectbox(key="set_device").set_value("cpu").run()
    assert not at.error
    import torch

    if not torch.cuda.is_available():
        shown = membrane(at)
        at.selectbox(key="set_device").set_value("cuda").run()
        assert "no CUDA GPU here. Choose" in errors(at) and np.array_equal(membrane(at), shown)


def test_undo_takes_back_display_choices_and_pins_too():
    at = settle(open_app(page="accuracy_and_ablation"))
    at.toggle(key="set_log_axis").set_value(False).run()
    at.button(key="pin").click().run()
    settle(at)
    at.button(key="undo").click().run()
    assert held(at)["pins"] == () and at.toggle(key="set_log_axis").value is False
    at.button(key="undo").click().run()
    assert at.toggle(key="set_log_axis").value is True


def test_pins_and_display_choices_come_with_the_link():
    pinned = Pin(replace(SMALL.of_run(), v_init=0.1))
    at = settle(open_app(Scene(SMALL, Display(log_axis=False), (pinned,)), "accuracy_and_ablation"))
    figure = chart(at, "accuracy")
    assert figure["layout"]["xaxis"].get("type") != "log"
    assert any(trace.get("name", "").startswith("pin ") for trace in figure["data"])


def test_a_drag_is_undone_in_one_go(monkeypatch):
    from explorer.ui import state

    now = [100.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: now[0])
    at = open_app()
    for T in (9, 10, 11):
        now[0] += 0.1
        at.slider(key="set_T").set_value(T).run()
    now[0] += 0.1
    at.slider(key="set_v_init").set_value(0.1).run()
    now[0] += 5
    at.slider(key="set_v_init").set_value(0.2).run()
    seen = []
    for _ in range(3):
        at.button(key="undo").click().run()
        seen.append((at.slider(key="set_T").value, at.slider(key="set_v_init").value))
    assert seen == [(11, 0.1), (11, 0.5), (8, 0.5)] and at.button(key="undo").disabled


def test_undo_passes_over_what_is_gone_and_drags_that_end_where_they_began():
    at = settle(open_app())
    history = held(at)["history"]
    old, gone = replace(history[-1].settings, v_init=0.3), replace(history[-1].settings, source="upload:gone")
    now = history[-1]
    history[:] = [Scene(old), Scene(gone), Scene(old), Scene(gone), now]
    at.run()
    at.button(key="undo").click().run()
    settle(at)
    assert held(at)["history"][-1].settings.v_init == 0.3 and not at.warning
    for name in ("Zero start", "OPI, half threshold"):
        at.button(key=f"preset_{name}").click().run()
    scenes = held(at)["history"]
    assert all(one != two for one, two in itertools.pairwise(scenes)), "no step back that changes nothing"


@pytest.mark.parametrize("method", ["first-spike", "srp"])
def test_the_caption_says_what_the_spikes_stand_for(method):
    """Not theta n / T for codes: what the lab draws as decoded."""
    at = settle(open_app(replace(SMALL, method=method)))
    told = next(c.value for c in at.caption if c.value.startswith("The spikes of T = 8 steps count"))
    shown = float(told.split("**")[1].replace("−", "-"))
    lab = settle(open_app(replace(SMALL, method=method), "membrane_lab"))
    decoded = [values(trace["y"]) for trace in chart(lab, "lab_decoded")["data"] if trace.get("name") == "yours"]
    assert shown == pytest.approx(float(decoded[0][-1]), rel=2e-3, abs=1e-4)
