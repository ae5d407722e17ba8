"""All methods on a shipped network, top-1 by method and T: `python -m benchmarks.methods NETWORK --images N`."""

from __future__ import annotations

import argparse
import sys
import time

from explorer.engine import methods, trace
from explorer.engine.methods import Probe
from explorer.study.side_by_side import Refusal, compare, tasks
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load

COMPOSED = ("ftbc:law=signed_at_zero", "cos:threshold=mse:channel")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--steps", default="1,2,4,8,16,32,64")
    parser.add_argument("--starts", default="own")
    args = parser.parse_args()
    net, card = load(args.network)
    test = load_images(Embedded(), card, n=args.images)
    training = load_images(Embedded(), card, n=args.calibration_images, part="calibration").images
    network = trace(net, card.example())
    steps = [int(T) for T in args.steps.split(",")]
    chosen = [kind() for kind in methods.all()] + [methods.parse(text) for text in COMPOSED]
    todo = tasks(chosen, args.starts.split(","), steps)
    begin, cells, told = time.perf_counter(), {}, {}
    results = compare(
        todo, Probe(network, normalise(training, card)), lambda a, b: normalise(test.images[a:b], card), test.labels
    )
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
    print(f"ANN {100 * ann:.2f}, {args.images} test and {args.calibration_images} calibration images\n")
    print(f"| method | v_init | steps at T = {steps[-1]} | bits | " + " | ".join(f"T = {T}" for T in steps) + " |")
    print("|---|---|---|---|" + "---|" * len(steps))
    for line, rows in told.items():
        shown = " | ".join(cells.get((line, T), "") for T in steps)
        print(f"| `{line[0]}` | {line[1]} | {rows[-1].latency_total} | {rows[-1].bits} | {shown} |")
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
