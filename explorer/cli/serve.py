"""Start the app's server: on this computer alone, or, made public, for whoever reaches it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from explorer import limits
from explorer.engine.errors import SpecError

APP = Path(__file__).resolve().parents[1] / "app.py"
OWN, ALL = "127.0.0.1", "0.0.0.0"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    add = command.add_argument
    add(
        "--public",
        action="store_true",
        help=f"for strangers: listens on {ALL}, with narrower limits ({limits.PUBLIC}=1)",
    )
    add("--address", help=f"the address to listen on (default: {OWN}; public: {ALL})")
    add("--port", type=int, default=8501, help="the port (default: %(default)s)")
    add("--base-path", default="", metavar="PATH", help="where a proxy shows it, such as explorer (default: the root)")


def arguments(args: argparse.Namespace, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the server's command line and its environment.

    Raises:
        SpecError: the port is none.
    """
    if not 1 <= args.port <= 65535:
        raise SpecError(f"port: 1 to 65535, got {args.port}.")
    public = args.public or limits.read(environment).public
    address = args.address or (ALL if public else OWN)
    if not limits.is_own(address):
        environment = {limits.PUBLIC: "1"} | environment
    if public:
        environment = environment | {limits.PUBLIC: "1"}
    options = {
        "server.address": address,
        "server.port": args.port,
        "server.baseUrlPath": args.base_path.strip("/"),
        "server.maxUploadSize": limits.read(environment).network_mib,
        "server.headless": "true" if public else "",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(APP)]
    return [*command, *(f"--{name}={value}" for name, value in options.items() if value != "")], environment


def serve(args: argparse.Namespace) -> int:
    """Become the server: signals reach it, and its exit code is this command's."""
    command, environment = arguments(args, dict(os.environ))
    sys.stdout.flush()
    os.execve(command[0], command, environment)
