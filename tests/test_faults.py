"""Faults of the machine, provoked: missing and damaged assets, full memory and disk. The page says what happened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from explorer.engine.errors import AssetError, Cancelled, CheckpointError, DataError, ExplorerError, readable
from explorer.study import measure, uploads
from explorer.zoo import cards, hub, memory, registry
from explorer.zoo.cards import read_weights
from explorer.zoo.data import ASSETS
from explorer.zoo.own import NetworkSource
from tests import hostile
from tests.app_help import SMALL, errors, open_app, settle


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of one shipped network, where shipped ones lie."""
    monkeypatch.setattr(cards, "SHIPPED", tmp_path)
    for suffix in (".json", ".safetensors"):
        shutil.copy(ASSETS / f"resnet20-relu{suffix}", tmp_path)
    return tmp_path


FAULTS = {
    "weights missing": lambda folder: (folder / "resnet20-relu.safetensors").unlink(),
    "weights empty": lambda folder: (folder / "resnet20-relu.safetensors").write_bytes(b""),
    "weights cut": lambda folder: (folder / "resnet20-relu.safetensors").write_bytes(b"\0" * 99),
    "card missing": lambda folder: (folder / "resnet20-relu.json").unlink(),
    "card cut": lambda folder: (folder / "resnet20-relu.json").write_text('{"name": "resn'),
    "card no text": lambda folder: (folder / "resnet20-relu.json").write_bytes(b"\xff\xfe\x00"),
    "card a folder": lambda folder: ((folder / "resnet20-relu.json").unlink(), (folder / "resnet20-relu.json").mkdir()),
    "weights a folder": lambda folder: (
        (folder / "resnet20-relu.safetensors").unlink(),
        (folder / "resnet20-relu.safetensors").mkdir(),
    ),
}


@pytest.mark.parametrize("spoil", FAULTS.values(), ids=FAULTS.keys())
def test_a_spoiled_asset_is_an_asset_error_with_the_mend(assets, spoil):
    registry.load("resnet20-relu", assets)
    spoil(assets)
    with pytest.raises(AssetError, match=r"resnet20-relu.*(git checkout|permissions)"):
        registry.load("resnet20-relu", assets)
    registry.available(assets)


def test_a_card_of_another_architecture_does_not_belong_to_the_weights(assets):
    card = json.loads((assets / "resnet20-relu.json").read_text())
    for architecture in ("vgg16", "nothing", "../x"):
        (assets / "resnet20-relu.json").write_text(
            json.dumps(card | {"recipe": card["recipe"] | {"architecture": architecture}})
        )
        with pytest.raises(AssetError, match=r"do not belong together"):
            registry.load("resnet20-relu", assets)


def test_weights_whose_checksum_was_changed_with_them_are_still_refused(assets):
    path = assets / "resnet20-relu.safetensors"
    path.write_bytes(b"{}" * 100)
    from explorer.zoo.cards import sha256

    with pytest.raises(AssetError, match=r"cannot be read"):
        read_weights(path, sha256(path))


def test_a_network_that_cannot_be_loaded_leaves_the_last_good_result(monkeypatch):
    at = settle(open_app(SMALL))
    assert not at.error
    monkeypatch.setattr(registry, "read_weights", lambda *_: (_ for _ in ()).throw(AssetError("weights are damaged.")))
    from explorer.study import library

    library._pretrained.clear()
    at.selectbox(key="set_network").set_value("vgg16-clip").run()
    assert "weights are damaged" in errors(at)
    assert "Shown below: the last good result" in " ".join(c.value for c in at.caption)
    library._pretrained.clear()


def test_an_upload_that_the_memory_cannot_hold_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 100)
    with pytest.raises(CheckpointError, match=r"net.pt: too large for this machine's memory"):
        uploads.read_network("net.pt", hostile.GOOD, NetworkSource("resnet20-relu"), "CIFAR-10", print)


def test_a_disk_that_is_full_while_weights_are_fetched_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(AssetError, match=r"cannot be kept in .*No space left.*Free space there"):
        hub.fetch("https://example.org/net-00000000.pth")


def test_messages_have_a_length_and_no_power_over_terminals():
    error = ExplorerError("x" * 10**6 + "\x1b[2J\x07\u202e end")
    assert len(str(error)) < 1600
    assert str(error).endswith("?[2J??? end") or str(error).endswith("?[2J?? end")
    assert readable("käse\n☃") == "käse\n☃"
    assert isinstance(replace(SMALL, T=4).describe(), str)


def test_finding_thresholds_for_a_close_look_can_be_stopped_and_leaves_nothing_half_done():
    settings = replace(SMALL, p=97.3)
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        measure.look(settings, stop)
    assert len(asked) == 3
    assert measure.look(settings).ann.shape == (10,)


def test_a_look_that_the_memory_cannot_hold_is_refused_before_thresholds_are_sought(monkeypatch):
    from explorer.study import library

    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    monkeypatch.setattr(library, "calibration", lambda *_, **__: pytest.fail("thresholds were sought"))
    with pytest.raises(DataError, match=r"resnet20-relu: one image of 32x32 pixels in 9 steps needs about"):
        measure.look(replace(SMALL, T=9, p=97.1))
