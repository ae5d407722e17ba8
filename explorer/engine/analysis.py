"""What a simulation says about the conversion: accuracy, errors by cause, one neuron's story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
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


def window_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return of how many images the mean current over the steps i + 1 to j alone gives the label: int64 [T, T].

    Row i, column j - 1; 0 where there is no step, j <= i. logits: the mean current over the steps 1 to t, float [T, B,
    K]; labels: [B].
    """
    T = len(logits)
    steps = torch.arange(T + 1, device=logits.device)[:, None, None]
    sums = torch.cat([torch.zeros_like(logits[:1]), logits]).double() * steps
    hits = torch.zeros(T, T, dtype=torch.int64)
    for i in range(T):
        hits[i, i:] = ((sums[i + 1 :] - sums[i]).argmax(-1) == labels).sum(1)
    return hits


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

    clipping: a lies above theta (above what the spikes of a step can be worth). inherited: the mean input, less a
    shift, differs from the ANN's. quantisation: the staircase at the true mean input, its shift included. unevenness:
    what the order of the arriving spikes adds. The four add up to `total`.
    """

    a: Tensor
    a_hat: Tensor
    clipping: Tensor
    inherited: Tensor
    quantisation: Tensor
    unevenness: Tensor

    @staticmethod
    def split(a: Tensor, a_hat: Tensor, came: Tensor, stairs: Tensor, most: Tensor) -> ErrorParts:
        """Split a_hat - a: came is the mean input less a shift, stairs its staircase, most the largest value sent."""
        clipped, arrived = torch.minimum(a, most), torch.minimum(came.clamp(min=0), most)
        return ErrorParts(a, a_hat, clipped - a, arrived - clipped, stairs - arrived, a_hat - stairs)

    @property
    def total(self) -> Tensor:
        """The whole error, decoded minus ANN activation."""
        return self.a_hat - self.a


def error_parts(
    snn: SpikingNetwork,
    images: Tensor,
    sim: Simulation,
    sites: tuple[str, ...] | None = None,
    currents: Mapping[str, Tensor] | None = None,
    ann: Network | None = None,
) -> dict[str, ErrorParts]:
    """Split every neuron's conversion error by cause.

    The mean input comes from the charge, not from a recording: v(0) + T x = theta n + v(T), whatever the law, n
    being the sum of what the spikes count. The simulation must hold counts and final potentials of the same images.
    currents: the mean input, shift included, float64 [B, *site], of sites with a gate, whose spikes do not tell it;
    what muting takes off is then a part of the unevenness, which it is to undo. ann: the network whose activations are
    meant, where it is not the converted one, whose weights were refitted.

    Raises:
        SpecError: it does not, or a site has a gate and no current is given.
    """
    names = tuple(sim.counts) if sites is None else sites
    if not names or any(name not in sim.counts or name not in sim.v_end for name in names):
        raise SpecError("errors need spike counts and final potentials. Simulate with Record(counts=True, v_end=True).")
    if sim.images != len(images):
        raise SpecError(f"errors: {sim.images} images were simulated, {len(images)} given. Give the same images.")
    activations = (ann or snn.network).activations(images, names)
    keys = image_keys(images)
    result = {}
    for name in names:
        own, site = snn.neurons[name], snn.network.site(name)
        told = (currents or {}).get(name)
        if own.gate is not None and told is None:
            raise SpecError(f"{name}: the charge of neurons that may be muted is not told by what they send.")
        theta, worth = own.theta.double()[None], own.worth.double()[None]
        start = own.initial_potential(site, keys).double()
        n, a = sim.counts[name].double(), activations[name].double()
        x = (theta * n + sim.v_end[name].double() - start) / sim.T if told is None else told
        came = x if own.shift is None else x - (own.shift.mean(0) if own.timed(site) else own.shift).double()
        most = own.law.most
        stairs = worth / theta * staircase(x, theta, sim.T, start / theta, most)
        result[name] = ErrorParts.split(a, worth * n / sim.T, came, stairs, worth * most)
    return result


@dataclass(frozen=True, eq=False)
class Membrane:
    """One neuron's membrane over T steps.

    x: input current, v_before: potential before the reset, v: after it, all float32 [T], activation units; z: int8
    [T], what the spike counts; theta, v0, a (the ANN's activation): activation units. decoded: float32 [T], the value
    that the spikes so far stand for at each step, activation units. muted: nothing of what it fires is sent. before:
    the same neuron in the phase before the run, if there is one. skipped: steps that the read-out leaves out.
    sends_later: these are the steps in which it sends, after as many in which it has taken in its whole input.
    stretches: before step t > 1, what v is more than v0 grows by t / (t - 1), so that v_before is that and x. fires_at:
    the least potential that fires, in thresholds. sized: a step sends one spike, and z is its size.
    """

    x: Tensor
    v_before: Tensor
    v: Tensor
    z: Tensor
    theta: float
    v0: float
    a: float
    decoded: Tensor
    muted: bool = False
    before: Membrane | None = None
    skipped: int = 0
    sends_later: bool = False
    stretches: bool = False
    fires_at: float = 1.0
    sized: bool = False


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
    own, shape = snn.neurons[site], where.shape

    def one(value: Tensor) -> float:
        return float(torch.broadcast_to(value, (1, *shape)).reshape(-1)[neuron])

    theta, muted = one(own.theta), own.gate is not None and not one(own.gate)
    start, a = one(snn.initial_potential(where, run.image_keys)), one(snn.network.activations(image, [site])[site])
    sent = torch.zeros_like(x) if muted else one(own.worth) * z.double().cumsum(0)
    decoded = (sent / torch.arange(1, T + 1)).float()
    parts = (x, v + theta * z, v, z, theta, start, a, decoded, muted)
    return Membrane(*parts, fires_at=own.law.fires_at, sized=own.law.sized)
