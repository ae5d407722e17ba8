"""From settings to the engine's specs: the only translation between the two, used by the app and the exported script."""  # noqa: E501

from __future__ import annotations

from explorer.engine.specs import (
    CalibrationSpec,
    ConstantStart,
    ConversionSpec,
    GaussianStart,
    InitialPotential,
    MaxActivation,
    MinSquaredError,
    Percentile,
    Record,
    SimulationSpec,
    SiteSetting,
    ThresholdRule,
    TrainedClip,
    UniformStart,
)
from explorer.study.settings import Settings


def calibration_spec(settings: Settings) -> CalibrationSpec:
    """Return how thresholds are found under these settings."""
    rules: dict[str, ThresholdRule] = {
        "max": MaxActivation(settings.per),  # type: ignore[arg-type]
        "percentile": Percentile(settings.p, settings.per),  # type: ignore[arg-type]
        "clip": TrainedClip(),
        "mse": MinSquaredError(settings.T, settings.per),  # type: ignore[arg-type]
    }
    return CalibrationSpec(rules[settings.rule])


def start(settings: Settings) -> InitialPotential:
    """Return the initial potential of the whole network."""
    match settings.start:
        case "uniform":
            low, high = settings.v_init - settings.spread, settings.v_init + settings.spread
            return UniformStart(max(low, -1.0), min(high, 2.0), settings.seed)
        case "gaussian":
            return GaussianStart(settings.v_init, settings.spread, settings.seed)
    return ConstantStart(settings.v_init)


def conversion_spec(settings: Settings) -> ConversionSpec:
    """Return thresholds' scale, initial potentials and the law, per-layer changes included."""
    sites = tuple((name, SiteSetting(scale, v_init)) for name, scale, v_init in settings.sites)
    return ConversionSpec(start(settings), settings.scale, sites, settings.law)


def simulation_spec(settings: Settings, record: Record | None = None) -> SimulationSpec:
    """Return how long and where to simulate."""
    return SimulationSpec(T=settings.T, record=record or Record(), device=settings.device)  # type: ignore[arg-type]
