"""What each part of a calibration contributes: fits with the parts added one by one, judged on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
from explorer.engine.methods.catalogue.calibrate import Calibrate, Calibrated
from explorer.engine.methods.names import CALIBRATION_PARTS
from explorer.engine.neurons import INTEGRATE_AND_FIRE
from explorer.engine.simulation.simulate import simulate
from explorer.engine.specs import Record, SimulationSpec


@dataclass(frozen=True)
class Stage:
    """A calibration with the parts so far. part: the field added last, "law", or "opi" for none.

    agreement: share of the held-back images named as by the ANN; top1: share of labelled images named right, if any
    were given; error: mean over the sites of E[(a_hat - a)^2] / E[a^2] on the images fitted.
    """

    part: str
    agreement: float
    top1: float | None
    error: float


def waterfall(
    method: Calibrate,
    network: Network,
    T: int,
    images: Tensor,
    labelled: tuple[Tensor, Tensor] | None = None,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Stage, ...]:
    """Return OPI and then the method's own parts, added in the order of `CALIBRATION_PARTS`, each stage fitted anew.

    images: calibration images [N, C, H, W]; labelled: test images and their labels, int [M], only judged, never fitted;
    on_progress: called with (stages done, stages).

    Raises:
        SpecError: no image is held back, so nothing could be judged.
        Cancelled: stop said so.
    """
    stages = _stages(method)
    done: list[Stage] = []
    for part, each in stages:
        fitted = each.fit(network, T, images, stop)
        if fitted.held is None:
            raise SpecError("waterfall: no image is held back. Give more calibration images, or a larger held_back.")
        done.append(_stage(part, fitted, T, labelled, stop))
        if on_progress:
            on_progress(len(done), len(stages))
    return tuple(done)


def _stages(method: Calibrate) -> list[tuple[str, Calibrate]]:
    """Return the stages: names of what is added, and the methods that fit so much."""
    nothing: dict[str, Any] = {name: _none(method, name) for name in CALIBRATION_PARTS}
    now = replace(method, law=INTEGRATE_AND_FIRE.name, **nothing)
    stages = [("opi", now)]
    if method.spiking_law != INTEGRATE_AND_FIRE.name:
        now = replace(now, law=method.spiking_law)
        stages.append(("law", now))
    for name in CALIBRATION_PARTS:
        if getattr(method, name):
            now = replace(now, **{name: getattr(method, name)})
            stages.append((name, now))
    return stages


def _none(method: Calibrate, name: str) -> bool | int:
    """Return the value of a field that switches its part off."""
    return False if isinstance(getattr(method, name), bool) else 0


def _stage(
    part: str,
    fitted: Calibrated,
    T: int,
    labelled: tuple[Tensor, Tensor] | None,
    stop: Callable[[], bool] | None,
) -> Stage:
    assert fitted.held is not None
    top1 = None
    if labelled is not None:
        images, labels = labelled
        spec = SimulationSpec(T, Record(counts=False, v_end=False))
        scores = simulate(fitted.candidate, images, spec, stop=stop).logits[-1]
        top1 = float((scores.argmax(1) == labels).double().mean())
    error = sum(row.after for row in fitted.layers) / len(fitted.layers)
    return Stage(part, fitted.held.calibrated, top1, error)
