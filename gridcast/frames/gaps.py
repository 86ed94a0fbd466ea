"""Missing dates and values: refused, left out, or kept as NaN under a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gridcast.config.frames import FramesConfig
from gridcast.errors import DataError
from gridcast.frames.transform import grid_of
from gridcast.sources.store import stored
from gridcast.timeaxis import TimeAxis, label


def treat_gaps(
    series: Sequence[xr.DataArray], axis: TimeAxis, config: FramesConfig
) -> tuple[list[xr.DataArray], TimeAxis]:
    """Series without holes ("error", "drop"), or on every date with holes as NaN ("mask").

    Args:
      series: the first and further ones, canonical, on the dates of `axis`; NaN on cells outside
        the mask of each, and where nothing was observed.

    Returns:
      The series and their dates. With "drop" the dates of incomplete frames are left out, as
      if they were not in the file. With "mask" every step from first to last has a frame, and
      `inputs - 1` empty ones come before the first, so that windows may begin before the record.

    Raises:
      DataError: "error": a missing date or value, naming the first.
    """
    if config.missing == "error":
        for one in series:
            require_complete(one)
        if axis.gaps:
            raise DataError(
                f"dates are missing: {'; '.join(axis.gaps[:3])}{', ...' if axis.gaps[3:] else ''}\n"
                "  expected: every date from first to last\n"
                "  fix: frames.missing: drop (use no window that needs them) or mask"
            )
        return list(series), axis
    if config.missing == "drop":
        whole = np.all([~_holes(one).any(axis=(1, 2)) for one in series], axis=0)
        if whole.sum() < 2:
            raise DataError(
                f"frames.missing: drop leaves {int(whole.sum())} dates: all others lack values\n"
                "  fix: frames.missing: mask, or a smaller data.region"
            )
        if whole.all():
            return list(series), axis
        kept = [one.isel(time=np.flatnonzero(whole)) for one in series]
        return kept, TimeAxis(axis.times[whole], axis.unit, axis.every, axis.steps[whole])
    steps = np.arange(1 - config.inputs, axis.steps[-1] + 1)
    dates = axis.times_at(steps)
    complete = TimeAxis(dates, axis.unit, axis.every, steps - steps[0])
    return [_on_dates(one, axis.steps + config.inputs - 1, dates) for one in series], complete


def require_complete(series: xr.DataArray) -> None:
    """Raise where a value is missing inside the mask.

    Raises:
      DataError: naming the number of holes and the first.
    """
    if stored(series):  # it was looked at when it was written
        return
    holes = _holes(series)
    if not holes.any():
        return
    time, row, column = (index[0] for index in np.nonzero(holes))
    raise DataError(
        f"values of {series.name} are missing inside the mask: {int(holes.sum())} in all, at "
        f"{int(holes.any(axis=(1, 2)).sum())} of {len(holes)} dates and "
        f"{int(holes.any(axis=0).sum())} of {int(grid_of(series).mask.sum())} cells; the first at "
        f"{label(series['time'].values[time])}, "
        f"lat {float(series['lat'][row]):g}, lon {float(series['lon'][column]):g}\n"
        "  expected: cells with values at every date (ocean), or at none (land)\n"
        "  fix: frames.missing: drop or mask, fill the holes, or cut them out with data.region"
    )


def _holes(series: xr.DataArray) -> np.ndarray:
    return ~np.isfinite(series.values) & grid_of(series).mask


def _on_dates(series: xr.DataArray, positions: np.ndarray, dates: np.ndarray) -> xr.DataArray:
    values = np.full((dates.size, *series.shape[1:]), np.nan, np.float32)
    values[positions] = series.values
    coords = {"time": dates, "lat": series["lat"].values, "lon": series["lon"].values}
    return xr.DataArray(values, coords, series.dims, series.name, series.attrs)
