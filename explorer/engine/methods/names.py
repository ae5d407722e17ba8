"""How methods are named, and written in a line: `cos:rho=8,v_init=0.4`. For whoever must not wait for torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """A method's title. own_start: v(0) / theta if not chosen. anytime: what its paper finds is the same for every T.

    long: fitting it takes long, many seconds for a ResNet-20.
    """

    title: str
    own_start: str = "0.5"
    anytime: bool = False
    long: bool = False


NAMES: Mapping[str, Name] = {
    "max-norm": Name("Data-based norm, maximum", "0", anytime=True),
    "percentile-norm": Name("Data-based norm, percentile", "0", anytime=True),
    "rmp": Name("Residual membrane potential", "0", anytime=True, long=True),
    "optimal-shift": Name("Optimal shift", "0"),
    "scaled": Name("Scaled thresholds", "0"),
    "opi": Name("Optimised potential initialisation", anytime=True),
    "qcfs": Name("Quantisation clip-floor-shift", anytime=True),
    "light-calibration": Name("Light calibration", "0", long=True),
    "srp": Name("Residual potential, two stages", anytime=True),
    "cos": Name("Calibrating offset spikes", anytime=True),
    "signed": Name("Signed spikes with memory", "0", anytime=True),
    "burst": Name("Burst spikes", "0", anytime=True),
    "local-balancing": Name("Local threshold balancing", anytime=True, long=True),
    "ftbc": Name("Forward temporal bias correction", long=True),
    "first-spike": Name("Time to first spike"),
    "radix": Name("Radix coding"),
    "parallel": Name("Parallel conversion"),
    "differential": Name("Differential coding, several thresholds", "0"),
    "calibrate": Name("Calibrated for T", long=True),
    "calibrate-signed": Name("Calibrated for T, signed spikes", long=True),
}


CALIBRATIONS = ("calibrate", "calibrate-signed")
CALIBRATION_PARTS: Mapping[str, str] = {
    "fit_threshold": "thresholds",
    "fit_shift": "a shift per channel",
    "fit_even": "even steps",
    "fit_steps": "each step's shift",
    "fit_amplitude": "worth of a spike",
    "fit_weights": "weights",
}  # fields of a calibration and what they fit, in the order in which they are shown one by one


def split(text: str) -> tuple[str, dict[str, str]]:
    """Return a method's key and its fields as written; what is no `field=value` is left out."""
    key, _, rest = text.strip().partition(":")
    parts = (part.partition("=") for part in rest.split(",") if "=" in part)
    return key.strip(), {name.strip(): value.strip() for name, _, value in parts}


def joined(key: str, fields: Mapping[str, str]) -> str:
    """Return a method in a line."""
    return f"{key}:{','.join(f'{name}={value}' for name, value in fields.items())}" if fields else key


def with_field(text: str, name: str, value: str | None) -> str:
    """Return a method in a line with another value of a field; None: the field's default."""
    key, fields = split(text)
    kept = {one: told for one, told in fields.items() if one != name}
    return joined(key, kept if value is None else {**kept, name: value})


def with_start(text: str, v_init: str) -> str:
    """Return a method in a line with another v(0) / theta; its own is not written."""
    return with_field(text, "v_init", None if v_init == NAMES[split(text)[0]].own_start else v_init)


def at_its_T(rule: str) -> bool:
    """Tell whether a threshold rule as written is taken at the T of the run: least squares without a T of its own."""
    kind, *rest = rule.split(":")
    return kind == "mse" and not any(part.isdecimal() for part in rest)


def anytime(text: str) -> bool:
    """Tell whether a method in a line finds the same for every T."""
    key, fields = split(text)
    return NAMES[key].anytime and not at_its_T(fields.get("threshold", ""))


def title(text: str) -> str:
    """Return how a method in a line is called, with the fields that are not as by default."""
    key, fields = split(text)
    told = ", ".join(f"{name} {value}" for name, value in fields.items())
    return f"{NAMES[key].title} ({told})" if told else NAMES[key].title
