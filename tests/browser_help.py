"""The real app in a real Chromium: start both, wait for conditions, read what is painted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "tests" / "screenshots"
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 40_000


@contextmanager
def app_server() -> Iterator[str]:
    """Start `streamlit run explorer/app.py` on a free port and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(ROOT / "explorer" / "app.py"),
        "--server.port",
        str(port),
        "--server.address",
        "127.0.0.1",
        "--server.headless",
        "true",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "OMP_WAIT_POLICY": "passive"
    }
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the app did not start: run `streamlit run explorer/app.py` to see why"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium if there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=ARGS)
        yield browser
        browser.close()


def open_page(page: Page, url: str) -> None:
    """Open a page of the app and wait until its first chart is painted."""
    page.goto(url)
    page.locator(".plot[data-painted]").first.wait_for(timeout=WAIT)


def chart(page: Page, alt: str) -> str:
    """Return a CSS selector for the chart whose description begins so."""
    return f'.plot[aria-label^="{alt}"]'


def painted(page: Page, alt: str) -> int:
    """Return how often a chart has been painted."""
    return int(page.locator(chart(page, alt)).first.get_attribute("data-painted", timeout=WAIT) or 0)


def line(page: Page, alt: str, trace: int = 0) -> list[float]:
    """Wait until a chart shows this trace and return its y values."""
    found = page.wait_for_function(
        "([css, i]) => { const d = document.querySelector(css)?._fullData?.[i]; return d && Array.from(d.y); }",
        arg=[chart(page, alt), trace],
        timeout=WAIT,
    )
    return found.json_value()


def until_other(page: Page, alt: str, old: list[float], trace: int = 0) -> list[float]:
    """Wait until a chart shows other values than these and return them."""
    page.wait_for_function(
        """([css, i, old]) => { const d = document.querySelector(css)?._fullData?.[i];
           return d && JSON.stringify(Array.from(d.y)) !== JSON.stringify(old); }""",
        arg=[chart(page, alt), trace, old],
        timeout=WAIT,
    )
    return line(page, alt, trace)


def until_done(page: Page) -> None:
    """Wait until all runs on the page are complete."""
    page.get_by_text("evaluation images (").filter(has_text="complete").first.wait_for(timeout=WAIT)


def until_still(page: Page, thing: Locator) -> None:
    """Scroll a thing into view and wait until it has stood still for half a second: late results shift a page."""
    thing.scroll_into_view_if_needed()
    page.wait_for_function(
        """thing => { const now = thing.getBoundingClientRect(), place = [now.x, now.y, now.width, now.height].join();
           if (window.stillThing !== thing || window.stillPlace !== place)
               [window.stillThing, window.stillPlace, window.stillSince] = [thing, place, performance.now()];
           return performance.now() - window.stillSince > 500; }""",
        arg=thing.element_handle(timeout=WAIT),
        timeout=WAIT,
    )


def until_theme(page: Page, mode: str) -> None:
    """Wait until the page, and every text in a chart, has the colours of this mode: light or dark."""
    page.wait_for_function(
        """dark => { const sum = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
           const style = node => getComputedStyle(node);
           return (sum(style(document.querySelector('.stApp')).backgroundColor) < 380) === dark &&
               Array.from(document.querySelectorAll('.plot .xtick text')).every(
                   text => (sum(style(text).fill) > 380) === dark); }""",
        arg=mode == "dark",
        timeout=WAIT,
    )


def shoot(page: Page, name: str) -> None:
    """Save a screenshot of the whole page."""
    SHOTS.mkdir(exist_ok=True)
    size = page.viewport_size or {"width": 1280, "height": 900}
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(int(height) + 20, 5000)})
    page.screenshot(path=SHOTS / f"{name}.png")
    page.set_viewport_size(size)
