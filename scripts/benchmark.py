"""Time gridcast's training step and forecasts beside PyTorch and Keras on the same networks.

    pip install torch==2.13.0 keras tensorflow-cpu   # peers; those that are missing are left out
    python scripts/benchmark.py                      # everything; half an hour on 2 cores
    python scripts/benchmark.py --workloads W1 W3 --threads 1
    python scripts/benchmark.py --table              # README's table from the file of results

Workloads W1 to W3 are runs of gridcast on a made-up sea, W4 and W5 two shipped configs, whose data
are looked for as in training (GRIDCAST_DATA) and are never made up. `ensemble` is W1 with 8
members, `job` a whole training from the NetCDF file, `growth` W1 with half and twice as many cells,
frames and hidden channels. Each library runs in a process of its own,
which waits while others are timed, in turns. Peers have gridcast's weights, and what they compute
must equal what gridcast computes before anything is timed; if it does not, this ends with an error.
Entries are added to the file, or replaced, as they are finished.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.entries import (
    PEERS,
    How,
    ensemble_entry,
    growth_entry,
    job_entry,
    workload_entry,
)
from benchmarks.machine import description, versions
from benchmarks.processes import WorkerError
from benchmarks.table import table
from benchmarks.workloads import ROOT, WORKLOADS
from readme_tables import between_markers

from gridcast.drafts import write_text
from gridcast.errors import DataError, GridcastError

ALL = (*WORKLOADS, "ensemble", "job", "growth")
_log = logging.getLogger("gridcast")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workloads", nargs="+", choices=ALL, default=list(ALL), metavar="W")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER")
    parser.add_argument("--quick", action="store_true", help="cut sizes, one round: no measurement")
    parser.add_argument("--threads", choices=["all", "1"], default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-times", type=int, default=1, help="so many times the batch size")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds for a peer to start")
    parser.add_argument("--out", type=Path, default=ROOT / "scripts" / "benchmark.json")
    parser.add_argument("--table", action="store_true", help="write README's table, time nothing")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if arguments.table:
            text = table(json.loads(arguments.out.read_text()))
            readme = arguments.readme.read_text()
            write_text(arguments.readme, between_markers(readme, text, "benchmark"))
        else:
            measure(arguments)
    except (GridcastError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, GridcastError) else 1
    return 0


def measure(arguments: argparse.Namespace) -> None:
    results = before(arguments.out)
    how = How(
        arguments.quick,
        arguments.threads,
        tuple(arguments.peers),
        1 if arguments.quick else arguments.rounds,
        arguments.batch_times,
        arguments.patience,
    )
    for name in arguments.workloads:
        found = entry(name, how)
        if isinstance(found, str):
            results["skipped"][name] = found
        else:
            results["entries"].setdefault(name, {})[how.threads] = found
            results["skipped"].pop(name, None)
        write_text(arguments.out, json.dumps(results, indent=1) + "\n")
    print(table(results))


def entry(name: str, how: How) -> dict[str, Any] | str:
    """The results of one workload, or why it is skipped: its data are not here."""
    try:
        if name == "ensemble":
            return ensemble_entry(how)
        if name == "growth":
            return growth_entry(how)
        return job_entry(how) if name == "job" else workload_entry(name, how)
    except WorkerError as error:
        if error.kind not in ("DataError", "DataNotFound"):
            raise
        _log.warning("%s is skipped: %s", name, error)
        return "its data were not found"


def before(path: Path) -> dict[str, Any]:
    """The results that are in the file, if they are of this machine and these versions.

    Raises:
      DataError: they are not.
    """
    here = {"machine": description(), "versions": versions()}
    if not path.exists():
        return here | {"entries": {}, "skipped": {}}
    found = json.loads(path.read_text())
    for key, value in here.items():
        if found[key] != value:
            raise DataError(
                f"{path} holds results of another {key}: {found[key]}\n  found here: {value}\n"
                "  fix: --out with another file, or remove this one"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
