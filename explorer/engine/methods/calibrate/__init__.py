"""Calibration on the spikes that really arrive, layer by layer; the method itself is `catalogue/calibrate.py`."""
