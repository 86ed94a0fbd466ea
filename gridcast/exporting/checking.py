"""Labelled data held against what an exported program takes, variable by variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Int

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.frames.gaps import require_complete
from gridcast.frames.windows import positions_at
from gridcast.grid import Grid
from gridcast.matching import in_units, on_grid
from gridcast.sources.canonical import canonical
from gridcast.timeaxis import TimeAxis, label, step_name

# What `about.json` says, or a part of it.
About = dict[str, Any]


def series_of(data: xr.Dataset | xr.DataArray, variable: About, grid: Grid) -> xr.DataArray:
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


def common_axis(series: Sequence[xr.DataArray], about: About) -> TimeAxis:
    """The dates of all series.

    Raises:
      DataError: they are not the same, or of another step or calendar than in training.
    """
    first = series[0]["time"].values
    for one in series[1:]:
        if not np.array_equal(one["time"].values, first):
            raise DataError(
                f"{series[0].name} and {one.name} are not on the same dates\n"
                "  fix: cut both to the dates that they share"
            )
    axis, step = TimeAxis.of(first), about["step"]
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


def frame_positions(axis: TimeAxis, last: int, about: About) -> Int[np.ndarray, " frame"]:
    """Of the frames that the program takes in the series; -1 where there is none.

    Raises:
      DataError: dates are missing that have to be there.
    """
    values = about["values"]
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


def frames_of(
    series: xr.DataArray,
    where: Int[np.ndarray, " frame"],
    variable: About,
    grid: Grid,
    about: About,
) -> Float32[np.ndarray, "frame lat lon"]:
    """One variable in the units and on the grid of the run; NaN where there is no frame.

    Raises:
      DataError: other units, another grid or mask, or values that lack or cannot be.
    """
    moved = in_units(series, variable["units"])
    may_lack = about["values"]["may_lack"]
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


def require_observed(values: np.ndarray, axis: TimeAxis, last: int, about: About) -> None:
    """
    Raises:
      DataError: a program that works under a mask is given too few observed frames.
    """
    asked = about["values"]
    if not asked["may_lack"]:
        return
    first = values[0, -asked["inputs"] :, ..., 0]
    seen = np.asarray(np.isfinite(first).any(axis=(1, 2)))
    if seen.sum() < asked["least"] or not seen[-1]:
        raise DataError(
            f"the forecast from {label(axis.times[last])} needs observations on "
            f"{asked['least']} of the {asked['inputs']} dates up to it, itself among them; "
            f"found {seen.sum()}\n"
            "  fix: an earlier start"
        )
