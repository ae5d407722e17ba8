"""What the visitor feels, measured in headless Chromium: `python -m benchmarks.interaction` prints JSON.

Slider release to repainted membrane, to the first coarse accuracy point, and page switch to the first painted chart.
"""

import json
import os
import statistics
import time

from explorer.study import link
from explorer.study.scene import Scene
from explorer.study.settings import Settings
from explorer.terminal import Parser, guarded
from tests import browser_help as help

TARGETS = {"membrane_ms": 400, "accuracy_ms": 1200, "page_ms": 700}


def median(values: list[float]) -> float:
    """Return the median in whole milliseconds."""
    return round(statistics.median(values) * 1000)


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--moves", type=int, default=8)
    moves = parser.parse_args().moves
    membranes, points, switches = [], [], []
    with help.app_server() as address, help.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        help.open_page(page, f"{address}/?{link.PARAMETER}={link.encode(Scene(Settings(images=64)))}")
        help.until_done(page)
        slider = page.locator(".stSlider").filter(has_text="v_init").locator("input").first
        for _ in range(moves):
            membrane, curve = help.line(page, "Membrane"), help.line(page, "Accuracy", 1)
            slider.focus()
            began = time.perf_counter()
            slider.press("ArrowLeft")
            help.until_other(page, "Membrane", membrane)
            membranes.append(time.perf_counter() - began)
            help.until_other(page, "Accuracy", curve, 1)
            points.append(time.perf_counter() - began)
            help.until_done(page)
        for i in range(moves):
            name, alt = (("Theory", "Staircase"), ("Explorer", "Membrane potential"))[i % 2]
            began = time.perf_counter()
            page.get_by_role("link", name=name).first.click()
            page.locator(help.chart(page, alt) + "[data-painted]").first.wait_for(timeout=help.WAIT)
            switches.append(time.perf_counter() - began)
    numbers = {"membrane_ms": median(membranes), "accuracy_ms": median(points), "page_ms": median(switches)}
    print(
        json.dumps({**numbers, "targets": TARGETS, "moves": moves, "cores": os.cpu_count(), "load": os.getloadavg()[0]})
    )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
