"""Noise on the inputs of quantised activations, in place of the unevenness of spikes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from explorer.engine import QuantisedClip

SHIFT = 4099  # numbers between the parts of the row that two sites take; no power of two, so no pattern


class Noise:
    """One row of uniform numbers a step, of which every site takes another part: drawing all would double the time.

    std: their standard deviation, in levels; 0 is no noise.
    """

    def __init__(self, net: nn.Module, std: float, generator: torch.Generator) -> None:
        self.sites = [m for m in net.modules() if isinstance(m, QuantisedClip)]
        self.half_width = std * 3**0.5
        self.generator = generator
        self.channels = next((len(p) for p in net.parameters() if p.ndim == 4), 0)  # no site has more values a pixel
        self.row = torch.empty(0)
        for site in self.sites:
            site.noise = None

    def draw(self, x: Tensor) -> None:
        """Draw the row for a batch of images [B, C, H, W]."""
        if not self.half_width or not self.sites:
            return
        size = x[:, 0].numel() * self.channels + SHIFT * len(self.sites)
        drawn = torch.empty(size).uniform_(-self.half_width, self.half_width, generator=self.generator)
        if len(self.row) != size:
            self.row = torch.empty(size, dtype=torch.bfloat16, device=x.device)
            for k, site in enumerate(self.sites):
                site.noise = self.row[k * SHIFT :]
        self.row.copy_(drawn)
