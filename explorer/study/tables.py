"""Results as text that other programs read: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from explorer.engine.theory import wilson
from explorer.study.results import Result
from explorer.study.settings import Settings


def curve_csv(results: Mapping[str, Result]) -> str:
    """Return accuracy (without labels: agreement with the ANN) against T as CSV: a line per run and step, in 0..1."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["run", "T", "images", "top1", "low95", "high95", "ann_top1", "labelled"])
    for name, result in results.items():
        low, high = wilson(result.hits, result.images)
        for t in np.flatnonzero(result.answered) if result.images else ():
            writer.writerow(
                [
                    *(name, t + 1, result.images),
                    *(f"{x:.6f}" for x in (result.top1[t], low[t], high[t], result.ann_top1)),
                    result.labelled,
                ]
            )
    return out.getvalue()


def settings_json(settings: Settings, runs: Mapping[str, tuple[Settings, Result]]) -> str:
    """Return settings and main results as JSON, each run with its own settings and number of images."""
    told = {
        name: {
            "settings": asdict(own),
            "images": r.images,
            "top1": [None if np.isnan(x) else round(float(x), 6) for x in r.top1],
            "latency": r.T + r.extra,
            "bits": r.bits,
            "ann_top1": r.ann_top1,
            "labelled": r.labelled,
            "spikes_per_neuron": r.spikes_per_neuron,
        }
        for name, (own, r) in runs.items()
    }
    return json.dumps({"settings": asdict(settings), "runs": told}, indent=1)
