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
from jaxtyping import Float32, Int

from gridcast.accelerator import jit
from gridcast.config.bounds import Region
from gridcast.errors import CheckpointError, DataError
from gridcast.exporting.directory import ABOUT, FORMAT, GRID, PROGRAM, SUMS, require_flatbuffers
from gridcast.frames.gaps import require_complete
from gridcast.frames.windows import positions_at
from gridcast.grid import Grid
from gridcast.labelling import dims_of, labelled
from gridcast.matching import in_units, last_position, on_grid
from gridcast.sources.canonical import canonical
from gridcast.timeaxis import TimeAxis, label, step_name
from gridcast.training.checkpoints import sha256


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
        series = [_series(data, variable, grid) for variable, grid in pairs]
        axis = self._axis(series)
        last = last_position(axis, start)
        where = self._positions(axis, last)
        frames = [
            self._frames(one, where, variable, grid)
            for one, (variable, grid) in zip(series, pairs, strict=True)
        ]
        values = np.stack(frames, axis=-1)[None]
        self._require_observed(values, axis, last)
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

    def _axis(self, series: list[xr.DataArray]) -> TimeAxis:
        first = series[0]["time"].values
        for one in series[1:]:
            if not np.array_equal(one["time"].values, first):
                raise DataError(
                    f"{series[0].name} and {one.name} are not on the same dates\n"
                    "  fix: cut both to the dates that they share"
                )
        axis, step = TimeAxis.of(first), self.about["step"]
        if (axis.unit, axis.every) != (step["unit"], step["every"]):
            raise DataError(
                f"the step of the data is: {axis.frequency}\n"
                f"  expected: {step_name(step['unit'], step['every'])}, as in training"
            )
        found, expected = list(axis.clock), step["clock"]
        # Months are the same in any calendar, and whatever day they are stamped on.
        if axis.unit == "day" and found != expected:
            raise DataError(
                "the days of the data are of calendar and second of the day: "
                f"{found[0]}, {found[1]}\n  expected: {expected[0]}, {expected[1]}, as in training"
            )
        return axis

    def _positions(self, axis: TimeAxis, last: int) -> Int[np.ndarray, " frame"]:
        """Of the frames that the program takes in the series; -1 where there is none.

        Raises:
          DataError: dates are missing that have to be there.
        """
        values = self.about["values"]
        count = values["shape"][1]
        where = positions_at(axis, np.array([last]), np.arange(1 - count, 1))[0]
        # Where gaps are masked, the first of the inputs may lie before the record.
        reach = values["inputs"] - 1 if values["may_lack"] else 0
        short = axis.steps[last] - axis.steps[0] + 1 + reach < count
        if short or (not values["may_lack"] and (where < 0).any()):
            raise DataError(
                f"the forecast from {label(axis.times[last])} needs the {count} dates up to it\n"
                f"  found: {int((where >= 0).sum())} of them, in data from {label(axis.times[0])}"
                f"{'; gaps: ' + axis.gaps[-1] if axis.gaps else ''}\n"
                "  fix: an earlier start, or data that reach further back"
            )
        return where

    def _frames(
        self,
        series: xr.DataArray,
        where: Int[np.ndarray, " frame"],
        variable: dict[str, Any],
        grid: Grid,
    ) -> Float32[np.ndarray, "frame lat lon"]:
        """One variable in the units and on the grid of the run; NaN where there is no frame."""
        moved = in_units(series, variable["units"])
        may_lack = self.about["values"]["may_lack"]
        grid.require_same(Grid(*(moved[n].values for n in ("lat", "lon")), grid.mask))
        cut = moved.isel(time=where[where >= 0])
        if not may_lack:
            require_complete(cut)
        on_grid(cut, grid, gaps=may_lack)
        lowest = variable["lowest"]
        if lowest is not None and float(cut.min()) < lowest:
            raise DataError(
                f"{series.name} holds {float(cut.min()):g}\n  expected: nothing below {lowest:g}"
            )
        frames = np.full((where.size, *grid.shape), np.nan, np.float32)
        frames[where >= 0] = cut.values
        return frames

    def _require_observed(self, values: np.ndarray, axis: TimeAxis, last: int) -> None:
        about = self.about["values"]
        if not about["may_lack"]:
            return
        seen = np.isfinite(values[0, -about["inputs"] :, ..., 0]).any(axis=(1, 2))
        if seen.sum() < about["least"] or not seen[-1]:
            raise DataError(
                f"the forecast from {label(axis.times[last])} needs observations on "
                f"{about['least']} of the {about['inputs']} dates up to it, itself among them; "
                f"found {seen.sum()}\n"
                "  fix: an earlier start"
            )


def load_exported(directory: str | Path) -> Exported:
    """Load what `gridcast export` wrote, every file checked against its SHA-256.

    Raises:
      CheckpointError: a file is missing, damaged, or of another format.
      ConfigError: flatbuffers is not installed.

    Example, with the run and the data of the example of `gridcast.train`:
      >>> import gridcast
      >>> exported = gridcast.load_exported(gridcast.export_run(run))
      >>> exported(sst.astype("float32")).identical(run.forecast(sst))
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


def _series(data: xr.Dataset | xr.DataArray, variable: dict[str, Any], grid: Grid) -> xr.DataArray:
    """One variable in canonical form, cut to the box of the grid.

    Raises:
      DataError: there is no such variable, or it is not float32.
    """
    name = variable["name"]
    fields = data if isinstance(data, xr.Dataset) else {str(data.name): data}
    if name not in fields:
        raise DataError(
            f"the data hold no variable {name!r}\n  found: {', '.join(map(str, fields))}\n"
            f"  fix: data.rename(...), if it is there under another name"
        )
    if (dtype := fields[name].dtype) != np.float32:
        raise DataError(
            f"{name} has dtype {dtype}, expected float32\n  fix: data.astype('float32')"
        )
    region = None
    if min(grid.shape) > 1:
        slack = 1e-4  # degrees, as grids are compared
        south, north = max(-90.0, grid.lat[0] - slack), min(90.0, grid.lat[-1] + slack)
        lon = (0.0, 360.0) if grid.wraps else (grid.lon[0] - slack, grid.lon[-1] + slack)
        region = Region(lat=(south, north), lon=lon)
    return canonical(data, variable=name, region=region)
