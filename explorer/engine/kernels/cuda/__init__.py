"""The GPU's inner loops, compiled by Triton."""
