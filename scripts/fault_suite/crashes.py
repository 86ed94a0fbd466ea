"""Crashes: kill -9 at any moment of a run, and at every file operation of what writes."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "crashes"
KILLS, PER_RUN = 50, 5
# Bytes in a file, and calls, at which a process is killed: each leaves the disk in another state.
LINES = 500  # of a text
SIZES = (0, 1, 2, 100, 500, 1_000, 3_000, 6_000, 9_000)
POINTS = ("open", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "close")


def run(folder: Path, kills: int = KILLS) -> Outcome:
    """Kill runs at random moments, five times each, then let them end."""
    tally = Tally()
    every_operation(tally, folder / "operations")
    killed_runs(tally, folder, kills)
    return tally.outcome


def killed_runs(tally: Tally, folder: Path, kills: int) -> None:
    """Kill runs, go on as a user does, and compare with a whole run."""
    config = small.write_experiment(folder / "experiment")
    whole = folder / "whole"
    code, said = small.ended(small.start(config, whole))  # compiles
    tally.control(None if code == 0 else said[-300:])
    began = time.monotonic()
    code, said = small.ended(small.start(config, folder / "again"))
    length = time.monotonic() - began
    tally.control(said[-300:] if code else small.differs(folder / "again", whole))
    if tally.wrong:
        return
    moments = random.Random(0)
    for kill in range(kills):
        at = folder / f"run{kill // PER_RUN}"
        wait = moments.uniform(0.0, length)
        name = f"kill {kill} after {wait:.2f} s"
        tally.check(name, lambda at=at, wait=wait: _kill(config, at, whole, wait))
        if kill % PER_RUN == PER_RUN - 1 or kill == kills - 1:
            tally.check(f"the end of {at.name}", lambda at=at: _end(config, at, whole))
    stopped_runs(tally, config, folder, whole)


def _options(directory: Path) -> list[str]:
    """As a user goes on: --resume as soon as there is a checkpoint."""
    from gridcast.training.checkpoints import saved

    return ["--resume"] if saved(directory / "checkpoints") else []


def _kill(config: Path, directory: Path, whole: Path, wait: float) -> str | None:
    process = small.start(config, directory, *_options(directory))
    time.sleep(wait)
    process.kill()
    code, said = small.ended(process)
    if code not in (0, -signal.SIGKILL):
        return f"exit code {code}: {said[-300:]!r}"
    return small.strange(directory, whole)


def _end(config: Path, directory: Path, whole: Path) -> str | None:
    code, said = small.ended(small.start(config, directory, *_options(directory)))
    return said[-300:] if code else small.differs(directory, whole)


def stopped_runs(
    tally: Tally,
    config: Path,
    folder: Path,
    whole: Path,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Stop runs as a user or a queue does, and let them go on to the end."""
    for number in signals:
        expected = 128 + number
        at = folder / number.name

        def stop(number: int = number, expected: int = expected, at: Path = at) -> str | None:
            process = small.start(config, at)
            while not list(at.glob("checkpoints/step-*[1-9]*")) and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(number)
            code, said = small.ended(process)
            if code != expected or "--resume" not in said or "Traceback" in said:
                return f"exit code {code}: {said[-300:]!r}"
            return small.strange(at, whole) or _end(config, at, whole)

        tally.check(number.name, stop)


# ------------------------------------------------- at every file operation, without a network


def every_operation(tally: Tally, folder: Path, only: Sequence[str] | None = None) -> None:
    """What is read after a crash is what was there before, or what was written, and whole.

    Args:
      only: of these kinds of files.
    """
    from gridcast.drafts import write_text
    from gridcast.sources.netcdf import write_netcdf
    from gridcast.training.checkpoints import Checkpoint, load_newest, save

    def checkpoint(step: int, value: float) -> Checkpoint:
        return Checkpoint(step, {"value": value}, {"weights": {"w": np.full(99, value)}})

    def newest(at: Path) -> float:
        found = load_newest(at)
        assert found.arrays["weights"]["w"].tolist() == [found.about["value"]] * 99
        return found.about["value"]

    def text_of(lines: list[str]) -> float:
        assert len(lines) == LINES + 1
        return float(np.unique(lines[:-1]).item())

    def field(value: float) -> xr.Dataset:
        return xr.Dataset({"a": (("time", "lat", "lon"), np.full((3, 40, 50), value))})

    def read(at: Path) -> float:
        with xr.open_dataset(at / "a.nc") as data:
            return float(np.unique(data["a"].values).item())

    kinds: dict[str, tuple[Callable[[Path, float], object], Callable[[Path], float]]] = {
        "a checkpoint": (lambda at, v: save(at, checkpoint(int(v), v)), newest),
        "a checkpoint of the same step": (lambda at, v: save(at, checkpoint(7, v)), newest),
        "a text": (
            lambda at, v: write_text(at / "t", f"{v}\n" * LINES),
            lambda at: text_of((at / "t").read_text().split("\n")),
        ),
        "NetCDF": (lambda at, v: write_netcdf(field(v), at / "a.nc"), read),
    }
    deaths = [partial(_kill_at, count) for count in range(200)]
    deaths += [partial(_kill_in, size) for size in SIZES]
    for kind in kinds if only is None else only:
        write, value = kinds[kind]
        over = False
        for number, death in enumerate(deaths):
            if over and death.func is _kill_at:
                continue
            at = folder / f"{kind}-{number}"
            at.mkdir(parents=True)
            for before in (1.0, 2.0, 3.0):
                write(at, before)
            killed = _dies(lambda at=at, write=write: write(at, 4.0), death)
            found = _read(value, at)
            if not killed:  # the control: no operation, or no byte, is left to die at
                over = True
                tally.control(None if found == 4.0 else f"{kind}: {found} is read, 4.0 was written")
                continue
            wrong = None if found in (3.0, 4.0) else f"{found} is read"
            write(at, 5.0)
            if _read(value, at) != 5.0:
                wrong = "cannot be written again"
            tally.case(f"{kind}, {death.func.__name__.strip('_')} {death.args[0]}", wrong)


def _read(value: Callable[[Path], float], at: Path) -> float | str:
    """What is read, or why it cannot be."""
    try:
        return value(at)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:100]


def _dies(action: Callable[[], object], death: Callable[[], None]) -> bool:
    """Run an action in a forked process that was prepared to die; whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has threads; the child does not use them
        child = os.fork()
    if child == 0:
        death()
        try:
            action()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _kill_in(size: int) -> None:
    """Die in the middle of the write that would make a file larger than this."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _kill_at(count: int) -> None:
    """Die at the file operation of this number."""
    left = [count]

    def wrapped(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*arguments, **named)

        return call

    for name in POINTS:
        setattr(os, name, wrapped(getattr(os, name)))
