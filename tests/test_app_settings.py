"""The settings table and the share link: round trip, clamping, hostile links."""

import base64
import json
import zlib
from dataclasses import replace

import pytest

from explorer.study import compare, keys, link
from explorer.study.scene import FIELDS, Display, Pin, Scene
from explorer.study.settings import PRESETS, Settings, changes, clamp, with_start
from tests.app_help import SMALL


def packed(content):
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(content).encode())).rstrip(b"=").decode()


def test_link_round_trip_with_layers():
    settings = Settings(T=64, v_init=0.25, sites=(("relu", 1.2, None), ("relu_1", None, 0.3)))
    assert link.decode(link.encode(Scene(settings))) == Scene(settings)
    assert len(link.encode(Scene(settings))) < 200


def test_a_link_carries_display_choices_and_pins():
    scene = Scene(
        Settings(T=9),
        Display(theory_v_init=0.3, log_axis=False, ablation="start"),
        (Pin(Settings(v_init=0.1), "low", 2), Pin(Settings())),
    )
    assert link.decode(link.encode(scene)) == scene


def test_pins_that_make_a_link_too_long_are_left_out():
    def pin(i):
        sites = tuple((f"layer{n:03}", (i * 7919 + n * 104729) % 997 / 499 + 0.1, None) for n in range(300))
        return Pin(Settings(sites=sites), slot=i)

    scene = Scene(pins=tuple(pin(i) for i in range(4)))
    kept = link.decode(link.encode(scene)).pins
    assert 0 < len(kept) < 4 and kept == scene.pins[-len(kept) :]


SLOTS = Scene(pins=(Pin(Settings(), ("ab" * 40)[:40], 3), Pin(Settings())))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"show": {"theory_T": 900, "theory_inputs": "odd"}}, Scene(display=Display(theory_T=64))),
        ({"show": {"log_axis": "no", "squared": 1}}, Scene()),
        ({"show": [1, 2]}, Scene()),
        ({"pins": {"T": 3}}, Scene()),
        ({"pins": [3, {"T": 1e9, "image": 7}]}, Scene(pins=(Pin(Settings(T=256)),))),
        ({"pins": [{}] * 9}, Scene(pins=tuple(Pin(Settings(), slot=i) for i in range(4)))),
        ({"pins": [{"name": "a\u0000b" * 40, "slot": 3}, {"name": 5, "slot": 3}]}, SLOTS),
        ({"pins": [{"per": []}], "show": {"ablation": [1]}}, Scene(pins=(Pin(Settings()),))),
    ],
)
def test_strange_scenes_are_put_into_range(raw, expected):
    assert link.decode(packed(raw)) == expected


def test_a_link_made_before_pins_had_names_opens_the_same_view():
    raw = {
        "T": 64,
        "p": 99.5,
        "v_init": 0.25,
        "sites": [["act1", 0.5, None]],
        "show": {"ablation": "scale", "log_axis": False},
        "pins": [{"rule": "max"}, {"v_init": 0.0, "sites": [["act1", None, 0.3]]}],
    }
    settings = Settings(T=64, p=99.5, v_init=0.25, sites=(("act1", 0.5, None),))
    pins = (Pin(Settings(rule="max"), slot=0), Pin(Settings(v_init=0.0, sites=(("act1", None, 0.3),)), slot=1))
    assert link.decode(packed(raw)) == Scene(settings, Display(ablation="scale", log_axis=False), pins)


def test_defaults_make_a_short_link():
    assert changes(Settings()) == {} and len(link.encode(Scene(Settings()))) < 20


@pytest.mark.parametrize(
    ("raw", "name", "expected"),
    [
        ({"T": 10_000}, "T", 256),
        ({"T": 0}, "T", 1),
        ({"T": "many"}, "T", 32),
        ({"v_init": float("nan")}, "v_init", 0.5),
        ({"scale": -3}, "scale", 0.1),
        ({"rule": "magic"}, "rule", "percentile"),
        ({"T": True}, "T", 32),
        ({"sites": [["a", -1, None], ["b", "x", None], 3]}, "sites", (("a", 0.05, None),)),
        ({"rule": []}, "rule", "percentile"),
        ({"device": {}}, "device", "auto"),
        ({"T": 10**400}, "T", 256),
        ({"v_init": -(10**400)}, "v_init", -0.5),
        ({"sites": [["a", 10**400, None]]}, "sites", (("a", 4.0, None),)),
        ({"network": "a\ud800\0b"}, "network", "ab"),
        ({"sites": [["a\ud800", 2.0, None]]}, "sites", (("a", 2.0, None),)),
    ],
)
def test_values_are_put_into_range(raw, name, expected):
    assert getattr(clamp(raw), name) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!!", "damaged"),
        ("AAAA", "damaged"),
        ("x" * 7000, "too long"),
        (packed([1]), "does not hold settings"),
        (packed("a" * 900_000)[:6000], "does not end|damaged|too long"),
    ],
)
def test_bad_links_are_explained(text, words):
    with pytest.raises(link.LinkError, match=words):
        link.decode(text)


def test_cut_link_is_explained():
    with pytest.raises(link.LinkError, match=r"damaged|does not end"):
        link.decode(link.encode(Scene(Settings(T=7, v_init=0.1)))[:-6])


def test_presets_and_descriptions():
    assert PRESETS["Zero start"](Settings(sites=(("a", 2.0, None),))) == Settings(v_init=0.0)
    assert "p99.9" in Settings().describe() and "seed 3" in Settings(start="uniform", seed=3).describe()


def test_a_start_changes_no_threshold():
    yours = Settings(scale=2.0, v_init=0.3, sites=(("a", 0.5, 0.1), ("b", None, 0.2)))
    assert with_start(yours, 0.0) == Settings(scale=2.0, v_init=0.0, sites=(("a", 0.5, None),))


def test_runs_that_differ_in_one_layer_have_names_of_their_own():
    names = {Settings(sites=((layer, 0.8, None),)).describe() for layer in "abc"}
    assert len(names) == 3 and any("b θ × 0.8" in name for name in names)


def test_names_are_shown_as_they_are():
    shown = keys.plain("[log in](http://evil.example) ![x](http://evil.example) *a* _b_ `c` <i> my_net.pth v_init")
    assert shown == (
        r"\[log in\](http\:~//evil.example) !\[x\](http\:~//evil.example) \*a\* \_b\_ \`c\` \<i\> my_net.pth v_init"
    ).replace("~", keys.WORD_JOINER)


def test_every_default_lies_in_its_range():
    assert all(field.clamp(field.default) == field.default for field in FIELDS)


def test_pins_are_run_on_the_images_that_are_shown():
    yours, pinned = replace(SMALL.of_run(), source="upload:pictures"), replace(SMALL.of_run(), v_init=0.1)
    named = compare.comparison(yours, (Pin(pinned),))
    assert {one.settings.source for one in named} == {"upload:pictures"} and named[-1].role == "pin0"


def test_a_link_with_a_rule_that_does_not_fit_beside_a_method_opens_every_page():
    scene, told = link.admit(Scene(replace(SMALL, method="opi", rule="clip")))
    assert scene.settings.rule == "percentile" and not told
    assert (
        link.admit(Scene(replace(SMALL, method="opi", rule="clip", network="resnet20-clip")))[0].settings.rule == "clip"
    )
