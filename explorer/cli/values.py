"""Settings written on the command line, read once into the engine's specs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from explorer.engine import (
    ConstantStart,
    ConversionSpec,
    GaussianStart,
    InitialPotential,
    MaxActivation,
    MinSquaredError,
    Percentile,
    SpecError,
    ThresholdRule,
    TrainedClip,
    UniformStart,
)
from explorer.engine.specs import Per
from explorer.zoo.own import PRESETS, class_list, number
from explorer.zoo.paths import is_file

RULES = "max[:channel], percentile:P[:channel], clip, or mse[:T][:channel]"
NAMES_BYTES = 2**20
STARTS = "a share of the threshold such as 0.5, uniform:LOW:HIGH, or gaussian:MEAN:DEVIATION"


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


@dataclass(frozen=True)
class SiteText:
    """One `--site`: a site's name and what it does differently."""

    name: str
    threshold_scale: float | None = None
    v_init: float | None = None


def site_setting(text: str) -> SiteText:
    """Read `NAME:scale=1.2,v_init=0.3`, either part optional.

    Raises:
        SpecError: it does not read so.
    """
    name, _, settings = text.rpartition(":")
    found: dict[str, float] = {}
    for part in settings.split(","):
        key, equals, value = part.partition("=")
        key = {"scale": "threshold_scale", "v-init": "v_init"}.get(key.strip(), key.strip())
        if not name or not equals or key not in ("threshold_scale", "v_init") or key in found:
            raise SpecError(f"site: {text!r} cannot be read. Write NAME:scale=1.2,v_init=0.3 (either or both).")
        found[key] = number(value, f"site {name} {key}")
    return SiteText(name, **found)


def conversion(v_init: InitialPotential, scale: float, sites: list[str]) -> ConversionSpec:
    """Return the conversion that the texts ask for.

    Raises:
        SpecError: a setting is out of range, or a site is named twice.
    """
    spec = ConversionSpec(v_init, scale)
    seen: set[str] = set()
    for setting in map(site_setting, sites):
        if setting.name in seen:
            raise SpecError(f"site: {setting.name} is given twice. Join them: {setting.name}:scale=..,v_init=..")
        seen.add(setting.name)
        spec = spec.with_site(setting.name, threshold_scale=setting.threshold_scale, v_init=setting.v_init)
    return spec


def _text_file(path: Path) -> str:
    try:
        if path.stat().st_size > NAMES_BYTES:
            raise SpecError(f"classes: {path} has {path.stat().st_size:,} bytes, at most {NAMES_BYTES:,} are read.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"classes: {path} cannot be read ({error.strerror}). Change its permissions.") from error
    except ValueError as error:
        raise SpecError(f"classes: {path} is no text in UTF-8. Save it again as UTF-8, one name a line.") from error


def class_names(text: str) -> tuple[str, ...]:
    """Read class names: `cifar10`, a text file with one name a line, or names separated by commas.

    Raises:
        SpecError: fewer than two names.
    """
    if text.lower() in ("cifar10", "cifar-10"):
        return PRESETS["CIFAR-10"].classes
    path = Path(text)
    names = class_list(_text_file(path) if is_file(path) else text)
    if len(names) < 2:
        raise SpecError(f"classes: at least 2 names, got {len(names)} from {text!r}. Give a file or a,b,c.")
    return names
