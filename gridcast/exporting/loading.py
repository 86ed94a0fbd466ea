"""An exported forecast, loaded and held against the data that it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import xarray as xr
from jax import export

from gridcast.accelerator import jit
from gridcast.cf import dims_of
from gridcast.drafts import sha256
from gridcast.errors import CheckpointError, DataError
from gridcast.exporting.checking import (
    common_axis,
    frame_positions,
    frames_of,
    require_observed,
    series_of,
)
from gridcast.exporting.directory import ABOUT, FORMAT, GRID, PROGRAM, SUMS, require_flatbuffers
from gridcast.grid import Grid
from gridcast.labelling import labelled
from gridcast.matching import last_position


@dataclass(frozen=True)
class Exported:
    """A forecast without its run: what `gridcast export` wrote.

    Attributes:
      about: what it takes and gives, as `about.json` says.
      grids: of each variable that it takes.
      program: as `gridcast.exporting.program.export_program`.
    """

    directory: Path
    about: dict[str, Any]
    grids: tuple[Grid, ...]
    program: export.Exported

    def __call__(self, data: xr.Dataset | xr.DataArray, *, start: str | None = None) -> xr.Dataset:
        """Forecast from the last date of the data, or from `start`, as `Run.forecast`.

        Args:
          data: float32 and holding all variables by name, on the grid of the run, in any
            convention of its axes, and in units of the same kind.
          start: YYYY, YYYY-MM or YYYY-MM-DD: the last date within it is the initial date.

        Raises:
          DataError: another name, dtype, unit, grid, mask, step or calendar, or too few frames.
        """
        variables = self.about["values"]["variables"]
        pairs = list(zip(variables, self.grids, strict=True))
        series = [series_of(data, variable, grid) for variable, grid in pairs]
        axis = common_axis(series, self.about)
        last = last_position(axis, start)
        where = frame_positions(axis, last, self.about)
        frames = [
            frames_of(one, where, variable, grid, self.about)
            for one, (variable, grid) in zip(series, pairs, strict=True)
        ]
        values = np.stack(frames, axis=-1)[None]
        require_observed(values, axis, last, self.about)
        made = self.arrays(values, axis.dates[[last]].astype(np.int32))
        forecast = self.about["forecast"]
        labels = forecast["categories"]
        found = {
            name: (dims_of(labels), made[name], about)
            for name, about in forecast["variables"].items()
        }
        attributes = {name: self.about[name] for name in ("title", "source", "references")}
        initial, leads = np.array([last]), forecast["leads"]
        return labelled(found, axis, initial, leads, self.grids[0], labels, attributes)

    def arrays(
        self,
        values: np.ndarray,
        date: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Forecasts by name, from arrays as `about.json` asks for them.

        Args:
          values: float32 [batch, frame, lat, lon, variable], in the units of training.
          date: int32 [batch, 3] year, month and day of each last frame.

        Raises:
          DataError: another shape or dtype.
        """
        for name, array in (("values", values), ("date", date)):
            about = self.about[name]
            if str(array.dtype) != about["dtype"]:
                raise DataError(
                    f"{name} has dtype {array.dtype}, expected {about['dtype']}\n"
                    f"  fix: {name}.astype('{about['dtype']}')"
                )
            expected = about["shape"][1:]
            if (
                list(array.shape[1:]) != expected
                or array.ndim != len(about["shape"])
                or not len(array)
            ):
                raise DataError(
                    f"{name} has shape {list(array.shape)}\n  expected: {['batch', *expected]}: "
                    f"{', '.join(about['dims'])}"
                )
        if len(values) != len(date):
            raise DataError(f"{len(values)} windows of values, but {len(date)} dates")
        return {name: np.asarray(one) for name, one in self._compiled(values, date).items()}

    @cached_property
    def _compiled(self) -> Callable[..., dict[str, Any]]:
        return jit(self.program.call)


def load_exported(directory: str | Path) -> Exported:
    """Load what `gridcast export` wrote, every file checked against its SHA-256.

    Raises:
      CheckpointError: a file is missing, damaged, or of another format.
      ConfigError: flatbuffers is not installed.

    Example, with the run and the data of the example of `gridcast.train`:
      >>> import gridcast
      >>> exported = gridcast.load_exported(gridcast.export_run(run))
      >>> exported(sst)["sst"].identical(run.forecast(sst)["sst"])
      True
    """
    require_flatbuffers()
    directory = Path(directory)
    try:
        sums = json.loads((directory / SUMS).read_text())
        for name in (PROGRAM, GRID, ABOUT):
            found, expected = sha256(directory / name), sums[name]
            if found != expected:
                raise CheckpointError(
                    f"{directory / name} is damaged: sha256 {found[:12]}..., expected "
                    f"{expected[:12]}...\n  fix: export again (gridcast export RUN)"
                )
        about = json.loads((directory / ABOUT).read_text())
        if about["format"] != FORMAT:
            raise CheckpointError(
                f"{directory} was written by another version of gridcast: format "
                f"{about['format']}, expected {FORMAT}\n  fix: export again"
            )
        with np.load(directory / GRID, allow_pickle=False) as stored:
            lat, lon, masks = (stored[name] for name in ("lat", "lon", "mask"))
        program = export.deserialize(bytearray((directory / PROGRAM).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise CheckpointError(
            f"{directory} cannot be read as an exported forecast: {error}\n"
            "  fix: give a directory that `gridcast export` wrote"
        ) from error
    grids = tuple(Grid(lat, lon, mask) for mask in np.moveaxis(masks, -1, 0))
    return Exported(directory, about, grids, program)
