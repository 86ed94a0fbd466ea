"""Corrupt checkpoints: each file of one truncated, emptied, deleted or with a bit flipped."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "corrupt checkpoints"
FLIPS = 20


def _flip(path: Path, moments: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = moments.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _cut(path: Path, moments: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: moments.randrange(len(data))])


def _empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def _delete(path: Path, _: random.Random) -> None:
    path.unlink()


def _replace(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, tuple[int, Callable[[Path, random.Random], None]]] = {
    "a bit flipped": (FLIPS, _flip),
    "truncated": (5, _cut),
    "emptied": (1, _empty),
    "deleted": (1, _delete),
    "a folder": (1, _replace),
}


def run(folder: Path) -> Outcome:
    """Damage the newest checkpoint, then both, of a run that has ended."""
    from gridcast.errors import CheckpointError
    from gridcast.training.checkpoints import load_newest, saved

    tally, moments = Tally(), random.Random(0)
    config = small.write_experiment(folder / "experiment", train={"epochs": 2})
    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    older, newest = saved(whole / "checkpoints")[-2:]
    steps = [int(path.name.removeprefix("step-")) for path in (older, newest)]
    found = load_newest(whole / "checkpoints").step
    tally.control(None if code == 0 and found == steps[1] else f"step {found}: {said[-300:]}")
    at = folder / "damaged"
    for name in sorted(path.name for path in newest.iterdir()):
        for fault, (times, damage) in FAULTS.items():
            for _ in range(times):
                shutil.rmtree(at, ignore_errors=True)
                shutil.copytree(whole / "checkpoints", at)
                damage(at / newest.name / name, moments)
                tally.check(f"{name} {fault}", lambda: _older_is_used(at, newest.name, steps[0]))
            damage(at / older.name / name, moments)
            try:
                load_newest(at)
                wrong = "none is intact, and one is used"
            except CheckpointError as error:
                named = older.name in str(error) and newest.name in str(error)
                wrong = None if named else f"does not name both: {error}"
            tally.case(f"{name} {fault} in both", wrong)
    _commands(tally, folder, config, whole, [older.name, newest.name])
    return tally.outcome


def _older_is_used(at: Path, damaged: str, expected: int) -> str | None:
    from gridcast.training.checkpoints import load_newest

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("gridcast")
    log.addHandler(handler)
    try:
        step = load_newest(at).step
    finally:
        log.removeHandler(handler)
    if step != expected:
        return f"step {step} is used, expected {expected}"
    return None if any(damaged in one for one in said) else "no warning names it"


def _commands(tally: Tally, folder: Path, config: Path, whole: Path, names: list[str]) -> None:
    """A resumed run goes on from the older one to the same end, or stops: no fresh start."""
    for name, damaged in (("newest", names[1:]), ("both", names)):
        copy = folder / f"commands-{name}"
        shutil.copytree(whole, copy)
        for step in damaged:
            _cut(copy / "checkpoints" / step / "weights.npz", random.Random(1))
        arguments = ["train", "--resume", config, f"output.directory={copy}"]
        if name == "newest":

            def goes_on(copy: Path = copy, arguments: list = arguments) -> str | None:
                code, said = small.command(*arguments)
                if code or names[1] not in said:
                    return f"exit code {code}: {said[-300:]!r}"
                return small.differs(copy, whole)

            tally.check("resumed from the older one", goes_on)
            continue
        before = small.files(copy / "checkpoints")
        for text, command in (("resume", arguments), ("forecast", ["forecast", copy])):
            code, said = small.command(*command)
            wrong = small.refused(code, said, *names)
            if small.files(copy / "checkpoints") != before:
                wrong = "the checkpoints have changed"
            tally.case(f"{text} without an intact one", wrong)
