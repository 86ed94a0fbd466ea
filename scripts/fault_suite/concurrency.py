"""Concurrency: runs, readers and downloads that meet in one directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from fault_suite import network, small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "concurrency"
READS = 40


def run(folder: Path) -> Outcome:
    """Two of each at once; of what one reads while another writes all has to be whole."""
    tally = Tally()
    config = small.write_experiment(folder / "experiment", train={"epochs": 2})
    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    left = small.drafts(whole)
    tally.control(said[-300:] if code else f"left: {left}" if left else None)
    _runs(tally, folder, config, whole)
    _stale(tally, folder, config, whole)
    readers(tally, folder)
    downloads(tally, folder / "cache")
    return tally.outcome


HOLD = """
import sys, time
from pathlib import Path
from gridcast.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holding(config: Path, directory: Path) -> subprocess.Popen[str]:
    """A process that holds a directory until a line comes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=small.environment(config),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _runs(tally: Tally, folder: Path, config: Path, whole: Path) -> None:
    copy = folder / "held"
    shutil.copytree(whole, copy)
    holder = holding(config, copy)
    refused(tally, config, copy, holder)
    code, said = small.command("forecast", copy)  # reading is free
    tally.case("a forecast meanwhile", said[-300:] if code else None)
    holder.communicate("\n")
    for forecast in copy.glob("forecast_*.nc"):
        forecast.unlink()
    code, said = small.command("train", "--resume", config, f"output.directory={copy}")
    tally.case("when it has ended", said[-300:] if code else small.differs(copy, whole))
    # Two that start at once: one goes on, the other is refused.
    both = [small.start(config, folder / "both") for _ in range(2)]
    codes, texts = zip(*(small.ended(one) for one in both), strict=True)
    second = texts[codes.index(2)] if sorted(codes) == [0, 2] else ""
    fine = "in use by another run" in second
    wrong = None if fine else f"exit codes {codes}: {texts[0][-200:]!r} {texts[1][-200:]!r}"
    tally.case("two that start at once", wrong or small.differs(folder / "both", whole))


def refused(
    tally: Tally,
    config: Path,
    directory: Path,
    holder: subprocess.Popen[str],
    only: Sequence[str] | None = None,
) -> None:
    """While one process holds a directory no other one writes there.

    Args:
      only: of these commands.
    """
    named = (str(holder.pid), socket.gethostname(), str(directory))
    commands = {
        "a second run": ["train", config],
        "a second run, resumed": ["train", "--resume", config],
        "a cross-validation": ["crossval", config],
        "a search of settings": ["tune", config, "tune.search={train.clip: [0.5]}"],
    }
    before = small.files(directory)
    for name in commands if only is None else only:
        code, said = small.command(*commands[name], f"output.directory={directory}")
        same = small.files(directory) == before
        changed = None if same else "files of the first run have changed"
        tally.case(name, small.refused(code, said, *named) or changed)


def _stale(tally: Tally, folder: Path, config: Path, whole: Path) -> None:
    """Locks of processes that were killed are taken over, with a word; those of errors are gone."""
    directory = folder / "stale"
    shutil.copytree(whole, directory)
    holder = holding(config, directory)
    holder.kill()
    holder.communicate()
    (directory / f".forecast.nc.{holder.pid}.tmp").write_bytes(b"half")
    # A process of another one's number is no holder: here this one has it.
    ours = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    for name, content in (("killed", None), ("number used again", ours), ("damaged", "{")):
        if content is not None:
            (directory / ".lock").write_text(content)
        code, said = small.command("train", "--resume", config, f"output.directory={directory}")
        told = name == "damaged" or "is taken over" in said
        wrong = None if told else f"not told: {said[-300:]!r}"
        tally.case(
            f"a stale lock, {name}",
            said[-300:] if code else wrong or small.differs(directory, whole),
        )
    code, said = small.command(
        "train", config, f"output.directory={directory}", "splits.test=[1990, 1999]"
    )
    wrong = small.refused(code, said) or (
        "the lock is left" if (directory / ".lock").exists() else None
    )
    tally.case("after an error", wrong)


WRITE = """
import sys
from pathlib import Path
import numpy as np, xarray as xr
from gridcast.sources.netcdf import write_netcdf
from gridcast.training.checkpoints import Checkpoint, save
for number in range(1, 100_000):
    field = xr.Dataset({"a": (("time", "lat", "lon"), np.full((20, 40, 50), float(number)))})
    write_netcdf(field, sys.argv[1])
    weights = {"w": np.full(99, float(number))}
    save(Path(sys.argv[2]), Checkpoint(number, {"value": number}, {"weights": weights}))
    if number == 1:
        print("written", flush=True)
"""


def readers(tally: Tally, folder: Path) -> None:
    """While a file and checkpoints are replaced all the time, each reading is of one version."""
    from gridcast.sources.netcdf import opened
    from gridcast.training.checkpoints import load_newest, saved, step_of

    path, checkpoints = folder / "a.nc", folder / "replaced"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), str(checkpoints)],
        stdout=subprocess.PIPE,
        text=True,
        env=small.environment(folder / "none"),
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    seen = set()

    def read() -> str | None:
        with opened(path) as dataset:
            values = np.unique(dataset["a"].values)
        seen.add(float(values[0]))
        return None if values.size == 1 else f"two versions in one file: {values[:4]}"

    def load() -> str | None:
        found = load_newest(checkpoints)
        same = (found.arrays["weights"]["w"] == found.about["value"]).all()
        return None if same else "two versions in one checkpoint"

    for number in range(READS):
        time.sleep(0.05)  # for the writer to get on
        tally.check(f"reading {number}", read)
        tally.check(f"loading {number}", load)
    alive = writer.poll() is None
    writer.kill()
    writer.communicate()
    written = max(step_of(path) for path in saved(checkpoints))
    # A writer that readers have stopped is a wrong answer, a slow one shows nothing.
    tally.control(None if written > 2 or not alive else "nothing was replaced meanwhile")
    tally.case("the writer", None if alive else "it has ended")
    tally.case("versions of the file", None if len(seen) > 2 else f"{len(seen)} were read")


def downloads(tally: Tally, cache: Path) -> None:
    """Processes that ask for one data set at once: one fetches, all have the whole file."""
    code = (
        "import sys; from pathlib import Path; from gridcast.sources.download import download;"
        "cache = Path(sys.argv[2]);"
        "print(download(sys.argv[1], cache / 'set', cache=cache, waits=(0.0, 0.0)))"
    )
    with (
        mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"}),
        network.server() as (host, handler),
    ):
        asking = [
            subprocess.Popen(
                [sys.executable, "-c", code, f"{host}/slow/a.nc", str(cache)],
                stdout=subprocess.PIPE,
                text=True,
                env=small.environment(cache / "none"),
            )
            for _ in range(4)
        ]
        paths = {process.communicate(timeout=120)[0].strip() for process in asking}
        asked = handler.asked["slow"]
    file = cache / "set" / "a.nc"
    for number, process in enumerate(asking):
        ended = None if process.returncode == 0 else f"exit code {process.returncode}"
        tally.case(f"download {number}", ended)
    same = paths == {str(file)} and file.read_bytes() == network.BODY
    tally.case("one fetch for all", None if same and asked == 1 else f"{paths}, {asked} requests")
