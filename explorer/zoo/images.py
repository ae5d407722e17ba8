"""Pictures in every form people have them, made into what a network takes: square, uint8 RGB, then normalised."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from explorer.engine.errors import DataError
from explorer.zoo.cards import Card
from explorer.zoo.paths import is_file
from explorer.zoo.pictures import Pictures

PIXELS_MAX = 50_000_000
FILE_MAX = 256 * 2**20  # bytes of one picture's file
IMAGES_MAX = 2_000_000
EAGER_BYTES = 64 * 2**20
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")  # no other decoder is ever started
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with their labels.

    images: uint8 [N, H, W, 3], an array, or `Pictures` that are read when they are looked at. labels: int64 [N],
    indices into classes, or None where nobody said. note: what a reader should know about how the images were chosen.
    """

    name: str
    images: np.ndarray | Pictures
    labels: np.ndarray | None
    classes: tuple[str, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, n: int) -> ImageSet:
        """Return the first n images (all, where there are fewer)."""
        images = self.images.first(n) if isinstance(self.images, Pictures) else self.images[:n]
        return replace(self, images=images, labels=None if self.labels is None else self.labels[:n])


@dataclass(frozen=True, eq=False)
class Inputs:
    """The normalised inputs of a network, float32 [N, C, H, W], made from images slice by slice."""

    images: np.ndarray | Pictures
    card: Card

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice) -> Tensor:
        return normalise(self.images[which], self.card)


def normalise(images: np.ndarray | Pictures, card: Card) -> Tensor:
    """Return the network's input: (pixel / 255 - mean) / std per channel.

    images: uint8 [N, H, W, 3]. Returns float32 [N, C, H, W], C the card's channels; a one-channel network gets the
    luminance 0.299 R + 0.587 G + 0.114 B.

    Raises:
        DataError: the images are not of the card's size.
    """
    size = card.input_size
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or images.dtype != np.uint8:
        raise DataError(
            f"images: {card.name} takes uint8 [N, {size}, {size}, 3], got {images.dtype} {list(images.shape)}. "
            "Load them with the network's card, which resizes and crops."
        )
    x = torch.from_numpy(np.ascontiguousarray(np.asarray(images))).permute(0, 3, 1, 2).float().div_(255)
    if card.channels == 1:
        x = (x * torch.tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.mean, card.std))
    return ((x - mean) / std).contiguous()


def read_picture(source: Path | bytes, card: Card, name: str = "") -> np.ndarray:
    """Read one picture file, turned upright, as RGB, its centre resized and cropped to the card's size.

    Transparency is laid on white; of an animation the first frame is taken. Returns uint8 [H, W, 3].

    Raises:
        DataError: it is empty, no picture of a known format, broken, or larger than 50 million pixels.
    """
    name = name or (source.name if isinstance(source, Path) else "picture")
    try:
        if isinstance(source, Path) and (not is_file(source) or source.stat().st_size > FILE_MAX):
            raise DataError(f"{name}: no picture file of at most {FILE_MAX // 2**20} MiB. Choose another.")
        with _opened(source) as picture:
            if picture.width * picture.height > PIXELS_MAX:
                raise DataError(
                    f"{name}: {picture.width} x {picture.height} pixels are too many. "
                    f"Scale it down to at most {PIXELS_MAX // 1_000_000} million."
                )
            upright = ImageOps.exif_transpose(picture)
            return fit(_to_rgb(upright, name), card)
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a readable picture (unknown format). Save it again as PNG or JPEG.") from error
    except DataError:
        raise
    except Exception as error:  # a broken picture makes its decoder raise whatever it likes
        raise DataError(
            f"{name}: not a readable picture ({error or type(error).__name__}). Save it again as PNG or JPEG."
        ) from error


def _opened(source: Path | bytes) -> Image.Image:
    """Open a picture of a known format: others may start programs (PostScript) or follow addresses."""
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)


def count_pixels(source: bytes) -> int:
    """Return how many pixels a picture's header says it has; 0 where it cannot be read."""
    try:
        with _opened(source) as picture:
            return picture.width * picture.height
    except Exception:  # `read_picture` says what is wrong with it
        return 0


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise DataError(f"{name}: pixels of {picture.mode!r} type have no fixed range. Save it as 8-bit PNG or JPEG.")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture.close()  # its pixels are needed no more
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        return white.convert("RGB")
    return picture.convert("RGB")


def fit(picture: Image.Image, card: Card) -> np.ndarray:
    """Scale an RGB picture's shorter side to the card's resize and crop the centre; uint8 [size, size, 3].

    A picture that has the card's size already comes back untouched.
    """
    size = card.input_size
    if picture.size != (size, size):
        side = card.resize or size
        scale = side / min(picture.size)
        if max(picture.size) * scale > 50 * side:
            raise DataError(f"a picture of {picture.width} x {picture.height} pixels is a strip. Crop it first.")
        wide, high = (max(size, round(length * scale)) for length in picture.size)
        left, top = (wide - size) // 2, (high - size) // 2
        scaled = picture.resize((wide, high), Image.Resampling.BILINEAR)
        picture = scaled.crop((left, top, left + size, top + size))
    return np.asarray(picture, dtype=np.uint8)


def read_pictures(files: Sequence[tuple[str, Path | bytes]], card: Card, name: str = "your pictures") -> ImageSet:
    """Return pictures, given as (file name, path or content), as one unlabelled set.

    Contents are read at once where all fit 64 MiB at the card's size; files, and larger sets, when they are looked at.

    Raises:
        DataError: there is none, or one of them cannot be used (the message names it; raised when it is read).
    """
    if not files:
        raise DataError(f"{name}: no picture. Choose at least one PNG or JPEG file.")
    images = Pictures(len(files), card.input_size, lambda i: read_picture(files[i][1], card, files[i][0]))
    at_once = len(files) * 3 * card.input_size**2 <= EAGER_BYTES and isinstance(files[0][1], bytes)
    images[:1]  # a folder of what is no picture is noticed at once
    return ImageSet(name, images[:] if at_once else images, None, card.classes)


def check_count(n: int | None) -> None:
    """Require a number of images, if one is given, from 1 to two million.

    Raises:
        DataError: it is not.
    """
    if n is None:
        return
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise DataError(f"images: at least 1, got {n}.")
    if n > IMAGES_MAX:
        raise DataError(f"images: at most {IMAGES_MAX:,}, got {n:,}.")
