"""What came, and what is normal, at the dates that a run has forecasts of: `observations.nc`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float32

from gridcast import scratch
from gridcast.cf import LATITUDE, LONGITUDE, of_file
from gridcast.frames.fields import months_of, target_series
from gridcast.frames.transform import FrameTransform
from gridcast.matching import matching_series
from gridcast.opening import Data
from gridcast.run import Run
from gridcast.scratch import blocks, room
from gridcast.sources.store import stored
from gridcast.timeaxis import TimeAxis


def observations(run: Run, data: Data | None, *forecasts: xr.Dataset) -> xr.Dataset:
    """Each target as observed and its training climatology, at every date of the forecasts.

    With the forecasts they are all that is needed to tell anomalies and errors.

    Args:
      data: as `Run.verify`.
      forecasts: as `Run.forecast` and `Run.hindcast` return.

    Returns:
      VARIABLE and VARIABLE_climatology over (time, lat, lon), units of the series; NaN off the mask
      and where nothing was observed. Of a run of classes also VARIABLE_class, which of them came,
      counted from 0, and VARIABLE_climatology_probability over (time, category, lat, lon): how
      often each came in training.
    """
    series, _ = matching_series(run.config, run.fields, data)
    dates = [one[name].values.ravel() for one in forecasts for name in ("time", _INITIAL)]
    times = np.unique(np.concatenate(dates))
    found: dict[str, xr.DataArray] = {}
    targets = zip(target_series(run.config, series), run.fields.plain, strict=True)
    for answer, target in targets:
        name = target.variable
        coords = {"time": times, "lat": answer["lat"].values, "lon": answer["lon"].values}
        fields = zip((name, f"{name}_climatology"), _at(answer, target, times), _WHAT, strict=True)
        for key, values, what in fields:
            about = {"units": target.units, "long_name": f"{what} {name}"}
            found[key] = xr.DataArray(values, coords, answer.dims, attrs=about)
    found |= _classes(run, series, times)
    together = xr.Dataset(found).assign_attrs(of_file(run.attributes))
    together["lat"].attrs, together["lon"].attrs = LATITUDE, LONGITUDE
    if together.nbytes > scratch.BLOCK:  # it is then written some dates at a time
        together.encoding["unlimited_dims"] = {"time"}
    together["time"].attrs = {"standard_name": "time", "units_metadata": "leap_seconds: none"}
    return together


_INITIAL = "forecast_reference_time"
_WHAT = ("observed", "training climatology of")


def _at(
    answer: xr.DataArray, target: FrameTransform, times: np.ndarray
) -> tuple[Float32[np.ndarray, "date lat lon"], Float32[np.ndarray, "date lat lon"]]:
    """What was observed at any dates, and the climatology; of stored series so many at a time."""
    came, normal = (room((times.size, *answer.shape[1:]), np.float32) for _ in range(2))
    place = answer.indexes["time"].get_indexer(times)
    for part in blocks(times.size, 8 * answer[0].size) if stored(answer) else [slice(None)]:
        seen = target.grid.mask & (place[part] >= 0)[:, None, None]
        came[part] = np.where(seen, answer[np.maximum(place[part], 0)].values, np.nan)
        normal[part] = np.where(target.grid.mask, target.climatology.at(times[part]), np.nan)
    return came, normal


def _classes(run: Run, series: list[xr.DataArray], times: np.ndarray) -> dict[str, xr.DataArray]:
    """What came in classes, and their climatology; nothing of a run of values."""
    fields = run.fields
    if fields.classes is None:
        return {}
    answers = target_series(run.config, series)
    came = fields.observed_classes(answers, TimeAxis.of(answers[0]["time"].values))
    odds = fields.classes.odds[months_of(times) - 1]
    place = answers[0].indexes["time"].get_indexer(times)
    found = {}
    for i, (answer, target) in enumerate(zip(answers, fields.targets, strict=True)):
        seen = target.grid.mask & (place >= 0)[:, None, None]
        coords = {"time": times, "lat": answer["lat"].values, "lon": answer["lon"].values}
        about = {"units": "1", "long_name": f"class of {target.variable} that came, from 0"}
        values = np.where(seen, came[place, ..., i], np.nan).astype(np.float32)
        found[f"{target.variable}_class"] = xr.DataArray(values, coords, answer.dims, attrs=about)
        coords["category"] = np.array(fields.classes.labels)
        about = {"units": "1", "long_name": f"share of classes of {target.variable} in training"}
        values = np.where(target.grid.mask, odds[..., i], np.nan).astype(np.float32)
        dims = ("time", "category", "lat", "lon")
        name = f"{target.variable}_climatology_probability"
        found[name] = xr.DataArray(values, coords, dims, attrs=about)
    return found
