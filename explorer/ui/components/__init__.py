"""Components of our own: a chart that keeps its zoom, the threshold equaliser, the player, the live address."""

from explorer.ui.components.address import address
from explorer.ui.components.chart import chart, preload
from explorer.ui.components.equaliser import equaliser
from explorer.ui.components.player import player

__all__ = ["address", "chart", "equaliser", "player", "preload"]
