"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Simulation:
    """Scores, counts, final potentials and recorded traces of B images over T steps.

    logits: float32 [T, B, K], the last layer's mean current up to each step, in score units.
    counts[site]: int32 [B, *site], spikes. v_end[site]: float32 [B, *site], activation units.
    For recorded sites, with n neurons: neurons[site]: int64 [n], flat indices; spikes[site]: uint8 [T, B, n];
    x[site] (current) and v[site] (after the reset): float32 [T, B, n], activation units.
    spike_totals[site]: spikes over all images and steps. paths[site]: which path ran.
    """

    T: int
    logits: Tensor
    counts: dict[str, Tensor]
    v_end: dict[str, Tensor]
    spikes: dict[str, Tensor]
    v: dict[str, Tensor]
    x: dict[str, Tensor]
    neurons: dict[str, Tensor]
    spike_totals: dict[str, int]
    seconds: float
    paths: dict[str, str]

    @property
    def images(self) -> int:
        """How many images were simulated."""
        return self.logits.shape[1]

    @staticmethod
    def merge(parts: Sequence[Simulation]) -> Simulation:
        """Join the results of consecutive images of one run."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]

        def joined(name: str, dim: int) -> dict[str, Tensor]:
            keys = getattr(first, name)
            return {key: torch.cat([getattr(p, name)[key] for p in parts], dim) for key in keys}

        return Simulation(
            first.T,
            torch.cat([p.logits for p in parts], 1),
            joined("counts", 0),
            joined("v_end", 0),
            joined("spikes", 1),
            joined("v", 1),
            joined("x", 1),
            first.neurons,
            {key: sum(p.spike_totals[key] for p in parts) for key in first.spike_totals},
            sum(p.seconds for p in parts),
            first.paths,
        )
