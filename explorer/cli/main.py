"""The parser and its commands; every fault is one line on standard error and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from explorer.cli.finetune import add_options as add_finetune_options
from explorer.cli.finetune import finetune
from explorer.cli.serve import add_options as add_serve_options
from explorer.cli.serve import serve
from explorer.engine.neurons import INTEGRATE_AND_FIRE, LAWS
from explorer.terminal import Parser, guarded

EXAMPLES = """examples:
  python -m explorer networks
  python -m explorer run --network resnet20-relu --images 500 --steps 32 --threshold percentile:99.9 --v-init 0.5
  python -m explorer run --network resnet20-relu --site stages.2.0.act1:scale=0.9,v_init=0.4 --json
  python -m explorer report --network net.py:make --weights net.pt --input-size 32
  python -m explorer run --method cos:rho=4 --steps 8
  python -m explorer compare --methods opi,srp,cos --steps 4,8,16 --images 200
  python -m explorer report --errors --steps 16 --images 100
  python -m explorer run --network torchvision:resnet18 --data imagenet/val --images 200
  python -m explorer finetune --method hybrid --steps 4 --data package --out tuned.safetensors
  python -m explorer serve --public
"""
PROGRESS_WIDTH = 30


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = Parser(
        prog="python -m explorer",
        description="Convert a trained ReLU network into a spiking one, and measure what happens.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="convert, simulate, and print accuracy against time-steps")
    _network_options(run)
    _run_options(run)
    run.add_argument_group("the literature's methods").add_argument(
        "--method",
        metavar="NAME[:field=value,...]",
        help="one of them, in place of --threshold, --threshold-scale, --v-init, --law and --site",
    )
    report = commands.add_parser(
        "report",
        help="list what each part of a network becomes",
        description="List what each part of a network becomes. Exit code 1 if something in it does not convert.",
    )
    _network_options(report)
    report.add_argument("--errors", action="store_true", help="simulate, and name the layers and causes that cost most")
    _run_options(report)
    compare = commands.add_parser(
        "compare",
        help="run the literature's methods side by side: one row a method, start and T",
        description="Run conversion methods on the same network and images: one row a method, start and T.",
    )
    _network_options(compare)
    _image_options(compare)
    _compare_options(compare)
    tune = commands.add_parser(
        "finetune",
        help="train a network's spiking form for T steps, and write a checkpoint",
        description="Fine-tune a shipped network's spiking form for T steps on all of CIFAR-10, starting calibrated.",
    )
    add_finetune_options(tune)
    networks = commands.add_parser("networks", help="list the shipped networks and the architectures")
    server = commands.add_parser("serve", help="start the app's server, for yourself or for others")
    add_serve_options(server)
    for command in (run, report, compare, networks):
        command.add_argument("--json", action="store_true", help="print one JSON value instead of a table")
    return top


def _network_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("network")
    add = group.add_argument
    add(
        "--network",
        default="resnet20-relu",
        metavar="NAME",
        help="a shipped network, torchvision:NAME, timm:NAME, an architecture (with --weights), FILE.safetensors with "
        "its card beside it (as finetune writes them), FILE.py:factory, or FILE.pt2 from torch.export; Python files "
        "and .pt2 can run code, so give only ones you trust (default: %(default)s)",
    )
    add("--weights", metavar="FILE", help="a state dict, .safetensors, .pt or .pth, put onto --network")
    add(
        "--part",
        metavar="KEY",
        help="which weights of the file: average, raw or a key (default: an average if any)",
    )
    add("--mean", metavar="R,G,B", help="pixel mean, pixels scaled to 0..1 (default: the card's; own: CIFAR-10's)")
    add("--std", metavar="R,G,B", help="pixel standard deviation (default: as --mean)")
    add("--input-size", type=int, metavar="PIXELS", help="side of the input (default: the card's; own: 32)")
    add("--resize", type=int, metavar="PIXELS", help="shorter side before the centre is cropped (default: the card's)")
    add("--classes", metavar="NAMES", help="names of the outputs: a,b,c, or a file with one a line, or cifar10")


def _image_options(command: argparse.ArgumentParser) -> None:
    data = command.add_argument_group("images")
    data.add_argument(
        "--data",
        default="embedded",
        help="embedded (CIFAR-10's first 2,000 test images), a CIFAR-10 root, or a folder of class folders",
    )
    data.add_argument("--images", type=int, default=500, help="images to test on (default: %(default)s)")
    data.add_argument(
        "--calibration-images",
        type=int,
        default=512,
        help="images to set thresholds on, none of them tested on (default: %(default)s)",
    )
    add = command.add_argument_group("how to run").add_argument
    add("--seed", type=int, default=0, help="of random starts and of drawn images (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to simulate (default: %(default)s)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")


def _run_options(command: argparse.ArgumentParser) -> None:
    from explorer.engine.methods.texts import RULES, STARTS

    _image_options(command)
    group = command.add_argument_group("conversion and simulation")
    add = group.add_argument
    add("--steps", type=int, default=32, metavar="T", help="time-steps, 1 to 256 (default: %(default)s)")
    add("--threshold", metavar="RULE", help=f"{RULES} (default: clip if trained with one, else percentile:99.9)")
    add("--threshold-scale", type=float, default=1.0, help="multiplies every threshold (default: %(default)s)")
    add("--v-init", default="0.5", metavar="START", help=f"{STARTS} (default: %(default)s)")
    add("--law", choices=tuple(LAWS), default=INTEGRATE_AND_FIRE.name, help="the neurons (default: %(default)s)")
    add(
        "--site",
        action="append",
        default=[],
        metavar="NAME:scale=S,v_init=V",
        help="what one site does differently, either part optional; may be given again for another site",
    )


def _compare_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("comparison").add_argument
    add(
        "--methods",
        default="all",
        metavar="A,B,...",
        help="all, or some by name (a wrong name lists them); NAME:field=value,... sets fields, and then ; separates "
        "methods (default: %(default)s)",
    )
    add("--starts", default="own", metavar="A,B,...", help="v(0) / theta of each: own,0,0.5 (default: %(default)s)")
    add("--steps", default="1,2,4,8,16,32,64", metavar="T,T,...", help="time-steps (default: %(default)s)")
    shown = command.add_mutually_exclusive_group()
    shown.add_argument("--csv", action="store_true", help="print lines of values separated by commas")
    shown.add_argument("--markdown", action="store_true", help="print a table in Markdown")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code: 0, 1 (report: something does not convert), or 2 (bad input)."""
    args = parser().parse_args(arguments)
    return guarded(lambda: _command(args))


def _command(args: argparse.Namespace) -> int:
    if args.command == "serve":
        return serve(args)
    if args.command == "finetune":
        return finetune(args)
    from explorer.cli import commands

    watched = sys.stderr.isatty()
    on_fetch = _bar("MiB fetched", 2**20) if watched else None
    match args.command:
        case "run" if args.method is not None:
            from explorer.cli.compare import run_method

            return run_method(args, None, on_fetch)
        case "run":
            return commands.run(args, _bar("images") if watched else None, on_fetch)
        case "compare":
            from explorer.cli.compare import run_compare

            return run_compare(args, _bar("rows") if watched else None, on_fetch)
        case "report" if args.errors:
            from explorer.cli.errors import report_errors

            return report_errors(args, _bar("images") if watched else None, on_fetch)
        case "report":
            return commands.report(args, on_fetch)
        case _:
            return commands.networks(args)


def _bar(what: str, unit: int = 1) -> Callable[[int, int], None]:
    """Return a function that draws a bar on standard error, wiped at the end."""

    def draw(done: int, total: int) -> None:
        filled = PROGRESS_WIDTH * done // max(1, total)
        bar = "#" * filled + "." * (PROGRESS_WIDTH - filled)
        text = f"[{bar}] {done // unit} of {total // unit} {what}"
        end = "\r" + " " * len(text) + "\r" if done >= total else ""
        print(f"\r{text}{end}", end="", file=sys.stderr, flush=True)

    return draw
