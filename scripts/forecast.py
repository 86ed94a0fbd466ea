"""Forecast with a trained run: `python scripts/forecast.py ...` is `gridcast forecast ...`."""

import sys

from gridcast.cli import main

if __name__ == "__main__":
    sys.exit(main(["forecast", *sys.argv[1:]]))
