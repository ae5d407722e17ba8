"""The conversion engine: trace -> calibrate -> convert -> simulate. Numbers in, numbers out; no files, no screen.

Names are looked up when they are used, so that what needs no torch (settings, laws, `theory`) does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorer.engine.calibration import ActivationStats, Calibration, calibrate, observe
    from explorer.engine.conversion import SpikingNetwork, convert
    from explorer.engine.errors import (
        AssetError,
        Cancelled,
        CheckpointError,
        DataError,
        ExplorerError,
        SpecError,
        TraceError,
        UnsupportedLayerError,
    )
    from explorer.engine.graph.clip import TrainableClip
    from explorer.engine.graph.network import Network, Site, Unsupported
    from explorer.engine.graph.qcfs import QuantisedClip
    from explorer.engine.graph.trace import trace
    from explorer.engine.neurons.parameters import Neurons
    from explorer.engine.simulation.result import Simulation
    from explorer.engine.simulation.simulate import simulate, simulate_chunks
    from explorer.engine.simulation.store import SpikeStore
    from explorer.engine.specs import (
        T_MAX,
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

_NAMES = {
    "calibration": "ActivationStats Calibration calibrate observe",
    "conversion": "SpikingNetwork convert",
    "errors": "AssetError Cancelled CheckpointError DataError ExplorerError SpecError TraceError UnsupportedLayerError",
    "graph.clip": "TrainableClip",
    "graph.network": "Network Site Unsupported",
    "graph.qcfs": "QuantisedClip",
    "graph.trace": "trace",
    "neurons.parameters": "Neurons",
    "simulation.result": "Simulation",
    "simulation.simulate": "simulate simulate_chunks",
    "simulation.store": "SpikeStore",
    "specs": "T_MAX CalibrationSpec ConstantStart ConversionSpec GaussianStart InitialPotential MaxActivation "
    "MinSquaredError Percentile Record SimulationSpec SiteSetting ThresholdRule TrainedClip UniformStart",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "T_MAX",
    "ActivationStats",
    "AssetError",
    "Calibration",
    "CalibrationSpec",
    "Cancelled",
    "CheckpointError",
    "ConstantStart",
    "ConversionSpec",
    "DataError",
    "ExplorerError",
    "GaussianStart",
    "InitialPotential",
    "MaxActivation",
    "MinSquaredError",
    "Network",
    "Neurons",
    "Percentile",
    "QuantisedClip",
    "Record",
    "Simulation",
    "SimulationSpec",
    "Site",
    "SiteSetting",
    "SpecError",
    "SpikeStore",
    "SpikingNetwork",
    "ThresholdRule",
    "TraceError",
    "TrainableClip",
    "TrainedClip",
    "UniformStart",
    "Unsupported",
    "UnsupportedLayerError",
    "calibrate",
    "convert",
    "observe",
    "simulate",
    "simulate_chunks",
    "trace",
]
