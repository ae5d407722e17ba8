"""Residual potential: neurons that should have been silent are found in a first phase and muted. [Hao2023a]

    phase 1: tau steps from v(0) = theta / 2;  open = v(tau) > 1e-3 theta
    phase 2: start again, T steps, a closed neuron's spikes are not sent

Z. Hao, T. Bu, J. Ding, T. Huang, Z. Yu, *Reducing ANN-SNN conversion error through residual membrane potential*, AAAI
2023. A neuron that fired because its input came early ends below zero when the rest takes it back: its activation is
zero. The phases look at each image by itself. An answer takes tau + T steps; the spikes of both phases are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.methods.fitted import FirstPhase, Fitted, TwoPhases
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method, option
from explorer.engine.simulation.result import Simulation


@dataclass(frozen=True, kw_only=True)
class SRP(Method):
    """Mute neurons whose potential ended below zero after tau steps."""

    key = "srp"
    citation = "Hao et al. 2023a"
    equation = r"g = [\,v(\tau) > 10^{-3}\theta\,], \qquad z(t) \leftarrow g\, z(t)"
    about = (
        "In tau steps before the run each neuron shows where it ends. One that ends at or below zero sent spikes it "
        "should not have; in the run itself it is muted. An answer takes tau steps more than T."
    )
    refuses = {"law": "What is left of the potential says nothing once spikes are taken back or sent in bursts."}

    tau: int = option(4, "steps of the first phase", low=1, high=128)
    margin: float = option(1e-3, "what must be left, in thresholds, for a neuron to stay open", low=-1.0, high=1.0)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        base = self.base(probe, T)

        def prepare(snn: SpikingNetwork, phase: FirstPhase) -> tuple[SpikingNetwork, list[Simulation]]:
            first = phase.run(snn, self.tau, v_end=True)
            neurons = {
                name: replace(own, gate=first.v_end[name] > self.margin * own.theta)
                for name, own in snn.neurons.items()
            }
            return replace(snn, neurons=neurons), [first]

        def before(snn: SpikingNetwork, run: SpikingNetwork, site: str) -> SpikingNetwork:
            return snn

        return TwoPhases(self, base, T, extra=self.tau, prepare=prepare, steps=self.tau, before=before)
