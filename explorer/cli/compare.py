"""`compare`, and `run --method`: the literature's methods on one network, one row a method, start and T."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, astuple, replace
from typing import Any

from explorer.cli.commands import Progress, opened, prepare, table
from explorer.engine import SpecError, methods
from explorer.engine.methods import Method, Probe, names
from explorer.engine.neurons import INTEGRATE_AND_FIRE
from explorer.engine.specs import check_steps
from explorer.study.side_by_side import COLUMNS, Refusal, Row, compare, tasks
from explorer.terminal import step_numbers
from explorer.zoo.data import load_images
from explorer.zoo.images import normalise


def run_compare(args: argparse.Namespace, on_progress: Progress | None = None, on_fetch: Progress | None = None) -> int:
    """Measure the methods asked for and print a row for each, start and T."""
    if args.json and (args.csv or args.markdown):
        raise SpecError("compare: --json, --csv or --markdown, one of them.")
    chosen = chosen_methods(args.methods, args.seed)
    steps = step_numbers(args.steps)
    starts = [text.strip() for text in args.starts.split(",")]
    rows, refusals = _measured(args, chosen, starts, steps, on_progress, on_fetch)
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "refused": [asdict(each) for each in refusals]}))
    elif args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)
    elif args.markdown:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + " --- |" * len(COLUMNS))
        for row in rows:
            print("| " + " | ".join(_cells(row)) + " |")
    else:
        table(COLUMNS, [_cells(row) for row in rows])
    for refusal in refusals:
        print(f"left out at T = {refusal.T}: {refusal.why}", file=sys.stderr)
    return 0


def run_method(args: argparse.Namespace, on_progress: Progress | None = None, on_fetch: Progress | None = None) -> int:
    """Convert by one method, run it, and print what it gives at T.

    Raises:
        SpecError: thresholds, start or law are also given by themselves.
    """
    usual: dict[str, Any] = {
        "threshold": None,
        "v_init": "0.5",
        "threshold_scale": 1.0,
        "site": [],
        "law": INTEGRATE_AND_FIRE.name,
    }
    given = [name for name, value in usual.items() if getattr(args, name) != value]
    if given:
        raise SpecError(
            f"--{given[0].replace('_', '-')}: a method sets thresholds, start and law itself. Write them as "
            f"its fields, for example --method {args.method.partition(':')[0]}:threshold=max,v_init=0.5."
        )
    method = seeded(args.method, args.seed)
    rows, _ = _measured(args, [method], ["own"], [args.steps], on_progress, on_fetch)
    if args.json:
        print(json.dumps(asdict(rows[0])))
        return 0
    row = rows[0]
    print(f"{method.title} ({method.citation}): {methods.written(method)}\n")
    table(("", ""), list(zip(COLUMNS, _cells(row), strict=True)))
    return 0


def chosen_methods(text: str, seed: int = 0) -> list[Method]:
    """Read `all`, `a,b,c`, or `a:x=1,y=2;b`. seed: of those that are given none of their own.

    Raises:
        SpecError: there is no such method or field, or none at all.
    """
    if text.strip() == "all":
        return [kind(seed=seed) for kind in methods.all()]
    parts = [part for part in (text.split(";") if ";" in text or ":" in text else text.split(",")) if part.strip(" ,")]
    if not parts:
        raise SpecError(f"methods: none is named. Choose from {', '.join(names.NAMES)}, or all.")
    if len(parts) == 1 and any(piece.strip() in names.NAMES for piece in text.split(",")[1:]):
        raise SpecError(f"methods: {text!r} cannot be read. Where one has fields, write ; between methods.")
    return [seeded(part, seed) for part in parts]


def seeded(text: str, seed: int) -> Method:
    """Read a method in a line; it draws by this seed unless it has one of its own.

    Raises:
        SpecError: there is no such method or field.
    """
    method = methods.parse(text)
    return method if "seed" in names.split(text)[1] else replace(method, seed=seed)


def _measured(
    args: argparse.Namespace,
    chosen: list[Method],
    starts: list[str],
    steps: list[int],
    on_progress: Progress | None,
    on_fetch: Progress | None,
) -> tuple[list[Row], list[Refusal]]:
    """Return rows and refusals.

    Raises:
        SpecError: no method applies; the first reason is given.
    """
    prepare(args)
    for T in steps:
        check_steps(T)
    todo = tasks(chosen, starts, steps)
    network, card, images, source = opened(args, max(steps), on_fetch)
    assert images.labels is not None, "opened() refuses images without"
    training = load_images(source, card, args.calibration_images, "calibration", args.seed).images
    probe = Probe(network, normalise(training[:], card))
    results: Iterator[Any] = compare(
        todo, probe, lambda a, b: normalise(images.images[a:b], card), images.labels, device=args.device
    )
    rows: list[Row] = []
    refusals: list[Refusal] = []
    for done, result in enumerate(results):
        if isinstance(result, Row):
            rows.append(result)
        else:
            refusals.append(result)
        if on_progress:
            on_progress(done + 1, len(todo))
    if not rows:
        raise SpecError(refusals[0].why)
    return rows, refusals


def _cells(row: Row) -> list[str]:
    """Return a row as it is read: shares in percent."""
    percent = {"top1", "low95", "high95", "ann_top1"}
    cells = []
    for name, value in asdict(row).items():
        if name in percent:
            cells.append(f"{100 * value:.2f}")
        elif isinstance(value, float):
            cells.append(f"{value:,.0f}" if name == "additions" else f"{value:.3f}")
        else:
            cells.append(str(value))
    return cells
