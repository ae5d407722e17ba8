"""Files from a visitor's browser, made into networks and images: checked, read without executing anything, kept.

Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.study import keys, library

if TYPE_CHECKING:
    from explorer.zoo.cards import Card
    from explorer.zoo.own import NetworkSource

NETWORK_TYPES = ("safetensors", "pt", "pth", "th", "bin", "ckpt")
PICTURE_TYPES = ("png", "jpg", "jpeg", "bmp", "gif", "ppm", "pgm", "tif", "tiff", "webp")
NETWORK_MIB = 200
PICTURE_MIB, PICTURES_MIB, PICTURES_MAX = 20, 64, 200


def read_network(
    file: str, content: bytes, source: NetworkSource, preset: str, tell: Callable[[str], None]
) -> library.Loaded:
    """Return the network of an architecture (source.network) with uploaded weights, traced.

    What source leaves open comes from the preset. tell hears, in words, what is being done. The network may hold calls
    without a rule: see `network.unsupported`.

    Raises:
        ExplorerError: the file, or what was said about it, cannot be used.
    """
    from explorer import engine
    from explorer.zoo.fitting import load_checkpoint
    from explorer.zoo.own import own_card

    if len(content) > NETWORK_MIB * 2**20:
        raise engine.CheckpointError(
            f"{file}: {len(content) / 2**20:.0f} MiB, at most {NETWORK_MIB} MiB can be uploaded. Save it in half "
            "precision, or use the command line."
        )
    tell(f"Reading {keys.clean(file)}…")
    net = load_checkpoint(source.network, content, len(source.classes or ()), name=file)
    card = own_card(net, source, file, preset)
    tell("Tracing every call…")
    network = engine.trace(net, card.example())
    told = replace(
        source,
        weights=file,
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
        classes=card.classes,
        resize=card.resize,
    )
    return library.Loaded(network, card, told)


def keep_network(loaded: library.Loaded, content: bytes) -> str:
    """Keep an uploaded network for all pages; return its key."""
    source = loaded.source
    label = f"{source.weights} ({source.network.removeprefix('torchvision:')})"
    key = keys.make(label, content, repr(source).encode())
    library.own_networks().put(key, loaded, 4 * loaded.card.parameters)
    return key


def keep_pictures(files: Sequence[tuple[str, bytes]], card: Card) -> str:
    """Keep uploaded pictures, in the order of their names; return their key.

    They are kept as they came: each network gets them at its own size and normalisation.

    Raises:
        DataError: too many or too large, two of one name, or one that the network of this card cannot be shown.
    """
    from explorer.engine import DataError
    from explorer.zoo.data import UploadedPictures, load_images

    pictures = UploadedPictures(tuple(sorted(files)))
    sizes = [len(content) for _, content in files]
    if len(files) > PICTURES_MAX or sum(sizes) > PICTURES_MIB * 2**20:
        raise DataError(
            f"{len(files)} pictures of {sum(sizes) / 2**20:.0f} MiB: at most {PICTURES_MAX} of {PICTURES_MIB} MiB in "
            "all can be uploaded. Choose fewer, or scale them down."
        )
    names = [name for name, _ in pictures.files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{twice[0]}: two pictures have this name. Rename one of them.")
    load_images(pictures, card)
    label = names[0] if len(names) == 1 else f"{len(names)} pictures"
    key = keys.make(label, *(part for name, content in pictures.files for part in (name.encode(), content)))
    library.own_pictures().put(key, pictures, sum(sizes))
    return key
