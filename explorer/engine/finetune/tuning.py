"""Fine-tuning, one update at a time: by DSR, by hybrid training, or layer after layer by progressive tandem learning.

DSR [Meng2022]: all sites spike, and everything is trained through the spike representation.
Hybrid [Rathi2020]: all sites spike, and everything is trained through time, by surrogate gradients: T passes back.
Tandem [Wu2020]: the first sites spike and what lies before them is left alone; their counts feed the rest, which is
trained as an ANN with clips; when the loss on held-back images stalls, the next site spikes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import Cancelled, DataError, SpecError
from explorer.engine.finetune.progress import METHODS, Judged, Progress
from explorer.engine.finetune.tunable import Tunable
from explorer.engine.graph import Network
from explorer.engine.specs import check_steps

SCALING = 256  # images by which weights are scaled at the start
JUDGED_TOGETHER = 50
Stop = Callable[[], bool] | None


class Pictures(Protocol):
    """Training images: how many, their labels, int64 [N] or None, and any of them, augmented, as the network sees them.

    take(index, turn): images index, int64 [B], as they look in an epoch (a turn), normalised float32 [B, C, H, W]; the
    same index and turn always give the same.
    """

    @property
    def labels(self) -> Tensor | None:
        """The labels."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor, turn: int) -> Tensor:
        """Return images as they look in a turn."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Images held back, never trained on, and their labels, int64 [N]; None: the ANN's answers count as right."""

    images: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class TuningSpec:
    """How to fine-tune for T steps.

    The loss of a batch is (1 - share) CE(labels) + share tau^2 KL(ANN/tau || SNN/tau) [Hinton2015], without labels the
    second alone. Adam's learning rate rises over the first tenth of the updates to `rate`, then falls linearly to 0.
    judge_every: updates between looks at the held-back images. also: other numbers of time-steps that are trained for,
    in turns with T, all of them judged; 0: the ANN, every site a clip. frozen_above: see `Tunable`.
    """

    method: Literal["dsr", "hybrid", "tandem"] = "dsr"
    T: int = 4
    updates: int = 200
    batch: int = 64
    rate: float = 2e-4
    share: float = 0.5
    temperature: float = 2.0
    judge_every: int = 20
    seed: int = 0
    also: tuple[int, ...] = ()
    frozen_above: int = 0

    def __post_init__(self) -> None:
        check_steps(self.T)
        _require(self.T >= 2, f"T: fine-tuning needs at least 2 time-steps, got {self.T}.")
        for other in filter(None, self.also):
            check_steps(other)
        _require(1 not in self.also, "also: fine-tuning needs at least 2 time-steps, or 0 for the ANN, got 1.")
        _require(self.method in METHODS, f"method: one of {', '.join(METHODS)}, got {self.method!r}.")
        for name in ("updates", "batch", "judge_every"):
            value = getattr(self, name)
            _require(isinstance(value, int) and value >= 1, f"{name}: a whole number from 1, got {value}.")
        frozen = self.frozen_above
        _require(isinstance(frozen, int) and frozen >= 0, f"frozen_above: a whole number from 0, got {frozen}.")
        _require(0 < self.rate <= 1, f"rate: above 0, at most 1, got {self.rate}. Try 0.0002.")
        _require(0 <= self.share <= 1, f"share: from 0 to 1, got {self.share}.")
        _require(0 < self.temperature <= 100, f"temperature: above 0, at most 100, got {self.temperature}.")

    @property
    def turns(self) -> tuple[int, ...]:
        """The numbers of time-steps trained for, one update each in turn."""
        return (self.T, *self.also)

    def rate_at(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        rise = max(1, self.updates // 10)
        return self.rate * min(1.0, (update + 1) / rise) * (1 - update / self.updates)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SpecError(message)


class Tuning:
    """A fine-tuning under way; `step` does one update. Deterministic by the spec's seed and torch's number of threads.

    Args:
        ann: the network whose scores are the target; left as it is.
        start: what to start from, e.g. the calibrated network: its weights, thresholds and shifts.
        spec: how.
        pictures: training images.
        held: images held back; the best state on them is the result, the start included.
        stop: asked between parts of a look at many images.

    Raises:
        SpecError, UnsupportedLayerError: see `Tunable`.
        DataError: no training image, none held back, or labels that do not fit.
        Cancelled: stop said so.
    """

    def __init__(
        self, ann: Network, start: SpikingNetwork, spec: TuningSpec, pictures: Pictures, held: Held, stop: Stop = None
    ) -> None:
        if len(pictures) == 0 or len(held.images) == 0:
            raise DataError("Fine-tuning needs images to train on and others held back. Give at least 16 in all.")
        self.ann, self.spec, self.pictures, self.held, self.stop = ann, spec, pictures, held, stop
        self.batch = min(spec.batch, len(pictures))
        first = pictures.take(torch.arange(min(SCALING, len(pictures))), 0)
        ann.check_images(held.images)
        through_time = spec.method == "hybrid"
        self.net = Tunable(start.network, start.neurons, spec.T, first, through_time, spec.frozen_above)
        self.sites = [site.name for site in start.network.sites]
        if spec.method == "tandem":
            self.net.convert(1)
        self.optimiser = torch.optim.Adam(list(self.net.trained()), lr=spec.rate)
        self.taught = torch.cat([ann.forward(part) for part in held.images.split(JUDGED_TOGETHER)])
        self.right = self.taught.argmax(1) if held.labels is None else held.labels
        self.update, self.stage_began = 0, 0
        self.judged: list[Judged] = []
        self.stage: list[float] = []
        self.best_state: dict[str, Tensor] = {}
        self._judge()

    @property
    def done(self) -> bool:
        """Whether all updates are made, or in tandem all layers spike and the loss stalls."""
        return self.update >= self.spec.updates

    @property
    def best(self) -> Judged:
        """The look with the best accuracy, the earliest of equals; `judged[0]` is the start."""
        return max(self.judged, key=lambda each: (each.accuracy, -each.update))

    def run(self) -> Iterator[Progress]:
        """Do all updates that are left and yield the progress after each.

        Raises:
            Cancelled: stop said so; what was reached stays.
        """
        while not self.done:
            self._go_on()
            yield self.step()

    def step(self) -> Progress:
        """Do one update, and look at the held-back images if it is time."""
        spec = self.spec
        turn, index = self._next()
        images = self.pictures.take(index, turn)
        labels = None if self.pictures.labels is None else self.pictures.labels[index]
        for group in self.optimiser.param_groups:
            group["lr"] = spec.rate_at(self.update)
        self.net.run_for(spec.turns[self.update % len(spec.turns)])
        loss = self._loss(self.net(images), self.ann.forward(images, len(images)), labels)
        if not bool(torch.isfinite(loss)):
            raise SpecError(
                f"fine-tuning: the loss is not finite after {self.update} updates. Take a lower learning rate than "
                f"{spec.rate:g}."
            )
        self.optimiser.zero_grad()
        if loss.requires_grad:
            loss.backward()
            self.optimiser.step()
        self.net.keep_in_range()
        self.update += 1
        look = None
        if self.update % spec.judge_every == 0 or self.done:
            look = self._judge()
            if spec.method == "tandem":
                self._next_layer(look.loss)
        theta = {name: float(theta.detach().mean()) for name, theta in zip(self.sites, self.net.theta, strict=True)}
        return Progress(self.update, spec.updates, float(loss.detach()), self.net.spiking, theta, look)

    def _next(self) -> tuple[int, Tensor]:
        """Return the epoch and the images of the present update: each once an epoch, a part of a batch left out."""
        n = len(self.pictures)
        turn, place = divmod(self.update, n // self.batch)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * self.spec.seed + turn))
        return turn, order[place * self.batch : (place + 1) * self.batch]

    def _loss(self, scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
        tau, share = self.spec.temperature, 1.0 if labels is None else self.spec.share
        soft, target = F.log_softmax(scores / tau, 1), F.log_softmax(taught / tau, 1)
        loss = share * tau**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
        return loss if labels is None else loss + (1 - share) * F.cross_entropy(scores, labels)

    @torch.no_grad()
    def _judge(self) -> Judged:
        looks = [self._judged_for(T) for T in self.spec.turns]
        loss = sum(loss for loss, _ in looks) / len(looks)
        shares = [right for T, (_, right) in zip(self.spec.turns, looks, strict=True) if T]
        look = Judged(self.update, loss, sum(shares) / len(shares))
        if not self.judged or look.accuracy > self.best.accuracy:
            self.best_state = copy.deepcopy(self.net.state())
        self.judged.append(look)
        return look

    def _judged_for(self, T: int) -> tuple[float, float]:
        """Return loss and share of held-back images right after T steps."""
        loss, hits, spiking = 0.0, 0, self.net.spiking
        self.net.run_for(T)
        try:
            for i in range(0, len(self.held.images), JUDGED_TOGETHER):
                self._go_on()
                part = slice(i, i + JUDGED_TOGETHER)
                labels = None if self.held.labels is None else self.held.labels[part]
                scores = self.net(self.held.images[part])
                loss += len(scores) * float(self._loss(scores, self.taught[part], labels))
                if spiking < len(self.sites):
                    self.net.spiking = len(self.sites)
                    scores = self.net(self.held.images[part])
                    self.net.spiking = spiking
                hits += int((scores.argmax(1) == self.right[part]).sum())
        finally:
            self.net.spiking = spiking
        return loss / len(self.held.images), hits / len(self.held.images)

    def _next_layer(self, loss: float) -> None:
        """Let the next site spike where the loss did not fall since the last look, or its share of updates is used."""
        share = max(1, self.spec.updates // len(self.sites))
        stalls = bool(self.stage) and loss >= min(self.stage)
        self.stage.append(loss)
        if self.net.spiking < len(self.sites) and (stalls or self.update - self.stage_began >= share):
            self.net.convert(self.net.spiking + 1)
            self.stage, self.stage_began = [], self.update

    def _go_on(self) -> None:
        if self.stop is not None and self.stop():
            raise Cancelled("The fine-tuning was stopped.")

    def result(self, last: bool = False) -> Tunable:
        """Return the network in its best state on the held-back images: the start where nothing was better.

        last: in its present state instead. Where the start has been trained on the held-back images, those that
        remember them best look best.
        """
        best = copy.deepcopy(self.net, {id(self.net.network): self.net.network})
        best.restore(self.net.state() if last else self.best_state)
        best.spiking = len(self.sites)
        return best

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on: plain values and tensors."""
        return {
            "spec": repr(self.spec),
            "net": self.net.state(),
            "spiking": self.net.spiking,
            "optimiser": self.optimiser.state_dict(),
            "update": self.update,
            "stage": [*self.stage],
            "stage_began": self.stage_began,
            "judged": [(each.update, each.loss, each.accuracy) for each in self.judged],
            "best": self.best_state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            SpecError: it comes from another spec.
        """
        if state["spec"] != repr(self.spec):
            raise SpecError("fine-tuning: what was kept comes from other settings. Finish that one, or delete it.")
        self.net.restore(state["net"])
        if self.spec.method == "tandem":
            self.net.convert(state["spiking"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.update, self.stage, self.stage_began = state["update"], [*state["stage"]], state["stage_began"]
        self.judged = [Judged(*each) for each in state["judged"]]
        self.best_state = state["best"]
