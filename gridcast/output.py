"""The directory of a run: one writes to it at a time, and what is there belongs together."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gridcast.errors import CheckpointError, DataError
from gridcast.locks import alone_in
from gridcast.training import checkpoints
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.events import EVENTS

RESULTS = (
    "metrics.jsonl",
    "hindcast.nc",
    "forecast.nc",
    "forecast.png",
    "observations.nc",
    "indices.nc",
    "report.html",
    "comparison*.*",
    "scores*.nc",
    "scores*.csv",
    "scores*.png",
)

# The folder of `gridcast export`.
EXPORT = "export"
_log = logging.getLogger("gridcast")


@contextmanager
def writing_to(directory: Path, *, resume: bool = False) -> Iterator[None]:
    """Hold a run's directory, and find what can be known before the data are read.

    Raises:
      CheckpointError: there is nothing to resume.
      DataError: the directory cannot be written to, or another run writes to it.
    """
    if resume and not checkpoints.saved(directory / CHECKPOINTS):
        raise CheckpointError(
            f"nothing to resume: no checkpoint in {directory / CHECKPOINTS}\n"
            "  fix: train without --resume"
        )
    with alone_in(directory):
        yield


def clear(directory: Path) -> None:
    """Remove an earlier run's files, so that what is there belongs together."""
    earlier = checkpoints.saved(directory / CHECKPOINTS)
    if earlier:
        _log.warning("%s holds an earlier run, which is replaced", directory)
    folders = [*earlier, *directory.glob(EXPORT), *directory.glob(EVENTS)]
    found = [path for pattern in RESULTS for path in directory.glob(pattern)]
    try:
        for path in folders:
            checkpoints.remove(path)
        for path in found:
            path.unlink()
    except OSError as error:
        raise DataError(
            f"an earlier run in {directory} cannot be removed: {error}\n"
            "  fix: another output.directory"
        ) from error
