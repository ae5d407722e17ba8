"""`python -m explorer`: the explorer without a browser."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported


def start() -> int:
    """Run the command line; a keyboard interrupt ends it quietly from the first import on."""
    try:
        from explorer.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
