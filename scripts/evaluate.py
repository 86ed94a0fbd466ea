"""Judge a trained run: `python scripts/evaluate.py ...` is `gridcast evaluate ...`."""

import sys

from gridcast.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
