"""Running a server: the locks, the serve command, the journal, places, and the end by a signal."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from explorer import limits
from explorer.cli.main import main, parser
from explorer.cli.serve import arguments
from explorer.study.memory import in_use_mib
from explorer.study.runner import Load, Runner
from explorer.study.settings import Settings
from explorer.ui import journal

ROOT = Path(__file__).resolve().parents[1]


def locked(file: str) -> dict[str, str]:
    """Return the packages of a lock by name, with what stands behind each name."""
    text = (ROOT / file).read_text()
    return dict(re.findall(r"^([\w.-]+)==(.*?)(?=^\S|\Z)", text, re.M | re.S))


def wanted(file: str) -> set[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return {re.split(r"[<>=!~ ]", line)[0].lower() for line in lines if line and not line.startswith("-")}


def test_every_locked_package_has_a_hash_and_all_that_is_wanted_is_locked():
    app, tests = locked("requirements.lock"), locked("requirements-dev.lock")
    assert len(app) > 40
    for name, rest in (app | tests).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest), name
    assert wanted("requirements.txt") <= app.keys()
    assert wanted("requirements-dev.txt") <= app.keys() | tests.keys()
    assert "setuptools" in app
    assert not app.keys() & tests.keys(), "a package is locked once"
    assert not {"pytest", "playwright", "mypy", "ruff", "spikingjelly"} & app.keys()
    assert "-r requirements.lock" in (ROOT / "requirements-dev.lock").read_text()


def test_the_locks_name_no_place_to_fetch_from():
    for file in ("requirements.lock", "requirements-dev.lock"):
        assert "://" not in (ROOT / file).read_text()


def serve(*options: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    return arguments(parser().parse_args(["serve", *options]), environment)


@pytest.mark.parametrize(
    ("options", "environment", "address", "public"),
    [
        ((), {}, "127.0.0.1", False),
        (("--public",), {}, "0.0.0.0", True),
        ((), {limits.PUBLIC: "1"}, "0.0.0.0", True),
        (("--address", "127.0.0.1"), {limits.PUBLIC: "1"}, "127.0.0.1", True),
        (("--address", "10.0.0.7"), {}, "10.0.0.7", True),
        (("--address", "10.0.0.7"), {limits.PUBLIC: "0"}, "10.0.0.7", False),
    ],
)
def test_a_server_is_public_where_strangers_reach_it(options, environment, address, public):
    command, given = serve(*options, **environment)
    assert f"--server.address={address}" in command
    assert limits.read(given).public is public
    assert f"--server.maxUploadSize={limits.read(given).network_mib}" in command


def test_a_port_that_is_none_is_refused(capsys):
    assert main(["serve", "--port", "99999"]) == 2
    assert "port: 1 to 65535, got 99999" in capsys.readouterr().err


class Idle:
    """An instrument that computes nothing."""

    def available(self, settings, n):
        time.sleep(60)


def test_the_journal_tells_how_busy_the_server_is():
    runner = Runner(Idle)
    assert runner.load() == Load(0, 0, 0)
    runner.want("a", [Settings(), Settings(T=8)])
    runner.want("b", [Settings()])
    runner.want("c", [])
    assert runner.load() == Load(3, 2, 2)
    assert runner.knows("c") and not runner.knows("d")
    assert journal.line(runner.load(), 1234.4) == "3 visitors, 2 waiting for 2 runs, 1234 MiB in use"
    told = "3 visitors, 2 waiting for 2 runs, 1500 MiB in use (300 the server, 1200 simulations)"
    assert journal.line(runner.load(), 300, 1200) == told
    assert in_use_mib() > 50 and in_use_mib(0) == 0
    runner.want("a", [])
    runner.want("b", [])


def test_a_line_is_written_while_somebody_is_there(monkeypatch, caplog):
    loads = iter([Load(0, 0, 0), Load(2, 1, 3)])

    def pause(seconds):
        assert seconds == 60

    def load():
        try:
            return next(loads)
        except StopIteration:
            raise SystemExit from None

    monkeypatch.setattr(journal.time, "sleep", pause)
    monkeypatch.setattr(journal.log, "propagate", True)
    with caplog.at_level("INFO", "explorer.server"), pytest.raises(SystemExit):
        journal._write(load)
    told = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert len(told) == 2
    assert told[1].startswith("2 visitors, 1 waiting for 3 runs")


def test_a_full_server_says_so_to_new_visitors_alone(monkeypatch):
    monkeypatch.setattr(journal, "limits", lambda: limits.Limits(visitors=2))
    assert not journal.is_full(Load(1, 0, 0), known=False)
    assert journal.is_full(Load(2, 0, 0), known=False)
    assert not journal.is_full(Load(2, 0, 0), known=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1) as answer:
            return answer.read() == b"ok"
    except OSError:
        return False


def test_two_servers_on_one_checkout_start_and_end_by_a_signal():
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "explorer", "serve", "--address", "127.0.0.1", "--port"]
    environment = os.environ | {limits.PUBLIC: "1"}  # no browser is opened
    servers = [
        subprocess.Popen([*command, str(port)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for port in ports
    ]
    try:
        end = time.monotonic() + 90
        while not all(map(is_up, ports)) and time.monotonic() < end:
            time.sleep(0.2)
        assert all(map(is_up, ports))
        for server in servers:
            server.send_signal(signal.SIGTERM)
        told = [server.communicate(timeout=30)[0] for server in servers]
        assert all(server.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM) for server in servers)
        assert not any("Network URL" in text or "External URL" in text for text in told)
    finally:
        for server in servers:
            server.kill()


def test_the_serve_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["serve", "--help"])
    assert limits.PUBLIC in capsys.readouterr().out
    assert isinstance(parser(), argparse.ArgumentParser)


def test_tracebacks_in_a_server_log_are_counted_with_their_faults(tmp_path):
    from benchmarks.load import tracebacks

    log = tmp_path / "log"
    log.write_text(
        "10:00 ok\nTraceback (most recent call last):\n  File x\n    y\nKeyError: 'a'\nok\nTraceback z\n\nE: 1\n"
    )
    assert tracebacks(log) == ["KeyError: 'a'", "E: 1"]
