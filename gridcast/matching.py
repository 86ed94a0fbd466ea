"""Data at hand, held against what a run was trained on: grid, units, step and dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Int

from gridcast.config import Config
from gridcast.config.bounds import Period
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.frames.gaps import require_complete
from gridcast.frames.trailing import steps_of
from gridcast.frames.transform import grid_of
from gridcast.frames.windows import positions_at
from gridcast.grid import Grid
from gridcast.opening import Data, open_source
from gridcast.preparation import complete_series
from gridcast.sources.units import convert, same_units
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label


def matching_series(
    config: Config, fields: Fields, data: Data | None
) -> tuple[list[xr.DataArray], TimeAxis]:
    """The series on the grid of a run, in its units, their gaps treated as in training.

    Raises:
      DataError: another grid, mask or step, or units of another kind.
    """
    source = open_source(config, data)
    missing = config.frames.missing
    series = []
    for one, trained in zip(source.series, fields.inputs, strict=True):
        moved = in_units(one, trained.units)
        if missing == "error":
            require_complete(moved)
        series.append(on_grid(moved, trained.grid, gaps=missing == "mask"))
    axis = TimeAxis.of(series[0]["time"].values)
    trained = (fields.inputs[0].climatology.unit, fields.inputs[0].every)
    if (axis.unit, axis.every) != trained:
        raise DataError(
            f"the step of the data is: {axis.frequency}\n"
            f"  expected: {fields.inputs[0].step}, as in training"
        )
    # Dates that lack are in nobody's way as long as no forecast needs them.
    if missing == "error":
        return series, axis
    return complete_series(config, replace(source, series=series))


def initial_position(
    config: Config, series: Sequence[xr.DataArray], axis: TimeAxis, start: str | None
) -> Int[np.ndarray, " window"]:
    """The position of the last date, or of the last within `start`.

    Raises:
      DataError: no such date, or too few observed ones up to it.
    """
    last = last_position(axis, start)
    inputs = config.frames.inputs
    history = positions_at(axis, np.array([last]), np.arange(1 - inputs, 1))
    frames = np.isfinite(series[0][history[0]].values).any(axis=(1, 2))
    seen = (history >= 0) & frames
    least = config.frames.least if config.frames.missing == "mask" else inputs
    if seen.sum() < least or not seen[0, -1]:
        dates = f"{inputs} dates" if least == inputs else f"{least} of the {inputs} dates"
        raise DataError(
            f"the forecast from {label(axis.times[last])} needs the {dates} up to it, itself "
            f"among them; found {int(seen.sum())}\n  found: {label(axis.times[0])} to "
            f"{label(axis.times[-1])}{'; gaps: ' + axis.gaps[-1] if axis.gaps else ''}\n"
            "  fix: an earlier --start, or data that reach further back"
        )
    return np.array([last])


def last_position(axis: TimeAxis, start: str | None) -> int:
    """The position of the last date, or of the last within `start`.

    Raises:
      DataError: no such date.
    """
    if start is None:
        return axis.times.size - 1
    try:
        asked = Period(first=start, last=start)
    except ValueError as error:
        raise DataError(
            f"start is no date: {start!r}\n  expected: YYYY, YYYY-MM or YYYY-MM-DD"
        ) from error
    inside = axis.inside(*asked.bounds)
    if not inside.any():
        raise DataError(
            f"the data hold no date in {start}\n  found: {label(axis.times[0])} to "
            f"{label(axis.times[-1])}, {axis.frequency}"
        )
    return int(np.flatnonzero(inside)[-1])


def require_history(config: Config, axis: TimeAxis, initial: int) -> None:
    """Raise where the mean of the years before, which the model starts from, is not known.

    Raises:
      DataError: fewer dates up to the initial one than `frames.trailing` asks for.
    """
    years = config.frames.trailing
    if years is None:
        return
    needed, found = steps_of(years, axis), int(axis.steps[initial] - axis.steps[0]) + 1
    if found < needed:
        raise DataError(
            f"the forecast from {label(axis.times[initial])} starts from the mean of the {years} "
            f"years up to it: {needed} dates\n  found: {found}, from {label(axis.times[0])}\n"
            "  fix: data that reach further back, for example those of training as well"
        )


def in_units(series: xr.DataArray, expected: str) -> xr.DataArray:
    """The series in other units.

    Raises:
      DataError: units of another kind.
    """
    found = str(series.attrs.get("units", "1"))
    if same_units(found, expected):
        return series
    days = TimeAxis.of(series["time"].values).days_per_step[:, None, None]
    values = convert(series.values, found, expected, days, difference=is_difference(series))
    return series.copy(data=values)


def on_grid(series: xr.DataArray, grid: Grid, *, gaps: bool) -> xr.DataArray:
    """The series itself, on the very cells of the run; values off its mask may not appear.

    Raises:
      DataError: another grid or mask.
    """
    found = grid_of(series)
    if gaps and found.shape == grid.shape:  # a short record with gaps may lack a cell throughout
        found = Grid(found.lat, found.lon, found.mask | grid.mask)
    grid.require_same(found)
    return series
