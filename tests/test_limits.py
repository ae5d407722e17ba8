"""What strangers may ask of a server: links without folders and downloads, public limits, messages that stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from explorer import limits
from explorer.study import keys, link
from explorer.study.scene import Pin, Scene
from explorer.study.settings import Settings
from explorer.ui import session, state
from tests.app_help import SMALL, open_app, settle
from tests.pictures import class_folders

ROOT = Path(__file__).resolve().parents[1]
TOML = ROOT / "explorer" / ".streamlit" / "config.toml"


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.9.1", None])
def test_a_server_that_only_this_computer_reaches_is_ones_own(address, monkeypatch):
    monkeypatch.delenv(limits.PUBLIC, raising=False)
    limits.announce(address)
    assert not limits.read(os.environ).public


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "explorer.example.org"])
def test_a_server_that_others_reach_is_public_unless_the_operator_says_otherwise(address, monkeypatch):
    monkeypatch.setenv(limits.PUBLIC, "")
    monkeypatch.delenv(limits.PUBLIC)
    limits.announce(address)
    assert limits.read(os.environ).public
    monkeypatch.setenv(limits.PUBLIC, "0")
    limits.announce(address)
    assert not limits.read(os.environ).public


def test_the_settings_file_listens_on_this_computer_alone():
    import tomllib

    assert limits.is_own(tomllib.loads(TOML.read_text())["server"]["address"])


def test_public_limits_are_narrower():
    own, public = limits.read({}), limits.read({limits.PUBLIC: "1"})
    for name in (
        "images",
        "steps",
        "input_size",
        "network_mib",
        "pictures",
        "picture_mib",
        "pictures_mib",
        "visitors",
        "runs",
        "store_mib",
    ):
        assert getattr(public, name) < getattr(own, name), name
    assert own.free_folders and own.downloads and own.free_device
    assert not (public.free_folders or public.downloads or public.free_device)


def test_named_folders_are_read():
    found = limits.named_folders("birds=/data/birds; my cats = C:\\cats\nbad/name=/x;=/y;empty=;")
    assert found == {"birds": "/data/birds", "my cats": "C:\\cats"}
    public = limits.read({limits.PUBLIC: "1", limits.FOLDERS: "birds=/data/birds"})
    admitted = {
        name: public.admits_source(name) for name in ("embedded", "upload:0:a", "folder:birds", "folder:x", "/proc")
    }
    assert admitted == {"embedded": True, "upload:0:a": True, "folder:birds": True, "folder:x": False, "/proc": False}


def test_a_named_folder_is_read_by_its_name(tmp_path, monkeypatch):
    from explorer.engine.errors import DataError
    from explorer.zoo import data

    class_folders(tmp_path, {"cat": 2, "dog": 2})
    monkeypatch.setattr(data, "limits", lambda: limits.read({limits.FOLDERS: f"pets={tmp_path}"}))
    assert data.data_source("folder:pets") == data.ClassFolders(str(tmp_path))
    with pytest.raises(DataError, match=r"folder:other: no folder of this name here.*pets"):
        data.data_source("folder:other")


@pytest.mark.parametrize("source", ["/proc", "/", "/usr", "~", "..", "C:\\", "/etc/passwd", "//host/share"])
def test_a_link_chooses_no_folder(source):
    settings = replace(SMALL, source=source, image=3)
    scene, told = link.admit(Scene(settings, pins=(Pin(settings), Pin(SMALL))))
    assert scene == Scene(SMALL, pins=(Pin(SMALL),))
    assert "which a link cannot choose" in told
    assert source not in told


def test_a_folder_chosen_here_stays_when_the_page_is_reloaded(tmp_path):
    scene = Scene(replace(SMALL, source=str(tmp_path)))
    assert link.admit(scene)[0].settings.source == "embedded"
    link.allow_folder(str(tmp_path))
    assert link.admit(scene) == (scene, "")


def test_a_link_starts_no_download(monkeypatch):
    from explorer.zoo import hub

    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("something was fetched"))
    at = open_app(replace(SMALL, network="torchvision:resnet18", layer="x"))
    assert at.selectbox(key="set_network").value == "resnet20-relu"
    assert "a link starts no download" in at.warning[0].value


def test_messages_stay_until_they_are_dismissed():
    at = open_app(replace(SMALL, source="/proc"))
    settle(at)
    at.slider(key="set_T").set_value(4).run()
    settle(at)
    assert "which a link cannot choose" in at.warning[0].value
    at.button(key="dismiss").click().run()
    assert not at.warning


def test_messages_do_not_pile_up(monkeypatch):
    kept: dict[str, Any] = {}
    monkeypatch.setattr(session.st, "session_state", {session.ALL: kept})
    for text in ("a", "b", "a", "c", "d", "d"):
        state.say(text)
    assert kept["message"].split(state.PARAGRAPH) == ["a", "c", "d"]


PUBLIC_APP = """
import json
from dataclasses import replace
from tests.app_help import SMALL, open_app, pull
from explorer.ui import state
at = open_app(replace(SMALL, source={source!r}, images=2000, T=256, device="cuda"))
pull(at, "images").button(key="open_images").click().run()
names = [box.key for box in (*at.text_input, *at.selectbox)]
print(json.dumps({{
    "images": at.slider(key="set_images").value, "T": at.slider(key="set_T").value,
    "source": at.selectbox(key="set_source").value, "device": at.selectbox(key="set_device").value,
    "folder": "folder_path" in names, "named": "folder_named" in names,
    "tabs": [tab.label for tab in at.tabs], "exceptions": len(at.exception),
}}))
"""


def test_a_public_server_keeps_to_its_limits(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    environment = os.environ | {limits.PUBLIC: "1", limits.FOLDERS: f"pets={tmp_path}"}
    code = PUBLIC_APP.format(source=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "images": 512,
        "T": 128,
        "source": "embedded",
        "device": "auto",
        "folder": False,
        "named": True,
        "tabs": ["Your pictures", "A folder"],
        "exceptions": 0,
    }


HOSTILE = [
    "see http://evil.example/x and https://evil.example",
    "www.evil.example or WWW.evil.example",
    "write to someone@evil.example",
    "# a heading\n## another",
    "- item\n+ item\n1. item\n2) item",
    "> quote",
    "===\n---",
    "    code",
    ":material/bolt: :smile: :red[text] :blue-background[x]",
    "$x^2$ `code` *a* **b** ~c~ <b>d</b> &lt;script&gt;",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "![x](http://evil.example/p.png) [y](javascript:alert(1))",
]


def test_texts_lose_nothing_but_their_power():
    for text in HOSTILE:
        shown = keys.plain(text).replace(keys.WORD_JOINER, "").replace("\\", "")
        assert shown.split() == text.split()
    assert keys.plain("net.pt: truncated, 3 of 4 names (vgg16-relu), p99.9") == (
        "net.pt: truncated, 3 of 4 names (vgg16-relu), p99.9"
    )


def test_the_link_of_the_default_scene_is_admitted_as_it_is():
    assert link.admit(Scene(Settings())) == (Scene(Settings()), "")
