"""A Python file that makes the numbers on screen again, by the engine's public face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from explorer.study import keys, library
from explorer.study.results import Result
from explorer.study.settings import Settings
from explorer.study.translate import calibration_spec, conversion_spec

PICTURES = "pictures"
BATCH = 100
HEAD = '''"""Make again: {title}.

Run it with the explorer installed (pip install -e CHECKOUT), or from the root of its checkout.{needed}
Prints, for every run, accuracy (of images without labels: agreement with the ANN); with a file name behind it, writes
all time-steps of all runs to that file as CSV.
"""

import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(Path.cwd()))

from explorer.engine import *  # noqa: E402, F403
from explorer.engine import calibrate, convert, methods, trace  # noqa: E402
from explorer.study.measure import score  # noqa: E402
from explorer.study.results import Result  # noqa: E402
from explorer.study.tables import curve_csv  # noqa: E402
from explorer.zoo.data import calibration_source, data_source, load_images  # noqa: E402
from explorer.zoo.images import normalise  # noqa: E402
from explorer.zoo.own import NetworkSource, open_network  # noqa: E402

# name, network, images, how many, thresholds or method, potentials, time-steps and device
RUNS = [
'''
TAIL = """]


@cache
def opened(source):
    model, card = open_network(source)
    return trace(model, card.example()), card


@cache
def evaluation(source, images, n):
    return load_images(data_source(images), opened(source)[1], n=n)


@cache
def calibration(source, images, n):
    card = opened(source)[1]
    chosen = load_images(calibration_source(data_source(images), card), card, n=n, part="calibration")
    return normalise(chosen.images, card)


@cache
def spiking(source, images, rule, conversion, T):
    network = opened(source)[0]
    if isinstance(rule, str):
        method = methods.parse(rule)
        fitted = method.fit(network, T, calibration(source, images, method.images))
        return methods.edited(fitted, conversion.threshold_scale, dict(conversion.sites))
    return convert(network, calibrate(network, calibration(source, images, {calibration}), rule), conversion)


results = {{}}
for name, source, images, n, rule, conversion, spec in RUNS:
    card = opened(source)[1]
    snn, shown = spiking(source, images, rule, conversion, spec.T), evaluation(source, images, n)
    result = Result.empty(spec.T)
    for begin in range(0, len(shown), {batch}):
        inputs = normalise(shown.images[begin : begin + {batch}], card)
        labels = None if shown.labels is None else shown.labels[begin : begin + {batch}]
        result = result.joined(score(snn, inputs, labels, spec))
    results[name] = result
    what = "top-1" if result.labelled else "agreement"
    share, ann = result.top1[-1], result.ann_top1
    print(f"{{what}} {{share:.6f}} on {{result.images}} images, T = {{result.T}}, ANN {{ann:.6f}}: {{name}}")
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(curve_csv(results), encoding="utf-8")
"""


@dataclass(frozen=True, eq=False)
class Line:
    """One run as it is on screen: its name, its settings, and what is known of it."""

    name: str
    settings: Settings
    result: Result


def script(lines: Sequence[Line]) -> str:
    """Return a Python file that makes these runs again, each on exactly the images it is shown with.

    What was uploaded it expects beside itself: weights under their own name, pictures in a folder named `pictures`.
    """
    needed = dict.fromkeys(text for line in lines for text in _needed(line.settings))
    title = f"{lines[0].settings.describe()}, T = {lines[0].settings.T}"
    if len(lines) > 1:
        title = f"{len(lines)} runs, the first {title}"
    head = HEAD.format(
        title=_plain(title), needed=f"\nIt needs, beside itself, {' and '.join(map(_plain, needed))}." if needed else ""
    )
    runs = "".join(f"    {_run(line)},\n" for line in lines)
    return head + runs + TAIL.format(calibration=library.CALIBRATION_IMAGES, batch=BATCH)


def _run(line: Line) -> str:
    settings = line.settings
    parts = [
        repr(line.name),
        _network(settings.network),
        f'str(HERE / "{PICTURES}")' if keys.is_upload(settings.source) else repr(settings.source),
        str(line.result.images),
        repr(settings.method or calibration_spec(settings)),
        repr(conversion_spec(settings)),
        f"SimulationSpec(T={line.result.T}, device={settings.device!r})",
    ]
    return f"({', '.join(parts)})"


def _needed(settings: Settings) -> list[str]:
    needed = []
    if keys.is_upload(settings.network):
        needed.append(f"the file {library.loaded(settings.network).source.weights}")
    if keys.is_upload(settings.source):
        needed.append(f"a folder named {PICTURES} with the uploaded pictures ({keys.label(settings.source)})")
    return needed


def _network(name: str) -> str:
    if not keys.is_upload(name):
        return f"NetworkSource({name!r})"
    told = library.loaded(name).source
    return _source_text(told).replace(f"weights={told.weights!r}", f"weights=str(HERE / {told.weights!r})")


def _plain(text: str) -> str:
    return text.replace('"', "'").replace("\\", "/")


def _source_text(source: Any) -> str:
    """Write a NetworkSource as Python; a long row of numbered classes in short."""
    text = repr(source)
    numbered = tuple(f"class {i}" for i in range(len(source.classes)))
    if source.classes == numbered:
        text = text.replace(repr(numbered), f'tuple(f"class {{i}}" for i in range({len(numbered)}))')
    return text
