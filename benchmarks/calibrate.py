"""Measure "Calibrate for T": `python -m benchmarks.calibrate --networks resnet20-relu --methods calibrate --steps 4,8`.

One JSON line a network, method and T as soon as it is measured: accuracy of the ANN, of OPI and of the calibrated
network on the same test images, and what the fit took. Compilation is done before and not counted. `fit_cpu_s` is the
time of all threads of this process: on a machine that others use as well it tells more than `fit_wall_s`.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor

from explorer.engine import Network, methods, trace
from explorer.engine.methods import Method
from explorer.terminal import Parser, guarded
from explorer.zoo.data import data_source, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load


def top1(fitted: Any, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Return the per cent of images that the spiking network names right after T steps."""
    hits = 0
    for i in range(0, len(images), batch):
        hits += int((fitted.scores(images[i : i + batch])[-1].argmax(1) == labels[i : i + batch]).sum())
    return 100 * hits / len(images)


def measure(network: Network, method: Method, T: int, calibration: Tensor, images: Tensor, labels: Tensor) -> dict:
    """Fit, run, and return one row."""
    cpu, wall = time.process_time(), time.perf_counter()
    fitted = method.fit(network, T, calibration)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    row = {"method": methods.written(method), "T": T, "top1": top1(fitted, images, labels)}
    row |= {"fit_cpu_s": cpu, "fit_wall_s": wall, "load": os.getloadavg()[0]}
    held = getattr(fitted, "held", None)
    return row | ({"held_back": held.images, "held_opi": held.opi, "held_calibrated": held.calibrated} if held else {})


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("--networks", default="resnet20-relu,resnet20-clip,vgg16-clip")
    parser.add_argument("--methods", default="opi;calibrate;calibrate-signed", help="separated by semicolons")
    parser.add_argument("--steps", default="4,8,16,32,64")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration-images", type=int, default=512)
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    chosen = [methods.parse(text) for text in args.methods.split(";")]
    for name in args.networks.split(","):
        net, card = load(name)
        source = data_source(args.data)
        calibration = normalise(load_images(source, card, args.calibration_images, "calibration").images[:], card)
        test = load_images(source, card, args.images, "evaluation")
        assert test.labels is not None, "accuracy needs labels"
        images, labels = normalise(test.images[:], card), torch.as_tensor(test.labels)
        network = trace(net, images[:1])
        ann = 100 * float((network.forward(images).argmax(1) == labels).double().mean())
        for method in chosen:
            top1(method.fit(network, 2, calibration[:24]), images[:24], labels[:24])
        for T in map(int, args.steps.split(",")):
            for method in chosen:
                row = measure(network, method, T, calibration, images, labels)
                known = {"network": name, "images": len(images), "calibration_images": len(calibration), "ann": ann}
                print(json.dumps(known | row), flush=True)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
