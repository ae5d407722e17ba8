"""Measurements, each with a command anyone can run."""
