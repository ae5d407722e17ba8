"""Settings written on the command line, read once into the engine's specs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from explorer.engine import ConversionSpec, InitialPotential, SpecError
from explorer.engine.methods.texts import number
from explorer.zoo.paths import is_file

NAMES_BYTES = 2**20


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


def conversion(v_init: InitialPotential, scale: float, sites: list[str], law: str) -> ConversionSpec:
    """Return the conversion that the texts ask for.

    Raises:
        SpecError: a setting is out of range, or a site is named twice.
    """
    spec = ConversionSpec(v_init, scale, law=law)
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
    from explorer.zoo.own import PRESETS, class_list  # torch, for which no option's help should wait

    if text.lower() in ("cifar10", "cifar-10"):
        return PRESETS["CIFAR-10"].classes
    path = Path(text)
    names = class_list(_text_file(path) if is_file(path) else text)
    if len(names) < 2:
        raise SpecError(f"classes: at least 2 names, got {len(names)} from {text!r}. Give a file or a,b,c.")
    return names
