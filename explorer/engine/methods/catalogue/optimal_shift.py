"""Optimal conversion: half a step of the staircase is spread over all time-steps. [Deng2021]

    theta = max a;  x(t) <- x(t) + theta / (2 T);  v(0) = 0

S. Deng, S. Gu, *Optimal conversion of conventional artificial neural networks to spiking neural networks*, ICLR 2021.
The paper trains with a threshold ReLU; a network that has such bounds takes them, another the largest activations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from explorer.engine.graph import Network
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method, option
from explorer.engine.specs import MaxActivation, ThresholdRule, TrainedClip


@dataclass(frozen=True, kw_only=True)
class OptimalShift(Method):
    """A constant current of theta / 2T in every step."""

    key = "optimal-shift"
    citation = "Deng & Gu 2021"
    equation = r"x(t) \leftarrow x(t) + \frac{\theta}{2T}, \qquad v(0) = 0"
    about = (
        "After T steps the added current amounts to half a threshold, so the count is rounded to the nearest one as it "
        "is with a start at one half; on the way there it is less."
    )
    shift_follows: ClassVar[bool] = True

    share: float = option(0.5, "what is added over T steps, as a share of the threshold", low=-1.0, high=1.0)

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the trained bounds if there are any, else the maximum."""
        return TrainedClip() if network.clips_trained else MaxActivation()

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        neurons = {name: replace(own, shift=own.theta * (self.share / T)) for name, own in snn.neurons.items()}
        return Fitted(self, replace(snn, neurons=neurons), T)
