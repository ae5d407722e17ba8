"""What a simulation says about the conversion: accuracy, errors by cause, one neuron's story."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.simulation.keys import image_keys
from explorer.engine.simulation.result import Simulation
from explorer.engine.simulation.simulate import backend_for
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.simulation.walk import Walk
from explorer.engine.specs import Record, SimulationSpec, check_steps
from explorer.engine.theory import staircase


def top1_curve(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images whose largest score is the label's, after each step: [T, B, K], [B] -> float64 [T]."""
    return (logits.argmax(-1) == labels).double().mean(1)


def decode(n: Tensor, theta: Tensor | float, T: int) -> Tensor:
    """Return the activation that n spikes in T steps stand for: a_hat = theta n / T. [Bu2022]

    Raises:
        SpecError: T < 1.
    """
    check_steps(T)
    return theta * n / T


@dataclass(frozen=True, eq=False)
class ErrorParts:
    """a_hat - a of one site, split by cause; all float64 [B, *site], activation units.

    clipping: a lies above theta (above what a spike is worth). inherited: the mean input, less a shift, differs from
    the ANN's. quantisation: the staircase at the true mean input, its shift included. unevenness: what the order of the
    arriving spikes adds. The four add up to `total`.
    """

    a: Tensor
    a_hat: Tensor
    clipping: Tensor
    inherited: Tensor
    quantisation: Tensor
    unevenness: Tensor

    @property
    def total(self) -> Tensor:
        """The whole error, decoded minus ANN activation."""
        return self.a_hat - self.a


def error_parts(
    snn: SpikingNetwork, images: Tensor, sim: Simulation, sites: tuple[str, ...] | None = None
) -> dict[str, ErrorParts]:
    """Split every neuron's conversion error by cause.

    The mean input comes from the charge, not from a recording: v(0) + T x = theta n + v(T), whatever the law, n
    being the sum of what the spikes count. The simulation must hold counts and final potentials of the same images.

    Raises:
        SpecError: it does not, or a site has a gate.
    """
    names = tuple(sim.counts) if sites is None else sites
    if not names or any(name not in sim.counts or name not in sim.v_end for name in names):
        raise SpecError("errors need spike counts and final potentials. Simulate with Record(counts=True, v_end=True).")
    if sim.images != len(images):
        raise SpecError(f"errors: {sim.images} images were simulated, {len(images)} given. Give the same images.")
    activations = snn.network.activations(images, names)
    keys = image_keys(images)
    result = {}
    for name in names:
        own, site = snn.neurons[name], snn.network.site(name)
        if own.gate is not None:
            raise SpecError(f"{name}: the charge of neurons that may be muted is not told by what they send.")
        theta, worth = own.theta.double()[None], own.worth.double()[None]
        start = own.initial_potential(site, keys).double()
        n, a = sim.counts[name].double(), activations[name].double()
        x = (theta * n + sim.v_end[name].double() - start) / sim.T
        came = x if own.shift is None else x - (own.shift.mean(0) if own.timed(site) else own.shift).double()
        a_hat, stairs = worth * n / sim.T, worth / theta * staircase(x, theta, sim.T, start / theta)
        clipped, arrived = torch.minimum(a, worth), torch.minimum(came.clamp(min=0), worth)
        result[name] = ErrorParts(a, a_hat, clipped - a, arrived - clipped, stairs - arrived, a_hat - stairs)
    return result


@dataclass(frozen=True, eq=False)
class Membrane:
    """One neuron's membrane over T steps.

    x: input current, v_before: potential before the reset, v: after it, all float32 [T], activation units; z: int8
    [T], what the spike counts; theta, v0, a (the ANN's activation): activation units.
    """

    x: Tensor
    v_before: Tensor
    v: Tensor
    z: Tensor
    theta: float
    v0: float
    a: float


def membrane(
    snn: SpikingNetwork,
    image: Tensor,
    site: str,
    neuron: int,
    T: int,
    store: SpikeStore | None = None,
    device: str = "auto",
) -> Membrane:
    """Return one neuron's potentials, current and spikes for one image [1, C, H, W].

    It is read from the trains of the device that simulates, "auto", "cpu" or "cuda".

    Only the layers that the neuron's site depends on are computed, and only as far as the store does not hold them.

    Raises:
        SpecError: no such site or neuron, or not exactly one image.
    """
    if len(image) != 1:
        raise SpecError(f"membrane: exactly 1 image, got {len(image)}. Pick one.")
    where = snn.network.site(site)
    if not 0 <= neuron < where.neurons:
        raise SpecError(f"{site}: neurons count from 0 to {where.neurons - 1}, got {neuron}.")
    snn.network.check_images(image)
    spec = SimulationSpec(T=T, record=Record(counts=False, v_end=False))
    run = Walk(snn, image.detach().float().cpu().contiguous(), spec, store, None, backend_for(device))
    x, v, z = (value[:, 0, 0] for value in run.membranes(site, torch.tensor([neuron])))
    shape = where.shape
    theta = float(torch.broadcast_to(snn.theta[site], shape).reshape(-1)[neuron])
    start = torch.broadcast_to(snn.initial_potential(where, run.image_keys)[0], shape).reshape(-1)[neuron]
    a = float(snn.network.activations(image, [site])[site].reshape(-1)[neuron])
    return Membrane(x, v + theta * z, v, z, theta, float(start), a)
