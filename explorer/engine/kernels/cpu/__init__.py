"""The CPU's inner loops, compiled by Numba."""
