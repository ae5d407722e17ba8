"""Components of our own: a chart that keeps its zoom, the threshold equaliser, the player."""

from explorer.ui.components.chart import chart

__all__ = ["chart"]
