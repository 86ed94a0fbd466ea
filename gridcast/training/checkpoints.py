"""Checkpoints: directories of plain arrays and JSON that describe themselves and are verified."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gridcast.drafts import draft_of, sha256, to_disk
from gridcast.errors import CheckpointError, TrainingError

# The folder of a run that holds them.
CHECKPOINTS = "checkpoints"
KEEP = 2
# Of the arrays and their meaning; a reader of another one would forecast nonsense.
FORMAT = 3
# Groups that training makes; others may hold NaN where nothing is known.
TRAINED = ("weights", "best", "optimizer", "average")
# A checkpoint that is about to be replaced by another one of its step.
_BEFORE = ".before-"
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Checkpoint:
    """What is saved.

    Attributes:
      step: training steps taken.
      about: config, units, versions, position in training: JSON.
      arrays: groups ("setup", "weights", "best", "optimizer", ...) of named arrays.
    """

    step: int
    about: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]


def save(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint below `directory`; it appears under its name complete or not at all.

    The newest KEEP are kept.

    Raises:
      CheckpointError: it cannot be written (disk full, read-only); older ones stay intact.
      TrainingError: what was trained is not finite.
    """
    _require_finite(checkpoint)
    final = directory / f"step-{checkpoint.step:08d}"
    draft, before = draft_of(final), final.with_name(f"{_BEFORE}{final.name}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _put_back(directory)
        for leftover in directory.glob(".step-*.tmp"):  # of a run that was killed
            shutil.rmtree(leftover)
        draft.mkdir()
        for group, named in checkpoint.arrays.items():
            np.savez(draft / f"{group}.npz", allow_pickle=False, **named)
            to_disk(draft / f"{group}.npz")
        _write(draft / "about.json", checkpoint.about)
        sums = {path.name: sha256(path) for path in sorted(draft.iterdir())}
        _write(draft / "sha256.json", sums)
        to_disk(draft)
        if final.exists():  # the same step once more: what it replaces is whole until it is there
            final.rename(before)
        draft.rename(final)
        to_disk(directory)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        _put_back(directory)
        raise CheckpointError(
            f"cannot write {final}: {error.strerror or error}\n"
            "  fix: free some space, or write to another folder; then --resume"
        ) from error
    for old in saved(directory)[:-KEEP]:
        with contextlib.suppress(OSError):
            remove(old)
    return final


def load_newest(directory: Path) -> Checkpoint:
    """The newest checkpoint that is intact.

    Raises:
      CheckpointError: there is none; each damaged one is named with what is wrong.
    """
    while True:
        paths = saved(directory)[::-1]
        if not paths:
            raise CheckpointError(
                f"no checkpoint in {directory}\n  fix: train first, or give the directory of a run"
            )
        wrong = []
        for path in paths:
            try:
                found = load(path)
            except CheckpointError as error:
                wrong.append(str(error))
                continue
            for said in wrong:
                _log.warning("%s; step %d is used instead", said, found.step)
            return found
        if set(saved(directory)) <= set(paths):
            break  # otherwise a run that goes on has replaced them meanwhile
    raise CheckpointError(
        "no intact checkpoint:\n  " + "\n  ".join(wrong) + "\n  fix: restore a copy, or train again"
    )


def load(path: Path) -> Checkpoint:
    """One checkpoint, every file of it checked against its SHA-256.

    Raises:
      CheckpointError: a file is missing, unreadable or changed, or of another format.
    """
    about, names = described(path)
    arrays = {}
    try:
        for name in (name for name in names if name.endswith(".npz")):
            with np.load(path / name, allow_pickle=False) as stored:
                arrays[name.removesuffix(".npz")] = dict(stored)
    except (OSError, ValueError, BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return Checkpoint(step_of(path), about, arrays)


def step_of(path: Path) -> int:
    """The training steps that had been taken, by the name of a checkpoint."""
    return int(path.stem.rpartition("-")[2])


def described(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What one checkpoint says of itself, and its files, all checked as by `load`."""
    try:
        sums = json.loads((path / "sha256.json").read_text())
        for name, expected in sums.items():
            if Path(name).name != name:  # of a checkpoint that somebody else has made
                raise CheckpointError(f"{path / 'sha256.json'} names {name!r}, which is outside")
            found = sha256(path / name)
            if found != expected:
                raise CheckpointError(
                    f"{path / name} is damaged: sha256 {found[:12]}..., expected {expected[:12]}..."
                )
        about = json.loads((path / "about.json").read_text())
        if (found := about.get("format", FORMAT)) != FORMAT:
            raise CheckpointError(
                f"{path} was written by another version of gridcast: format {found}, expected "
                f"{FORMAT}\n  fix: train again"
            )
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return about, list(sums)


def saved(directory: Path) -> list[Path]:
    """The checkpoints below `directory`, oldest first; a copy under another name is not counted."""
    found = {}
    for pattern, name in (("step-*", r"step-(\d+)"), (f"{_BEFORE}*", rf"{_BEFORE}step-(\d+)\.tmp")):
        for path in directory.glob(pattern):
            if match := re.fullmatch(name, path.name):
                found.setdefault(int(match[1]), path)
    return [found[step] for step in sorted(found)]


def _put_back(directory: Path) -> None:
    """What a save that was cut short was about to replace has its name again."""
    for path in directory.glob(f"{_BEFORE}step-*.tmp"):
        final = path.with_name(path.name.removeprefix(_BEFORE).removesuffix(".tmp"))
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)


def _require_finite(checkpoint: Checkpoint) -> None:
    for group in TRAINED:
        for name, array in checkpoint.arrays.get(group, {}).items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TrainingError(
                    f"step {checkpoint.step} is not saved: {name} of its {group} is not finite\n"
                    "  fix: a smaller train.learning_rate or train.clip"
                )


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))
    to_disk(path)


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree under the names of their places in it."""
    import jax  # where trees are met: what a run directory holds can be told without it

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def fill(template: Any, named: dict[str, np.ndarray]) -> Any:
    """`template` with its arrays replaced by the named ones.

    Raises:
      CheckpointError: names or shapes differ from the template's.
    """
    import jax

    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    if set(names) != set(named):
        odd = sorted(set(names) ^ set(named))
        raise CheckpointError(f"the checkpoint does not fit this model: {', '.join(odd[:5])}")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if named[name].shape != leaf.shape:
            raise CheckpointError(
                f"the checkpoint does not fit this model: {name} has shape {named[name].shape}, "
                f"expected {leaf.shape}"
            )
    return jax.tree_util.tree_unflatten(structure, [jax.numpy.asarray(named[n]) for n in names])


def remove(path: Path) -> None:
    """Remove one checkpoint: at no moment is half of it there under its name."""
    draft = draft_of(path)
    path.rename(draft)
    shutil.rmtree(draft)
