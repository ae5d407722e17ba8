"""A teacher's scores of all training images, kept on disk, and the loss that uses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.engine.errors import SpecError
from explorer.zoo.registry import load
from explorer.zoo.training.batches import crop, pad, placement, to_input
from explorer.zoo.training.data import Images
from explorer.zoo.training.files import save
from explorer.zoo.training.precision import half_precision
from explorer.zoo.training.recipes import Distillation

BATCH = 250


class Teacher:
    """A better network, and what it says of the training images."""

    def __init__(self, settings: Distillation, weights: Path, folder: Path, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.weights = weights
        self.folder = folder
        self.say = say

    def scores(self, data: Images) -> Tensor:
        """Return the scores of one crop of every image, float16 [2, N, K]: as it is, and mirrored.

        Raises:
            SpecError: it knows another number of classes.
        """
        net, card = load(self.settings.teacher, self.weights)
        if len(card.classes) != len(data.classes):
            raise SpecError(
                f"teacher: {card.name} knows {len(card.classes)} classes, the data have {len(data.classes)}. Choose a "
                "teacher that was trained on them."
            )
        path = self.folder / f"{card.name}-{card.sha256[:12]}-{data.name}.pt"
        if not path.exists():
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            net = net.to(device).to(memory_format=torch.channels_last)
            padded = pad(data.images)
            turns = [placement(len(padded), 0, turn, alternate=True) for turn in (0, 1)]
            heard = torch.stack([score(net, padded, placed, device) for placed in turns])
            save(path, by_side(heard, turns[0][:, 2]))
            self.say(f"teacher {card.name}: scores kept in {path}")
        kept: Tensor = torch.load(path, weights_only=True)
        return kept

    def loss(self, scores: Tensor, taught: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """Return (1 - share) CE(labels) + share tau^2 KL(teacher/tau || student/tau), the batch's mean. [Hinton2015]

        scores, taught: the student's and the teacher's, float32 [B, K]; labels: int64 [B].
        """
        share, tau = self.settings.share, self.settings.temperature
        softened = F.log_softmax(scores / tau, 1)
        taught_softened = F.log_softmax(taught / tau, 1)
        distance = F.kl_div(softened, taught_softened, reduction="batchmean", log_target=True)
        own = F.cross_entropy(scores, labels, label_smoothing=label_smoothing)
        return (1 - share) * own + share * tau**2 * distance


@torch.no_grad()
def score(net: nn.Module, padded: Tensor, placed: Tensor, device: torch.device) -> Tensor:
    """Return a network's scores of all images at their places: float16 [N, K], on the CPU."""
    net.eval()
    parts = []
    for index in torch.arange(len(padded)).split(BATCH):
        with half_precision(device):
            parts.append(net(to_input(crop(padded, index, placed[index]), device)).half().cpu())
    return torch.cat(parts)


def by_side(scores: Tensor, mirrored: Tensor) -> Tensor:
    """Sort scores [2, N, K] of two turns, in the first of which the images `mirrored` [N] were so, by the side seen."""
    every = torch.arange(scores.shape[1])
    return torch.stack([scores[mirrored, every], scores[1 - mirrored, every]])
