"""The runs in a directory, one line each; read without jax, and without the data."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcast.errors import CheckpointError, DataError
from gridcast.training.checkpoints import CHECKPOINTS, described, saved

_OURS = "model"  # as `verification.hindcast.MODEL`, which needs jax
_AGAINST = "skill_vs_"


@dataclass(frozen=True)
class Skill:
    """At one lead: 1 - MSE / MSE of the best reference; of classes the same of the RPS."""

    lead: int
    skill: float
    reference: str


@dataclass(frozen=True)
class Listed:
    """What is told of one run.

    Attributes:
      state: finished, epoch 3 of 10, fitted (a reference), or broken with what is wrong.
      first, last: of the first variable at its first and last lead; None before it was judged.
      date: of its newest file of results, UTC.
    """

    directory: str
    model: str
    data: str
    state: str
    broken: bool
    first: Skill | None
    last: Skill | None
    date: str


def runs_in(directory: str | Path) -> list[Listed]:
    """The runs below a directory by name; what cannot be read is listed as broken.

    Args:
      directory: whose folders with config.yaml or checkpoints are the runs; or a run itself.

    Raises:
      DataError: no such directory.
    """
    directory = Path(directory)
    try:
        folders = sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(
            f"{directory}: {error.strerror or error}\n  expected: a directory of runs\n"
            "  fix: gridcast runs DIR, or train first: gridcast train CONFIG"
        ) from None
    if _is_run(directory):
        folders = [directory]
    return [_listed(path) for path in folders if _is_run(path)]


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").exists() or (path / CHECKPOINTS).is_dir()


def _listed(path: Path) -> Listed:
    model = data = ""
    first = last = None
    broken = True
    try:
        about = _about(path)
        config = about["config"]
        model, data = _model(config["model"]), _data(config["data"])
        state = _state(path, about)
        first, last = _skill(path / "scores.csv")
        broken = False
    except CheckpointError as error:
        state = f"broken: {str(error).splitlines()[0]}"
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        state = f"broken: {type(error).__name__} {error}"
    return Listed(str(path), model, data, state, broken, first, last, _date(path))


def _about(path: Path) -> dict[str, Any]:
    """What the newest intact checkpoint says of itself."""
    wrong = CheckpointError(f"no checkpoint in {path / CHECKPOINTS}")
    for checkpoint in reversed(saved(path / CHECKPOINTS)):
        try:
            return described(checkpoint)[0]
        except CheckpointError as error:
            wrong = error
    raise wrong


def _model(settings: dict[str, Any]) -> str:
    base = settings.get("base")
    return settings["name"] if base is None else f"{settings['name']} over {base}"


def _data(settings: dict[str, Any]) -> str:
    """The names of the data sets or files; of a simulation made in their place nothing is said."""
    names = []
    for one in [settings, *settings.get("more", [])]:
        path = one.get("path")
        files = [] if path is None else [path] if isinstance(path, str) else path
        names.append(one.get("name") or ", ".join(Path(file).name for file in files))
    return ", ".join(names)


def _state(path: Path, about: dict[str, Any]) -> str:
    if about["position"]["finished"]:
        return "finished" if (path / "scores.csv").is_file() else "trained, not judged"
    lines = (path / "metrics.jsonl").read_text().splitlines() if about["position"] else []
    epochs = [json.loads(line)["epoch"] for line in lines if '"validation_loss"' in line]
    return f"epoch {max(epochs, default=0)} of {about['config']['train']['epochs']}"


def _skill(path: Path) -> tuple[Skill | None, Skill | None]:
    """At the first and the last lead, against the best reference there."""
    if not path.is_file():
        return None, None
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["forecast"] == _OURS]
    if not rows:
        raise ValueError(f"{path.name} has no forecast {_OURS}")
    found = []
    for row in (rows[0], rows[-1]):
        against = {k.removeprefix(_AGAINST): float(v) for k, v in row.items() if _AGAINST in k if v}
        best = min(against, key=lambda name: against[name])
        found.append(Skill(int(row["lead"]), against[best], best))
    return found[0], found[1]


def _date(path: Path) -> str:
    files = [path / "scores.csv", path / "config.yaml", *saved(path / CHECKPOINTS)]
    newest = max((file.stat().st_mtime for file in files if file.exists()), default=math.nan)
    if math.isnan(newest):
        return ""
    return dt.datetime.fromtimestamp(newest, dt.UTC).strftime("%Y-%m-%d %H:%M")
