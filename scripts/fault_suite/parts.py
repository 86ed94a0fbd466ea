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


def _damaged_checkpoints(folder: Path) -> Outcome:
    import numpy as np

    from fault_suite import checkpoints
    from gridcast.training.checkpoints import Checkpoint, save

    tally = Tally()
    for step in (1, 2):
        arrays = {"weights": {"w": np.arange(99.0) * step}}
        save(folder / "saved", Checkpoint(step, {"seed": step, "origin": "sea.nc"}, arrays))
    checkpoints.damaged_files(tally, folder / "saved", folder / "damaged")
    return tally.outcome


def _held_directory(folder: Path) -> Outcome:
    from fault_suite import concurrency

    tally, directory = Tally(), folder / "held"
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    holder = concurrency.holding(config, directory)
    concurrency.refused(tally, config, directory, holder, ["a second run"])
    holder.communicate("\n")
    return tally.outcome


def _readers(folder: Path) -> Outcome:
    from fault_suite import concurrency

    tally = Tally()
    concurrency.readers(tally, folder)
    return tally.outcome


def _downloads(folder: Path) -> Outcome:
    from fault_suite import concurrency

    tally = Tally()
    concurrency.downloads(tally, folder / "cache")
    return tally.outcome


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


def _killed_writing(folder: Path) -> Outcome:
    from fault_suite import crashes

    tally = Tally()
    crashes.every_operation(tally, folder, ["a text", "a checkpoint of the same step"])
    return tally.outcome


def _stopped_runs(folder: Path) -> Outcome:
    from fault_suite import crashes

    tally, whole = Tally(), folder / "whole"
    config = small.write_experiment(folder / "experiment", train={"epochs": 4})
    code, said = small.ended(small.start(config, whole))
    tally.control(said[-300:] if code else None)
    crashes.stopped_runs(tally, config, folder, whole, [signal.SIGINT])
    return tally.outcome


def _full_disk(folder: Path) -> Outcome:
    from fault_suite import disk

    tally = Tally()
    disk.every_part(tally, folder, ["a text", "a checkpoint of the same step"], [errno.ENOSPC])
    return tally.outcome


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


def _other_files(folder: Path) -> Outcome:
    from fault_suite import files

    tally = Tally()
    for name, problem in files.others(folder):
        tally.case(name, problem)
    return tally.outcome


def _forecasts(folder: Path) -> Outcome:
    from fault_suite import long_use

    tally = Tally()
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    long_use.used(tally, folder, config, small.fitted(config, folder / "run"), FORECASTS)
    return tally.outcome


def _servers(folder: Path) -> Outcome:
    from fault_suite import network

    tally = Tally()
    network.answers(tally, folder, ["answers 404", "an HTML page instead of data"])
    network.answers(tally, folder / "more", ["breaks off in the middle", "breaks off once"])
    return tally.outcome


def _cache(folder: Path) -> Outcome:
    from fault_suite import network

    tally = Tally()
    network.changed(tally, folder)
    return tally.outcome


def _steps(folder: Path) -> Outcome:
    from fault_suite import numerics

    tally = Tally()
    numerics.steps(tally, "ConvLSTM", small.write_experiment(folder / "experiment"))
    return tally.outcome


def _spoiled_weights(folder: Path) -> Outcome:
    from fault_suite import numerics

    tally = Tally()
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    numerics.spoiled_weights(tally, folder, small.fitted(config, folder / "run"))
    return tally.outcome


def _trained_twice(folder: Path) -> Outcome:
    from fault_suite import reproducibility

    return reproducibility.run(folder, ["ConvLSTM"])


def _poison(folder: Path) -> Outcome:
    from fault_suite import trust

    tally = Tally()
    for name, problem in [
        *trust.code_of_package(),
        *trust.poisoned(folder),
        *trust.escapes(folder),
    ]:
        tally.case(name, problem)
    return tally.outcome


def _told(folder: Path) -> Outcome:
    from fault_suite import trust

    tally = Tally()
    for name, problem in trust.told(folder):
        tally.case(name, problem)
    return tally.outcome


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
