"""A hall of visitors at once: `python -m benchmarks.load --visitors 40 --seconds 120` prints JSON.

Each visitor is a websocket session that speaks the app's own protocol: it opens the page, moves one slider every one to
four seconds, and reruns what the page asks to be rerun while results refine, as a browser does. Told are the times from
a move to the finished page and to the first accuracy point of the moved setting, failures, tracebacks in the server's
log, script runs and the server's processor time for each move, and its memory before, during and after (with the
process that simulates). `--pages` adds real browser pages that look on. `--beside grid` or `--beside vgg` has one more
visitor keep the server busy with a grid of 20 settings or a VGG-16. Bounded: by the number of visitors, by the time,
and by 60 s for any answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from explorer.study import link
from explorer.study.scene import Display, Scene
from explorer.study.settings import Settings
from explorer.terminal import Parser, guarded

ROOT = Path(__file__).resolve().parents[1]
SLIDER = "v_init (share of the threshold)"
STOPS = [round(0.05 * i, 2) for i in range(-10, 31)]
SEEN = re.compile(r"(\d+)(?: of \d+)? evaluation image")
RUNS = {
    ForwardMsg.FINISHED_SUCCESSFULLY: "page",
    ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY: "part",
    ForwardMsg.FINISHED_EARLY_FOR_RERUN: "cut short",
}
PATIENCE = 60.0  # seconds for one answer; longer is a failure
BESIDE = {  # a grid of 20 settings by T; 2,000 images of a large network (a public server: as many as it allows)
    "grid": ("accuracy_and_ablation", Scene(display=Display(ablation="v_init"))),
    "vgg": ("", Scene(Settings(network="vgg16-clip", rule="clip", images=2000))),
}
HEAD_START = 8.0  # seconds that a neighbour is busy before visitors come
AFTER = 60.0  # seconds after the last visitor left, when memory is looked at again


@dataclass
class Told:
    """What all visitors met with: seconds to a finished page and to a first point, and what failed."""

    opened: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)


class Visitor:
    """One websocket session."""

    def __init__(self, connection: ClientConnection, told: Told) -> None:
        self.connection, self.told = connection, told
        self.slider = ""
        self.value = 0.5
        self.caption = ""
        self.session = ""
        self.finished = asyncio.Event()
        self.reruns: dict[str, asyncio.Task[None]] = {}
        self.page, self.view = "", ""  # the page's name and the scene in its address

    async def send(self, fragment: str = "") -> None:
        """Ask for a run of the page, or of one fragment of it."""
        message = BackMsg()
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        message.rerun_script.page_name = self.page
        message.rerun_script.query_string = self.view
        if self.slider:
            state = message.rerun_script.widget_states.widgets.add()
            state.id = self.slider
            state.double_array_value.data.append(self.value)
        await self.connection.send(message.SerializeToString())

    async def listen(self) -> None:
        """Take in what the server sends until the connection ends."""
        async for raw in self.connection:
            message = ForwardMsg()
            message.ParseFromString(raw)
            match message.WhichOneof("type"):
                case "delta":
                    self._element(message.delta.new_element)
                case "new_session":
                    self.session = message.new_session.initialize.session_id
                case "script_finished":
                    self.told.runs[RUNS.get(message.script_finished, "other")] += 1
                    if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                        self.finished.set()
                case "auto_rerun":
                    self._rerun_every(message.auto_rerun.interval, message.auto_rerun.fragment_id)
                case "stop_auto_rerun":
                    for fragment in message.stop_auto_rerun.fragment_ids:
                        if fragment in self.reruns:
                            self.reruns.pop(fragment).cancel()

    def _element(self, element) -> None:
        kind = element.WhichOneof("type")
        if kind == "slider" and element.slider.label == SLIDER:
            self.slider = element.slider.id
        elif kind == "exception":
            self.told.failures.append(f"{element.exception.type}: {element.exception.message}"[:200])
        elif kind == "markdown" and SEEN.search(element.markdown.body):
            self.caption = element.markdown.body

    def _rerun_every(self, interval: float, fragment: str) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(interval)
                await self.send(fragment)

        if fragment not in self.reruns:
            self.reruns[fragment] = asyncio.create_task(repeat())

    def _stop_reruns(self) -> None:
        for task in self.reruns.values():
            task.cancel()
        self.reruns.clear()

    async def run_page(self) -> float:
        """Run the page and return how long it took, in seconds."""
        self.finished.clear()
        self._stop_reruns()
        began = time.monotonic()
        await self.send()
        await asyncio.wait_for(self.finished.wait(), PATIENCE)
        return time.monotonic() - began

    async def move(self, value: float) -> None:
        """Move the slider; note the times to the finished page and to the first point of the new setting."""
        self.value, self.caption = value, ""
        began = time.monotonic()
        self.told.pages.append(await self.run_page())
        while not self._has_point():
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError("no accuracy point")
            await asyncio.sleep(0.02)
        self.told.points.append(time.monotonic() - began)

    def _has_point(self) -> bool:
        found = SEEN.search(self.caption)
        return found is not None and int(found[1]) > 0 and f"v_init {self.value:g}" in self.caption


@asynccontextmanager
async def come(address: str, told: Told, who: str = "") -> AsyncIterator[Visitor]:
    """Be connected as one visitor; what goes wrong meanwhile is told as a failure, of whom."""
    url = address.replace("http", "ws", 1) + "/_stcore/stream"
    how = {"subprotocols": ["streamlit"], "origin": address, "max_size": None, "open_timeout": 30}
    try:
        async with connect(url, **how) as connection:
            visitor = Visitor(connection, told)
            listening = asyncio.create_task(visitor.listen())
            try:
                yield visitor
            finally:
                visitor._stop_reruns()
                listening.cancel()
    except Exception as error:
        told.failures.append(f"{who}{type(error).__name__}: {error}"[:200])


async def visit(address: str, told: Told, end: float, rng: random.Random) -> None:
    """Be one visitor until the end."""
    async with come(address, told) as visitor:
        told.opened.append(await visitor.run_page())
        while time.monotonic() < end:
            await asyncio.sleep(rng.uniform(1, 4))
            await visitor.move(rng.choice([v for v in STOPS if v != visitor.value]))


async def neighbour(address: str, told: Told, end: float, beside: str) -> None:
    """Be one more visitor, who keeps the server busy until the end: see `BESIDE`."""
    async with come(address, told, "beside: ") as visitor:
        visitor.page, scene = BESIDE[beside]
        visitor.view = f"{link.PARAMETER}={link.encode(scene)}"
        await visitor.run_page()
        await asyncio.sleep(max(0.0, end - time.monotonic()))


def browser_pages(address: str, pages: int, seconds: float) -> list[str]:
    """Open real browser pages beside the visitors; return what failed in them."""
    from tests import browser_help

    failures: list[str] = []
    if not pages:
        return failures
    with browser_help.chromium() as browser:
        opened = [browser.new_page() for _ in range(pages)]
        for page in opened:
            page.on("pageerror", lambda error: failures.append(str(error)[:200]))
            browser_help.open_page(page, address)
        opened[0].wait_for_timeout(1000 * seconds)
        for page in opened:
            if page.locator(".stException").count() or not page.locator(".plot[data-painted]").count():
                failures.append("a page shows an exception, or no chart")
    return failures


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def memory_mib(pid: int) -> float:
    """Return the memory that a process and those below it have in use, in MiB; shared pages count once."""
    total = 0.0
    for one in family(pid):
        with suppress(OSError):
            pages = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(pages[1]) / 1024 if pages else 0.0
    return total


def processor_s(pid: int) -> tuple[float, float]:
    """Return the processor time that a process, and those below it, have taken, in seconds."""
    each = []
    for one in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            each.append(sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"))
    return each[0], sum(each[1:])


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tracebacks(log: Path) -> list[str]:
    """Return the last line of each traceback in a server's log."""
    found, within = [], False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if within and line[:1].strip():
            found.append(line[:200])
        within = line.startswith("Traceback") or (within and not line[:1].strip())
    return found


@contextmanager
def server(port: int, log: Path | None = None) -> Iterator[tuple[str, int]]:
    """Start the app; yield its address and process. log: where what it tells of faults goes, else to the terminal."""
    command = [sys.executable, "-m", "explorer", "serve", "--address", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"STREAMLIT_SERVER_HEADLESS": "true"}
    with log.open("w") if log else nullcontext() as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(2400):
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            time.sleep(0.1)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(30)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and largest, in seconds, and how many there are."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    median = statistics.median(values)
    return {"n": len(values), "median": round(median, 2), "p95": round(p95, 2), "max": round(ordered[-1], 2)}


async def hall(address: str, pid: int, log: Path, args: argparse.Namespace) -> dict[str, object]:
    """Let all visitors in, one after another within the ramp; return what they met with and the memory."""
    told, curve = Told(), []
    first = Told()
    await visit(address, first, time.monotonic(), random.Random(0))  # the first page loads and compiles
    if first.failures:
        raise SystemExit(f"the first page failed: {first.failures[0]}")
    first_page = memory_mib(pid)
    busy = None
    if args.beside:
        until = time.monotonic() + HEAD_START + args.ramp + args.seconds
        busy = asyncio.create_task(neighbour(address, Told(failures=told.failures), until, args.beside))
        await asyncio.sleep(HEAD_START)
    began, taken = time.monotonic(), processor_s(pid)
    end = began + args.ramp + args.seconds

    async def watch() -> None:
        while time.monotonic() < end:
            curve.append((round(time.monotonic() - began), round(memory_mib(pid))))
            await asyncio.sleep(max(1.0, args.seconds / 30))

    async def late(i: int) -> None:
        await asyncio.sleep(args.ramp * i / max(1, args.visitors))
        await visit(address, told, end, random.Random(i))

    watching = asyncio.create_task(watch())
    looking = asyncio.to_thread(browser_pages, address, args.pages, args.seconds)
    *_, seen = await asyncio.gather(*(late(i) for i in range(args.visitors)), looking)
    watching.cancel()
    if busy is not None:
        await busy
    server, simulations = (after - before for after, before in zip(processor_s(pid), taken, strict=True))
    during = max((mib for _, mib in curve), default=0)
    await asyncio.sleep(args.after)
    return {
        "visitors": args.visitors,
        "beside": args.beside,
        "seconds": args.seconds,
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "cores": os.cpu_count(),
        "opened_s": spread(told.opened),
        "page_s": spread(told.pages),
        "first_point_s": spread(told.points),
        "processor_s": {"server": round(server, 1), "simulations": round(simulations, 1)},
        "server_s_a_move": round(server / max(1, len(told.pages)), 3),
        "runs_a_move": {kind: round(n / max(1, len(told.pages)), 2) for kind, n in told.runs.most_common()},
        "failures": len(told.failures) + len(seen),
        "failures_seen": sorted({*told.failures, *seen})[:5],
        "tracebacks": len(tracebacks(log)),
        "tracebacks_seen": sorted(set(tracebacks(log)))[:5],
        "memory_mib": {"first_page": round(first_page), "most": during, "after": round(memory_mib(pid))},
        "memory_curve": curve,
    }


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=10, help="at most 200 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="at most 1,200 (default: %(default)s)")
    parser.add_argument("--ramp", type=float, default=5, help="seconds within which all have come (%(default)s)")
    parser.add_argument("--after", type=float, default=AFTER, help="seconds until memory is looked at again")
    parser.add_argument("--pages", type=int, default=0, help="real browser pages beside them, at most 8")
    parser.add_argument("--beside", choices=list(BESIDE), default="", help="one more visitor, who keeps it busy")
    parser.add_argument("--port", type=int, default=0, help="of the server that is started (default: a free one)")
    args = parser.parse_args()
    args.visitors, args.pages = min(args.visitors, 200), min(args.pages, 8)
    args.seconds = min(args.seconds, 1200)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with server(args.port or free_port(), log) as (address, pid):
            print(json.dumps(asyncio.run(hall(address, pid, log, args)), indent=1))
        print(log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
