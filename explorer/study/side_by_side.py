"""Methods side by side: one row a method, start and T, all on the same network, thresholds' images and test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from explorer.engine.errors import Cancelled, SpecError
from explorer.engine.methods import Fitted, Method, Probe, written
from explorer.engine.specs import SimulationSpec
from explorer.engine.theory import wilson

Slices = Callable[[int, int], Any]


@dataclass(frozen=True)
class Row:
    """What a method gives at one T.

    v_init: v(0) / theta. latency: steps beyond T that an answer takes; bits: of a neuron in a step. top1, low95,
    high95, ann_top1: shares 0..1 of so many images. spikes_per_neuron, additions: per image, those of first phases
    included. seconds: of the run, without fitting.
    """

    method: str
    v_init: str
    T: int
    latency: int
    bits: int
    latency_total: int
    top1: float
    low95: float
    high95: float
    ann_top1: float
    spikes_per_neuron: float
    additions: float
    seconds: float
    images: int


COLUMNS = tuple(each.name for each in fields(Row))


@dataclass(frozen=True)
class Refusal:
    """A method that does not apply, and why."""

    method: str
    T: int
    why: str


@dataclass(frozen=True)
class Task:
    """One row to come."""

    method: Method
    T: int

    @property
    def v_init(self) -> str:
        """The start as written: the method's own, or the one chosen."""
        return self.method.own_start if self.method.v_init == "own" else self.method.v_init


def tasks(methods: Sequence[Method], starts: Sequence[str], steps: Sequence[int]) -> list[Task]:
    """Return what is to be measured, few steps first; a start that is the method's own is not measured twice.

    starts: "own", or as on the command line. A method whose start is already chosen keeps it.
    """
    found: dict[tuple[str, int], Task] = {}
    for T in sorted(set(steps)):
        for method in methods:
            for start in starts:
                chosen = method if method.v_init != "own" or start == "own" else replace(method, v_init=start)
                task = Task(chosen, T)
                key = (f"{written(replace(chosen, v_init='own'))} {_as_number(task.v_init)}", T)
                found.setdefault(key, task)
    return list(found.values())


def _as_number(start: str) -> str:
    """Return a start in one spelling: 0.50 is 0.5."""
    try:
        return repr(float(start))
    except ValueError:
        return start


def measure(
    task: Task,
    probe: Probe,
    fitted: Fitted,
    inputs: Slices,
    labels: np.ndarray,
    ann_top1: float,
    device: str = "auto",
    stop: Callable[[], bool] | None = None,
    batch: int = 250,
) -> Row:
    """Run one fitted method at one T.

    inputs: inputs(begin, end) gives normalised test images; labels: int [N], one for each.

    Raises:
        SpecError: the method does not apply at this T.
        Cancelled: stop said so.
    """
    SimulationSpec(task.T, device=device)  # type: ignore[arg-type]
    hits, spikes, added, seconds = 0, 0.0, 0.0, 0.0
    for begin in range(0, len(labels), batch):
        end = min(begin + batch, len(labels))
        outcome = fitted.run(inputs(begin, end), task.T, device=device, stop=stop)
        hits += int((outcome.logits[-1].argmax(1).numpy() == labels[begin:end]).sum())
        spikes += sum(float(n.sum()) for n in outcome.spikes.values())
        added += float(outcome.added.sum())
        seconds += outcome.seconds
    n = len(labels)
    low, high = wilson(hits, n)
    neurons = sum(site.neurons for site in probe.network.sites)
    name = written(replace(task.method, v_init="own"))
    return Row(
        name, task.v_init, task.T, fitted.extra, fitted.bits, task.T + fitted.extra, hits / n, float(low), float(high),
        ann_top1, spikes / n / neurons, added / n, seconds, n,
    )  # fmt: skip


def compare(
    todo: Sequence[Task], probe: Probe, inputs: Slices, labels: np.ndarray, **how: Any
) -> Iterator[Row | Refusal]:
    """Measure one task after the other; a method that does not apply is a refusal, not the end."""
    n, batch = len(labels), 250
    answers = [probe.network.forward(inputs(i, min(i + batch, n))).argmax(1).numpy() for i in range(0, n, batch)]
    ann_top1 = float((np.concatenate(answers) == labels).mean())
    known: dict[Method, Fitted] = {}
    for task in todo:
        try:
            fitted = known.get(task.method) or task.method.fit(probe.network, task.T, probe)
            if task.method.anytime:
                known[task.method] = fitted
            yield measure(task, probe, fitted, inputs, labels, ann_top1, **how)
        except Cancelled:
            raise
        except SpecError as error:
            yield Refusal(written(task.method), task.T, str(error))
