"""Files from a visitor's browser, made into networks and images: checked, read without executing anything, kept.

Imports torch only inside functions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer.limits import limits
from explorer.study import keys, library
from explorer.study.seen import Taken

if TYPE_CHECKING:
    from explorer.zoo.cards import Card
    from explorer.zoo.own import NetworkSource

NETWORK_TYPES = ("safetensors", "pt", "pth", "th", "bin", "ckpt")
NOT_READ = ("heic", "heif")  # what phones write; taken by the browser, so that the refusal can say the mend
PICTURE_TYPES = ("png", "jpg", "jpeg", "bmp", "gif", "ppm", "pgm", "tif", "tiff", "webp", "avif", *NOT_READ)
NETWORK_MIB = limits().network_mib
PICTURE_MIB, PICTURES_MIB, PICTURES_MAX = limits().picture_mib, limits().pictures_mib, limits().pictures
PIXELS_MAX = 600_000_000  # of all pictures together: some ten seconds
READING = threading.BoundedSemaphore(2)  # files read at a time, as each may take twice its size


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
    from explorer.zoo.checkpoint import open_state
    from explorer.zoo.fitting import fit_architecture
    from explorer.zoo.memory import require_run_memory
    from explorer.zoo.own import own_card

    if len(content) > NETWORK_MIB * 2**20:
        raise engine.CheckpointError(
            f"{file}: {len(content) / 2**20:.0f} MiB, at most {NETWORK_MIB} MiB can be uploaded. Save it in half "
            "precision, or use the command line."
        )
    with READING:
        tell(f"Reading {keys.clean(file)}…")
        state = open_state(content, file, source.part)
        net = fit_architecture(source.network, state.tensors, len(source.classes or ()), file)
        card = own_card(net, source, file, preset)
        card = replace(card, recipe={**card.recipe, "part": state.part, "parts": state.parts})
        tell("Tracing every call…")
        network = engine.trace(net, card.example())
        require_run_memory(network, 1, file)
    told = replace(
        source,
        weights=file,
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
        classes=card.classes,
        resize=card.resize,
    )
    return library.Loaded(network, card, told, network.clips_trained)


def keep_network(loaded: library.Loaded, content: bytes) -> str:
    """Keep an uploaded network for all pages; return its key."""
    source = loaded.source
    taken = loaded.card.recipe.get("part") if len(loaded.card.recipe.get("parts", ())) > 1 else ""
    label = f"{source.weights}{f', {taken}' if taken else ''} ({source.network.removeprefix('torchvision:')})"
    key = keys.make(label, content, repr(source).encode())
    library.own_networks().put(key, loaded, 4 * loaded.card.parameters)
    return key


def take_network(
    file: str, content: bytes, source: NetworkSource, preset: str, tell: Callable[[str], None] = lambda _: None
) -> Taken:
    """Read an uploaded network and keep it where it will be simulated, unless it cannot be converted.

    Raises:
        ExplorerError: the file, or what was said about it, cannot be used.
    """
    from explorer.study import measure

    loaded = read_network(file, content, source, preset, tell)
    described, recipe = measure.described(loaded), loaded.card.recipe
    key = "" if described.problems else keep_network(loaded, content)
    return Taken(key, described, loaded.source, loaded.clips_trained, recipe["part"], tuple(recipe["parts"]))


def note_network(taken: Taken, file: str, content: bytes, source: NetworkSource, preset: str) -> str:
    """Keep in the server what brings an uploaded network to a process that lacks it; return its key."""
    if library.own_networks().get(taken.key) is None:  # else it is simulated in this process
        parcel = (file, content, source, preset)
        known = library.Loaded(None, None, taken.source, taken.clips_trained, parcel)
        library.own_networks().put(taken.key, known, len(content))
    return taken.key


def take_pictures(files: Sequence[tuple[str, bytes]], network: str) -> str:
    """Keep uploaded pictures where they will be simulated, to be shown to a network; return their key.

    Raises:
        ExplorerError: see `keep_pictures`; or the network cannot be had.
    """
    return keep_pictures(files, library.loaded(network).card)


def note_pictures(key: str, files: Sequence[tuple[str, bytes]]) -> str:
    """Keep in the server what brings uploaded pictures to a process that lacks them; return their key."""
    if library.own_pictures().get(key) is None:
        library.own_pictures().put(key, tuple(files), sum(len(content) for _, content in files))
    return key


def put_pictures(key: str, files: Sequence[tuple[str, bytes]]) -> None:
    """Take in pictures that were checked before."""
    from explorer.zoo.data import UploadedPictures

    library.own_pictures().put(key, UploadedPictures(tuple(sorted(files))), sum(len(content) for _, content in files))


def supply(key: str) -> tuple[Any, ...] | None:
    """Return the work, name and arguments, that takes in an upload of this server; None if it is not here any more."""
    network, pictures = library.own_networks().get(key), library.own_pictures().get(key)
    if network is not None and network.parcel:
        return ("explorer.study.uploads:take_network", *network.parcel)
    return None if pictures is None else ("explorer.study.uploads:put_pictures", key, pictures)


def keep_pictures(files: Sequence[tuple[str, bytes]], card: Card) -> str:
    """Keep uploaded pictures, in the order of their names; return their key.

    They are kept as they came: each network gets them at its own size and normalisation.

    Raises:
        DataError: too many or too large, two of one name, or one that the network of this card cannot be shown.
    """
    from explorer.engine import DataError
    from explorer.zoo.data import UploadedPictures
    from explorer.zoo.images import count_pixels, read_picture

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
    phone = next((name for name in names if name.lower().endswith(NOT_READ)), None)
    if phone is not None:
        raise DataError(f"{phone}: HEIC pictures are not read. Save it as JPEG (phones: “most compatible” format).")
    pixels = sum(count_pixels(content) for _, content in files)
    if pixels > PIXELS_MAX:
        raise DataError(
            f"{len(files)} pictures of {pixels // 1_000_000} million pixels: at most {PIXELS_MAX // 1_000_000} million "
            "in all can be uploaded. Choose fewer, or scale them down."
        )
    if not files:
        raise DataError("No picture: choose at least one PNG or JPEG file.")
    with READING:
        for name, content in pictures.files:
            read_picture(content, card, name)
    label = names[0] if len(names) == 1 else f"{len(names)} pictures"
    key = keys.make(label, *(part for name, content in pictures.files for part in (name.encode(), content)))
    library.own_pictures().put(key, pictures, sum(sizes))
    return key
