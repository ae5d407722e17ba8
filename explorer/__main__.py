"""`python -m explorer`: the explorer without a browser."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

from explorer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
