"""A fitted conversion: a spiking network, how it is run and read, and what its answer costs in steps and bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import Cancelled, SpecError
from explorer.engine.graph import Network
from explorer.engine.methods.watched import Watched, WatchedRun
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.simulation.keys import image_keys
from explorer.engine.simulation.result import Simulation
from explorer.engine.simulation.simulate import backend_for, chunk_images, simulate_chunks
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.simulation.walk import Walk
from explorer.engine.specs import ConstantStart, Record, SimulationSpec, SiteSetting
from explorer.engine.synapses import additions

if TYPE_CHECKING:
    from explorer.engine.methods.method import Method

Stop = Callable[[], bool] | None
READ_LEAST = 4  # steps that are always read


@dataclass(frozen=True)
class Ask:
    """What else a run is asked: where trains are kept, when to stop, whether additions are counted."""

    store: SpikeStore | None = None
    stop: Stop = None
    additions: bool = True


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run of B images gave.

    logits: float32 [T, B, K] after each step, NaN where there is no answer yet. spikes[site]: float64 [B], spikes sent
    by all neurons. additions: synaptic additions they caused at each site and the readout, float64 [B], the mean of the
    images run together; empty where nobody asked for them.
    """

    logits: Tensor
    spikes: dict[str, Tensor]
    additions: dict[str, Tensor]
    seconds: float

    @property
    def added(self) -> Tensor:
        """All additions, float64 [B]."""
        return torch.stack(list(self.additions.values())).sum(0)

    @staticmethod
    def merge(parts: list[Outcome]) -> Outcome:
        """Join the outcomes of consecutive images."""
        return Outcome(
            torch.cat([part.logits for part in parts], 1),
            {site: torch.cat([part.spikes[site] for part in parts]) for site in parts[0].spikes},
            {name: torch.cat([part.additions[name] for part in parts]) for name in parts[0].additions},
            sum(part.seconds for part in parts),
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A conversion fitted for T steps, its neurons in `snn`.

    extra: steps that an answer takes beyond T. skipped: steps whose current the read-out leaves out, but never the last
    4 of a run: see `left_out`.
    """

    method: Method
    snn: SpikingNetwork
    T: int
    extra: int = 0
    skipped: int = 0

    @property
    def network(self) -> Network:
        """The network it was made of."""
        return self.snn.network

    @property
    def bits(self) -> int:
        """Bits that tell what one neuron sends in one step."""
        return max(own.law.bits for own in self.snn.neurons.values())

    @property
    def left_out(self) -> int:
        """Steps that the read-out after T steps leaves out."""
        return max(0, min(self.skipped, self.T - READ_LEAST))

    @property
    def latency(self) -> int:
        """Steps from the image to the answer."""
        return self.T + self.extra

    def scores(self, images: Tensor, T: int | None = None, **how: Any) -> Tensor:
        """Return class scores after each step, float32 [T, B, K]; see `run`."""
        return self.run(images, T, **how).logits

    def run(self, images: Tensor, T: int | None = None, **how: Any) -> Outcome:
        """Run images [B, C, H, W] for T steps (None: as many as it was fitted for).

        how: `store`, `stop`, and of `SimulationSpec` `device`, `chunk` and `integer`; `additions`: whether they are
        counted.

        Raises:
            SpecError: it was fitted for another T, or the images do not fit.
            Cancelled: stop said so.
        """
        return Outcome.merge(list(self.run_chunks(images, T, **how)))

    def run_chunks(
        self,
        images: Tensor,
        T: int | None = None,
        *,
        store: SpikeStore | None = None,
        stop: Stop = None,
        device: Any = "auto",
        chunk: int = 0,
        integer: bool = True,
        additions: bool = True,
    ) -> Iterator[Outcome]:
        """Run as `run` does, and yield the outcome of every chunk of images as it is ready."""
        steps = self.T if T is None else T
        if steps != self.T and not self.method.anytime:
            raise SpecError(
                f"{self.method.key}: fitted for T = {self.T}, so it cannot run {steps} steps. Fit it for T = {steps}."
            )
        spec = SimulationSpec(steps, Record(v_end=False), chunk, integer, device)
        yield from self._chunks(images, spec, Ask(store, stop, additions))

    @property
    def answers_from(self) -> int:
        """The first step of a run after which there is an answer."""
        return 1

    def together(self, images: int, device: str = "auto") -> int:
        """Return how many of so many images `watch` may be given at once, for memory."""
        return images

    def watch(
        self, images: Tensor, *, store: SpikeStore | None = None, stop: Stop = None, device: Any = "auto"
    ) -> Watched:
        """Run a few images [B, C, H, W] together, for as many steps as it was fitted for, and keep every neuron.

        Raises:
            SpecError: the images do not fit the network.
            Cancelled: stop said so.
        """
        images = images.detach().float().cpu().contiguous()
        self.network.check_images(images)
        return self._watched(images, SimulationSpec(self.T, device=device), store, stop)

    def _watched(self, images: Tensor, spec: SimulationSpec, store: SpikeStore | None, stop: Stop) -> Watched:
        parts = list(simulate_chunks(self.snn, images, spec, store=store, stop=stop))
        return self._seen(self.snn, images, Simulation.merge(parts), store, spec.device)

    def _seen(
        self, snn: SpikingNetwork, images: Tensor, run: Simulation, store: SpikeStore | None, device: str, **more: Any
    ) -> WatchedRun:
        spikes = {name: spikes_sent(snn, name, run) for name in run.counts}
        logits = read_out(run.logits, self.skipped)
        return WatchedRun(
            self.network,
            snn,
            images,
            run.T,
            logits,
            spikes,
            run=run,
            store=store,
            device=device,
            skipped=self.left_out,
            **more,
        )

    def _chunks(self, images: Tensor, spec: SimulationSpec, ask: Ask) -> Iterator[Outcome]:
        for part in simulate_chunks(self.snn, images, spec, store=ask.store, stop=ask.stop):
            yield self._outcome(ask, part)

    def _outcome(self, ask: Ask, run: Simulation, *before: Simulation) -> Outcome:
        """Return a chunk's outcome; before: runs that came first, whose spikes count as well."""
        spikes = {name: torch.zeros(run.images, dtype=torch.float64) for name in run.counts}
        added: dict[str, float] = {}
        for each in (run, *before):
            sent = {name: spikes_sent(self.snn, name, each) for name in each.counts}
            for name, count in (additions(self.network, sent, each.pooled) if ask.additions else {}).items():
                added[name] = added.get(name, 0.0) + count
            for name, n in sent.items():
                spikes[name] = spikes[name] + n.flatten(1).sum(1).double()
        shared = {name: torch.full((run.images,), n, dtype=torch.float64) for name, n in added.items()}
        return Outcome(read_out(run.logits, self.skipped), spikes, shared, sum(each.seconds for each in (run, *before)))


def spikes_sent(snn: SpikingNetwork, site: str, run: Simulation) -> Tensor:
    """Return how many spikes each neuron sent, int32 [B, *site]: a burst of n is n, one taken back is one as well."""
    return run.counts[site] if min(snn.neurons[site].law.planes) > 0 else run.sent[site]


def edited(fitted: Fitted, scale: float = 1.0, sites: Mapping[str, SiteSetting] | None = None) -> Fitted:
    """Return a fitted conversion with thresholds and starts changed on top of what was found.

    scale: multiplies the thresholds of sites without a scale of their own. What a spike is worth is multiplied with
    them, and so is a shift where the method's is a share of the threshold.

    Raises:
        SpecError: a setting names no site, or a threshold is not above 0.
    """
    given = sites or {}
    for name in given:
        fitted.snn.network.site(name)
    neurons = {}
    for name, own in fitted.snn.neurons.items():
        setting = given.get(name, SiteSetting())
        factor = scale if setting.threshold_scale is None else setting.threshold_scale
        if factor != 1:
            own = _scaled(own, factor, fitted.method.shift_follows)
        if setting.v_init is not None:
            own = replace(own, start=ConstantStart(setting.v_init))
        neurons[name] = own
        neurons[name].check(fitted.snn.network.site(name))
    return replace(fitted, snn=replace(fitted.snn, neurons=neurons))


def _scaled(own: Neurons, factor: float, shift_follows: bool) -> Neurons:
    """Return neurons with other thresholds and spikes worth accordingly: what they decode to keeps its size."""
    amplitude = None if own.amplitude is None else own.amplitude * factor
    shift = own.shift * factor if shift_follows and own.shift is not None else own.shift
    return replace(own, theta=own.theta * factor, amplitude=amplitude, shift=shift)


def read_out(logits: Tensor, skipped: int, least: int = READ_LEAST) -> Tensor:
    """Return the mean current over the steps (s, t] after each step t, s = skipped, but at most t - least, at least 0.

    logits: the mean over (0, t], [T, B, K].
    """
    if skipped == 0:
        return logits
    t = torch.arange(1, len(logits) + 1)
    s = torch.minimum(torch.tensor(skipped), t - least).clamp(min=0)
    sums = torch.cat([torch.zeros_like(logits[:1]), logits]).double() * torch.arange(len(logits) + 1)[:, None, None]
    return ((sums[t] - sums[s]) / (t - s)[:, None, None]).float()


@dataclass(frozen=True, eq=False)
class TwoPhases(Fitted):
    """A conversion that looks at each image first: `prepare` runs some steps of a chunk and returns its own neurons.

    prepare(snn, phase): the spiking network for the images looked at, made of snn, and the runs that it took, whose
    spikes count. steps: those of one first phase. before(snn, run, site): the network in which a site's neurons ran in
    it, run being the one that `prepare` made of snn.
    """

    prepare: Callable[[SpikingNetwork, FirstPhase], tuple[SpikingNetwork, list[Simulation]]] = field(kw_only=True)
    steps: int = field(kw_only=True)
    before: Callable[[SpikingNetwork, SpikingNetwork, str], SpikingNetwork] = field(kw_only=True)

    def together(self, images: int, device: str = "auto") -> int:
        """See `Fitted`."""
        return min(images, chunk_images(self.snn, SimulationSpec(self.T), backend_for(device)))

    def _watched(self, images: Tensor, spec: SimulationSpec, store: SpikeStore | None, stop: Stop) -> Watched:
        phase = FirstPhase(images, spec, store or SpikeStore(), stop)
        snn, _ = self.prepare(self.snn, phase)
        run = phase.run(snn, spec.T, v_end=True)
        earlier = (partial(self.before, self.snn, snn), self.steps)
        return self._seen(snn, images, run, phase.store, spec.device, before=earlier)

    def _chunks(self, images: Tensor, spec: SimulationSpec, ask: Ask) -> Iterator[Outcome]:
        images = images.detach().float().cpu()
        self.network.check_images(images)
        size, done = spec.chunk or chunk_images(self.snn, spec, backend_for(spec.device)), 0
        while done < len(images):
            if ask.stop is not None and ask.stop():
                raise Cancelled("The run was stopped.")
            part, outcome = images[done : done + size].contiguous(), None
            try:
                outcome = self._both(ask, FirstPhase(part, spec, SpikeStore(), ask.stop))
            except (torch.OutOfMemoryError, MemoryError) as error:
                if len(part) == 1:
                    raise SpecError(
                        "Not even one image fits the memory. Choose fewer time-steps, smaller images or a smaller "
                        "network."
                    ) from error
            if outcome is None:  # what the failed run held is free only now
                size = len(part) // 2
                continue
            done += len(part)
            yield outcome

    def _both(self, ask: Ask, phase: FirstPhase) -> Outcome:
        begin = time.perf_counter()
        snn, before = self.prepare(self.snn, phase)
        outcome = self._outcome(ask, phase.run(snn, phase.spec.T), *before)
        return Outcome(outcome.logits, outcome.spikes, outcome.additions, time.perf_counter() - begin)


@dataclass(frozen=True, eq=False)
class FirstPhase:
    """A chunk of images while its first phase runs."""

    images: Tensor
    spec: SimulationSpec
    store: SpikeStore
    stop: Stop

    @cached_property
    def keys(self) -> list[bytes]:
        """The images' digests, on which random starts depend."""
        return image_keys(self.images)

    def current(self, snn: SpikingNetwork, site: str, T: int) -> Tensor:
        """Return what arrives at a site in each of T steps, float32 [T, B, *site]."""
        return self._walk(snn, T, Record()).current(site)

    def run(self, snn: SpikingNetwork, T: int, v_end: bool = False) -> Simulation:
        """Simulate the images together for T steps."""
        return self._walk(snn, T, Record(v_end=v_end)).simulation()

    def _walk(self, snn: SpikingNetwork, T: int, record: Record) -> Walk:
        spec = SimulationSpec(T, record, integer=self.spec.integer, device=self.spec.device)
        return Walk(snn, self.images, spec, self.store, self.stop, backend_for(spec.device))
