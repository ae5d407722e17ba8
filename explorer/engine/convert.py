"""From a calibrated network to a spiking one: thresholds and initial potentials, no state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.calibrate import Calibration
from explorer.engine.errors import SpecError, UnsupportedLayerError
from explorer.engine.graph import Network, Site
from explorer.engine.specs import ConstantStart, ConversionSpec, GaussianStart, InitialPotential, UniformStart


@dataclass(frozen=True, eq=False)
class SpikingNetwork:
    """A network whose rectifiers are integrate-and-fire neurons; holds settings, no membrane.

    theta[site]: float32, broadcastable to [B, *site], activation units, scaled. v_init[site]: what v(0) / theta is.
    """

    network: Network
    calibration: Calibration
    spec: ConversionSpec
    theta: dict[str, Tensor]
    v_init: dict[str, InitialPotential]

    def initial_potential(self, site: Site, image_keys: list[bytes]) -> Tensor:
        """Return v(0), float32 [B, *site] (or broadcastable to it), in activation units.

        image_keys: a digest of each image; a random start depends on seed, site and image alone, not on the batch.
        """
        theta, start = self.theta[site.name], self.v_init[site.name]
        if isinstance(start, ConstantStart):
            return (theta * start.value)[None]
        draws = []
        for key in image_keys:
            digest = hashlib.blake2b(key + f"{start.seed}/{site.order}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            match start:
                case UniformStart(low=low, high=high):
                    draws.append(torch.rand(site.shape, generator=generator) * (high - low) + low)
                case GaussianStart(mean=mean, std=std):
                    draws.append(torch.randn(site.shape, generator=generator) * std + mean)
        return torch.stack(draws) * theta


def convert(network: Network, calibration: Calibration, spec: ConversionSpec | None = None) -> SpikingNetwork:
    """Give every site its threshold and initial potential.

    theta = scale * calibrated theta, v(0) = v_init * theta. [Bu2022]

    Raises:
        UnsupportedLayerError: the network calls something without a rule.
        SpecError: a setting names no site, or a threshold is not finite and positive.
    """
    spec = spec or ConversionSpec()
    if network.unsupported:
        raise UnsupportedLayerError(" ".join(str(problem) for problem in network.unsupported[:3]))
    settings = dict(spec.sites)
    for name in settings:
        network.site(name)
    theta: dict[str, Tensor] = {}
    v_init: dict[str, InitialPotential] = {}
    for site in network.sites:
        setting = settings.get(site.name)
        own_scale = setting.threshold_scale if setting else None
        own_start = setting.v_init if setting else None
        scaled = calibration.theta[site.name].float() * (spec.threshold_scale if own_scale is None else own_scale)
        if not (torch.isfinite(scaled).all() and (scaled > 0).all()):
            raise SpecError(
                f"{site.name}: the threshold must be finite and above 0, got {float(scaled.min())}. "
                "Choose another scale or calibrate again."
            )
        theta[site.name] = scaled
        v_init[site.name] = spec.v_init if own_start is None else ConstantStart(own_start)
    return SpikingNetwork(network, calibration, spec, theta, v_init)
