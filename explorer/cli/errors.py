"""`report --errors`: which layers and which causes cost a converted network most."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch

from explorer.cli.commands import network_source, prepare, spiking, table
from explorer.cli.values import conversion
from explorer.engine import Record, SimulationSpec, SpikingNetwork, simulate, trace
from explorer.engine.analysis import error_parts
from explorer.engine.methods.texts import initial_potential, threshold_rule
from explorer.zoo.data import data_source, load_images
from explorer.zoo.images import Inputs
from explorer.zoo.memory import require_run_memory
from explorer.zoo.own import open_network

CAUSES = ("clipping", "quantisation", "unevenness", "inherited")
OWN = CAUSES[:3]  # what a layer adds itself
BATCH = 25
Progress = Callable[[int, int], None]


def report_errors(args: argparse.Namespace, on_progress: Progress | None, on_fetch: Progress | None) -> int:
    """Convert, simulate, and print every site's mean squared error with its causes, the costliest site first."""
    prepare(args)
    spec = SimulationSpec(args.steps, Record(counts=True, v_end=True), device=args.device)
    starts = conversion(initial_potential(args.v_init, args.seed), args.threshold_scale, args.site, args.law)
    rule = threshold_rule(args.threshold, args.steps) if args.threshold else None
    source = data_source(args.data)
    net, card = open_network(network_source(args), on_progress=on_fetch)
    images = Inputs(load_images(source, card, args.images, "evaluation", args.seed).images, card)
    network = trace(net, card.example())
    require_run_memory(network, args.steps, card.name)
    snn, _ = spiking(args, network, card, source, rule, starts)
    rows = costs(snn, images, spec, on_progress)
    if args.json:
        print(json.dumps({"network": card.name, "steps": args.steps, "images": len(images), "sites": rows}))
        return 0
    print(
        f"{card.name}: T = {args.steps} time-steps, {len(images)} images of {args.data}, {snn.calibration.spec.rule}\n"
    )
    head = ("site", "error / theta", "own", *(f"{cause} %" for cause in CAUSES))
    cells = [
        (
            row["site"],
            f"{row['squared'] ** 0.5:.4f}",
            f"{row['own']:.2e}",
            *(f"{100 * row[cause] / max(row['squared'], 1e-30):.1f}" for cause in CAUSES),
        )
        for row in rows
    ]
    table(head, cells)
    print(
        "\nerror / theta: root mean square of decoded minus ANN activation, in thresholds. own: the mean square that "
        "the\nlayer adds by clipping, quantisation and unevenness. The four shares of the mean square add up to 100 %."
    )
    for row in rows[:3]:
        cause = max(OWN, key=row.__getitem__)
        print(f"costs most: {row['site']}, by {cause}")
    return 0


def costs(
    snn: SpikingNetwork, images: Inputs | torch.Tensor, spec: SimulationSpec, on_progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Return every site's mean squared error over images and neurons in squared thresholds, and its parts.

    A part is the mean of (error times cause); the four add up to the mean square. The site that adds most comes first.
    """
    sums = {site.name: dict.fromkeys(("squared", *CAUSES), 0.0) for site in snn.network.sites}
    for begin in range(0, len(images), BATCH):
        some = images[begin : begin + BATCH]
        for name, parts in error_parts(snn, some, simulate(snn, some, spec)).items():
            theta = snn.theta[name].double()[None]
            total = parts.total / theta
            share = len(some) / len(images)
            sums[name]["squared"] += share * float((total * total).mean())
            for cause in CAUSES:
                sums[name][cause] += share * float((total * getattr(parts, cause) / theta).mean())
        if on_progress is not None:
            on_progress(begin + len(some), len(images))
    rows = [{"site": name, **values, "own": sum(values[cause] for cause in OWN)} for name, values in sums.items()]
    return sorted(rows, key=lambda row: -row["own"])
