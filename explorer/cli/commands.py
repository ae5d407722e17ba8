"""What the commands do: open, convert, simulate, print."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from explorer.cli.values import class_names, conversion
from explorer.engine import (
    CalibrationSpec,
    ConversionSpec,
    DataError,
    Percentile,
    Record,
    SimulationSpec,
    SpecError,
    SpikingNetwork,
    ThresholdRule,
    TrainedClip,
    calibrate,
    convert,
    trace,
)
from explorer.engine.calibration import Batches
from explorer.engine.graph import Network
from explorer.engine.graph.report import HEAD, conversion_report
from explorer.engine.methods.texts import initial_potential, threshold_rule
from explorer.engine.theory import wilson
from explorer.study.measure import score
from explorer.study.results import Result
from explorer.terminal import set_threads
from explorer.zoo.architectures import architectures
from explorer.zoo.cards import Card
from explorer.zoo.data import DataSource, LoosePictures, data_source, load_images
from explorer.zoo.images import ImageSet, Inputs, normalise
from explorer.zoo.memory import require_run_memory
from explorer.zoo.own import NetworkSource, numbers, open_network
from explorer.zoo.registry import available

BATCH, BATCH_BYTES = 250, 128 * 2**20
SEED_MAX = 2**32 - 1
SHOWN_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Progress = Callable[[int, int], None]


def network_source(args: argparse.Namespace) -> NetworkSource:
    """Return the network that the options name.

    Raises:
        SpecError: a part of weights is named, but no weights.
    """
    if args.part is not None and args.weights is None:
        raise SpecError("--part: names weights in a file. Give the file by --weights.")
    return NetworkSource(
        args.network,
        args.weights,
        args.input_size,
        None if args.mean is None else numbers(args.mean, "mean"),
        None if args.std is None else numbers(args.std, "std"),
        None if args.classes is None else class_names(args.classes),
        args.resize,
        args.part,
    )


def require_seed(seed: int) -> None:
    """Require a seed in its range.

    Raises:
        SpecError: it is not.
    """
    if not 0 <= seed <= SEED_MAX:
        raise SpecError(f"seed: a whole number from 0, got {seed}." if seed < 0 else f"seed: at most {SEED_MAX}.")


def prepare(args: argparse.Namespace) -> None:
    """Set the threads asked for, and look at what else every run is given.

    Raises:
        SpecError: threads, seed, or a number of images are out of range.
    """
    set_threads(args.threads)
    require_seed(args.seed)
    for name in ("images", "calibration_images"):
        if getattr(args, name) < 1:
            raise SpecError(f"--{name.replace('_', '-')}: at least 1, got {getattr(args, name)}.")


def opened(
    args: argparse.Namespace, steps: int, on_fetch: Progress | None
) -> tuple[Network, Card, ImageSet, DataSource]:
    """Return the network that the options name, traced, its card, labelled images, and where they come from.

    Raises:
        ExplorerError: one of them cannot be had, images have no labels, or the memory is too small.
    """
    source = data_source(args.data)
    if isinstance(source, LoosePictures):
        raise DataError(
            f"{args.data}: pictures but no class folders, so nothing says what they show and accuracy cannot be "
            "measured. Put them into one folder per class, named as the network's classes."
        )
    net, card = open_network(network_source(args), on_progress=on_fetch)
    images = load_images(source, card, args.images, "evaluation", args.seed)
    if images.labels is None:
        raise DataError(
            f"{args.data}: {images.note}, so accuracy cannot be measured. Give a folder with one folder of pictures "
            "per class, named as the network's classes, by --data."
        )
    if len(images) < args.images:
        print(f"note: {args.data} has {len(images):,} images, {args.images:,} were asked for", file=sys.stderr)
    network = trace(net, card.example())
    require_run_memory(network, steps, card.name)
    return network, card, images, source


def run(args: argparse.Namespace, on_progress: Progress | None = None, on_fetch: Progress | None = None) -> int:
    """Convert, simulate, and print accuracy against time-steps."""
    prepare(args)
    simulation = SimulationSpec(args.steps, Record(counts=False, v_end=False), device=args.device)
    spec = conversion(initial_potential(args.v_init, args.seed), args.threshold_scale, args.site, args.law)
    rule = threshold_rule(args.threshold, args.steps) if args.threshold else None
    network, card, images, source = opened(args, args.steps, on_fetch)
    snn, used = spiking(args, network, card, source, rule, spec)
    result = _measure(snn, images, card, simulation, on_progress)
    result["settings"] = {
        "network": args.network,
        "weights": args.weights,
        "part": card.recipe.get("part"),
        "parts": list(card.recipe.get("parts", ())),
        "data": args.data,
        "steps": args.steps,
        "threshold": {"rule": type(snn.calibration.spec.rule).__name__, **asdict(snn.calibration.spec.rule)},
        "calibration_images": used,
        "threshold_scale": args.threshold_scale,
        "v_init": {"start": type(spec.v_init).__name__, **asdict(spec.v_init)},
        "law": spec.law,
        "sites": {name: asdict(setting) for name, setting in spec.sites},
        "seed": args.seed,
        "device": args.device,
        "input_size": card.input_size,
        "mean": card.mean,
        "std": card.std,
    }
    if args.json:
        print(json.dumps(result))
    else:
        _print_run(result, images, snn)
    return 0


def spiking(
    args: argparse.Namespace,
    network: Network,
    card: Card,
    source: DataSource,
    rule: ThresholdRule | None,
    spec: ConversionSpec,
) -> tuple[SpikingNetwork, int]:
    """Return a network converted as the options say, and how many images its thresholds come from."""
    if rule is None:
        rule = TrainedClip() if network.clips_trained else Percentile(99.9)
    inputs: Batches = torch.empty(0)
    if not isinstance(rule, TrainedClip):
        inputs = Inputs(load_images(source, card, args.calibration_images, "calibration", args.seed).images, card)
    return convert(network, calibrate(network, inputs, CalibrationSpec(rule)), spec), len(inputs)


def _measure(
    snn: SpikingNetwork, images: ImageSet, card: Any, spec: SimulationSpec, on_progress: Progress | None
) -> dict[str, Any]:
    """Run ANN and SNN over all images; accuracies are shares 0..1, seconds those of the SNN alone."""
    assert images.labels is not None
    result = Result.empty(spec.T)
    batch = max(1, min(BATCH, BATCH_BYTES // (4 * math.prod(snn.network.input_shape))))
    for begin in range(0, len(images), batch):
        x = normalise(images.images[begin : begin + batch], card)
        progress = None if on_progress is None else _shifted(on_progress, begin, len(images))
        part = score(snn, x, images.labels[begin : begin + batch], spec, on_progress=progress)
        result = result.joined(part)
    return {
        "ann_top1": round(result.ann_top1, 6),
        "top1": [round(float(share), 6) for share in result.top1],
        "images": result.images,
        "spikes_per_neuron": round(result.spikes_per_neuron, 6),
        "seconds": round(float(result.seconds.sum()), 3),
    }


def _shifted(on_progress: Progress, begin: int, total: int) -> Progress:
    return lambda done, _: on_progress(begin + done, total)


def _print_run(result: dict[str, Any], images: ImageSet, snn: SpikingNetwork) -> None:
    n, settings = result["images"], result["settings"]
    print(f"{settings['network']}: {len(snn.network.sites)} sites, T = {settings['steps']} time-steps")
    if len(settings["parts"]) > 1:
        print(f"weights     {settings['part']} of {', '.join(settings['parts'])} (--part takes another)")
    print(f"images      {n} of {images.name} ({images.note})")
    print(f"threshold   {_plain(settings['threshold'])}, times {settings['threshold_scale']:g}")
    print(f"start       {_plain(settings['v_init'])}")
    print(f"ANN top-1   {100 * result['ann_top1']:6.2f} %\n")
    rows = []
    for T in sorted({*(s for s in SHOWN_STEPS if s <= settings["steps"]), settings["steps"]}):
        share = result["top1"][T - 1]
        low, high = wilson(round(share * n), n)
        rows.append((str(T), f"{100 * share:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"))
    table(("T", "top-1 %", "95 % interval"), rows)
    per_step = result["spikes_per_neuron"] / settings["steps"]
    print(f"\n{result['spikes_per_neuron']:.3f} spikes per neuron and image ({per_step:.4f} per step)")
    print(f"{result['seconds']:.1f} s simulated")


def _plain(setting: dict[str, Any]) -> str:
    name, *rest = setting.values()
    return f"{name}({', '.join(str(value) for value in rest)})"


def report(args: argparse.Namespace, on_fetch: Progress | None = None) -> int:
    """Print what each part of a network becomes; 1 if something in it does not convert."""
    prepare(args)
    net, card = open_network(network_source(args), on_progress=on_fetch)
    network = trace(net, card.example())
    problems = [asdict(problem) for problem in network.unsupported]
    if args.json:
        rows = [{**row, "shape": list(row["shape"])} for row in network.report()]
        print(json.dumps({"network": card.name, "parameters": card.parameters, "rows": rows, "unsupported": problems}))
        return 1 if problems else 0
    shape = "x".join(map(str, network.input_shape))
    print(f"{card.name}: input {shape}, {len(card.classes)} classes, {card.parameters:,} parameters\n")
    told = conversion_report(network)
    table(HEAD, told.lines)
    print(f"\n{told.summary()}")
    for problem in told.unsupported:
        print(f"does not convert: {problem}")
    return 1 if problems else 0


def networks(args: argparse.Namespace) -> int:
    """Print the shipped networks, measured accuracies included, and the names of all architectures."""
    cards = available()
    if args.json:
        listed = [{**asdict(card), "recipe": dict(card.recipe)} for card in cards]
        print(json.dumps({"networks": listed, "architectures": architectures()}))
        return 0
    rows = [
        (c.name, c.dataset, f"{c.parameters:,}", "-" if c.top1 is None else f"{100 * c.top1:.2f}", f"{c.top1_images:,}")
        for c in cards
    ]
    table(("network", "data", "parameters", "top-1 %", "of images"), rows)
    ours = [name for name in architectures() if ":" not in name]
    print(f"\narchitectures for --weights: {', '.join(ours)}, torchvision:NAME, and timm:NAME where timm is installed")
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns under a head."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
