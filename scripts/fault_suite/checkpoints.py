"""Corrupt checkpoints: each file of one truncated, emptied, deleted or with a bit flipped."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Sequence
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
    from gridcast.training.checkpoints import saved

    tally = Tally()
    config = small.write_experiment(folder / "experiment", train={"epochs": 2})
    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    tally.control(said[-300:] if code else None)
    damaged_files(tally, whole / "checkpoints", folder / "damaged")
    older, newest = saved(whole / "checkpoints")[-2:]
    _commands(tally, folder, config, whole, [older.name, newest.name])
    return tally.outcome


def damaged_files(tally: Tally, directory: Path, at: Path) -> None:
    """Damage each file of the newest checkpoint of a copy, then of both."""
    from gridcast.training.checkpoints import load_newest, saved

    moments = random.Random(0)
    older, newest = saved(directory)[-2:]
    names = older.name, newest.name
    steps = [int(name.removeprefix("step-")) for name in names]
    found = load_newest(directory).step
    tally.control(None if found == steps[1] else f"step {found} is used, expected {steps[1]}")
    for name in sorted(path.name for path in newest.iterdir()):
        for fault, (times, damage) in FAULTS.items():
            for _ in range(times):
                shutil.rmtree(at, ignore_errors=True)
                shutil.copytree(directory, at)
                damage(at / newest.name / name, moments)
                tally.check(f"{name} {fault}", lambda: _older_is_used(at, newest.name, steps[0]))
            damage(at / older.name / name, moments)
            tally.check(f"{name} {fault} in both", lambda: _none_is_used(at, names))


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


def _none_is_used(at: Path, names: Sequence[str]) -> str | None:
    from gridcast.errors import CheckpointError
    from gridcast.training.checkpoints import load_newest

    try:
        load_newest(at)
    except CheckpointError as error:
        named = all(name in str(error) for name in names)
        return None if named else f"does not name both: {error}"
    return "none is intact, and one is used"


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
