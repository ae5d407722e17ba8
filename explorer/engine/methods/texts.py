"""Threshold rules and initial potentials as they are written in one line: on the command line, in links, in methods."""

from __future__ import annotations

from explorer.engine.errors import SpecError
from explorer.engine.specs import (
    ConstantStart,
    GaussianStart,
    InitialPotential,
    MaxActivation,
    MinSquaredError,
    Per,
    Percentile,
    ThresholdRule,
    TrainedClip,
    UniformStart,
)

RULES = "max[:channel], percentile:P[:channel], clip, or mse[:T][:channel]"
STARTS = "a share of the threshold such as 0.5, uniform:LOW:HIGH, or gaussian:MEAN:DEVIATION"


def number(text: str, what: str) -> float:
    """Return the number in a text.

    Raises:
        SpecError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{what}: a number, got {text!r}.") from None


def threshold_rule(text: str, steps: int) -> ThresholdRule:
    """Read `max`, `percentile:99.9:channel`, `clip`, `mse:32`; an mse without T is taken at this run's steps.

    Raises:
        SpecError: it reads as none of them.
    """
    kind, *rest = text.split(":")
    per: Per = "channel" if rest and rest[-1] == "channel" else "site"
    rest = rest[:-1] if rest and rest[-1] in ("channel", "site") else rest
    match kind, rest:
        case "max", []:
            return MaxActivation(per)
        case "percentile", []:
            return Percentile(per=per)
        case "percentile", [p]:
            return Percentile(number(p, "threshold percentile"), per)
        case "clip", [] if per == "site":
            return TrainedClip()
        case "mse", []:
            return MinSquaredError(steps, per)
        case "mse", [T] if T.isdecimal():
            return MinSquaredError(int(T), per)
    raise SpecError(f"threshold: {text!r} is no rule. Write {RULES}.")


def initial_potential(text: str, seed: int) -> InitialPotential:
    """Read `0.5`, `uniform:0:1` or `gaussian:0.5:0.2`.

    Raises:
        SpecError: it reads as none of them, or is out of range.
    """
    kind, *rest = text.split(":")
    match kind, rest:
        case "uniform", [low, high]:
            return UniformStart(number(low, "v-init low"), number(high, "v-init high"), seed)
        case "gaussian", [mean, std]:
            return GaussianStart(number(mean, "v-init mean"), number(std, "v-init deviation"), seed)
        case value, []:
            try:
                return ConstantStart(float(value))
            except SpecError:
                raise
            except ValueError:
                pass
    raise SpecError(f"v-init: {text!r} is no initial potential. Write {STARTS}.")
