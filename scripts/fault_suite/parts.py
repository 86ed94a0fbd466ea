"""The parts of the classes that are run against broken code: some seconds each, by name.

    python -m fault_suite.parts NAME FOLDER RESULT

writes what became of it as JSON. Imports are in the functions: a part loads what it needs.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

TRIED = 150  # of 2000 mutants of configs
EVERY = 20  # of so many flipped bytes of a file one is tried
FORECASTS = 40  # of 500


def _counted(part: Callable[[Tally, Path], None]) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        tally = Tally()
        part(tally, folder)
        return tally.outcome

    return run


@_counted
def _damaged_checkpoints(tally: Tally, folder: Path) -> None:
    import numpy as np

    from fault_suite import checkpoints
    from gridcast.training.checkpoints import Checkpoint, save

    for step in (1, 2):
        arrays = {"weights": {"w": np.arange(99.0) * step}}
        save(folder / "saved", Checkpoint(step, {"seed": step, "origin": "sea.nc"}, arrays))
    checkpoints.damaged_files(tally, folder / "saved", folder / "damaged")


@_counted
def _held_directory(tally: Tally, folder: Path) -> None:
    from fault_suite import concurrency

    directory = folder / "held"
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    holder = concurrency.holding(config, directory)
    concurrency.refused(tally, config, directory, holder, ["a second run"])
    holder.communicate("\n")


@_counted
def _readers(tally: Tally, folder: Path) -> None:
    from fault_suite import concurrency

    concurrency.readers(tally, folder)


@_counted
def _downloads(tally: Tally, folder: Path) -> None:
    from fault_suite import concurrency

    concurrency.downloads(tally, folder / "cache")


def _bombs(folder: Path) -> Outcome:
    from fault_suite import config

    wrong: list[str] = []
    tried = config.answered(folder, wrong)
    return Outcome(tried, tried - len(wrong), wrong)


def _mutants(folder: Path) -> Outcome:
    from fault_suite import config

    wrong: list[str] = []
    tried = config.mutated(folder, TRIED, wrong, prepared=0)
    return Outcome(tried, tried - len(wrong), wrong)


def _series(folder: Path) -> Outcome:
    from fault_suite import content

    return content.run(folder, files=False)


@_counted
def _killed_writing(tally: Tally, folder: Path) -> None:
    from fault_suite import crashes

    crashes.every_operation(tally, folder, ["a text", "a checkpoint of the same step"])


@_counted
def _stopped_runs(tally: Tally, folder: Path) -> None:
    from fault_suite import crashes

    whole = folder / "whole"
    config = small.write_experiment(folder / "experiment", train={"epochs": 4})
    code, said = small.ended(small.start(config, whole))
    tally.control(said[-300:] if code else None)
    crashes.stopped_runs(tally, config, folder, whole, [signal.SIGINT])


@_counted
def _full_disk(tally: Tally, folder: Path) -> None:
    from fault_suite import disk

    disk.every_part(tally, folder, ["a text", "a checkpoint of the same step"], [errno.ENOSPC])


def _damaged_file(name: str, cut: bool) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        from fault_suite import files

        path, kind = folder / "whole.nc", files.KINDS[name]
        kind.write(files.series(), path)
        whole = path.read_bytes()
        some = list(files.truncated(whole) if cut else files.flipped(whole, kind))
        cases = some if cut else some[::EVERY]
        sound, wrong = files.read_all(folder, name, whole, cases)
        return Outcome(len(cases), len(cases) - len(wrong), wrong, sound.kind == "read")

    return run


@_counted
def _other_files(tally: Tally, folder: Path) -> None:
    from fault_suite import files

    for name, problem in files.others(folder):
        tally.case(name, problem)


@_counted
def _forecasts(tally: Tally, folder: Path) -> None:
    from fault_suite import long_use

    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    long_use.used(tally, folder, config, small.fitted(config, folder / "run"), FORECASTS)


@_counted
def _servers(tally: Tally, folder: Path) -> None:
    from fault_suite import network

    network.answers(tally, folder, ["answers 404", "an HTML page instead of data"])
    network.answers(tally, folder / "more", ["breaks off in the middle", "breaks off once"])


@_counted
def _cache(tally: Tally, folder: Path) -> None:
    from fault_suite import network

    network.changed(tally, folder)


@_counted
def _steps(tally: Tally, folder: Path) -> None:
    from fault_suite import numerics

    numerics.steps(tally, "ConvLSTM", small.write_experiment(folder / "experiment"))


@_counted
def _spoiled_weights(tally: Tally, folder: Path) -> None:
    from fault_suite import numerics

    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    numerics.spoiled_weights(tally, folder, small.fitted(config, folder / "run"))


def _trained_twice(folder: Path) -> Outcome:
    from fault_suite import reproducibility

    return reproducibility.run(folder, ["ConvLSTM"])


@_counted
def _poison(tally: Tally, folder: Path) -> None:
    from fault_suite import trust

    for name, problem in [
        *trust.code_of_package(),
        *trust.poisoned(folder),
        *trust.escapes(folder),
    ]:
        tally.case(name, problem)


@_counted
def _told(tally: Tally, folder: Path) -> None:
    from fault_suite import trust

    for name, problem in trust.told(folder):
        tally.case(name, problem)


PARTS: dict[str, Callable[[Path], Outcome]] = {
    "damaged checkpoints": _damaged_checkpoints,
    "a held directory": _held_directory,
    "readers": _readers,
    "downloads": _downloads,
    "bombs": _bombs,
    "mutants": _mutants,
    "series": _series,
    "killed while writing": _killed_writing,
    "stopped runs": _stopped_runs,
    "a full disk": _full_disk,
    "flipped bytes": _damaged_file("gridcast", cut=False),
    "cut off": _damaged_file("classic", cut=True),
    "other files": _other_files,
    "forecasts": _forecasts,
    "servers": _servers,
    "the cache": _cache,
    "steps": _steps,
    "spoiled weights": _spoiled_weights,
    "trained twice": _trained_twice,
    "poison": _poison,
    "told": _told,
}


if __name__ == "__main__":
    name, folder, result = sys.argv[1:]
    Path(result).write_text(json.dumps(dataclasses.asdict(PARTS[name](Path(folder)))))
