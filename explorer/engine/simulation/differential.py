"""Differential coding: a spike changes the mean that its receiver holds, in place of adding to a sum. [Huang2025]

    v <- v + (x - b) + r_in - r_out;  spikes s by the law;  v <- v - s
    r_in <- r_in + (x - b) / t;  r_out <- r_out + s / t;  r_in = b and r_out = 0 at the start

x is the current of step t, b its part that no spike causes, r_in and r_out the running means of what arrived and of
what was sent. As v = v(0) + t (r_in - r_out), and as t r_out = m theta is what a neuron may take back, two numbers are
enough; between two steps they only stretch:

    v - v(0) <- t / (t - 1) (v - v(0));  m <- t / (t - 1) m;  then one step of the plain law, constants in t = 1 alone

So the plain laws and kernels run differential coding as they are, one step at a time. Scores are r_in of the last
layer, and what a neuron stands for is the sum of theta n(t) / t, not theta n / T.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.engine.compile.plan import Step
from explorer.engine.compile.values import TimedValues
from explorer.engine.errors import SpecError
from explorer.engine.kernels.protocol import Array, Constant, Current, Given
from explorer.engine.neurons import Law
from explorer.engine.simulation.walk import Walk


def changes(law: Law, x: Tensor, start: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Run neurons on the currents x [T, ...] of each step: return v after each reset, and what the spikes count, int8.

    x: changes but in step 1, when constants arrive as well; start: v(0); both and theta in activation units.
    """
    step, v, m = law.rebound(torch.where), torch.broadcast_to(start, x.shape[1:]), torch.zeros_like(x[0])
    after, z = torch.empty_like(x), torch.zeros(x.shape, dtype=torch.int8)
    for t, current in enumerate(x):
        if t > 0:
            v, m = (v - start) * ((t + 1) / t) + start, m * ((t + 1) / t)
        bits, v, m = step(v, m, current, theta)
        after[t] = v
        for n, bit in zip(law.planes, bits, strict=True):
            z[t].add_(bit, alpha=n)
    return after, z


class DifferentialWalk(Walk):
    """A walk whose spikes are changes; see the module. What is recorded of x is the current of each step, a change.

    Raises:
        SpecError: the network pools maxima of values that are no spikes, or something shifts its neurons.
    """

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        if self.plan.one_block:
            raise SpecError(
                "Differential coding runs step by step, which a max pool of values that are no spikes does not allow. "
                "Choose a network with average pools, or another method."
            )
        shifted = [name for name, own in self.snn.neurons.items() if own.shift is not None]
        if shifted:
            raise SpecError(f"{shifted[0]}: differential coding takes no shift. Choose another method.")
        self.blocks = [(t, t + 1) for t in range(self.spec.T)]
        self._starts: dict[str, Array] = {}
        self._silent: dict[str, list[Tensor]] = {}

    def sent(self, site: str) -> Tensor:
        """Return T sum_t n(t) / t after the last step: what a neuron's spikes count together, float32 [B, *site]."""
        step = self.plan.by_name[site]
        return self._of_site(step, self._take("state", step, *self.blocks[-1])[1])

    def membranes(self, site: str, neurons: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Walk`; v is the potential after each step's reset, before it stretches."""
        where, own = self.network.site(site), self.snn.neurons[site]
        x = self.current(site, neurons).flatten(2)
        theta, start = (
            torch.broadcast_to(value, (len(self.images), *where.shape)).flatten(1)[:, neurons]
            for value in (own.theta[None], own.initial_potential(where, self.image_keys))
        )
        v, z = changes(own.law, x, start, theta)
        return x, v, z

    def _means(self, x: np.ndarray) -> np.ndarray:
        return np.cumsum(x / np.arange(1, self.spec.T + 1)[None, :, None], 1)

    def _count(self, step: Step, block: tuple[int, int], counts: dict[str, Array], sent: dict[str, Array]) -> None:
        """Count all steps at once, after the last."""
        if block != self.blocks[-1]:
            return
        steps = [self.backend.release(self._take("train", step, *each)) for each in self.blocks]
        train = self.backend.hold(np.concatenate(steps, 3))
        planes = self.sites.law(step.node.name).planes
        counts[step.name] = self.backend.count(train, planes, None)
        sent[step.name] = self.backend.count(train, (1,) * len(planes), None)

    def _state(self, step: Step, t0: int) -> Array:
        state = super()._state(step, t0)
        if step.name not in self._starts:
            self._starts[step.name] = self.backend.start(self.sites.start(step), False)[0]
        if t0 > 0:
            start = self._starts[step.name]
            state[0] -= start
            state *= (t0 + 1) / t0
            state[0] += start
        return state

    def _current(self, step: Step, t0: int, t1: int, timed: TimedValues | None = None) -> Current:
        current = super()._current(step, t0, t1, timed)
        if t0 == 0:
            return current
        if isinstance(current, Given):
            parts = zip(current.summands, self._constants(step), strict=True)
            return Given(tuple(x - silent for x, silent in parts), None)
        return replace(current, const=Constant(torch.zeros(len(current.scale))))

    def _scores(self, step: Step, t0: int, t1: int, timed: TimedValues) -> np.ndarray:
        x = super()._scores(step, t0, t1, timed)
        if t0 > 0 and self.sites.path(step) == "float":
            silent = sum(self._constants(step)[1:], self._constants(step)[0])
            x = x - silent.float().cpu().numpy().reshape(len(x), 1, -1)
        return x

    def _constants(self, step: Step) -> list[Tensor]:
        """Return the summands of a step's current while nothing fires, as traced: [B, ...] each."""
        if step.name not in self._silent:
            images, device = len(self.images), self.backend.device

            def nothing(name: str) -> Tensor:
                return torch.zeros(images, *self.network.shapes[name], device=device, dtype=self.backend.precision)

            known = self.plan.by_node.__contains__
            values = TimedValues(self.network, self.static, self.plan.static, nothing, known, 1, self.backend.precision)
            self._silent[step.name] = values.summands(step.value)
        return self._silent[step.name]
