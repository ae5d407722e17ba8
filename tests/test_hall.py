"""A real server and a visitor at the protocol: the process that computes is killed, the visitor comes back, the end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from benchmarks import load


@asynccontextmanager
async def visitor(address: str, session: str = ""):
    """Be one visitor; session: the one to come back to."""
    words = ["streamlit", "none", session] if session else ["streamlit"]
    url = address.replace("http", "ws", 1) + "/_stcore/stream"
    async with connect(url, subprotocols=words, origin=address, max_size=None) as connection:
        one = load.Visitor(connection, load.Told())
        listening = asyncio.create_task(one.listen())
        try:
            yield one
        finally:
            one._stop_reruns()
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening


def worker(pid: int) -> int:
    found = [
        one for one in load.family(pid)[1:] if b"explorer.study.worker" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]
    assert len(found) == 1, found
    return found[0]


def is_there(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def story(address: str, pid: int) -> int:
    async with visitor(address) as one:
        await one.run_page()
        await one.move(0.3)
        first = worker(pid)
        one.value, one.caption = 0.7, ""
        await one.run_page()
        os.kill(first, signal.SIGKILL)  # in mid-run: 256 images of three runs are asked for
        await one.move(0.65)
        assert not one.told.failures, "the page goes on"
        session, slider = one.session, one.slider
    async with visitor(address, session) as again:  # the connection broke while the run went on
        again.slider, again.value = slider, 0.65
        await again.run_page()
        assert again.session == session and not again.told.failures
        for _ in range(3000):
            if again._has_point():
                break
            await asyncio.sleep(0.02)
        assert again._has_point(), again.caption
    second = worker(pid)
    assert second != first
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text(), "the server itself computes nothing"
    return second


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_a_broken_connection_and_the_end(monkeypatch):
    monkeypatch.delenv("EXPLORER_EXECUTOR", raising=False)
    monkeypatch.setattr(load, "PATIENCE", 240.0)  # a busy machine is no fault
    with load.server(load.free_port()) as (address, pid):
        second = asyncio.run(story(address, pid))
        os.kill(pid, signal.SIGTERM)
        gone = [pid, second]
        for _ in range(1000):
            gone = [one for one in gone if is_there(one)]
            if not gone:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert not gone, "server and worker end within seconds of SIGTERM"
