"""The recipes: how every shipped network is trained, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from explorer.engine.errors import SpecError


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate: up linearly, then down to zero.

    `small_epochs` on smaller images come first, which costs less and teaches most of what the later ones refine.
    theta_decay is the L2 decay of the clips. Over a cycle it shrinks them by about exp(-rate * decay * steps), rate
    being the mean learning rate: 5e-3 over 18 epochs at 0.1 takes a factor of 6, which costs accuracy; 5e-4 a fifth.
    `cutout` greys a square of so many pixels of each image, at a random place [DeVries2017].
    """

    epochs: int
    peak_lr: float
    small_epochs: int = 0
    theta_decay: float = 5e-4
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.small_epochs <= self.epochs:
            raise SpecError(
                f"cycle: at least 1 epoch and no more small epochs than epochs, got {self.epochs} and "
                f"{self.small_epochs}."
            )


@dataclass(frozen=True)
class Distillation:
    """Learn from a better network's scores as well as from the labels. [Hinton2015]

    The loss is (1 - share) CE(labels) + share tau^2 KL(teacher/tau || student/tau), tau being the temperature. The
    teacher, a network in the folder of weights, sees one crop of the image and one of its mirror image, and speaks of
    every crop as of the one mirrored alike: so its scores are computed twice an image and kept.
    """

    teacher: str
    temperature: float = 4.0
    share: float = 0.9


@dataclass(frozen=True)
class Muon:
    """Move convolutions along orthogonalised momentum [Jordan2024b]: at a share of the schedule's rate, own decay."""

    rate_share: float = 0.2
    decay: float = 0.02


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; written into its card as it stands.

    The cycles run one after the other on the same weights. A network starts from scratch, its clips at `theta_init`;
    or from the weights `start_from`, its clips at theirs, or where those have none at that percentile of the
    activations met there. With `alternate` an image is mirrored every other epoch [Jordan2024]; else flips are drawn.
    `levels` are those of quantised activations: each batch draws one of them, the network keeps the last.
    `noise` is the standard deviation, in levels, of noise on their inputs, from the epoch `noise_from` on.

    SGD with Nesterov momentum moves all weights, or with `muon` all but the convolutions'.

    With `average_ends` the result is the mean of the weights at the ends of so many last cycles [Izmailov2018], with
    `ema` > 0 a moving average of the weights that forgets by that factor a step. Batch-norm statistics are then
    estimated anew on `statistics_batches` batches. So many images as `held_out` says are not trained on: recipes are
    chosen by them. `note` says what else there is to know.
    """

    architecture: str
    activation: Literal["relu", "clip", "qcfs"]
    cycles: tuple[Cycle, ...]
    batch: int = 128
    muon: Muon | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2
    fall: Literal["cosine", "linear"] = "cosine"
    label_smoothing: float = 0.0
    distillation: Distillation | None = None
    alternate: bool = False
    theta_init: float = 2.0
    theta_percentile: float = 99.9
    levels: tuple[int, ...] = (8,)
    noise: float = 0.0
    noise_from: int = 0
    held_out: int = 0
    start_from: str = ""
    small_size: int = 24
    seed: int = 0
    average_ends: int = 0
    ema: float = 0.0
    statistics_batches: int = 60
    weights: Literal["float32", "float16"] = "float32"
    note: str = ""

    def __post_init__(self) -> None:
        if self.average_ends > len(self.cycles) or (self.average_ends and self.ema):
            raise SpecError("recipe: average the ends of at most all cycles, or take a moving average, not both.")

    @property
    def epochs(self) -> int:
        """Return the epochs of all cycles together."""
        return sum(cycle.epochs for cycle in self.cycles)

    def at(self, epoch: int) -> tuple[int, int]:
        """Return which cycle an epoch lies in, and the epoch's place within it, both from 0.

        Raises:
            IndexError: the recipe has fewer epochs.
        """
        for k, cycle in enumerate(self.cycles):
            if epoch < cycle.epochs:
                return k, epoch
            epoch -= cycle.epochs
        raise IndexError("the recipe has fewer epochs")


RECIPES = {
    "resnet20-relu": Recipe("resnet20", "relu", cycles=(Cycle(30, 0.2), Cycle(8, 0.05)), average_ends=2),
    "resnet20-clip": Recipe(
        "resnet20", "clip", cycles=(Cycle(36, 0.1), Cycle(8, 0.05)), start_from="resnet20-relu", average_ends=2
    ),
    "resnet20-qcfs": Recipe(
        "resnet20",
        "qcfs",
        cycles=(Cycle(6, 0.1),),
        batch=256,
        warmup=0.1,
        fall="linear",
        distillation=Distillation("vgg16-clip"),
        alternate=True,
        levels=(4, 8),
        noise=1.0,
        noise_from=3,
        held_out=5_000,
        start_from="resnet20-clip",
        note="The first three epochs followed a rise and fall of 12 epochs; the fourth drew its noise at every site. "
        "The held-out images, by which noise was chosen, had been seen by resnet20-clip and vgg16-clip. The test "
        "images were looked at once, at the end.",
    ),
    "vgg16-qcfs": Recipe(
        "vgg16",
        "qcfs",
        cycles=(Cycle(2, 0.03),),
        warmup=0.1,
        fall="linear",
        distillation=Distillation("vgg16-clip", share=0.5),
        alternate=True,
        levels=(4, 8),
        noise=0.5,
        held_out=5_000,
        start_from="vgg16-clip",
        weights="float16",
        note="The first epoch followed a rise and fall of three epochs. The held-out images had been seen by "
        "vgg16-clip. The test images were looked at once, at the end.",
    ),
    "vgg16-clip": Recipe(
        "vgg16",
        "clip",
        cycles=(
            Cycle(18, 0.1, small_epochs=8, theta_decay=5e-3),
            Cycle(20, 0.1, small_epochs=9),
            Cycle(16, 0.1, small_epochs=6),
            Cycle(16, 0.1, small_epochs=6, cutout=12),
            *(Cycle(2, 0.03, cutout=12),) * 5,
        ),
        label_smoothing=0.05,
        average_ends=6,
        weights="float16",
    ),
}
