"""Files to take away: a Python script that reproduces the number on screen, settings as JSON, curves as CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

import streamlit as st

from explorer.ui import cache, keys
from explorer.ui.recipes import calibration_spec, conversion_spec, slices
from explorer.ui.results import Result, wilson
from explorer.ui.settings import Settings

SCRIPT = '''"""Reproduce: {title}.

Run from the repository's root{needed}.
Prints accuracy (of images without labels: agreement with the ANN) after {T} steps on {images} images.
"""

import torch

from explorer.engine import *  # noqa: F403
from explorer.engine import calibrate, convert, simulate, trace
from explorer.zoo.data import calibration_source, data_source, load_images
from explorer.zoo.images import normalise
from explorer.zoo.own import NetworkSource, open_network

model, card = open_network({network})
network = trace(model, card.example())
source = data_source({source!r})
calibration_images = load_images(calibration_source(source, card), card, n=256, part="calibration")
calibration = calibrate(network, normalise(calibration_images.images, card), {calibration})
snn = convert(network, calibration, {conversion})

evaluation = load_images(source, card, n=2000).take({images})
hits = 0
for begin, end in {slices}:
    inputs = normalise(evaluation.images[begin:end], card)
    run = simulate(snn, inputs, SimulationSpec(T={T}, device={device!r}))  # noqa: F405
    if evaluation.labels is None:
        expected = network.forward(inputs).argmax(1)
    else:
        expected = torch.from_numpy(evaluation.labels[begin:end])
    hits += int((run.logits[-1].argmax(1) == expected).sum())
name = "agreement" if evaluation.labels is None else "top-1"
print(f"{{name}} {{hits / len(evaluation.images):.6f}} on {{len(evaluation.images)}} images, T = {T}")
'''
PICTURES = "pictures"


def script(settings: Settings, images: int) -> str:
    """Return a Python file that reproduces the accuracy on this many images, by the public API alone.

    What was uploaded it expects beside it: the weights under their own name, pictures in a folder named `pictures`.
    """
    network, source, needed = f"NetworkSource({settings.network!r})", settings.source, []
    if keys.is_upload(settings.network):
        told = cache.loaded(settings.network).source
        network = _source_text(told)
        needed.append(f"the file {told.weights}")
    if keys.is_upload(source):
        needed.append(f"a folder named {PICTURES} with the uploaded pictures ({keys.label(source)})")
        source = PICTURES
    return SCRIPT.format(
        title=_plain(settings.describe()),
        needed=_plain(f", with {' and '.join(needed)} in it") if needed else "",
        network=network,
        source=source,
        T=settings.T,
        images=images,
        calibration=repr(calibration_spec(settings)),
        conversion=repr(conversion_spec(settings)),
        device=settings.device,
        slices=slices(images),
    )


def _plain(text: str) -> str:
    return text.replace('"', "'").replace("\\", "/")


def _source_text(source: Any) -> str:
    """Write a NetworkSource as Python; a long row of numbered classes in short."""
    text = repr(source)
    numbered = tuple(f"class {i}" for i in range(len(source.classes)))
    if source.classes == numbered:
        text = text.replace(repr(numbered), f'tuple(f"class {{i}}" for i in range({len(numbered)}))')
    return text


def curve_csv(results: dict[str, Result]) -> str:
    """Return accuracy (without labels: agreement with the ANN) against T as CSV: a line per run and step, in 0..1."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["run", "T", "images", "top1", "low95", "high95", "ann_top1", "labelled"])
    for name, result in results.items():
        low, high = wilson(result.hits, result.images)
        for t in range(result.T if result.images else 0):
            writer.writerow(
                [
                    *(name, t + 1, result.images),
                    *(f"{x:.6f}" for x in (result.top1[t], low[t], high[t], result.ann_top1)),
                    result.labelled,
                ]
            )
    return out.getvalue()


def settings_json(settings: Settings, results: dict[str, Result]) -> str:
    """Return settings and main results as JSON."""
    runs = {
        name: {
            "images": r.images,
            "top1": [round(float(x), 6) for x in r.top1],
            "ann_top1": r.ann_top1,
            "labelled": r.labelled,
            "spikes_per_neuron": r.spikes_per_neuron,
        }
        for name, r in results.items()
    }
    return json.dumps({"settings": asdict(settings), "runs": runs}, indent=1)


def buttons(settings: Settings, results: dict[str, Result]) -> None:
    """Draw the download buttons; files are made when they are asked for."""
    mine = next(iter(results.values()))
    row = st.container(horizontal=True)
    row.download_button(
        "Export as script",
        lambda: script(settings, mine.images),
        "run.py",
        "text/x-python",
        key="export_script",
        icon=":material/code:",
        on_click="ignore",
        disabled=not mine.images,
        help=f"A Python file that reproduces the {mine.images}-image accuracy.",
    )
    row.download_button(
        "Settings (JSON)",
        lambda: settings_json(settings, results),
        "settings.json",
        "application/json",
        key="export_json",
        on_click="ignore",
    )
    row.download_button(
        "Curves (CSV)", lambda: curve_csv(results), "accuracy.csv", "text/csv", key="export_csv", on_click="ignore"
    )
