"""Train a model: `python scripts/train.py ...` is `gridcast train ...`."""

import sys

from gridcast.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
