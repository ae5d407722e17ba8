"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Simulation:
    """Scores, counts, final potentials and recorded membranes of B images over T steps.

    logits: float32 [T, B, K], the last layer's mean current up to each step, in score units.
    counts[site]: int32 [B, *site], the sum of what the spikes count, those taken back taken off; sent[site]: how many
    spikes were sent, whatever they count (the same tensor where each counts 1); pooled[max pool]: how many it passes
    on, int32 [B, ...], where spikes are taken back. v_end[site]: float32 [B, *site],
    activation units.
    For recorded sites, with n neurons: neurons[site]: int64 [n], flat indices; spikes[site]: int8 [T, B, n], what each
    counts; x[site] (current) and v[site] (after the reset): float32 [T, B, n], activation units.
    spike_totals[site]: spikes sent over all images and steps. paths[site]: which path ran.
    """

    T: int
    logits: Tensor
    counts: dict[str, Tensor]
    sent: dict[str, Tensor]
    pooled: dict[str, Tensor]
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
            T=first.T,
            logits=torch.cat([p.logits for p in parts], 1),
            counts=joined("counts", 0),
            sent=joined("sent", 0),
            pooled=joined("pooled", 0),
            v_end=joined("v_end", 0),
            spikes=joined("spikes", 1),
            v=joined("v", 1),
            x=joined("x", 1),
            neurons=first.neurons,
            spike_totals={key: sum(p.spike_totals[key] for p in parts) for key in first.spike_totals},
            seconds=sum(p.seconds for p in parts),
            paths=first.paths,
        )
