"""One file a paper. To add a method: write its file, name it in METHODS, and test it by hand and against the loop."""

from explorer.engine.methods.catalogue.calibrate import Calibrate, CalibrateSigned
from explorer.engine.methods.catalogue.data_norm import MaxNorm, PercentileNorm
from explorer.engine.methods.catalogue.opi import OPI
from explorer.engine.methods.catalogue.optimal_shift import OptimalShift

METHODS = (MaxNorm, PercentileNorm, OptimalShift, OPI, Calibrate, CalibrateSigned)

__all__ = ["METHODS"]
