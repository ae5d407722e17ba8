"""The neurons of one site: their law and everything the law is given, as one value with a digest over all of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explorer.engine.errors import SpecError
from explorer.engine.graph import Site
from explorer.engine.neurons import INTEGRATE_AND_FIRE, Law
from explorer.engine.specs import ConstantStart, GaussianStart, InitialPotential, UniformStart


@dataclass(frozen=True, eq=False)
class Neurons:
    """What the neurons of one site are; no state.

    law: the spiking law. theta: thresholds, float32, broadcastable to [*site], activation units, above 0. start: what
    v(0) / theta is: a rule, or a tensor broadcastable to [*site], or to [B, *site] with an axis of images in front, for
    these images alone. shift: what is added to the current in every step,
    broadcastable to [*site], or [T, ...] with an axis of steps in front (the number of axes tells), activation units.
    amplitude: what one spike is worth to the next layer, broadcastable to [*site]; None: theta. gate: which neurons may
    send, truth values broadcastable to [*site] or [B, *site]; a muted neuron integrates and fires, but nothing arrives.
    """

    law: Law = INTEGRATE_AND_FIRE
    theta: Tensor = field(default_factory=lambda: torch.tensor(1.0))
    start: InitialPotential | Tensor = field(default_factory=ConstantStart)
    shift: Tensor | None = None
    amplitude: Tensor | None = None
    gate: Tensor | None = None

    @cached_property
    def digest(self) -> bytes:
        """A digest of every field: two neurons of the same digest give the same spikes."""
        digest = hashlib.blake2b(digest_size=12)
        _feed(digest, self)
        return digest.digest()

    @property
    def worth(self) -> Tensor:
        """What one spike is worth, broadcastable to [*site], activation units."""
        return self.theta if self.amplitude is None else self.amplitude

    @property
    def special(self) -> bool:
        """Whether something may be made for one T or for certain images alone."""
        return self.shift is not None or self.gate is not None or isinstance(self.start, Tensor)

    def check(self, site: Site, T: int | None = None, images: int | None = None) -> None:
        """Require that everything fits a site, a shift in time the run's T steps, and what is by image its images.

        Raises:
            SpecError: a shape does not fit, a value is not finite, or a threshold or amplitude is not above 0.
        """
        for name in ("theta", "amplitude", "shift", "start", "gate"):
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                continue
            shape = tuple(value.shape)
            if name == "shift" and self.timed(site):
                if T is not None and shape[0] != T:
                    raise SpecError(
                        f"{site.name}: the shift has {shape[0]} steps, the run {T}. Fit it for T = {T}, or run "
                        f"{shape[0]} steps."
                    )
                shape = shape[1:]
            if name in ("start", "gate") and len(shape) > len(site.shape):
                if images is not None and shape[0] != images:
                    raise SpecError(
                        f"{site.name}: {name} was made for {shape[0]} images, the run has {images}. Make it for each "
                        "chunk of images."
                    )
                shape = shape[1:]
            if not _fits(shape, site.shape):
                raise SpecError(
                    f"{site.name}: {name} has the shape {shape}, which does not fit neurons of {site.shape}. Give one "
                    "value, one a channel (C, 1, 1), or one a neuron."
                )
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise SpecError(f"{site.name}: {name} must be finite. Calibrate again with other images.")
            if name in ("theta", "amplitude") and not (value > 0).all():
                raise SpecError(
                    f"{site.name}: the {'threshold' if name == 'theta' else name} must be finite and above 0, got "
                    f"{float(value.min())}. Choose another scale or calibrate again."
                )

    def timed(self, site: Site) -> bool:
        """Tell whether the shift changes in time."""
        return self.shift is not None and self.shift.ndim > len(site.shape)

    def initial_potential(self, site: Site, image_keys: list[bytes]) -> Tensor:
        """Return v(0), float32 [B, *site] (or broadcastable to it), in activation units.

        image_keys: a digest of each image; a random start depends on seed, site and image alone, not on the batch.
        """
        start = self.start
        if isinstance(start, Tensor):
            v = self.theta * start
            return v if start.ndim > len(site.shape) else v[None]
        if isinstance(start, ConstantStart):
            return (self.theta * start.value)[None]
        draws = []
        for key in image_keys:
            digest = hashlib.blake2b(key + f"{start.seed}/{site.order}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            match start:
                case UniformStart(low=low, high=high):
                    draws.append(torch.rand(site.shape, generator=generator) * (high - low) + low)
                case GaussianStart(mean=mean, std=std):
                    draws.append(torch.randn(site.shape, generator=generator) * std + mean)
        return torch.stack(draws) * self.theta


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    tail = whole[len(whole) - len(shape) :]
    return len(shape) <= len(whole) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _feed(digest: Any, value: Any) -> None:
    """Add a value to a digest, whatever its kind, with its kind; an unknown kind is a fault of ours, never skipped."""
    match value:
        case None | bool() | int() | float() | str():
            digest.update(f"{type(value).__name__} {value!r};".encode())
        case Tensor():
            digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        case Law():
            digest.update(f"law {value.name} {value.digest};".encode())
        case _ if is_dataclass(value) and not isinstance(value, type):
            digest.update(f"{type(value).__name__}(".encode())
            for one in fields(value):
                digest.update(f"{one.name}=".encode())
                _feed(digest, getattr(value, one.name))
        case _:
            raise TypeError(f"no digest for {type(value)}")
