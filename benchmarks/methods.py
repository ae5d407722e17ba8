"""All methods on a shipped network, top-1 by method and T: `python -m benchmarks.methods NETWORK --images N`.

`--cost` measures processor time instead: each method's run (not its fit) by the integer path and by the float path of
the same neurons, in one process, in turns; medians of the ratios. Methods whose neurons send one coded value have no
float path of their own and are compared with OPI's of T steps.

`--keep FILE` writes every result to a file of JSON lines as it is there, and takes from it what was measured before, so
that a long table can be made in parts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from explorer.engine import SpecError, methods, simulate, trace
from explorer.engine.methods import Fitted, Method, Probe
from explorer.engine.methods.coded import Coded
from explorer.engine.specs import Record, SimulationSpec
from explorer.study.side_by_side import tasks
from explorer.terminal import Parser, guarded
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load

BATCH = 250
COMPOSED = ("ftbc:law=signed_at_zero", "cos:threshold=mse:channel")


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--images", type=int, default=0, help="default: 2000, with --cost 16")
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--steps", default="", help="default: 1,2,4,8,16,32,64, with --cost 8")
    parser.add_argument("--starts", default="own")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="go on from the results in a file")
    parser.add_argument("--cost", action="store_true", help="processor time in place of accuracy")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    net, card = load(args.network)
    test = load_images(Embedded(), card, n=args.images or (16 if args.cost else 2000))
    training = load_images(Embedded(), card, n=args.calibration_images, part="calibration").images
    network = trace(net, card.example())
    args.steps = args.steps or ("8" if args.cost else "1,2,4,8,16,32,64")
    chosen = [kind() for kind in methods.all()] + [methods.parse(text) for text in COMPOSED]
    probe = Probe(network, normalise(training, card))
    if args.cost:
        for T in map(int, args.steps.split(",")):
            cost(chosen, probe, normalise(test.images, card), T, args.repeats)
    else:
        accuracy(args, chosen, probe, card, test)


def processor_time(work: Callable[[], Any]) -> float:
    """Return the processor time of a call, all threads of the process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def cost(chosen: list[Method], probe: Probe, images: Any, T: int, repeats: int) -> None:
    """Print what a run of each method takes, against its float path, OPI's float path, and OPI's plain simulation."""
    fitted: dict[str, Fitted] = {}
    for method in chosen:
        try:
            fitted[methods.written(method)] = method.fit(probe.network, T, probe)
        except SpecError as error:
            print(f"{methods.written(method)}: {error}", file=sys.stderr, flush=True)
    opi, spec = fitted["opi"], SimulationSpec(T, Record(v_end=False))
    plain = lambda: simulate(opi.snn, images, spec)  # noqa: E731  what OPI took before there were methods
    floating = lambda each: (opi if isinstance(each, Coded) else each).run(images, integer=False)  # noqa: E731
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in fitted}
    for repeat in range(repeats + 1):
        for name, each in fitted.items():
            run = processor_time(lambda each=each: each.run(images))
            own = processor_time(lambda each=each: floating(each))
            reference, usual = processor_time(lambda: floating(opi)), processor_time(plain)
            if repeat:  # the first compiles
                rows[name].append((run / own, run / reference, run / usual))
        print(f"repeat {repeat} of {repeats}", file=sys.stderr, flush=True)
    print(f"{len(images)} images, T = {T}, medians of {repeats}\n")
    print(
        "| method | steps | its run / its float path | its run / OPI's float path | its run / plain simulation of OPI |"
    )
    print("|---|---|---|---|---|")
    for name, ratios in rows.items():
        medians = [statistics.median(ratio) for ratio in zip(*ratios, strict=True)]
        print(f"| `{name}` | {fitted[name].latency} | " + " | ".join(f"{value:.2f}" for value in medians) + " |")


@dataclass(frozen=True)
class Tested:
    """A line's result at one T: what the table shows, and how many images were named right."""

    method: str
    v_init: str
    T: int
    latency_total: int
    bits: int
    right: int
    images: int
    seconds: float


def accuracy(args: argparse.Namespace, chosen: list[Method], probe: Probe, card: Any, test: Any) -> None:
    """Measure what the file does not hold yet, and print the table."""
    steps, n = sorted(map(int, args.steps.split(","))), len(test.labels)
    known = {"network": args.network, "calibration_images": len(probe.images)}
    images = [normalise(test.images[i : i + BATCH], card) for i in range(0, n, BATCH)]
    rows: dict[tuple[str, str, int], Tested | None] = {}
    for line in args.keep.read_text().splitlines() if args.keep is not None and args.keep.exists() else []:
        row = json.loads(line)
        if {key: row.pop(key) for key in known} == known and row["images"] == n:
            rows[row["method"], row["v_init"], row["T"]] = None if "why" in row else Tested(**row)
    ann = sum(int((probe.network.forward(part).argmax(1).numpy() == labels).sum())
              for part, labels in zip(images, parts(test.labels), strict=True)) / n  # fmt: skip
    lines = list(dict.fromkeys(task.method for task in tasks(chosen, args.starts.split(","), steps)))
    for method in lines:
        name, start = methods.written(replace(method, v_init="own")), tasks([method], ["own"], steps)[0].v_init
        todo = [T for T in steps if (name, start, T) not in rows]
        for Ts in ([todo] if method.anytime else [[T] for T in todo]) if todo else []:
            try:
                found: list[Tested | None] = [*read(method, name, start, probe, images, test.labels, Ts)]
                told = [asdict(row) for row in found if row is not None]
            except SpecError as error:
                found = [None] * len(Ts)
                told = [{"method": name, "v_init": start, "T": T, "images": n, "why": str(error)} for T in Ts]
            rows |= {(name, start, T): row for T, row in zip(Ts, found, strict=True)}
            for row in told:
                text = json.dumps(known | row)
                print(text, file=sys.stderr, flush=True)
                if args.keep is not None:
                    with args.keep.open("a") as file:
                        file.write(text + "\n")
    print(f"ANN {100 * ann:.2f}, {n} test and {len(probe.images)} calibration images\n")
    print(f"| method | v_init | steps at T = {steps[-1]} | bits | " + " | ".join(f"T = {T}" for T in steps) + " |")
    print("|---|---|---|---|" + "---|" * len(steps))
    for name, start in dict.fromkeys((name, start) for name, start, _ in rows):
        line = [rows.get((name, start, T)) for T in steps]
        if last := next((row for row in reversed(line) if row is not None), None):
            shown = " | ".join("" if row is None else f"{100 * row.right / n:.1f}" for row in line)
            print(f"| `{name}` | {start} | {last.latency_total + steps[-1] - last.T} | {last.bits} | {shown} |")


def read(
    method: Method, name: str, start: str, probe: Probe, images: list[Any], labels: Any, Ts: list[int]
) -> Iterator[Tested]:
    """Fit a method once, and read it after every T that it can be read at in one run, else run it for each."""
    fitted = method.fit(probe.network, Ts[-1], probe)
    together = [Ts] if not fitted.skipped else [[T] for T in Ts]
    for group in together:
        begin, right = time.process_time(), dict.fromkeys(group, 0)
        for part, truth in zip(images, parts(labels), strict=True):
            scores = fitted.run(part, group[-1], additions=False).logits
            for T in group:
                right[T] += int((scores[T - 1].argmax(1).numpy() == truth).sum())
        seconds = time.process_time() - begin
        for T in group:
            yield Tested(name, start, T, T + fitted.extra, fitted.bits, right[T], len(labels), round(seconds, 1))


def parts(labels: Any) -> list[Any]:
    """Return labels in the batches that images are run in."""
    return [labels[i : i + BATCH] for i in range(0, len(labels), BATCH)]


if __name__ == "__main__":
    raise SystemExit(guarded(main))
