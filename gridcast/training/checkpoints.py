"""Checkpoints: directories of plain arrays and JSON that describe themselves and are verified."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np

from gridcast.drafts import to_disk, write_text
from gridcast.errors import CheckpointError

KEEP = 2
# Of the arrays and their meaning; a reader of another one would forecast nonsense.
FORMAT = 3
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
    """
    final = directory / f"step-{checkpoint.step:08d}"
    draft = directory / f".{final.name}.{os.getpid()}.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(".step-*.tmp"):  # of a run that was killed
            shutil.rmtree(leftover)
        draft.mkdir()
        for group, named in checkpoint.arrays.items():
            np.savez(draft / f"{group}.npz", allow_pickle=False, **named)
            to_disk(draft / f"{group}.npz")
        write_text(draft / "about.json", json.dumps(checkpoint.about, indent=1))
        sums = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
        write_text(draft / "sha256.json", json.dumps(sums, indent=1))
        if final.exists():  # the same step saved again: the content is the same
            shutil.rmtree(final)
        draft.rename(final)
        to_disk(directory)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(f"cannot write {final}: {error.strerror or error}") from error
    for old in _saved(directory)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest(directory: Path) -> Checkpoint:
    """The newest checkpoint that is intact.

    Raises:
      CheckpointError: there is none; each damaged one is named with what is wrong.
    """
    paths = _saved(directory)[::-1]
    if not paths:
        raise CheckpointError(
            f"no checkpoint in {directory}\n  fix: train first, or give the directory of a run"
        )
    wrong = []
    for path in paths:
        try:
            return load(path)
        except CheckpointError as error:
            wrong.append(str(error))
            _log.warning("%s; trying an older one", error)
    raise CheckpointError(
        "no intact checkpoint:\n  " + "\n  ".join(wrong) + "\n  fix: restore a copy, or train again"
    )


def load(path: Path) -> Checkpoint:
    """One checkpoint, every file of it checked against its SHA-256.

    Raises:
      CheckpointError: a file is missing, unreadable or changed, or of another format.
    """
    try:
        sums = json.loads((path / "sha256.json").read_text())
        for name, expected in sums.items():
            if Path(name).name != name:  # of a checkpoint that somebody else has made
                raise CheckpointError(f"{path / 'sha256.json'} names {name!r}, which is outside")
            found = _sha256(path / name)
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
        arrays = {}
        for name in (name for name in sums if name.endswith(".npz")):
            with np.load(path / name, allow_pickle=False) as stored:
                arrays[name.removesuffix(".npz")] = dict(stored)
    except (OSError, ValueError, AttributeError, BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return Checkpoint(_step(path), about, arrays)


def _saved(directory: Path) -> list[Path]:
    """The checkpoints below `directory`, oldest first; a copy under another name is not counted."""
    paths = [p for p in directory.glob("step-*") if p.name.removeprefix("step-").isdecimal()]
    return sorted(paths, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree under the names of their places in it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def fill(template: Any, named: dict[str, np.ndarray]) -> Any:
    """`template` with its arrays replaced by the named ones.

    Raises:
      CheckpointError: names or shapes differ from the template's.
    """
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove one checkpoint of a run that is replaced."""
    shutil.rmtree(path)
