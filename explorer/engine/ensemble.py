"""Several random starts of one network as an ensemble: how right they are, how much they differ, how sure they are.

    p = mean over members of softmax(scores);   disagreement = share of pairs of members that answer differently
    calibration error = sum over bins of confidence of  n_b / n |accuracy_b - confidence_b|

The start of a spiking network is a source of chance that costs no second network, as stochastic weights are in binary
ones. Confidence is the largest of p; the error is the expected calibration error of C. Guo et al., *On calibration of
modern neural networks*, ICML 2017, with bins of equal width, each open below and closed above.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.errors import SpecError

BINS = 15


@dataclass(frozen=True)
class Ensemble:
    """M members on n labelled images; shares 0 to 1, `each` one number a member.

    disagreement: 0 with one member. calibration_error: of the ensemble; calibration_error_each: of its members.
    """

    images: int
    top1: float
    top1_each: tuple[float, ...]
    disagreement: float
    calibration_error: float
    calibration_error_each: tuple[float, ...]

    @property
    def members(self) -> int:
        """How many runs."""
        return len(self.top1_each)


def calibration_error(p: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error of class probabilities [n, K], between 0 and 1."""
    confidence, answers = p.double().max(1)
    right = (answers == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, place, right - confidence)
    return float(gap.abs().sum() / len(p))


def ensemble(scores: Tensor, labels: Tensor) -> Ensemble:
    """Judge M runs of the same images by their scores, [M, n, K]; labels: int64 [n].

    Raises:
        SpecError: there is no run or no image, or not a label for each image.
    """
    if scores.ndim != 3 or 0 in scores.shape or len(labels) != scores.shape[1]:
        raise SpecError(
            f"ensemble: scores [runs, images, classes] and a label for each image, got {list(scores.shape)} and "
            f"{len(labels)} labels. Run at least one start on at least one labelled image."
        )
    p = scores.double().softmax(2)
    answers, mean = p.argmax(2), p.mean(0)
    M = len(answers)
    pairs = [(answers[i] != answers[j]).double().mean() for i in range(M) for j in range(i)]
    return Ensemble(
        len(labels),
        float((mean.argmax(1) == labels).double().mean()),
        tuple((answers == labels).double().mean(1).tolist()),
        float(torch.stack(pairs).mean()) if pairs else 0.0,
        calibration_error(mean, labels),
        tuple(calibration_error(each, labels) for each in p),
    )
