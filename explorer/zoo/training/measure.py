"""How well a trained network does, as an ANN and, where its bounds are trained, after OPI conversion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explorer.engine import CalibrationSpec, Record, SimulationSpec, TrainedClip, calibrate, convert, simulate, trace
from explorer.engine.analysis import top1_curve
from explorer.engine.theory import wilson
from explorer.zoo.training.batches import to_input
from explorer.zoo.training.data import Images

STEPS = (4, 8, 16, 32)
BATCH = 250


@dataclass(frozen=True)
class Measured:
    """Top-1 as shares 0..1 of `images`: the ANN's in float32, and the spiking network's after some numbers of steps."""

    images: int
    ann: float
    snn: dict[int, float]

    def __str__(self) -> str:
        shares = {"ANN": self.ann, **{f"T={T}": share for T, share in self.snn.items()}}
        told = []
        for name, share in shares.items():
            low, high = wilson(round(share * self.images), self.images)
            told.append(f"{name} {100 * share:.2f} % ({100 * low:.2f} to {100 * high:.2f})")
        return f"top-1 on {self.images:,} images: " + ", ".join(told)


def measure(net: nn.Module, data: Images, steps: tuple[int, ...] = STEPS) -> Measured:
    """Test a network on all images given; its spiking form starts at v_init 1/2, thresholds are its trained bounds.

    steps: after which numbers of time-steps; the spiking network runs for the largest.
    """
    net = net.cpu().eval()
    cpu = torch.device("cpu")
    batches = [
        (to_input(images, cpu), labels)
        for images, labels in zip(data.images.split(BATCH), data.labels.split(BATCH), strict=True)
    ]
    with torch.no_grad():
        hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in batches)
    snn = _spiking(net, batches, len(data.labels), steps)
    return Measured(len(data.labels), hits / len(data.labels), snn)


def _spiking(net: nn.Module, batches: list[tuple[Tensor, Tensor]], n: int, steps: tuple[int, ...]) -> dict[int, float]:
    network = trace(net, batches[0][0][:1])
    if not network.clips_trained:
        return {}
    snn = convert(network, calibrate(network, torch.empty(0), CalibrationSpec(TrainedClip())))
    spec = SimulationSpec(max(steps), Record(counts=False, v_end=False))
    hits = sum(top1_curve(simulate(snn, x, spec).logits, y) * len(y) for x, y in batches)
    assert isinstance(hits, Tensor)
    return {T: float(hits[T - 1]) / n for T in steps}
