"""The page Methods, driven without a browser; the lab under methods that do something a plain neuron does not."""

import importlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest

from explorer.engine.methods.names import NAMES
from explorer.engine.theory import wilson
from explorer.plots.membrane import DrawnMembrane
from explorer.study import measure, ranking
from explorer.study.scene import Display, Scene
from explorer.ui import cache
from tests.app_help import SMALL, chart, held, open_app, settle, values

FEW = ("opi", "cos", "qcfs")
TINY = replace(SMALL, T=2, v_init=0.3)


@pytest.fixture
def few(monkeypatch):
    """Compare a few methods only, none of which takes long to fit."""
    monkeypatch.setattr(ranking, "NAMES", {key: NAMES[key] for key in FEW})


def table(at, column):
    return next(frame.value for frame in at.dataframe if column in frame.value.columns)


def calm(at):
    """Rerun until all is measured, but not while the queue is busy: a rerun takes longer than a run."""
    while any(":material/sync:" in caption.value for caption in at.caption):
        end = time.monotonic() + 10
        while cache.runner().load().open_runs and time.monotonic() < end:
            time.sleep(0.1)
        at.run()
    return settle(at)


def test_the_page_measures_stops_explains_and_hands_a_method_to_all_pages(few):
    at = open_app(Scene(TINY, Display(methods_images=16, methods_starts=True, methods_windows=True)), "methods")
    at.button(key="methods_stop").click().run()
    said = [caption.value for caption in at.caption if "stopped" in caption.value]
    assert said and "still to come" in said[0] and at.button(key="methods_stop").label == "Go on"
    at.button(key="methods_stop").click().run()
    calm(at)
    shown = table(at, "latency")
    assert list(shown.columns[:3]) == ["method", "T = 1", "T = 2"]
    assert list(shown["method"]) == [*(NAMES[key].title for key in FEW[:2]), "yours: plain conversion"]
    for key, row in zip((*FEW[:2], ""), shown.to_dict("records"), strict=True):
        own = measure.Engine().advance(replace(TINY, method=key), 0, 16, lambda: False, lambda: False)
        assert [row["T = 1"], row["T = 2"]] == pytest.approx(100 * own.top1)
        assert (row["latency"], row["bits"]) == (2 + own.extra, own.bits)
        assert row["spikes"] == pytest.approx(own.spikes_per_neuron) and row["spikes"] > 0
        assert row["additions (M)"] == pytest.approx(own.additions / 1e6)
        assert row["energy (µJ)"] == pytest.approx(
            0.9 * own.additions / 1e6 + 4.6 * measure.constant(TINY.network) / 1e6
        )
    told = " ".join(caption.value for caption in at.caption)
    assert "was not trained with quantised activations" in told and "the first 16 images" in told
    low, high = (f"{100 * share:.1f}" for share in wilson(round(0.16 * shown["T = 2"].max()), 16))
    assert f"{shown['T = 2'].max():.1f} % ({low}–{high}) ○ shared with " in told
    assert (
        len(chart(at, "methods")["data"]) == 3 and "N = 16" in chart(at, "methods")["layout"]["xaxis"]["title"]["text"]
    )
    starts = table(at, "its own (%)")
    assert list(starts["method"]) == [NAMES[key].title for key in FEW[:2]]
    assert np.isnan(values(chart(at, "methods_windows")["data"][0]["z"])).sum() == 1
    published = table(at, "published (%)")
    assert published["published (%)"][0] == "66.24 (from memory, unchecked)"

    at.selectbox(key="methods_choice").set_value("cos").run()
    assert "Hao et al. 2023b" in str([m.value for m in at.markdown]) and r"\max(1, m - 0.999)" in at.latex[0].value
    assert set(table(at, "what it is")["field"]) >= {"rho", "rounds", "v_init"}
    at.button(key="methods_use").click().run()
    assert at.session_state["set_method"] == "cos"
    calm(at)
    assert list(table(at, "latency")["method"])[1] == f"▶ {NAMES['cos'].title}", "no row of its own any more"
    at.button(key="methods_back").click().run()
    assert at.session_state["set_method"] == "" and not at.exception


def test_what_a_page_asked_for_is_wanted_no_longer_on_another_one(few):
    at = open_app(Scene(replace(TINY, T=64), Display(methods_images=500)), "methods")

    def wanted():
        return [run for run in cache.runner()._runs.values() if held(at)["owner"] in run.wanted]

    assert wanted()
    at.switch_page("../pages/theory.py").run()
    assert not wanted() and not at.exception


def test_windows_are_read_piece_by_piece(few):
    at = open_app(Scene(replace(TINY, images=16), Display(methods_images=48, methods_windows=True)), "methods")
    assert "N = 32 of 48" in chart(at, "methods_windows")["layout"]["xaxis"]["title"]["text"]
    at.run()
    shown = chart(at, "methods_windows")
    assert shown["layout"]["xaxis"]["title"]["text"].endswith("N = 48")
    whole = measure.windows(replace(TINY, images=16), 0, 48)
    assert values(shown["data"][0]["z"])[0] == pytest.approx(100 * whole.hits[0] / 48)


@pytest.mark.parametrize(
    ("method", "told"),
    [("srp", "4 steps before t = 0 are the first phase, which left"), ("radix", "sends a code")],
)
def test_the_lab_says_what_a_method_does_to_its_neuron(method, told):
    at = open_app(replace(SMALL, T=4, method=method), "membrane_lab")
    assert not at.exception
    said = " ".join(caption.value for caption in at.caption)
    assert told in said
    yours = [trace for trace in chart(at, "lab_membrane")["data"] if trace.get("name") == "yours: first phase"]
    assert len(yours) == (method == "srp")


def test_the_player_takes_scores_that_are_not_there_yet(monkeypatch):
    module = importlib.import_module("explorer.ui.components.player")
    sent = []
    monkeypatch.setattr(module, "_PLAYER", lambda key, data: sent.append(data["record"]))
    ones = np.ones(2)
    shown = DrawnMembrane("yours", ones, ones, ones, ones, 1.0, 0.5, 1.0, value=np.array([0.5, 0.75]), sends_later=True)
    module.player(shown, np.array([[np.nan, np.nan], [1.0, 2.0]]), ["cat", "dog"], "key")
    assert "NaN" not in sent[0]
    record = json.loads(sent[0])
    assert record["scores"] == [None, [1.0, 2.0]] and record["classes"] == ["cat", "dog"]
    assert record["decoded"] == [0.5, 0.75] and record["later"] and not record["muted"]


def test_the_lab_tells_of_all_rounds_of_a_first_phase():
    at = open_app(replace(SMALL, T=2, method="cos:rounds=3,rho=1"), "membrane_lab")
    said = " ".join(caption.value for caption in at.caption)
    assert "The 1 step before t = 0 are the first of 3 rounds of it; together they" in said


def test_a_single_step_is_seen_and_a_code_is_drawn_when_it_is_sent():
    T = 2
    at = open_app(replace(SMALL, T=T, method="first-spike"), "membrane_lab")
    yours = next(line for line in chart(at, "first_spikes")["data"] if line["name"] == "yours")
    times, depth = values(yours["y"]), np.arange(19)
    known = np.isfinite(times)
    assert known.sum() > 10 and (times[known] > T * depth[known]).all() and (times <= T * (depth + 1))[known].all()
    at = open_app(replace(SMALL, T=1), "membrane_lab")
    for name in ("lab_decoded", "lab_current"):
        assert all("markers" in line["mode"] for line in chart(at, name)["data"]), name


def test_what_is_no_rate_is_not_called_one():
    for method, unit in (("radix", "decoded"), ("differential", "decoded"), ("signed", "spikes per step")):
        at = open_app(replace(SMALL, T=2, method=method), "membrane_lab")
        assert unit in chart(at, "rate_map")["data"][0]["colorbar"]["title"]["text"], method


def test_nothing_clips_where_a_method_has_no_bound():
    for method, clips in (("differential", False), ("burst", True)):
        at = settle(open_app(replace(SMALL, T=2, method=method), "rates_and_errors"))
        names = [line.get("name") or "" for line in chart(at, "histogram")["data"]]
        assert any(name.startswith("clip") for name in names) == clips, (method, names)


def test_energies_say_which_steps_they_count():
    for method, told in (("cos:rounds=2", "T = 2 and 8 before them"), ("opi", "T = 2"), ("radix", "T = 2")):
        at = settle(open_app(replace(SMALL, T=2, method=method), "energy"))
        assert chart(at, "sparsity")["layout"]["xaxis"]["title"]["text"].split(";")[0].endswith(told), method
