"""Calibration for T: thresholds, shifts and worth of spikes per channel, fitted to the spikes that really arrive.

    min over theta_c, d_c(t), s_c  of  E[(s_c n_c / T - a_c)^2],   layer by layer, front to back

n_c counts the spikes of the site's own law, given the currents from the layers calibrated before: thresholds by least
squares as in light calibration [Li2021], but on the real spike output; a shift per channel by the mean error [Li2021]
and per step, first by feedback on each step's mean, which serves the next layer rather than this one [FTBC 2024], then
step by step; what a spike is worth by regression.
Nothing is trained and no label is used: the target is the ANN. A quarter of the calibration images is held back; on
them the result must agree with the ANN at least as often as OPI [Bu2022], or else OPI is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Network
from explorer.engine.methods.calibrate.layers import LayerError, Parts, fit_layers
from explorer.engine.methods.calibrate.sample import Sample, in_order
from explorer.engine.methods.catalogue.opi import OPI
from explorer.engine.methods.fitted import Fitted, Stop
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method, option
from explorer.engine.simulation.simulate import simulate
from explorer.engine.specs import Record, SimulationSpec

LEAST_HELD = 8  # images held back, below which nothing is: all are needed for the fit
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class HeldBack:
    """How often calibrated network and OPI agree with the ANN on images the fit did not see: shares of `images`."""

    images: int
    opi: float
    calibrated: float


@dataclass(frozen=True, eq=False)
class Calibrated(Fitted):
    """A calibrated conversion. layers: each site's error before and after; held: the comparison with OPI, if any.

    kept: whether the calibrated neurons are used; False: OPI's are, because they agree more often on the held-back.
    """

    layers: tuple[LayerError, ...] = ()
    held: HeldBack | None = None
    kept: bool = True
    given: Network | None = None
    tried: SpikingNetwork | None = None

    @property
    def network(self) -> Network:
        """The network as given; `snn.network` is another one where weights were refitted."""
        return self.given or self.snn.network

    @property
    def candidate(self) -> SpikingNetwork:
        """The calibrated network, also where OPI is kept in its place."""
        return self.tried or self.snn

    @property
    def refitted(self) -> bool:
        """Whether weights are other than the network's own."""
        return self.snn.network is not self.network


@dataclass(frozen=True, kw_only=True)
class Calibrate(Method):
    """min E[(s n / T - a)^2] over thresholds, shifts and worth, channel by channel."""

    key = "calibrate"
    images: ClassVar[int] = 512
    tells_progress: ClassVar[bool] = True
    citation = "this explorer, after Li et al. 2021 and Wu et al. 2024"
    equation = r"\min_{\theta_c,\,d_c(t),\,s_c} \mathbb{E}\big[(s_c\, n_c / T - a_c)^2\big]"
    about = (
        "Layer by layer, on the spikes that really arrive: every channel gets the threshold, the shift of each step "
        "and the worth of a spike with which its output errs least from the ANN's activation. No training, no labels."
    )

    fit_threshold: bool = option(True, "fit a threshold per channel")
    fit_shift: bool = option(True, "fit a shift per channel")
    fit_amplitude: bool = option(True, "fit what a spike is worth, per channel")
    fit_even: bool = option(True, "fit a shift per channel and step so that every step sends the ANN's mean")
    fit_steps: int = option(2, "rounds of moving each step's shift to the least squared error, 0: none", low=0, high=8)
    fit_weights: bool = option(False, "refit weights in closed form; this makes a new network")
    ridge: float = option(1e-3, "how strongly refitted weights keep to the old ones", low=1e-8, high=1e3)
    samples: int = option(16384, "neurons per channel and layer to fit on", low=16, high=2**20)
    held_back: float = option(0.25, "share of the calibration images that only judge the result", low=0.0, high=0.9)

    @property
    def parts(self) -> Parts:
        """The parts that run."""
        return Parts(
            self.fit_threshold,
            self.fit_shift,
            self.fit_amplitude,
            self.fit_even,
            self.fit_steps,
            self.fit_weights,
            self.ridge,
        )

    def fit(
        self,
        network: Network,
        T: int,
        images: Tensor | Probe | None = None,
        stop: Stop = None,
        on_progress: Progress | None = None,
    ) -> Calibrated:
        """Fit as `Method.fit` does; on_progress: called with (layers done, layers) after each."""
        return self.fit_on(self.probe(network, T, images, stop), T, on_progress)

    def fit_on(self, probe: Probe, T: int, on_progress: Progress | None = None) -> Calibrated:
        """See `Method`."""
        images = in_order(probe.images)
        held = round(self.held_back * len(images))
        held = held if LEAST_HELD <= held < len(images) else 0
        fitting = Probe(probe.network, images[held:], probe.stop)
        base = self.base(fitting, T)
        snn, layers = fit_layers(Sample(fitting, self.samples, T, self.seed), base, self.parts, on_progress)
        opi = OPI(threshold=self.threshold).base(fitting, T)
        judged = _judge(opi, snn, images[:held], T, probe.stop) if held else None
        kept = judged is None or judged.calibrated >= judged.opi
        used = snn if kept else opi
        return Calibrated(self, used, T, layers=layers, held=judged, kept=kept, given=probe.network, tried=snn)


@dataclass(frozen=True, kw_only=True)
class CalibrateSigned(Calibrate):
    """Calibration with spikes that may be taken back: what comes too early costs nothing in the end."""

    key = "calibrate-signed"
    own_law: ClassVar[str] = "signed_at_zero"
    about = (
        "As calibrated for T, with neurons that take a spike back as soon as its charge is spent. The count is then "
        "the staircase of the mean current, in whatever order spikes come, but for charge that comes or goes in the "
        "last steps alone: a neuron sends -1, 0 or 1 in a step."
    )
    fit_steps: int = option(0, "rounds of moving each step's shift to the least squared error, 0: none", low=0, high=8)


def _judge(opi: SpikingNetwork, calibrated: SpikingNetwork, images: Tensor, T: int, stop: Stop) -> HeldBack:
    """Compare both with the ANN on images that the fit did not see."""
    spec = SimulationSpec(T, Record(counts=False, v_end=False))
    ann = opi.network.forward(images).argmax(1)

    def agrees(snn: SpikingNetwork) -> float:
        chosen = simulate(snn, images, spec, stop=stop).logits[-1].argmax(1)
        return float((chosen == ann).double().mean())

    return HeldBack(len(images), agrees(opi), agrees(calibrated))
