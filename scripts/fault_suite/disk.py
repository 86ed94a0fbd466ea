"""Disk full and read-only: each write of a run, of a forecast and of a checkpoint fails once."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from fault_suite import small
from fault_suite.failing import failing, limited
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "disk full"
# Of the operations of a whole run every so many is tried; of its parts all are.
STRIDE = 5
# What the system may say.
NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)
# Largest bytes of a file, for writes that are not made by Python; and of a small disk.
LIMITS = (0, 1, 1_000, 5_000, 10_000, 20_000, 40_000)
DISKS = ("16k", "64k", "128k", "256k")


def run(folder: Path) -> Outcome:
    """Fail the n-th operation for every n until none fails; what is left has to be whole."""
    tally = Tally()
    every_part(tally, folder / "parts")
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    tally.control(said[-300:] if code else None)
    _whole_runs(tally, folder, config, whole)
    _forecasts(tally, folder, whole)
    _small_disks(tally, folder, config, whole)
    return tally.outcome


def every_part(
    tally: Tally, folder: Path, only: Sequence[str] | None = None, numbers: Sequence[int] = NUMBERS
) -> None:
    """All that writes, operation by operation: what was there stays, nothing else is left.

    Args:
      only: of these kinds of files.
      numbers: of the errors.
    """
    from gridcast.drafts import write_text
    from gridcast.locks import alone_in
    from gridcast.sources.netcdf import write_netcdf
    from gridcast.training.checkpoints import Checkpoint, save
    from gridcast.training.journal import Journal

    def lock(at: Path, _: float) -> None:
        with alone_in(at):
            pass

    def checkpoint(at: Path, value: float, step: int = 7) -> None:
        save(at, Checkpoint(step, {}, {"weights": {"w": np.full(999, value)}}))

    field = {v: xr.Dataset({"a": (("t", "y", "x"), np.full((9, 40, 50), v))}) for v in (1.0, 2.0)}
    parts: dict[str, Callable[[Path, float], object]] = {
        "a text": lambda at, v: write_text(at / "t", f"{v} {'text ' * 999}"),
        "NetCDF": lambda at, v: write_netcdf(field[v], at / "a.nc"),
        "a checkpoint": lambda at, v: checkpoint(at, v, int(v)),
        "a checkpoint of the same step": checkpoint,
        "the journal": lambda at, v: Journal(at / "metrics.jsonl", 0).epoch(loss=v),
        "the lock": lock,
    }
    for part in parts if only is None else only:
        write = parts[part]
        wanted = folder / f"{part}-wanted"
        wanted.mkdir(parents=True)
        for value in (1.0, 2.0):
            write(wanted, value)
        for number in numbers:
            for count in range(200):
                at = folder / f"{part}-{number}-{count}"
                at.mkdir(parents=True)
                write(at, 1.0)
                name = f"{part}, {errno.errorcode[number]} at operation {count}"
                with failing(at, count, number) as left:
                    wrong = _kept(at, wanted, lambda at=at, write=write: write(at, 2.0))
                if left[0] >= 0:  # the control: the operations are over
                    tally.control(wrong and f"{part}: {wrong}")
                    break
                tally.case(name, wrong)
        for size in LIMITS[:4]:
            at = folder / f"{part}-{size}"
            at.mkdir(parents=True)
            write(at, 1.0)
            with limited(size):
                wrong = _kept(at, wanted, lambda at=at, write=write: write(at, 2.0))
            tally.case(f"{part}, files of {size} bytes at most", wrong)


def _kept(at: Path, wanted: Path, action: Callable[[], object]) -> str | None:
    """What is wrong after a write: what is there is as it was or, whole, as it is wanted.

    Without an error it has to be as it is wanted; an error has to name the path.
    """
    from gridcast.errors import GridcastError

    before, expected = small.files(at), small.files(wanted)
    try:
        action()
    except GridcastError as error:
        if str(at) not in str(error):
            return f"the path is not named: {error}"
    except OSError as error:
        return f"not told: {error!r}"
    else:
        return None if small.files(at) == expected else "no error, and not what is wanted"
    after = small.files(at)
    # A journal is written line by line: what was added is dropped when the run goes on.
    if after not in (before, expected) and "metrics.jsonl" not in after:
        return f"neither as before nor as wanted: {sorted(after)}"
    left = small.drafts(at)
    return f"left: {left}" if left else None


def _whole_runs(tally: Tally, folder: Path, config: Path, whole: Path) -> None:
    for count in range(0, 1000, STRIDE):
        at = folder / f"run-{count}"
        with failing(at, count, errno.ENOSPC) as left:
            code, said = small.command("train", config, f"output.directory={at}")
        if left[0] >= 0:  # the control: the operations are over
            tally.control(said[-300:] if code else small.differs(at, whole))
            break
        name = f"a run, operation {count}"
        ended = _is_whole(code, said, at, whole)
        wrong = None if ended else small.refused(code, said, str(at))
        tally.case(name, wrong or _whole_files(at, whole))
    for size in LIMITS:
        at = folder / f"run-size-{size}"
        with limited(size):
            code, said = small.command("train", config, f"output.directory={at}")
        name = f"a run, files of {size} bytes at most"
        tally.case(name, small.refused(code, said, str(at)) or _whole_files(at, whole))


def _is_whole(code: int, said: str, at: Path, whole: Path) -> bool:
    """Whether a run has ended as it should, as zipfile tries twice to open a file.

    Its report alone may lack, which it says.
    """
    lacking = small.files(whole).keys() - small.files(at).keys()
    without = lacking == {"report.html"} and "complete without it" in said
    return code == 0 and (without or not lacking)


def _whole_files(at: Path, whole: Path) -> str | None:
    left = small.drafts(at)
    return small.strange(at, whole) or (f"left: {left}" if left else None)


def _forecasts(tally: Tally, folder: Path, whole: Path) -> None:
    """An earlier forecast stays when a new one cannot be written."""
    copy = folder / "forecasts"
    shutil.copytree(whole, copy)
    output = copy / "mine.nc"
    code, said = small.command("forecast", copy, "--output", output)
    tally.control(said[-300:] if code else None)
    before, wanted = small.files(copy), folder / "wanted.nc"
    small.command("forecast", copy, "--start", "1961", "--output", wanted)
    expected = before | {output.name: wanted.read_bytes()}
    for count in range(20):
        with failing(copy, count, errno.EROFS) as left:
            code, said = small.command("forecast", copy, "--start", "1961", "--output", output)
        if left[0] >= 0:
            tally.control(said[-300:] if code or small.files(copy) != expected else None)
            break
        # The new one may be there, whole, if it is the disk that could not be asked to keep it.
        sound = small.files(copy) in (before, expected)
        changed = None if sound else "the earlier forecast has changed"
        name = f"a forecast, operation {count}"
        tally.case(name, small.refused(code, said, str(output)) or changed)


def _small_disks(tally: Tally, folder: Path, config: Path, whole: Path) -> None:
    """Where a small disk can be mounted without rights: `unshare` of user and mounts."""
    mounted = folder / "mounted"
    mounted.mkdir()
    for size in DISKS:
        train = f"{sys.executable} {small.ROOT / 'scripts' / 'train.py'} {config}"
        script = (
            f"mount -t tmpfs -o size={size} none {mounted} || exit 99; "
            f"{train} output.directory={mounted}/run; code=$?; "
            f"cp -a {mounted} {folder}/disk-{size}; exit $code"
        )
        ended = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            env=small.environment(config),
            check=False,
        )
        if ended.returncode == 99 or "unshare" in ended.stderr:
            return  # not permitted here: the limits above stand for it
        at = folder / f"disk-{size}" / "run"
        wrong = small.refused(ended.returncode, ended.stderr, str(mounted))
        tally.case(f"a disk of {size}", wrong or _whole_files(at, whole))
