"""The parts of a site's calibration: each tries other parameters, channel by channel, and keeps what errs less.

All (but for `even` of signed spikes) minimise the mean squared error of the real spike output against the activation,

    E_c = mean over images and places of (s_c n / T - a)^2,

n counted from the currents that really arrive, so that what upstream layers send too early, too late or too little is
in it. A part never raises it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explorer.engine.methods.calibrate.scanner import Scanner, Trial

COARSE = tuple(1.1 * 0.88**k for k in range(18))  # shares of the largest activation: 1.1 down to 0.13
FINE = (0.94, 1.06, 0.97, 1.03)
AGAIN = (0.85, 0.92, 0.96, 1.04, 1.08, 1.15)
FEEDBACK_ROUNDS, FEEDBACK = 4, 0.5  # as in FTBC
GROUPS = 8  # of steps that move together where T is larger
FIRST_MOVE = 0.2  # thresholds
COARSE_EVERY, STEPS_EVERY = 4, 2  # searches on a part of the sample; what they find is judged on all of it


@dataclass(frozen=True, eq=False)
class Best:
    """The best parameters so far and their error, float64 [C], activation units squared."""

    trial: Trial
    error: Tensor

    def against(self, scanner: Scanner, trial: Trial) -> Best:
        """Return the better of both, channel by channel."""
        return self.or_measured(*scanner.measured(trial))

    def or_measured(self, trial: Trial, error: Tensor) -> Best:
        """Return the better of this and a trial whose error is known."""
        better = error < self.error
        return Best(self.trial.mixed(trial, better), torch.where(better, error, self.error))


def with_theta(trial: Trial, theta: Tensor) -> Trial:
    """Return the trial with other thresholds, a spike worth its threshold until that is fitted."""
    return replace(trial, theta=theta.float(), amplitude=theta.float())


def thresholds(scanner: Scanner, best: Best, top: Tensor, shares: Iterable[float] = COARSE) -> Best:
    """Try thresholds that are shares of `top`, float32 [C], on some of the sample, then close to the best on all."""
    few = scanner.thinned(COARSE_EVERY)
    rough = Best(*few.measured(best.trial))
    for share in shares:
        rough = rough.against(few, with_theta(best.trial, top * share))
    return nearby(scanner, best.against(scanner, rough.trial), FINE)


def nearby(scanner: Scanner, best: Best, factors: Iterable[float] = AGAIN) -> Best:
    """Try thresholds that are multiples of the best one."""
    theta = best.trial.theta
    for factor in factors:
        best = best.against(scanner, with_theta(best.trial, theta * factor))
    return best


def shift(scanner: Scanner, best: Best) -> Best:
    """Try to shift every step by the mean error, half of it, and twice as much."""
    for _ in range(2):
        trial, miss = best.trial, scanner.bias(best.trial)
        for factor in (1.0, 0.5, 2.0):
            best = best.against(scanner, replace(trial, shift=(trial.shift + factor * miss).float()))
    return best


def even(scanner: Scanner, best: Best) -> Best:
    """Shift each step so that its mean output becomes the ANN's mean activation. [FTBC 2024]

    Feedback in some rounds, each from the last. Where spikes can be taken back, this part minimises, per channel, the
    mean over the steps of the squared miss of these means, and may raise E for it: what one neuron errs by chance
    averages out over the inputs of the next layer, what a whole channel sends too early does not. Where they cannot,
    evening out costs more than it serves (measured, see benchmarks/README.md), and a round is kept only if E falls.
    """
    trial, error = best.trial, best.error
    least = torch.full_like(error, torch.inf)
    for round_ in range(FEEDBACK_ROUNDS + 1):
        miss = scanner.mean - scanner.per_step(trial)
        measure = miss.square().mean(0) if scanner.law.memory else error
        better = measure < least
        best = Best(best.trial.mixed(trial, better), torch.where(better, error, best.error))
        least = torch.where(better, measure, least)
        if round_ < FEEDBACK_ROUNDS:
            trial, error = scanner.measured(replace(trial, shift=(trial.shift + FEEDBACK * miss).float()))
    return best


def steps(scanner: Scanner, best: Best, rounds: int) -> Best:
    """Move the shift of one step, or one group of steps, after the other, up and down; halve the move every round."""
    few = scanner.thinned(STEPS_EVERY)
    rough = Best(*few.measured(best.trial))
    groups = torch.arange(scanner.T).chunk(min(GROUPS, scanner.T))
    for k in range(rounds):
        move = FIRST_MOVE * 0.5**k
        for group in groups:
            for sign in (-1, 1):
                moved = rough.trial.shift.clone()
                moved[group] += sign * move * rough.trial.theta
                rough = rough.against(few, replace(rough.trial, shift=moved))
    return best.against(scanner, rough.trial)
