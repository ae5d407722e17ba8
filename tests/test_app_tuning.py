"""The page on which a network is fine-tuned: before, while, after; kept, pinned, discarded."""

import time
from dataclasses import replace

from explorer.study import keys, tuning
from explorer.ui import cache
from explorer.zoo.training import tuned
from tests.app_help import SMALL, chart, errors, held, metric, open_app
from tests.test_workshop import QUICK


def until(at, what, seconds=300):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, [c.value for c in at.caption]
        time.sleep(0.2)
        at.run()
    assert not at.exception, [e.value for e in at.exception]


def test_a_network_is_tuned_kept_pinned_and_discarded(monkeypatch):
    monkeypatch.setattr(tuned, "START", QUICK)
    at = open_app(replace(SMALL, T=2), "fine_tuning")
    assert not at.exception and "Nothing is trained yet" in str([c.value for c in at.caption])
    assert at.button(key="tuning_keep").disabled and at.button(key="tuning_discard").disabled
    at.number_input(key="tuning_updates").set_value(10)
    at.select_slider(key="tuning_images").set_value(64)
    at.select_slider(key="tuning_batch").set_value(8).run()
    at.button(key="tuning_start").click().run()
    job = cache.workshop().job(held(at)["owner"])
    assert job.wanted.updates == 10 and job.wanted.T == 2 and job.active
    until(at, lambda: job.status == "done")
    at.run()
    assert metric(at, "Layers that spike") == "19 of 19"
    assert metric(at, "Top-1 at the start") == f"{100 * job.opened.accuracy:.1f} %"
    assert len(chart(at, "tuning_thresholds")["data"][0]["y"]) == 19
    assert {trace["name"] for trace in chart(at, "tuning_accuracy")["data"]} >= {"tuned", "start (calibrated)", "ANN"}
    assert ("did not rise" in str([w.value for w in at.warning])) == (job.best[0] == 0)
    at.button(key="tuning_pin").click().run()
    assert not at.exception and not errors(at)
    kept = at.selectbox(key="set_network").value
    assert keys.is_upload(kept) and "hybrid-T2" in kept and at.selectbox(key="set_rule").value == "clip"
    (pin,) = held(at)["pins"]
    assert pin.network == kept and pin.settings.T == 2
    assert at.get("download_button")
    at.button(key="tuning_discard").click().run()
    assert cache.workshop().job(held(at)["owner"]) is None
    assert "Nothing is trained yet" in str([c.value for c in at.caption])


def test_what_cannot_be_tuned_is_said(monkeypatch):
    at = open_app(replace(SMALL, T=1), "fine_tuning")
    assert at.button(key="tuning_start").disabled and "T = 2 or more" in str([i.value for i in at.info])
    monkeypatch.setattr(tuning, "architecture", lambda name: "")
    cache.tunable.clear()
    at.slider(key="set_T").set_value(8).run()
    assert at.button(key="tuning_start").disabled and "this architecture has none" in str([i.value for i in at.info])
    cache.tunable.clear()
