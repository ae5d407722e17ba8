"""Write requirements.lock and requirements-dev.lock: every package with its version and the hash of its file.

    python tools/lock.py        (`make lock`; for this Python and this kind of machine)

pip resolves without installing. The tests' lock begins with the app's and holds what that does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APP = """\
# The exact versions that the app and the engine were tested with, each with the hashes of its files: for Python 3.11 on
# x86-64 Linux. Written by `make lock`.
#     pip install --require-hashes -r requirements.lock
"""
TESTS = """\
# What the tests and benchmarks need besides requirements.lock, in the same form. Written by `make lock`.
#     pip install --require-hashes -r requirements-dev.lock
-r requirements.lock
"""


def resolved(*arguments: str) -> dict[str, str]:
    """Return what pip would install, by name: the line of a lock."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ("--quiet", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report))
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *arguments], check=True, cwd=ROOT)
        found = json.loads(report.read_text())["install"]
    lines = {}
    for package in found:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines[name] = f"{name}=={package['metadata']['version']} \\\n    --hash=sha256:{digest}\n"
    return lines


def main() -> None:
    """Write both files."""
    app = resolved("-r", "requirements.txt")
    tests = resolved("-r", "requirements-dev.txt", *(line.split(" ")[0] for line in app.values()))
    (ROOT / "requirements.lock").write_text(APP + "".join(app[name] for name in sorted(app)))
    rest = "".join(line for name, line in sorted(tests.items()) if name not in app)
    (ROOT / "requirements-dev.lock").write_text(TESTS + rest)


if __name__ == "__main__":
    main()
