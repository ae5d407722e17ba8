"""`python -m explorer`: the explorer without a browser."""

from explorer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
