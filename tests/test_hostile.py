"""Attack the app's doors: no code is run, no file read outside, no host asked, memory and time stay bounded.

Two thousand seeded inputs run always; `-m slow` runs a hundred thousand.
"""

from __future__ import annotations

import functools
import io
import json
import mmap
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from explorer.cli import values
from explorer.engine import methods
from explorer.engine.errors import AssetError, DataError, ExplorerError, SpecError
from explorer.engine.methods import texts
from explorer.study import keys, link
from explorer.study.scene import FIELDS, Scene
from explorer.zoo import data
from explorer.zoo.architectures import build
from explorer.zoo.cards import CIFAR10_MEAN, CIFAR10_STD, Card, read_card
from explorer.zoo.checkpoint import read_state
from explorer.zoo.cifar10 import CLASSES
from explorer.zoo.fitting import load_checkpoint
from explorer.zoo.images import read_picture
from explorer.zoo.own import NetworkSource, class_list, numbers, open_network
from tests import hostile
from tests.watch import watched, within

CARD = Card("net", 32, CIFAR10_MEAN, CIFAR10_STD, CLASSES)
MIB, SECONDS = 1024, 10.0


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Load what is loaded once, so that it is counted for no input."""
    load_checkpoint("resnet20-relu", hostile.saved(build("resnet20-relu").state_dict()))
    read_picture(hostile.png(8, 8, lines=b"\0" * 200), CARD)
    read_state(hostile.GOOD)


@pytest.mark.parametrize("make", hostile.BOMBS.values(), ids=hostile.BOMBS.keys())
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "upload"])
def test_bombs_are_refused_in_words(make, as_file, tmp_path):
    content = make()
    path = tmp_path / "bomb.pt"
    path.write_bytes(content)
    refused = pytest.raises(ExplorerError, match=r"^bomb.pt: ")
    with within(MIB, SECONDS, "bomb"), watched(tmp_path) as seen, refused as caught:
        load_checkpoint("resnet20-relu", path if as_file else content, name="bomb.pt")
    assert not seen
    assert len(str(caught.value)) < 1600


def test_the_corpus_is_not_refused_for_its_form_alone():
    assert torch.equal(read_state(hostile.GOOD)["w0"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("make", hostile.PICTURE_BOMBS.values(), ids=hostile.PICTURE_BOMBS.keys())
def test_picture_bombs_are_refused_or_read(make, tmp_path):
    content = make()
    with within(MIB, SECONDS, "picture"), watched(tmp_path) as seen:
        try:
            assert read_picture(content, CARD, "bomb.png").shape == (32, 32, 3)
        except DataError as error:
            assert str(error).startswith("bomb.png: ")
    assert not seen


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "1"])
def test_the_largest_pictures_stay_within_a_gibibyte(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    out = io.BytesIO()
    hostile.Image.new(mode, (8000, 6000)).save(out, kind)
    with within(MIB, SECONDS, mode):
        assert read_picture(out.getvalue(), CARD).shape == (32, 32, 3)


def attack(name: str, content: bytes) -> None:
    """Require that a checkpoint is read, or refused in words."""
    try:
        state = read_state(content, name)
    except ExplorerError as error:
        assert str(error).startswith(f"{name}: "), error
        return
    assert all(bool(torch.isfinite(value.float()).all()) for value in state.values())


def attack_picture(name: str, content: bytes) -> None:
    """Require that a picture is read, or refused in words."""
    try:
        assert read_picture(content, CARD, name).shape == (32, 32, 3)
    except DataError as error:
        assert str(error).startswith((f"{name}: ", "a picture of")), error


def attack_link(text: str) -> None:
    """Require that a link is read into values in their ranges, or refused."""
    try:
        scene = link.decode(text)
    except link.LinkError:
        return
    admitted, _ = link.admit(scene)
    assert admitted.settings.source in ("embedded", scene.settings.source)
    assert not admitted.settings.source.startswith("/")
    for one in (admitted.settings, *(pin.settings for pin in admitted.pins)):
        keys.plain(one.describe())
        keys.plain(one.note())
        assert 1 <= one.T <= 256 and 16 <= one.images <= 2000
    assert link.decode(link.encode(admitted)) == Scene(admitted.settings, admitted.display, admitted.pins)


READERS = (
    functools.partial(texts.threshold_rule, steps=8),
    functools.partial(texts.initial_potential, seed=0),
    methods.parse,
    values.site_setting,
    values.class_names,
    class_list,
    functools.partial(numbers, what="mean"),
    data.data_source,
    lambda text: open_network(NetworkSource(text)),
    lambda text: open_network(NetworkSource("resnet20-relu", text)),
)


def attack_text(text: str) -> None:
    """Require of everything that reads a text to read it, or to say why not."""
    keys.plain(keys.clean(text))
    for read in READERS:
        try:
            read(text)
        except ExplorerError as error:
            assert str(error)


def attack_all(count: int, seed: int, folder) -> None:
    names = tuple(field.name for field in FIELDS)
    with within(MIB, 3600, "all"), watched(folder) as seen:
        for name, content in hostile.checkpoints(count * 6 // 10, seed):
            attack(name, content)
        for name, content in hostile.pictures(count * 2 // 10, seed):
            attack_picture(name, content)
        for text in hostile.links(count * 2 // 10, seed, names):
            attack_link(text)
    assert not seen


def test_two_thousand_hostile_inputs(tmp_path):
    attack_all(2000, 17, tmp_path)


def test_hostile_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with within(MIB, 60, "texts"), watched(tmp_path) as seen:
        for text in hostile.texts(150, 17):
            attack_text(text)
    assert not [event for event in seen if not event.startswith("open /")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_hostile_inputs(seed, tmp_path):
    attack_all(10_000, seed, tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_broken_cards_and_indices_are_asset_errors(seed, tmp_path):
    rng = hostile.random.Random(seed)
    for file in ("resnet20-relu.json", "cifar10.json"):
        whole = json.loads((data.ASSETS / file).read_text())
        whole[rng.choice(list(whole))] = hostile.random_value(rng)
        raw = json.dumps(whole).encode()
        (tmp_path / file).write_bytes(raw if seed % 2 else hostile.mutated(raw, rng))
    for read in (lambda: read_card(tmp_path / "resnet20-relu.json"), lambda: data.embedded("evaluation", tmp_path)):
        try:
            read()
        except (AssetError, SpecError) as error:
            assert str(error)


def test_the_guards_of_these_tests_see_what_they_look_for(tmp_path):
    with watched(tmp_path) as seen:
        zipfile.ZipFile(io.BytesIO(hostile.GOOD)).read("net/data.pkl")
        assert not seen
        with pytest.raises(FileNotFoundError):
            Path("/etc/no-such-file").read_bytes()
        pickle.loads(b"cos\ngetpid\n.")
        subprocess.run(["true"], check=True)
    assert len(seen) >= 3
    with pytest.raises(AssertionError, match="MiB"), within(50, 10, "memory"):
        mmap.mmap(-1, 100 * 2**20).write(b"x" * 2**20 * 100)
