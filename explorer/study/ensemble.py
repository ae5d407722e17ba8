"""Random starts of one setting as an ensemble, beside one run that starts at one half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from explorer.engine.errors import DataError
from explorer.study.case import case
from explorer.study.settings import Settings, with_start
from explorer.study.sweep import STARTS

if TYPE_CHECKING:
    from explorer.engine.ensemble import Ensemble

MEMBERS = 8


@dataclass(frozen=True)
class Starts:
    """The ensemble of random starts, and a single run with v_init = 1/2; both at T, on the same first images."""

    random: Ensemble
    half: Ensemble


def members(settings: Settings, count: int = MEMBERS) -> list[Settings]:
    """Return the runs: the settings' own kind of random start, or a uniform one, with seeds 0, 1, 2, ...

    It is every layer's, also of those whose start was changed.
    """
    from explorer.engine import methods

    sites = tuple((name, scale, None) for name, scale, _ in settings.sites if scale is not None)
    settings = replace(settings, sites=sites)
    if settings.method:
        method = methods.parse(settings.method)
        drawn = method if ":" in method.v_init else replace(method, v_init="uniform:0:1")
        return [replace(settings, method=methods.written(replace(drawn, seed=seed))) for seed in range(count)]
    usual = STARTS["uniform"](settings) if settings.start == "constant" else settings
    return [replace(usual, seed=seed) for seed in range(count)]


def single(settings: Settings) -> Settings:
    """Return the run that all are compared with: v_init = 1/2 everywhere."""
    return with_start(settings, 0.5)


def starts(settings: Settings, count: int = MEMBERS, stop: Callable[[], bool] | None = None) -> Starts:
    """Run the members and the single run on the first `settings.images` images.

    Raises:
        DataError: the images have no labels.
        SpecError: the method takes no random start.
        Cancelled: stop said so.
    """
    import torch

    from explorer.engine.ensemble import ensemble

    chosen = case(settings, stop).pictures
    labels = chosen.first(settings.images).labels
    if labels is None:
        raise DataError("An ensemble is judged by labels, and these images have none. Choose images with labels.")
    labels = torch.from_numpy(labels[: settings.images]).long()
    inputs = chosen.inputs(0, len(labels))

    def scores(one: Settings) -> torch.Tensor:
        fitted = case(one, stop).fitted
        return fitted.run(inputs, stop=stop, device=one.device, additions=False).logits[-1]

    drawn = torch.stack([scores(one) for one in members(settings, count)])
    return Starts(ensemble(drawn, labels), ensemble(scores(single(settings))[None], labels))
