"""Batches: which crop of which image, mirrored or not, at which size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.zoo.cards import CIFAR10_MEAN, CIFAR10_STD

MARGIN = 4


def pad(images: Tensor) -> Tensor:
    """Surround uint8 images [N, H, W, 3] with black, so that crops may be shifted by up to 4 pixels each way."""
    return F.pad(images, (0, 0, MARGIN, MARGIN, MARGIN, MARGIN))


def placement(n: int, seed: int, turn: int, alternate: bool) -> Tensor:
    """Draw where n images are cropped in a turn (an epoch, or a view): int64 [n, 3] of top, left, mirrored (0 or 1).

    With `alternate` each image is mirrored in every other turn, half of them in even ones. [Jordan2024]
    """
    drawn = torch.Generator().manual_seed(1_000_003 * seed + turn)
    corners = torch.randint(0, 2 * MARGIN + 1, (n, 2), generator=drawn)
    if alternate:
        first = torch.randint(0, 2, (n, 1), generator=torch.Generator().manual_seed(seed))
        mirrored = (first + turn) % 2
    else:
        mirrored = torch.randint(0, 2, (n, 1), generator=drawn)
    return torch.cat([corners, mirrored], 1)


def crop(padded: Tensor, index: Tensor, placed: Tensor) -> Tensor:
    """Cut 32x32 out of padded images, each at its place.

    padded: uint8 [N, 40, 40, 3]; index: the images wanted, int64 [B]; placed: their rows of `placement`, [B, 3].
    Returns uint8 [B, 32, 32, 3].
    """
    size = padded.shape[1] - 2 * MARGIN
    steps = torch.arange(size)
    top, left, mirrored = placed.unbind(1)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where(mirrored[:, None] == 1, size - 1 - steps, steps)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def cut_out(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set a square of size x size pixels of each image, its centre anywhere in it, to the mean colour (0).

    x: normalised images [B, 3, H, W], changed in place. [DeVries2017]
    """
    height, width = x.shape[-2:]
    centre = torch.rand(2, len(x), 1, generator=generator)
    rows = (torch.arange(height) - (centre[0] * height).floor() + size // 2).to(x.device)
    columns = (torch.arange(width) - (centre[1] * width).floor() + size // 2).to(x.device)
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    return x.masked_fill_(inside[:, None], 0.0)


def to_input(images: Tensor, device: torch.device, size: int | None = None) -> Tensor:
    """Turn uint8 [B, H, W, 3] into the normalised float32 input [B, 3, H, W], channels-last in memory.

    With a size the images are resized to it.
    """
    x = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(c, device=device).view(1, 3, 1, 1) for c in (CIFAR10_MEAN, CIFAR10_STD))
    x = (x - mean) / std
    if size is not None:
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)
