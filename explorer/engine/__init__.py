"""The conversion engine: trace -> calibrate -> convert -> simulate. Numbers in, numbers out; no files, no screen."""

from explorer.engine.calibration import ActivationStats, Calibration, calibrate, observe
from explorer.engine.clip import TrainableClip
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
from explorer.engine.graph import Network, Site, Unsupported
from explorer.engine.qcfs import QuantisedClip
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
from explorer.engine.trace import trace

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
