"""Images: the embedded sets, folders of every kind, pictures as people have them, and what is refused."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explorer.engine import calibrate, trace
from explorer.engine.errors import AssetError, Cancelled, DataError
from explorer.zoo import folders, memory
from explorer.zoo.cards import CIFAR10_MEAN, CIFAR10_STD, Card
from explorer.zoo.cifar10 import CLASSES, balanced_choice
from explorer.zoo.data import (
    ASSETS,
    Cifar10Root,
    ClassFolders,
    Embedded,
    LoosePictures,
    UploadedPictures,
    calibration_source,
    data_source,
    embedded,
    load_images,
)
from explorer.zoo.folders import to_outputs
from explorer.zoo.images import FORMATS, Inputs, fit, normalise, read_picture, read_pictures
from explorer.zoo.registry import load
from tests.pictures import class_folders, picture

CARD = Card("net", 32, CIFAR10_MEAN, CIFAR10_STD, CLASSES)
PETS = Card("pets", 16, (0.5,) * 3, (0.5,) * 3, ("cat", "dog"))


def test_embedded_evaluation_is_the_start_of_the_test_set():
    images = embedded("evaluation")
    assert images.images.shape == (2000, 32, 32, 3)
    assert images.images.dtype == np.uint8
    assert images.labels[0] == 3
    assert tuple(images.images[0, 0, 0]) == (158, 112, 49)
    assert images.classes == CLASSES


def test_embedded_calibration_is_class_balanced_and_not_in_evaluation():
    calibration, evaluation = embedded("calibration"), embedded("evaluation")
    assert sorted(set(np.bincount(calibration.labels))) == [51, 52]
    seen = {image.tobytes() for image in evaluation.images}
    assert len(calibration) == 512
    assert not any(image.tobytes() in seen for image in calibration.images)


@pytest.mark.parametrize("part", ["evaluation", "calibration"])
def test_a_damaged_sheet_is_noticed(tmp_path, part, monkeypatch):
    monkeypatch.setattr("explorer.zoo.cards.SHIPPED", tmp_path)
    for file in ("cifar10.json", "cifar10-evaluation.png", "cifar10-calibration.png"):
        shutil.copy(ASSETS / file, tmp_path / file)
    sheet = tmp_path / f"cifar10-{part}.png"
    damaged = bytearray(sheet.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    sheet.write_bytes(bytes(damaged))
    with pytest.raises(AssetError, match=r"damaged.*git checkout"):
        embedded(part, tmp_path)
    sheet.unlink()
    with pytest.raises(AssetError, match=r"missing.*git checkout"):
        embedded(part, tmp_path)


def test_a_broken_index_is_noticed(tmp_path):
    (tmp_path / "cifar10.json").write_text("{")
    with pytest.raises(AssetError, match=r"cifar10.json"):
        embedded(assets=tmp_path)


def test_a_part_of_a_set_is_its_beginning():
    few, more = (load_images(Embedded(), CARD, n) for n in (5, 9))
    assert np.array_equal(few.images, more.images[:5])
    assert np.array_equal(few.labels, more.labels[:5])
    assert len(load_images(Embedded(), CARD, 99_999)) == 2000


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_are_not_enough(n):
    with pytest.raises(DataError, match=f"at least 1, got {n}"):
        load_images(Embedded(), CARD, n)


def test_more_images_than_fit_are_refused():
    with pytest.raises(DataError, match=r"at most"):
        load_images(Embedded(), CARD, 10**8)


def test_normalised_pixels_follow_the_card():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    x = normalise(images, CARD)
    assert x.shape == (4, 3, 32, 32)
    assert x.dtype == torch.float32
    for c in range(3):
        expected = (images[2, 5, 7, c] / 255 - CIFAR10_MEAN[c]) / CIFAR10_STD[c]
        assert float(x[2, c, 5, 7]) == pytest.approx(expected, rel=1e-5)


def test_a_one_channel_network_gets_the_luminance():
    card = Card("grey", 32, (0.0,), (1.0,), CLASSES)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[..., 1] = 255
    assert normalise(images, card).shape == (1, 1, 32, 32)
    assert float(normalise(images, card).mean()) == pytest.approx(0.587, rel=1e-5)


def test_images_of_another_size_are_not_normalised():
    with pytest.raises(DataError, match=r"\[N, 32, 32, 3\]"):
        normalise(np.zeros((1, 28, 28, 3), np.uint8), CARD)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("RGB", (200, 100, 50)), ("RGBA", (255, 255, 255)), ("L", (90,) * 3), ("LA", (255,) * 3), ("1", (255,) * 3)],
)
def test_every_pixel_type_becomes_rgb(mode, expected):
    image = read_picture(picture(mode), CARD)
    assert image.shape == (32, 32, 3)
    assert tuple(image[16, 16]) == expected


def test_sixteen_bit_grey_keeps_its_brightness():
    assert tuple(read_picture(picture("I;16"), CARD)[0, 0]) == (40_000 >> 8,) * 3


def test_a_palette_becomes_its_colours():
    image = Image.new("RGB", (32, 32), (0, 160, 240)).convert("P", palette=Image.Palette.ADAPTIVE)
    out = io.BytesIO()
    image.save(out, "GIF")
    assert tuple(read_picture(out.getvalue(), CARD)[3, 3]) == (0, 160, 240)


def test_a_sideways_photograph_is_turned_upright():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 255
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    image = read_picture(out.getvalue(), CARD)
    assert image[:16].min() == 255
    assert image[16:].max() == 0


def test_a_picture_of_the_right_size_is_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert np.array_equal(read_picture(out.getvalue(), CARD), pixels)


def test_the_centre_is_cropped():
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert read_picture(out.getvalue(), CARD).min() == 255


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", picture()[:60], picture(kind="JPEG")[:200]], ids=["empty", "text", "png", "jpeg"]
)
def test_a_broken_picture_is_named(content):
    with pytest.raises(DataError, match=r"cat\.png: not a readable picture.*PNG or JPEG"):
        read_pictures([("cat.png", content)], CARD)


def test_a_picture_bomb_is_refused():
    content = bytearray(picture("1", (8, 8)))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(DataError, match=r"big.png"):
        read_pictures([("big.png", bytes(content))], CARD)


def test_a_strip_is_refused():
    with pytest.raises(DataError, match=r"strip"):
        read_picture(picture(size=(4000, 1)), CARD)


def test_loose_pictures_have_no_labels(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(picture())
    source = data_source(str(tmp_path))
    assert source == LoosePictures(str(tmp_path))
    images = load_images(source, CARD)
    assert len(images) == 2
    assert images.labels is None


def test_class_folders_are_read_in_the_networks_order(tmp_path):
    root = class_folders(tmp_path, {"dog": 8, "cat": 12})
    source = data_source(str(root))
    assert source == ClassFolders(str(root))
    images = load_images(source, PETS, 6)
    assert images.images.shape == (6, 16, 16, 3)
    assert np.bincount(images.labels).tolist() == [3, 3]
    assert all(image[0, 0, 0] == (0 if label == 1 else 50) for image, label in zip(images.images, images.labels))


def test_the_two_parts_of_class_folders_share_no_image(tmp_path):
    source = data_source(str(class_folders(tmp_path, {"cat": 9, "dog": 7})))
    parts = [load_images(source, PETS, part=part) for part in ("evaluation", "calibration")]
    first, second = ({tuple(image[0, 0]) for image in part.images} for part in parts)
    assert len(first) + len(second) == 16
    assert not first & second


def test_train_and_val_folders_are_the_parts(tmp_path):
    class_folders(tmp_path / "train", {"cat": 3, "dog": 3})
    class_folders(tmp_path / "val", {"cat": 2, "dog": 2})
    source = data_source(str(tmp_path))
    assert len(load_images(source, PETS, part="calibration")) == 6
    assert len(load_images(source, PETS)) == 4


def test_a_broken_picture_in_a_folder_is_named(tmp_path):
    root = class_folders(tmp_path, {"cat": 2, "dog": 2})
    for path in root.rglob("*.png"):
        path.write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match=r"(cat|dog).00\d\.png: not a readable picture"):
        load_images(ClassFolders(str(root)), PETS)


def test_unusable_folders_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no such folder"):
        data_source(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"empty"):
        data_source(str(tmp_path))
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(DataError, match=r"no picture and no class folder"):
        data_source(str(tmp_path))
    with pytest.raises(DataError, match=r"no labels.*one folder per class"):
        load_images(ClassFolders(str(tmp_path)), PETS)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"hold no picture"):
        load_images(data_source(str(tmp_path)), PETS)


def test_classes_are_matched_by_name_number_or_position():
    card = Card("net", 32, (0.5,) * 3, (0.5,) * 3, ("ant", "bee", "Cat"))
    assert to_outputs(("cat", "ant"), card, "d").tolist() == [2, 0]
    assert to_outputs(("0", "2"), card, "d").tolist() == [0, 2]
    assert to_outputs(("x", "y", "z"), card, "d").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"its 2 classes \(x, y\) are not the 3"):
        to_outputs(("x", "y"), card, "d")


def test_folders_that_archives_leave_behind_are_no_classes(tmp_path):
    root = class_folders(tmp_path, {"cat": 2, "dog": 2, ".thumbnails": 1, "__MACOSX": 1})
    assert len(load_images(ClassFolders(str(root)), PETS)) == 2
    for name in ("cat", "dog"):
        shutil.rmtree(root / name)
    (root / "a.png").write_bytes(picture())
    assert data_source(str(root)) == LoosePictures(str(root))


def test_numbered_folders_sort_as_numbers():
    card = Card("net", 32, (0.5,) * 3, (0.5,) * 3, tuple(f"class {i}" for i in range(12)))
    names = tuple(sorted(map(str, range(12))))
    assert to_outputs(names, card, "d").tolist() == [int(name) for name in names]


def cifar_root(root: Path) -> Path:
    """Write a CIFAR-10 in torchvision's layout, but of 20 images a file and without its checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        pixels[0, :, 0, 0] = (158, 112, 49)
        labels = [3, *range(10), *range(9)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels.reshape(20, -1), "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    return root


def test_the_users_own_cifar10_is_read_through_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = data_source(str(cifar_root(tmp_path)))
    assert source == Cifar10Root(str(tmp_path))
    images = load_images(source, CARD, 7)
    assert tuple(images.images[0, 0, 0]) == (158, 112, 49)
    assert images.labels.tolist() == [3, 0, 1, 2, 3, 4, 5]
    assert len(load_images(source, CARD, 30, "calibration")) == 30


def test_an_incomplete_cifar10_says_so(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"incomplete or damaged.*Unpack it again"):
        load_images(data_source(str(tmp_path)), CARD)


def test_sheets_of_another_data_set_are_refused(tmp_path):
    Image.new("RGB", (1024, 3)).save(tmp_path / "test_batch.png")
    (tmp_path / "test_lables.json").write_text(json.dumps([1, 2, 3]))
    with pytest.raises(DataError, match=r"not CIFAR-10's"):
        load_images(data_source(str(tmp_path)), CARD)


def test_a_balanced_choice_is_balanced_seeded_and_without_repeats():
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    chosen = balanced_choice(labels, 512, seed=1)
    assert len(np.unique(chosen)) == 512
    assert sorted(set(np.bincount(labels[chosen]))) == [51, 52]
    assert np.array_equal(chosen, balanced_choice(labels, 512, seed=1))
    assert not np.array_equal(chosen, balanced_choice(labels, 512, seed=2))


def test_uploaded_pictures_are_an_unlabelled_source():
    source = UploadedPictures((("a.png", picture()), ("b.png", picture("L")), ("c.png", picture("1"))))
    images = load_images(source, CARD, 2)
    assert images.images.shape == (2, 32, 32, 3) and images.labels is None
    assert np.array_equal(images.images, load_images(source, CARD).images[:2])
    with pytest.raises(DataError, match=r"notes.png: not a readable picture"):
        load_images(UploadedPictures((("notes.png", b"hello"),)), CARD)


def test_unlabelled_pictures_leave_calibration_to_cifar10_where_the_network_knows_it():
    loose, folders = UploadedPictures((("a.png", picture()),)), ClassFolders("pets")
    assert calibration_source(loose, CARD) == calibration_source(LoosePictures("x"), CARD) == Embedded()
    assert calibration_source(loose, PETS) == loose
    assert calibration_source(folders, CARD) == folders


def test_the_embedded_images_are_unlabelled_for_a_network_of_other_classes():
    images = load_images(Embedded(), PETS, 3)
    assert images.images.shape == (3, 16, 16, 3) and images.labels is None
    assert "pets tells other classes apart" in images.note


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    class_folders(tmp_path, {"cat": 30, "dog": 30})
    read = []
    monkeypatch.setattr(folders, "read_picture", lambda path, card, name: read.append(name) or read_picture(path, card))
    images = load_images(ClassFolders(str(tmp_path)), PETS)
    assert len(images) > 40
    assert images.images.shape == (len(images), 16, 16, 3)
    read.clear()
    three = images.images[1:4]
    assert len(read) == 3
    assert np.array_equal(three, images.images[1:4])
    assert len(read) == 3, "what was read is kept"
    assert np.array_equal(np.asarray(images.take(2).images)[1], three[0])


def test_large_sizes_scale_the_embedded_images_one_by_one():
    card = replace(CARD, input_size=900)
    images = load_images(Embedded(), card, 2000)
    assert images.images.shape == (2000, 900, 900, 3)
    assert np.array_equal(images.images[7], fit(Image.fromarray(embedded().images[7]), card))
    assert normalise(images.images[:2], card).shape == (2, 3, 900, 900)


def test_links_in_folders_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    class_folders(outside, {"secret": 2})
    root = tmp_path / "root"
    class_folders(root, {"cat": 4, "dog": 4})
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "link.png").symlink_to(outside / "secret" / "000.png")
    (root / "dog" / "elsewhere").symlink_to(outside)
    (root / "more").symlink_to(outside / "secret")
    images = load_images(ClassFolders(str(root)), PETS)
    assert len(images) == 6
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "a.png").symlink_to(outside / "secret" / "000.png")
    with pytest.raises(DataError, match=r"links are not followed"):
        data_source(str(loose))


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert len(load_images(ClassFolders(str(tmp_path)), PETS)) == 2
    with pytest.raises(DataError, match=r"no picture file"):
        read_picture(tmp_path / "pipe.png", PETS)


def test_listing_a_folder_is_bounded(tmp_path, monkeypatch):
    class_folders(tmp_path, {"cat": 9, "dog": 9})
    monkeypatch.setattr(folders.Budget, "__init__", functools.partialmethod(folders.Budget.__init__, entries=10))
    with pytest.raises(DataError, match=r"takes too long, or it holds more than"):
        load_images(ClassFolders(str(tmp_path)), PETS)
    monkeypatch.setattr(folders.Budget, "__init__", functools.partialmethod(folders.Budget.__init__, seconds=-1))
    with pytest.raises(DataError, match=r"takes too long"):
        data_source(str(tmp_path))


@pytest.mark.parametrize("root", ["/", "/proc", "/usr", "/sys", "/dev"])
def test_folders_of_the_system_are_refused_within_seconds(root):
    begin = time.monotonic()
    with pytest.raises(DataError):
        load_images(data_source(root), CARD)
    assert time.monotonic() - begin < 5


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a.jpg"])
def test_postscript_starts_no_program(name, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(os, "system", forbidden)
    with pytest.raises(DataError, match=r"not a readable picture"):
        read_picture(POSTSCRIPT, CARD, name)


def test_every_format_on_the_list_is_read():
    for kind in FORMATS:
        out = io.BytesIO()
        try:
            Image.new("RGB", (40, 40), (9, 90, 200)).save(out, kind)
        except (KeyError, OSError):
            continue  # this Pillow was built without it
        assert read_picture(out.getvalue(), CARD).shape == (32, 32, 3), kind


INDEX = json.loads((ASSETS / "cifar10.json").read_text())
BROKEN_INDICES = {
    "a list": [1],
    "no text": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "classes missing": {key: value for key, value in INDEX.items() if key != "classes"},
    "size a text": INDEX | {"size": "x"},
    "columns nought": INDEX | {"parts": {"evaluation": INDEX["parts"]["evaluation"] | {"columns": 0}}},
    "labels of a text": INDEX | {"parts": {"evaluation": INDEX["parts"]["evaluation"] | {"labels": "abc"}}},
    "labels out of range": INDEX | {"parts": {"evaluation": INDEX["parts"]["evaluation"] | {"labels": [99] * 2000}}},
    "too few labels": INDEX | {"parts": {"evaluation": INDEX["parts"]["evaluation"] | {"labels": [1]}}},
    "file a number": INDEX | {"parts": {"evaluation": INDEX["parts"]["evaluation"] | {"file": 3}}},
}


@pytest.mark.parametrize("content", BROKEN_INDICES.values(), ids=BROKEN_INDICES.keys())
def test_a_broken_index_of_the_images_is_an_asset_error(tmp_path, content):
    shutil.copy(ASSETS / "cifar10-evaluation.png", tmp_path)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "cifar10.json").write_bytes(raw)
    with pytest.raises(AssetError, match=r"git checkout"):
        embedded(assets=tmp_path)


@pytest.mark.parametrize("labels", ["[1]", '["a"]', "[99]", "{", "[" * 100_000])
def test_sheets_with_labels_that_are_none(tmp_path, labels):
    Image.fromarray(np.full((2, 3072), 9, np.uint8)).save(tmp_path / "test_batch.png")
    (tmp_path / "test_lables.json").write_text(labels)
    with pytest.raises(DataError, match=r"incomplete or damaged|not CIFAR-10's"):
        load_images(Cifar10Root(str(tmp_path)), CARD)


def test_thresholds_do_not_depend_on_how_images_are_given():
    net, card = load("resnet20-relu")
    network = trace(net, card.example())
    images = load_images(Embedded(), card, 40, "calibration").images
    whole, parts = (calibrate(network, x).theta for x in (normalise(images, card), Inputs(images, card)))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_batches_shrink_as_images_grow():
    net, card = load("resnet20-relu")
    sizes = (32, 96, 224)
    batches = []
    for size in sizes:
        network = trace(net, replace(card, input_size=size).example())
        batches.append(network.at_once(32, keep_sites=True))
    assert batches[0] == 32
    assert batches[0] > batches[1] > batches[2] >= 1


def test_a_calibration_can_be_stopped():
    net, card = load("resnet20-relu")
    images = normalise(load_images(Embedded(), card, 96, "calibration").images, card)
    asked = iter([False, False, True])
    with pytest.raises(Cancelled, match=r"calibration was stopped"):
        calibrate(trace(net, card.example()), images, stop=lambda: next(asked))
    assert next(asked, "none left") == "none left"


def test_a_run_that_cannot_fit_is_refused_before_it_begins(monkeypatch):
    net, card = load("resnet20-relu")
    small, large = (trace(net, replace(card, input_size=size).example()) for size in (32, 224))
    assert memory.run_memory(large, 32) > 40 * memory.run_memory(small, 32)
    memory.require_run_memory(small, 32, "net")
    monkeypatch.setattr(memory, "free_memory", lambda: 200 * 2**20)
    memory.require_run_memory(small, 32, "net")
    with pytest.raises(
        DataError, match=r"net: one image of 224x224 pixels in 32 steps needs about .*smaller input size"
    ):
        memory.require_run_memory(large, 32, "net")
