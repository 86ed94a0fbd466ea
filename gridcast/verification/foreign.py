"""Forecasts of other systems, read from their files onto the dates, grid and units of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.frames.transform import FrameTransform
from gridcast.labelling import valid_times
from gridcast.sources.box import box_mean
from gridcast.sources.files import find_files
from gridcast.sources.forecast_axes import ForecastDates, forecast_dates
from gridcast.sources.forecast_file import Cells, ForecastFile
from gridcast.sources.leads import step_text
from gridcast.sources.netcdf import opened
from gridcast.sources.units import convert
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label
from gridcast.verification.foreign_fields import GatheredFields, Lacking

Forecasts = str | Path | Sequence[str | Path] | xr.Dataset
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class ForeignForecast:
    """Values on the dates and cells of a run.

    Attributes:
      values: in the units of the run, the mean of the members; NaN off its mask, and where there is
        no forecast. Large arrays are as `gridcast.scratch.room`.
      there: which forecasts the files have.
      members: of each date as many as it has, NaN for the others.
    """

    values: Float[np.ndarray, "window lead lat lon"]
    there: Bool[np.ndarray, "window lead"]
    members: Float[np.ndarray, "member window lead lat lon"]


def read_forecast(
    source: Forecasts,
    target: FrameTransform,
    axis: TimeAxis,
    initial: Int[np.ndarray, " window"],
    leads: int,
    *,
    variable: str | None = None,
    box: Region | None = None,
    regrid: bool = False,
    begins: bool | None = None,
) -> ForeignForecast:
    """Forecasts of any system, from files with standard coordinates.

    A forecast is one at lead k where it is for the k-th step after the last one that it knew: the
    step of its initial date, or the one before (`begins`). Dates belong together that lie in the
    same year, month or day, whatever their stamp and calendar. Axes may have any order and
    convention; a file that covers more than the grid is cut.

    Args:
      source: NetCDF or GRIB files of different dates, a glob, or a data set.
      target: what is forecast, on which grid, in which units.
      axis, initial, leads: forecasts from axis.times[initial], 1 to `leads` steps ahead.
      variable: default: that of the target, or the only one there is.
      box: the target is the mean over it; the files hold fields, or the mean already.
      regrid: take another grid, interpolated as by `gridcast.sources.regrid.to_grid`.
      begins: as in `gridcast.sources.forecast_axes.forecast_dates`; default: as the leads say.

    Raises:
      DataError: no forecast in common, two for the same dates, another grid, units of another kind,
        anomalies for values, cells of the mask without a value, and all that `forecast_dates`
        raises.
    """
    reader = _Reader(target, axis, initial, leads, variable, box, regrid, begins)
    if isinstance(source, xr.Dataset):
        reader.take(source, "the forecast")
        return reader.result()
    for path in find_files(source):
        with opened(path) as dataset:
            reader.take(dataset, str(path))
    return reader.result()


@dataclass
class _Reader:
    """What is asked of each file, as in `read_forecast`, and what was found.

    Attributes:
      told: one phrase on the dates of each file.
    """

    target: FrameTransform
    axis: TimeAxis
    initial: Int[np.ndarray, " window"]
    leads: int
    variable: str | None
    box: Region | None
    regrid: bool
    begins: bool | None
    found: GatheredFields = field(init=False)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = GatheredFields(self.initial.size, self.leads, self.target.grid.mask)

    def take(self, dataset: xr.Dataset, origin: str) -> None:
        """Add the fields of a file that are asked for."""
        file = ForecastFile.of(dataset, self.variable, self.target.variable, origin)
        step = self.axis.unit, self.axis.every
        dates = forecast_dates(file.dataset, file.dims, *step, begins=self.begins, origin=origin)
        self.told.append(f"{origin}: {dates}")
        at, pairs = self._asked(dates, origin)
        if not len(at):
            return
        box = None if file.lat.size * file.lon.size == 1 else self.box
        mask = self.target.grid.mask
        if box is None:
            cells = file.cells(self.target.grid, regrid=self.regrid)
        else:
            cells = file.cells_in(box)
            mask = np.ones((cells.lat.size, cells.lon.size), bool)
        times = valid_times(self.axis, self.initial, self.leads)[tuple(pairs.T)]
        lacking = Lacking(self.target.grid)
        for some, values in file.read(at, times, cells):
            there = np.asarray(np.isfinite(values[..., mask]).any(axis=-1))
            if box is not None:
                values = _box_mean(values, cells, box)
            values = self._in_units(values, pairs[some], file.field, origin)
            lacking.add(some, values, there)
            self.found.put(pairs[some], values, there)
        lacking.require_none(times, origin)

    def result(self) -> ForeignForecast:
        """All that was found, on the windows and leads."""
        if not self.found.there.any():
            first, last = (label(self.axis.times[self.initial[k]]) for k in (0, -1))
            raise DataError(
                f"none of the forecasts is one that the run makes\n  found: {self.told[-1]}\n"
                f"  expected: knowing a date of {first} to {last}, for 1 to {self.leads} steps "
                f"ahead, each a {self.axis.frequency}"
            )
        _log.info("%s", self.told[0])
        self.found.finish()
        members = np.moveaxis(self.found.members, 2, 0)
        return ForeignForecast(self.found.values, self.found.there, members)

    def _asked(
        self, dates: ForecastDates, origin: str
    ) -> tuple[Int[np.ndarray, "field dim"], Int[np.ndarray, "field 2"]]:
        """Which fields of a file are asked for, and their windows and leads - 1."""
        axis = self.axis
        known = axis.steps[self.initial] + int(dates.begins)
        starts = step_text(axis.times_at(known), axis.unit)
        valid = step_text(valid_times(axis, self.initial, self.leads), axis.unit)
        wanted = {
            (str(start), str(time)): (window, lead)
            for window, (start, times) in enumerate(zip(starts, valid, strict=True))
            for lead, time in enumerate(times)
        }
        found: dict[tuple[int, int], int] = {}
        both = zip(dates.initial.ravel().tolist(), dates.valid.ravel().tolist(), strict=True)
        for position, key in enumerate(both):
            if (pair := wanted.get(key)) is None:
                continue
            if pair in found or self.found.there[pair]:
                raise DataError(
                    f"{origin}: a further forecast from {key[0]} for {key[1]}\n"
                    f"  expected: one from each date, every {axis.frequency}\n"
                    "  fix: select one of them, or give their mean"
                )
            found[pair] = position
        at = np.unravel_index(np.array(list(found.values()), int), dates.valid.shape)
        return np.stack(at, axis=1), np.array(list(found), int).reshape(-1, 2)

    def _in_units(
        self,
        values: Float[np.ndarray, "field member lat lon"],
        pairs: Int[np.ndarray, "field 2"],
        given: xr.DataArray,
        origin: str,
    ) -> Float[np.ndarray, "field member lat lon"]:
        target, axis = self.target, self.axis
        difference = is_difference(given)
        if difference != is_difference(xr.DataArray(name=target.variable, attrs=target.attributes)):
            kinds = ("anomalies", "values") if difference else ("values", "anomalies")
            raise DataError(
                f"{origin}: {given.name} holds {kinds[0]}, by its name and long_name\n"
                f"  expected: {kinds[1]}, as {target.variable} of the run\n"
                f"  fix: give {kinds[1]}, or correct long_name"
            )
        steps = axis.steps[self.initial][pairs[:, 0]] + pairs[:, 1] + 1
        asked, where = np.unique(steps, return_inverse=True)
        dates = TimeAxis(axis.times_at(asked), axis.unit, axis.every, asked - asked[0])
        days = dates.days_per_step[where][:, None, None, None]
        found = str(given.attrs.get("units", "1"))
        try:
            return convert(values, found, target.units, days, difference=difference)
        except DataError as error:
            raise DataError(f"{origin}: {given.name}: {error}") from None


def _box_mean(
    values: Float[np.ndarray, "field member row column"], cells: Cells, box: Region
) -> Float[np.ndarray, "field member 1 1"]:
    count, members = values.shape[:2]
    places = {"time": np.arange(count * members), "lat": cells.lat, "lon": cells.lon}
    flat = values.reshape(-1, *values.shape[2:])
    series = xr.DataArray(flat, places, ("time", "lat", "lon"), "the forecast")
    return box_mean(series, box).values.reshape(count, members, 1, 1)
