"""The visitor's own weights and pictures in the app: chosen, shown by name, shared by link, exported, or refused."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from explorer.study import keys, uploads
from explorer.study.results import Result
from explorer.study.script import Line, script
from explorer.study.settings import Settings
from explorer.study.shelf import Shelf
from explorer.ui import cache
from explorer.zoo.data import embedded
from explorer.zoo.registry import load
from tests.app_help import ROOT, SMALL, chart, errors, held, metric, open_app, pull, settle, values
from tests.pictures import picture
from tests.test_zoo_checkpoints import Malice, deflated, saved

QUICK = replace(SMALL, T=4)


@pytest.fixture(scope="module")
def weights() -> bytes:
    """The shipped network's weights, wrapped as people save them."""
    return saved({"state_dict": {f"module.{k}": v for k, v in load("resnet20-relu")[0].state_dict().items()}})


def photographs(n: int) -> list[tuple[str, bytes]]:
    """Return test images as PNG files."""
    import io

    from PIL import Image

    found = []
    for i, image in enumerate(embedded().images[:n]):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        found.append((f"photo {i:02}.png", out.getvalue()))
    return found


def upload_network(at, name: str, content: bytes, architecture: str = "resnet20-relu"):
    """Open the window, give it a file, and press the button."""
    at.button(key="open_network").click().run()
    at.selectbox(key="own_architecture").set_value(architecture).run()
    at.file_uploader(key="own_file").upload(name, content).run()
    return at.button(key="own_load").click().run()


def upload_pictures(at, files: list[tuple[str, bytes]]):
    """Open the window, give it pictures, and press the button."""
    pull(at, "images").button(key="open_images").click().run()
    at.file_uploader(key="own_pictures_files").set_value([(name, content, "image/png") for name, content in files])
    at.run()
    return at.button(key="own_pictures_load").click().run()


def text(at) -> str:
    """Return captions and messages on screen."""
    return " ".join(e.value for e in (*at.caption, *at.markdown, *at.error, *at.warning))


def test_uploaded_weights_become_a_network_with_the_same_numbers(weights):
    before = settle(open_app(QUICK))
    at = settle(upload_network(open_app(QUICK), "my_net.pth", weights))
    chosen = at.selectbox(key="set_network")
    assert keys.is_upload(chosen.value) and not at.error
    assert "my_net.pth (resnet20-relu)" in chosen.options
    assert "my_net.pth (resnet20-relu), p99.9" in text(at) and "upload:" not in text(at)
    assert metric(at, "SNN top-1") == metric(before, "SNN top-1")
    assert np.array_equal(
        values(chart(at, "membrane")["data"][0]["y"]), values(chart(before, "membrane")["data"][0]["y"])
    )
    again = open_app(replace(QUICK, network=chosen.value))
    assert again.selectbox(key="set_network").value == chosen.value and not again.warning, "shared by link"


BAD = {
    "truncated": (lambda good: good[: len(good) // 2], "end is missing"),
    "malicious": (lambda _: saved({"w": Malice()}), "never run"),
    "bomb": (deflated, "compressed archive"),
    "not finite": (lambda _: saved({"w": torch.tensor([float("nan")])}), "not finite"),
    "another architecture": (lambda _: save({"w": torch.zeros(3)}), "missing: conv1.weight.*1 unexpected: w"),
    "empty": (lambda _: b"", "the file is empty"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_explained_and_the_last_good_result_stays(spoil, words, weights, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    at = open_app(QUICK)
    before = values(chart(at, "membrane")["data"][0]["y"])
    upload_network(at, "bad.pth", spoil(weights))
    assert not at.exception and re.search(words, errors(at))
    assert at.selectbox(key="set_network").value == QUICK.network
    assert np.array_equal(values(chart(at, "membrane")["data"][0]["y"]), before)
    assert not (tmp_path / "malice-was-run").exists()


def test_what_does_not_fit_the_memory_is_explained(weights, monkeypatch):
    from explorer.zoo import memory

    at = open_app(QUICK)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**5)
    upload_network(at, "large.pth", weights)
    assert "too large for this machine's memory" in errors(at)


def test_bad_options_are_explained(weights):
    at = open_app(QUICK)
    at.button(key="open_network").click().run()
    at.text_input(key="own_std").set_value("0, 1, 1").run()
    at.file_uploader(key="own_file").upload("net.pth", weights).run()
    assert "above 0" in errors(at.button(key="own_load").click().run())
    at.text_input(key="own_std").set_value("1, 1, 1").run()
    at.text_area(key="own_classes").set_value("a, b").run()
    assert "10" in errors(at.button(key="own_load").click().run())


def test_a_preset_fills_in_size_and_normalisation():
    at = open_app(QUICK)
    at.button(key="open_network").click().run()
    at.selectbox(key="own_preset").set_value("ImageNet").run()
    assert at.number_input(key="own_size").value == 224
    assert at.text_input(key="own_mean").value == "0.485, 0.456, 0.406"
    at.selectbox(key="own_architecture").set_value("vgg16-relu").run()
    assert at.number_input(key="own_size").value == 32


def test_a_network_without_rules_is_reported_and_not_chosen():
    from explorer.zoo.architectures import build

    torch.manual_seed(0)
    content = saved(build("torchvision:mobilenet_v3_small", 10).state_dict())
    at = upload_network(open_app(QUICK), "mobile.pth", content, "torchvision:mobilenet_v3_small")
    assert "cannot be converted" in errors(at) and "Hardswish" in errors(at)
    table = next(d.value for d in at.dataframe if "becomes" in d.value)
    assert table["becomes"].eq("nothing: no rule").sum() > 10
    assert at.selectbox(key="set_network").value == QUICK.network and chart(at, "membrane")


def test_the_report_lists_every_call_of_the_chosen_network():
    at = open_app(QUICK)
    at.button(key="open_report").click().run()
    table = next(d.value for d in at.dataframe if "becomes" in d.value)
    assert table["becomes"].eq("neurons").sum() == 19
    assert "19 sites with" in text(at) and "0 calls without a rule" in text(at)


def test_pictures_show_agreement_and_are_named(weights):
    at = upload_pictures(open_app(QUICK), photographs(5))
    settle(at)
    assert not at.error and "5 evaluation images (5 pictures)" in text(at)
    assert metric(at, "SNN agrees with ANN") and metric(at, "ANN top-1") == "no labels"
    assert chart(at, "accuracy")["layout"]["yaxis"]["title"]["text"] == "agreement with the ANN (%)"
    assert at.selectbox(key="set_source").value.startswith(keys.PREFIX)
    at = settle(upload_network(at, "net.pth", weights))
    assert not at.error and "5 evaluation images (5 pictures)" in text(at), "decoded anew for another network"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("a.png", b"hello")], "a.png: not a readable picture"),
        ([("a.png", picture()), ("b.png", picture()[:60])], "b.png: not a readable picture"),
        ([("strip.png", picture(size=(4000, 1)))], "strip"),
    ],
)
def test_bad_pictures_are_explained_and_the_last_good_result_stays(files, words):
    at = open_app(QUICK)
    upload_pictures(at, files)
    assert words in errors(at) and at.selectbox(key="set_source").value == "embedded"
    assert chart(at, "membrane")


@pytest.mark.parametrize("page", ["membrane_lab", "rates_and_errors", "accuracy_and_ablation", "energy"])
def test_every_page_takes_pictures_without_labels(page):
    card = load("resnet20-relu")[1]
    at = open_app(replace(QUICK, source=uploads.keep_pictures(photographs(5), card)), page)
    settle(at)
    assert not at.error and not at.exception and at.get("plotly_chart")
    if page == "energy":
        snn, ann = chart(at, "energy")["data"]
        assert max(values(snn["y"])) > 0 and list(values(ann["y"])) == [100]


def test_grey_pictures_are_taken():
    at = upload_pictures(open_app(QUICK), [("grey.png", picture("L", (40, 32)))])
    assert not at.error and "grey.png" in text(at)


def test_picture_limits_are_kept_on_the_server_too(monkeypatch):
    from explorer.engine import DataError

    card = load("resnet20-relu")[1]
    with pytest.raises(DataError, match=r"a.png: two pictures have this name"):
        uploads.keep_pictures([("a.png", picture()), ("a.png", picture("L"))], card)
    monkeypatch.setattr(uploads, "PICTURES_MAX", 1)
    with pytest.raises(DataError, match=r"at most 1 of 64 MiB"):
        uploads.keep_pictures([("a.png", picture()), ("b.png", picture())], card)


def test_a_folder_is_checked_before_it_is_taken(tmp_path):
    at = open_app(QUICK)
    pull(at, "images").button(key="open_images").click().run()
    at.text_input(key="folder_path").set_value(str(tmp_path)).run()
    assert "empty" in errors(at.button(key="folder_load").click().run())
    for name, content in photographs(3):
        (tmp_path / name).write_bytes(content)
    at.button(key="folder_load").click().run()
    assert at.selectbox(key="set_source").value == str(tmp_path) and not at.error


def test_an_unknown_upload_in_a_link_is_explained_and_the_rest_of_the_view_kept():
    lost = keys.make("lost.pt (resnet20-relu)", b"never uploaded here")
    at = open_app(replace(QUICK, network=lost, v_init=0.25))
    assert (
        "lost.pt (resnet20-relu) was uploaded" in at.warning[0].value and "Upload the file again" in at.warning[0].value
    )
    assert at.selectbox(key="set_network").value == "resnet20-relu" and at.slider(key="set_v_init").value == 0.25
    assert chart(at, "membrane") and not at.exception and not at.error


def test_an_upload_that_is_dropped_gives_way_to_what_works(weights):
    at = upload_network(open_app(QUICK), "net.pth", weights)
    assert keys.is_upload(at.selectbox(key="set_network").value)
    at.button(key="pin").click().run()
    cache.own_networks.clear()
    at.slider(key="set_v_init").set_value(0.1).run()
    assert "Upload the file again" in text(at) and at.selectbox(key="set_network").value == "resnet20-relu"
    assert held(at)["pins"] == () and not at.exception


def test_an_unreachable_hub_is_explained_and_the_last_good_result_stays(tmp_path, monkeypatch):
    import urllib.error

    from explorer.zoo import hub

    def nobody(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub.urllib.request, "urlopen", nobody)
    at = open_app(QUICK)
    at.selectbox(key="set_network").set_value("torchvision:resnet18").run()
    assert "hub cannot be reached" in at.warning[0].value
    assert at.selectbox(key="set_network").value == QUICK.network and chart(at, "membrane")
    at.button(key="open_network").click().run()
    at.selectbox(key="hub_name").set_value("torchvision:squeezenet1_1").run()
    assert "hub cannot be reached" in errors(at.button(key="hub_load").click().run())
    assert at.selectbox(key="set_network").value == QUICK.network


def test_a_link_cannot_make_the_server_fetch_what_does_not_convert():
    at = open_app(replace(QUICK, network="torchvision:vit_h_14"))
    assert "vit_h_14 does not convert" in at.warning[0].value
    assert at.selectbox(key="set_network").value == QUICK.network and not at.exception


def test_exported_script_reproduces_uploads(weights, tmp_path):
    files = photographs(12)
    at = settle(upload_pictures(upload_network(open_app(QUICK), "it's mine.pth", weights), files))
    settings = replace(
        QUICK, network=at.selectbox(key="set_network").value, source=at.selectbox(key="set_source").value
    )
    (tmp_path / "it's mine.pth").write_bytes(weights)
    (tmp_path / "pictures").mkdir()
    for name, content in files:
        (tmp_path / "pictures" / name).write_bytes(content)
    seen = Result(settings.T, np.zeros((12, settings.T), bool), np.zeros(12, bool))
    code = script([Line("yours", settings, seen)])
    assert "the file it's mine.pth and a folder named pictures" in code and "upload:" not in code
    (tmp_path / "run.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    name, share = done.stdout.split()[:2]
    shown = float(metric(at, "SNN agrees with ANN").removesuffix(" %"))
    assert name == "agreement" and abs(100 * float(share) - shown) < 0.06


def test_keys_are_of_content_and_readable():
    one, other = keys.make("a.pt", b"x", b"yz"), keys.make("a.pt", b"xy", b"z")
    assert one != other and one == keys.make("a.pt", b"x", b"yz")
    assert keys.label(one) == "a.pt" and keys.label("resnet20-relu") == "resnet20-relu"
    assert keys.label("upload:0:*[x](y:z)`<b>$") == "__x_(y_z)__b__"
    assert len(keys.make("x" * 500, b"")) < 110
    assert Settings(network=one).describe().startswith("a.pt, ")


def test_a_shelf_keeps_what_was_used_last_within_number_and_budget():
    shelf = Shelf[str](entries=2, budget_bytes=10)
    shelf.put("a", "A", 4)
    shelf.put("b", "B", 4)
    assert shelf.get("a") == "A"
    shelf.put("c", "C", 4)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == ("A", None, "C")
    shelf.put("d", "D", 50)
    assert len(shelf) == 1 and shelf.get("d") == "D"
