"""What a fine-tuning tells of itself: plain values, that travel without torch."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("dsr", "hybrid", "tandem")


@dataclass(frozen=True)
class Judged:
    """A look at the held-back images after so many updates.

    loss: as in training, with the sites that spike so far; accuracy: share 0..1 right with all sites spiking.
    """

    update: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Progress:
    """Where a fine-tuning stands after an update. theta: mean threshold by site; judged: a look, if one was due."""

    update: int
    updates: int
    loss: float
    spiking: int
    theta: dict[str, float]
    judged: Judged | None
