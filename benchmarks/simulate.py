"""Measure the engine against T forward passes and against SpikingJelly: `python -m benchmarks.simulate --json`.

The unit is the "dense limit": T forwards of the float32 ANN, channels-last, batch norm folded, at its best batch. All
figures of a network come from one process, the same weights and images; ratios are medians of repeated runs.
With `--device cuda` all of it runs on the GPU, on 10,000 images (the shipped ones, repeated), SpikingJelly as well.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from explorer.engine import (
    CalibrationSpec,
    ConversionSpec,
    Network,
    Percentile,
    Record,
    SimulationSpec,
    SpikeStore,
    SpikingNetwork,
    TrainableClip,
    TrainedClip,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.analysis import membrane
from explorer.terminal import Parser, guarded
from explorer.zoo.architectures import build
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import available, load

T = 32
DEVICE_IMAGES = 10_000
QUIET = Record(counts=False, v_end=False)


def spec_for(device: str, steps: int = T, **options: Any) -> SimulationSpec:
    """Return a run of so many steps on a device that keeps nothing but the scores."""
    return SimulationSpec(T=steps, record=QUIET, device=device, **options)  # type: ignore[arg-type]


def settled(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median of several timed calls after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def load_network(name: str) -> tuple[torch.nn.Module, Any, str]:
    """Return a shipped network, the plain one first, or the architecture with random weights and warmed statistics."""
    shipped = {card.name for card in available()}
    for kind in ("relu", "clip"):
        if f"{name}-{kind}" in shipped:
            net, card = load(f"{name}-{kind}")
            return net, card, card.name
    _, card = load("resnet20-relu")
    torch.manual_seed(0)
    net = build(f"{name}-relu")
    images = normalise(load_images(Embedded(), card, n=256, part="calibration").images, card)
    net.train()
    with torch.no_grad():
        for i in range(0, 256, 64):
            net(images[i : i + 64])
    return net.eval(), card, f"{name} with random weights"


def spiking(model: torch.nn.Module, network: Network, card: Any) -> SpikingNetwork:
    """Convert at v_init = 1/2, with thresholds from training images: the trained clips, else the 99.9th percentile."""
    images = normalise(load_images(Embedded(), card, n=64, part="calibration").images, card)
    clipped = any(isinstance(module, TrainableClip) for module in model.modules())
    rule = TrainedClip() if clipped else Percentile(99.9)
    return convert(network, calibrate(network, images, CalibrationSpec(rule)), ConversionSpec())


def with_rectifiers(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy with plain rectifiers for trainable clips: SpikingJelly's converter knows no others."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, TrainableClip):
            model.set_submodule(name, torch.nn.ReLU())
    return model


def dense_limit(network: Network, images: torch.Tensor, repeats: int, device: str) -> float:
    """Return the seconds of T forwards of all images at the best of some batch sizes."""
    net = copy.deepcopy(network.graph_module).to(device).to(memory_format=torch.channels_last)
    images = images.to(device).to(memory_format=torch.channels_last)

    def forwards(batch: int) -> None:
        with torch.no_grad():
            for i in range(0, len(images), batch):
                net(images[i : i + batch])
        settled(device)

    batches = (8, 16, 32, 48, 96) if device == "cpu" else (256, 1000)
    return T * min(median_seconds(lambda b=b: forwards(b), repeats) for b in batches)


def spikingjelly_seconds(model: torch.nn.Module, images: torch.Tensor, repeats: int, device: str) -> float:
    """Return the seconds of SpikingJelly's converter in its tutorial's loop, batch 48 (on a GPU 500)."""
    import io
    from contextlib import redirect_stdout

    from spikingjelly.activation_based import ann2snn

    loader = [(images[i : i + 32], torch.zeros(32)) for i in range(0, len(images), 32)]
    with redirect_stdout(io.StringIO()):
        recipe = ann2snn.RateCodingRecipe(dataloader=loader, mode="99.9%")
        snn = ann2snn.Converter(recipe).convert(with_rectifiers(model)).eval().to(device)
    images, batch = images.to(device), 48 if device == "cpu" else 500

    def loop() -> None:
        with torch.no_grad():
            for i in range(0, len(images), batch):
                for module in snn.modules():
                    if hasattr(module, "reset"):
                        module.reset()
                total: Any = 0
                for _ in range(T):
                    total = total + snn(images[i : i + batch])
            settled(device)

    return median_seconds(loop, repeats)


def tweaks(
    network: Network, snn: SpikingNetwork, images: torch.Tensor, full: float, repeats: int, device: str
) -> tuple[float, float]:
    """Return the mean over sites of the cost of changing one site's potential, and that of the last site, over full."""
    costs = []
    for k, site in enumerate(network.sites):
        store = SpikeStore(2**31)
        simulate(snn, images, spec_for(device), store=store)
        times = []
        for i in range(max(1, repeats // 2)):
            spec = snn.spec.with_site(site.name, v_init=0.3 + 0.01 * i + 0.001 * k)
            begin = time.perf_counter()
            simulate(convert(network, snn.calibration, spec), images, spec_for(device), store=store)
            times.append(time.perf_counter() - begin)
        costs.append(statistics.median(times))
    return statistics.mean(costs) / full, costs[-1] / full


def extension(snn: SpikingNetwork, images: torch.Tensor, repeats: int, device: str) -> float:
    """Return the cost of going on from T = 32 to 64 over that of a full run at 64."""
    full, more = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        simulate(snn, images, spec_for(device, 2 * T), store=SpikeStore(2**31))
        full.append(time.perf_counter() - begin)
        store = SpikeStore(2**31)
        simulate(snn, images, spec_for(device), store=store)
        begin = time.perf_counter()
        simulate(snn, images, spec_for(device, 2 * T), store=store)
        more.append(time.perf_counter() - begin)
    return statistics.median(more) / statistics.median(full)


def membrane_ms(network: Network, snn: SpikingNetwork, images: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Return milliseconds to read a membrane of one image at T = 64: mean over sites with the rest kept, and from none.

    The second is the worst case: the last site, nothing kept.
    """
    store = SpikeStore(2**30)
    one = images[:1]
    simulate(snn, one, SimulationSpec(T=64, record=QUIET), store=store)
    kept = [
        median_seconds(lambda s=s: membrane(snn, one, s.name, s.neurons // 2, 64, store=store), repeats)
        for s in network.sites
    ]
    last = network.sites[-1]
    fresh = median_seconds(lambda: membrane(snn, one, last.name, last.neurons // 2, 64), repeats)
    return 1e3 * statistics.mean(kept), 1e3 * fresh


def resident_mb() -> float:
    """Return this process's resident memory."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb(name: str, n_images: int, steps: int) -> float:
    """Return how much resident memory a run with the default store adds to the ANN's, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.simulate", "--networks", name, "--peak", f"{n_images},{steps}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def measure_peak(name: str, n_images: int, steps: int) -> float:
    """Run the ANN, then the spiking network, and return by how many MB the second raises the resident peak."""
    model, card, _ = load_network(name)
    images = normalise(load_images(Embedded(), card, n=n_images).images, card)
    network = trace(model, images[:1])
    snn = spiking(model, network, card)
    simulate(snn, images[:1], SimulationSpec(T=2, record=QUIET))
    network.forward(images)
    base, seen, done = resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen[0] = max(seen[0], resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    simulate(snn, images, SimulationSpec(T=steps, record=QUIET), store=SpikeStore())
    done.set()
    watcher.join()
    return seen[0] - base


def measure(name: str, n_images: int, repeats: int, quick: bool, device: str) -> dict[str, Any]:
    """Measure one network; see the table in benchmarks/README.md."""
    model, card, label = load_network(name)
    images = normalise(load_images(Embedded(), card, n=500).images, card)
    network = trace(model, images[:1])
    snn = spiking(model, network, card)
    few = images.repeat(-(-n_images // len(images)), 1, 1, 1)[:n_images]
    limit = dense_limit(network, few, repeats, device)
    full = median_seconds(lambda: simulate(snn, few, spec_for(device)), repeats)
    result = simulate(snn, few, spec_for(device))
    some = few[:500]  # what runs as traced, and what changes one layer, is timed on fewer where there are many
    floating = median_seconds(lambda: simulate(snn, some, spec_for(device, integer=False)), max(1, repeats // 2))
    floating *= len(few) / len(some)
    jelly = spikingjelly_seconds(model, few, max(1, repeats // 2), device)
    again = full if len(some) == len(few) else median_seconds(lambda: simulate(snn, some, spec_for(device)), repeats)
    mean, last = tweaks(network, snn, some, again, 1 if quick else repeats, device)
    kept, fresh = membrane_ms(network, snn, images, repeats)
    neurons = sum(s.neurons for s in network.sites)
    return {
        "network": label,
        "images": n_images,
        "T": T,
        "dense_limit_s": limit,
        "full_s": full,
        "full_ratio": full / limit,
        "float_path_ratio": floating / limit,
        "spikingjelly_s": jelly,
        "spikingjelly_ratio": jelly / limit,
        "speedup_over_spikingjelly": jelly / full,
        "tweak_mean_ratio": mean,
        "tweak_last_ratio": last,
        "extend_ratio": extension(snn, some, max(1, repeats // 2), device),
        "membrane_ms": kept,
        "membrane_fresh_ms": fresh,
        "peak_mb": peak_mb(name, 50 if quick else 500, 256),
        "mean_rate": sum(result.spike_totals.values()) / (neurons * n_images * T),
        "paths": result.paths,
    }


def main() -> None:
    """Run the command line."""
    parser = Parser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats, under a minute")
    parser.add_argument("--networks", default="resnet20,vgg16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(measure_peak(args.networks, *map(int, args.peak.split(","))))
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here. Leave --device out to measure the CPU.")
    repeats, images = (1, 24) if args.quick else (5, 96 if args.device == "cpu" else DEVICE_IMAGES)
    report: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {args.threads} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        + (f", {torch.cuda.get_device_name()}" if args.device == "cuda" else ""),
    }
    for name in args.networks.split(","):
        begin = time.perf_counter()
        report[name] = measure(name, images, repeats, args.quick, args.device)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for name in args.networks.split(","):
        rows = {k: v for k, v in report[name].items() if k != "paths"}
        rows["paths"] = dict(Counter(report[name]["paths"].values()))
        print(name, *(f"  {k}: {v:.3f}" if isinstance(v, float) else f"  {k}: {v}" for k, v in rows.items()), sep="\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    raise SystemExit(guarded(main))
