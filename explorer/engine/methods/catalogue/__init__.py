"""One file a paper. To add a method: write its file, name it in METHODS, and test it by hand and against the loop."""

from explorer.engine.methods.catalogue.burst import Burst
from explorer.engine.methods.catalogue.calibrate import Calibrate, CalibrateSigned
from explorer.engine.methods.catalogue.cos import COS
from explorer.engine.methods.catalogue.data_norm import MaxNorm, PercentileNorm
from explorer.engine.methods.catalogue.differential import Differential
from explorer.engine.methods.catalogue.first_spike import FirstSpike
from explorer.engine.methods.catalogue.ftbc import FTBC
from explorer.engine.methods.catalogue.light_calibration import LightCalibration
from explorer.engine.methods.catalogue.local_balancing import LocalBalancing
from explorer.engine.methods.catalogue.opi import OPI
from explorer.engine.methods.catalogue.optimal_shift import OptimalShift
from explorer.engine.methods.catalogue.parallel import Parallel
from explorer.engine.methods.catalogue.qcfs import QCFS
from explorer.engine.methods.catalogue.radix import Radix
from explorer.engine.methods.catalogue.rmp import RMP
from explorer.engine.methods.catalogue.scaled_thresholds import ScaledThresholds
from explorer.engine.methods.catalogue.signed import Signed
from explorer.engine.methods.catalogue.srp import SRP

METHODS = (
    MaxNorm,
    PercentileNorm,
    RMP,
    OptimalShift,
    ScaledThresholds,
    OPI,
    QCFS,
    LightCalibration,
    SRP,
    COS,
    Signed,
    Burst,
    LocalBalancing,
    FTBC,
    FirstSpike,
    Radix,
    Parallel,
    Differential,
    Calibrate,
    CalibrateSigned,
)

__all__ = ["METHODS"]
