"""The command line: `python -m explorer run | report | networks`."""
