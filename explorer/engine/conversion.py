"""From a calibrated network to a spiking one: the neurons of every site, no state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from explorer.engine.calibration import Calibration
from explorer.engine.errors import UnsupportedLayerError
from explorer.engine.graph import Network, Site
from explorer.engine.neurons import Law, law_named
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.specs import ConstantStart, ConversionSpec, InitialPotential

KEPT_NEURONS = 1000


@dataclass(frozen=True, eq=False)
class SpikingNetwork:
    """A network whose rectifiers are spiking neurons; holds settings, no membrane.

    kept: what was derived from all of it, by what it is; a changed copy begins with nothing.
    """

    network: Network
    calibration: Calibration
    spec: ConversionSpec
    neurons: dict[str, Neurons]
    kept: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)

    @property
    def theta(self) -> dict[str, Tensor]:
        """Thresholds by site: float32, broadcastable to [B, *site], activation units, scaled."""
        return {name: neurons.theta for name, neurons in self.neurons.items()}

    @property
    def v_init(self) -> dict[str, InitialPotential | Tensor]:
        """What v(0) / theta is, by site."""
        return {name: neurons.start for name, neurons in self.neurons.items()}

    def initial_potential(self, site: Site, image_keys: list[bytes]) -> Tensor:
        """Return a site's v(0), float32 [B, *site] or broadcastable to it; see `Neurons.initial_potential`."""
        return self.neurons[site.name].initial_potential(site, image_keys)


def convert(network: Network, calibration: Calibration, spec: ConversionSpec | None = None) -> SpikingNetwork:
    """Give every site its neurons.

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
    law = law_named(spec.law)
    neurons = {}
    for site in network.sites:
        setting = settings.get(site.name)
        own_scale = setting.threshold_scale if setting else None
        own_start = setting.v_init if setting else None
        scale = spec.threshold_scale if own_scale is None else own_scale
        start = spec.v_init if own_start is None else ConstantStart(own_start)
        neurons[site.name] = _neurons(calibration, site, law, scale, start)
    return SpikingNetwork(network, calibration, spec, neurons)


def _neurons(calibration: Calibration, site: Site, law: Law, scale: float, start: InitialPotential) -> Neurons:
    """Return a site's neurons, those made before if nothing about them has changed: they have been checked."""
    key, theta = (site.name, site.shape, law, scale, start), calibration.theta[site.name]
    made_of, made = calibration.kept.get(key, (None, None))
    if made is None or made_of is not theta:
        made = Neurons(law, theta.float() * scale, start)
        made.check(site)
        if len(calibration.kept) >= KEPT_NEURONS:
            calibration.kept.clear()
        calibration.kept[key] = (theta, made)
    return made
