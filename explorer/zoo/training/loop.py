"""The loop that follows a recipe: epochs, checkpoints, averages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.engine import QuantisedClip
from explorer.engine.errors import SpecError
from explorer.zoo.training.average import MovingAverage, average_ends, estimate_statistics
from explorer.zoo.training.batches import crop, cut_out, pad, placement, to_input
from explorer.zoo.training.data import Images
from explorer.zoo.training.files import save
from explorer.zoo.training.noise import Noise
from explorer.zoo.training.optimise import Optimiser
from explorer.zoo.training.precision import half_precision
from explorer.zoo.training.recipes import Cycle, Recipe
from explorer.zoo.training.start import build, go_on_from
from explorer.zoo.training.teacher import Teacher


class Training:
    """One training: a recipe, its data and the folders where its checkpoints lie and other networks' weights.

    The same training begun again goes on from its last checkpoint, which is one epoch old at most.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        data: Images,
        runs: Path,
        weights: Path,
        say: Callable[[str], None] = print,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.data, self.say, self.weights = recipe, data, say, weights
        self.folder = runs / f"{name}-{data.name}"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.padded = pad(data.images)
        self.steps = len(data.images) // recipe.batch
        self.teacher: Teacher | None = None
        if recipe.distillation:
            self.teacher = Teacher(recipe.distillation, weights, runs / "teachers", say)
            self.taught = self.teacher.scores(data)
        self.compiled = compiled

    def run(self) -> nn.Module:
        """Train from the last checkpoint to the end and return the network, on the CPU."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        net = build(recipe, len(self.data.classes)).to(self.device).to(memory_format=torch.channels_last)
        if recipe.start_from:
            go_on_from(net, recipe, self.data.images[:512], self.weights)
        optimiser = Optimiser(net, recipe)
        average = MovingAverage(net, recipe.ema) if recipe.ema else None
        first = self._resume(net, optimiser, average)
        begin = time.time()
        for epoch in range(first, recipe.epochs):
            k, nth = recipe.at(epoch)
            start = time.time()
            loss = self._epoch(net, optimiser, average, epoch)
            now = time.time()
            left = (now - begin) / (epoch + 1 - first) * (recipe.epochs - epoch - 1)
            self.say(
                f"epoch {epoch + 1}/{recipe.epochs} loss {loss:.4f} seconds {now - start:.0f} left about "
                f"{left / 60:.0f} min"
            )
            state = {
                "recipe": repr(recipe),
                "net": net.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average.state if average else {},
                "epoch": epoch + 1,
            }
            save(self.folder / "last.pt", state)
            if nth + 1 == recipe.cycles[k].epochs:
                save(self._end(k), net.state_dict())
        self._finish(net, average)
        return net.cpu()

    def _resume(self, net: nn.Module, optimiser: Optimiser, average: MovingAverage | None) -> int:
        path = self.folder / "last.pt"
        if not path.exists():
            return 0
        saved: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if saved["recipe"] != repr(self.recipe):
            raise SpecError(f"{path} comes from another recipe. Finish that one, or delete its folder.")
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        if average:
            average.state = saved["average"]
        self.say(f"going on after epoch {saved['epoch']}")
        return int(saved["epoch"])

    def _epoch(self, net: nn.Module, optimiser: Optimiser, average: MovingAverage | None, epoch: int) -> float:
        """Train one epoch and return its mean loss."""
        recipe, (k, nth) = self.recipe, self.recipe.at(epoch)
        cycle = recipe.cycles[k]
        n = len(self.data.images)
        placed = placement(n, recipe.seed, epoch, recipe.alternate)
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        order = torch.randperm(n, generator=generator)
        quantised = [m for m in net.modules() if isinstance(m, QuantisedClip)]
        noise = Noise(net, recipe.noise if epoch >= recipe.noise_from else 0.0, generator)
        forward = torch.compile(net) if self.compiled else net
        net.train()
        running = 0.0
        for step, index in enumerate(order[: self.steps * recipe.batch].split(recipe.batch)):
            x = self._input(index, placed, cycle, nth, generator)
            chosen = recipe.levels[int(torch.randint(len(recipe.levels), (), generator=generator))]
            for module in quantised:
                module.levels.fill_(chosen)
            noise.draw(x)
            with half_precision(self.device):
                scores = forward(x).float()
            loss = self._loss(scores, index, placed[index, 2])
            optimiser.step(loss, cycle, (nth + step / self.steps) / cycle.epochs)
            if average:
                average.follow(net)
            running += float(loss.detach())
        for module in quantised:
            module.levels.fill_(recipe.levels[-1])
            module.noise = None
        return running / self.steps

    def _input(self, index: Tensor, placed: Tensor, cycle: Cycle, nth: int, generator: torch.Generator) -> Tensor:
        small = self.recipe.small_size if nth < cycle.small_epochs else None
        x = to_input(crop(self.padded, index, placed[index]), self.device, small)
        return cut_out(x, cycle.cutout, generator) if cycle.cutout else x

    def _loss(self, scores: Tensor, index: Tensor, mirrored: Tensor) -> Tensor:
        labels = self.data.labels[index].to(self.device)
        if self.teacher:
            taught = self.taught[mirrored, index].to(self.device).float()
            return self.teacher.loss(scores, taught, labels, self.recipe.label_smoothing)
        return F.cross_entropy(scores, labels, label_smoothing=self.recipe.label_smoothing)

    def _finish(self, net: nn.Module, average: MovingAverage | None) -> None:
        ends = range(len(self.recipe.cycles))
        if average:
            net.load_state_dict(average.state)
        elif self.recipe.average_ends:
            average_ends(net, [self._end(k) for k in ends[-self.recipe.average_ends :]], self.device)
        estimate_statistics(net, self.padded, self.recipe, self.device)

    def _end(self, cycle: int) -> Path:
        return self.folder / f"end{cycle}.pt"
