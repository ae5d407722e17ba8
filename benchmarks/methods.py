"""All methods on a shipped network, top-1 by method and T: `python -m benchmarks.methods NETWORK --images N`.

`--cost` measures processor time instead: each method's run (not its fit) by the integer path and by the float path of
the same neurons, in one process, in turns; medians of the ratios. Methods whose neurons send one coded value have no
float path of their own and are compared with OPI's of T steps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from explorer.engine import SpecError, methods, simulate, trace
from explorer.engine.methods import Fitted, Method, Probe
from explorer.engine.methods.coded import Coded
from explorer.engine.specs import Record, SimulationSpec
from explorer.study.side_by_side import Refusal, compare, tasks
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load

COMPOSED = ("ftbc:law=signed_at_zero", "cos:threshold=mse:channel")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--images", type=int, default=0, help="default: 2000, with --cost 16")
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--steps", default="", help="default: 1,2,4,8,16,32,64, with --cost 8")
    parser.add_argument("--starts", default="own")
    parser.add_argument("--cost", action="store_true", help="processor time in place of accuracy")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    net, card = load(args.network)
    test = load_images(Embedded(), card, n=args.images or (16 if args.cost else 2000))
    training = load_images(Embedded(), card, n=args.calibration_images, part="calibration").images
    network = trace(net, card.example())
    steps = [int(T) for T in (args.steps or ("8" if args.cost else "1,2,4,8,16,32,64")).split(",")]
    chosen = [kind() for kind in methods.all()] + [methods.parse(text) for text in COMPOSED]
    probe = Probe(network, normalise(training, card))
    if args.cost:
        for T in steps:
            cost(chosen, probe, normalise(test.images, card), T, args.repeats)
    else:
        accuracy(chosen, probe, card, test, steps, args.starts.split(","))


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


def accuracy(chosen: list[Method], probe: Probe, card: Any, test: Any, steps: list[int], starts: list[str]) -> None:
    """Print top-1 by method, start and T."""
    begin, cells, told = time.perf_counter(), {}, {}
    todo = tasks(chosen, starts, steps)
    results = compare(todo, probe, lambda a, b: normalise(test.images[a:b], card), test.labels)
    ann = 0.0
    for result in results:
        if isinstance(result, Refusal):
            print(f"{result.method} T={result.T}: {result.why}", file=sys.stderr, flush=True)
            continue
        ann = result.ann_top1
        line = (result.method, result.v_init)
        told.setdefault(line, []).append(result)
        cells[line, result.T] = f"{100 * result.top1:.1f}"
        print(result, file=sys.stderr, flush=True)
    print(f"ANN {100 * ann:.2f}, {len(test.labels)} test and {len(probe.images)} calibration images\n")
    print(f"| method | v_init | steps at T = {steps[-1]} | bits | " + " | ".join(f"T = {T}" for T in steps) + " |")
    print("|---|---|---|---|" + "---|" * len(steps))
    for line, rows in told.items():
        shown = " | ".join(cells.get((line, T), "") for T in steps)
        print(f"| `{line[0]}` | {line[1]} | {rows[-1].latency_total} | {rows[-1].bits} | {shown} |")
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
