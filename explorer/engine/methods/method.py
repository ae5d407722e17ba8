"""What a conversion method is: a few settings with their controls, and how it fits a network for T steps.

A method is one small frozen class in `catalogue/`, with its paper's formula and symbols. What the papers share is
shared here: where thresholds come from, where potentials start, and by which law the neurons spike, so that one
paper's part can be put into another's method. What makes no sense together is refused, with the reason.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar

from torch import Tensor

from explorer.engine.conversion import SpikingNetwork, convert
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.names import NAMES, at_its_T
from explorer.engine.methods.texts import RULES, STARTS, initial_potential, threshold_rule
from explorer.engine.neurons import LAWS
from explorer.engine.specs import (
    CalibrationSpec,
    ConversionSpec,
    InitialPotential,
    Percentile,
    ThresholdRule,
    TrainedClip,
    check_steps,
)

OWN = "own"


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """Declare a method's setting; from it come its control, its command-line option and the check of its value."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A conversion method; see the module. Subclasses set the class attributes and write `fit_on`.

    key: its name in `names`, from which come title and own_start (v(0) / theta if not chosen). citation, equation
    (TeX), about: how it is cited and told. refuses: shared settings that do not apply here, and why. images: how many
    calibration images it is given unless somebody says otherwise. tells_progress: whether `fit` takes `on_progress`.
    shift_follows: whether the shift is a share of the threshold, and is scaled with it.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    own_start: ClassVar[str]
    citation: ClassVar[str]
    equation: ClassVar[str]
    about: ClassVar[str]
    own_law: ClassVar[str] = "integrate_and_fire"
    refuses: ClassVar[Mapping[str, str]] = {}
    images: ClassVar[int] = 256
    tells_progress: ClassVar[bool] = False
    shift_follows: ClassVar[bool] = False

    threshold: str = option(OWN, f"where thresholds come from: own (the paper's), {RULES}")
    v_init: str = option(OWN, f"v(0) / theta: own (the paper's), {STARTS}")
    law: str = option(OWN, "the spiking law: own (the paper's), or another", choices=(OWN, *LAWS))
    seed: int = option(0, "of random starts", low=0, high=2**32 - 1)

    def __init_subclass__(cls) -> None:
        if "key" in vars(cls):
            named = NAMES[cls.key]
            cls.title, cls.own_start = named.title, named.own_start

    def __post_init__(self) -> None:
        for name, why in self.refuses.items():
            if getattr(self, name) != OWN:
                raise SpecError(f"{self.key}: {name} cannot be chosen here. {why}")
        for each in fields(self):
            _check(self.key, each, getattr(self, each.name))
        self.start  # noqa: B018  a text that does not read is refused now
        if self.threshold != OWN:
            threshold_rule(self.threshold, 1)

    @classmethod
    def options(cls) -> list[Field]:
        """Return the settings that apply, each with `name`, `type`, `default` and its `metadata`."""
        return [each for each in fields(cls) if each.name not in cls.refuses]

    @property
    def anytime(self) -> bool:
        """Whether the conversion is the same for every T."""
        return NAMES[self.key].anytime and not at_its_T(self.threshold)

    @property
    def start(self) -> InitialPotential:
        """What v(0) / theta is."""
        return initial_potential(self.own_start if self.v_init == OWN else self.v_init, self.seed)

    @property
    def spiking_law(self) -> str:
        """The name of the law by which neurons spike."""
        return self.own_law if self.law == OWN else self.law

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the paper's threshold rule; unless said otherwise the trained clip, or else the 99.9th percentile."""
        return TrainedClip() if network.clips_trained else Percentile(99.9)

    def rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the threshold rule in force."""
        return self.own_rule(network, T) if self.threshold == OWN else threshold_rule(self.threshold, T)

    def base(self, probe: Probe, T: int) -> SpikingNetwork:
        """Return the network with thresholds, start and law in force, before what makes the method its own."""
        calibration = probe.calibration(CalibrationSpec(self.rule(probe.network, T)))
        return convert(probe.network, calibration, ConversionSpec(self.start, law=self.spiking_law))

    def fit(
        self, network: Network, T: int, images: Tensor | Probe | None = None, stop: Callable[[], bool] | None = None
    ) -> Fitted:
        """Fit a network for runs of T steps.

        images: normalised calibration images [N, C, H, W], a probe that holds them, or None where the method needs
        none. The network is left as it is.

        Raises:
            SpecError: the method does not apply to this network, or T is out of range.
            DataError: it needs calibration images and there are none.
            Cancelled: stop said so.
        """
        return self.fit_on(self.probe(network, T, images, stop), T)

    def probe(
        self, network: Network, T: int, images: Tensor | Probe | None, stop: Callable[[], bool] | None = None
    ) -> Probe:
        """Return the probe that a fit asks, after a look at whether it fits; see `fit`."""
        check_steps(T)
        probe = images if isinstance(images, Probe) else Probe(network, images, stop)
        if probe.network is not network:
            raise SpecError(f"{self.key}: the probe looks at another network. Make one for this network.")
        return probe

    @abstractmethod
    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """Fit the probe's network for runs of T steps."""


def _check(key: str, each: Field, value: Any) -> None:
    """Require a setting of its declared kind and range."""
    low, high, choices = (each.metadata[what] for what in ("low", "high", "choices"))
    if choices and value not in choices:
        raise SpecError(f"{key}: {each.name} is one of {', '.join(choices)}, got {value!r}.")
    if isinstance(each.default, bool):
        if not isinstance(value, bool):
            raise SpecError(f"{key}: {each.name} is true or false, got {value!r}.")
    elif isinstance(each.default, int | float):
        whole = isinstance(each.default, int)
        kinds = int if whole else (int, float)
        ok = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
        if not ok:
            raise SpecError(f"{key}: {each.name} is a {'whole ' * whole}number from {low} to {high}, got {value!r}.")
    elif not isinstance(value, str):
        raise SpecError(f"{key}: {each.name} is a text, got {value!r}.")
