"""What came, and what is normal, at the dates that a run has forecasts of: `observations.nc`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gridcast.frames.fields import target_series
from gridcast.labelling import LATITUDE, LONGITUDE, of_file
from gridcast.matching import matching_series
from gridcast.opening import Data
from gridcast.run import Run


def observations(run: Run, data: Data | None, *forecasts: xr.Dataset) -> xr.Dataset:
    """Each target as observed and its training climatology, at every date of the forecasts.

    With the forecasts they are all that is needed to tell anomalies and errors.

    Args:
      data: as `Run.verify`.
      forecasts: as `Run.forecast` and `Run.hindcast` return.

    Returns:
      VARIABLE and VARIABLE_climatology over (time, lat, lon), units of the series; NaN off the mask
      and where nothing was observed.
    """
    series, _ = matching_series(run.config, run.fields, data)
    dates = [one[name].values.ravel() for one in forecasts for name in ("time", _INITIAL)]
    times = np.unique(np.concatenate(dates))
    found: dict[str, xr.DataArray] = {}
    targets = zip(target_series(run.config, series), run.fields.plain, strict=True)
    for answer, target in targets:
        came = answer.reindex(time=times).where(target.grid.mask)
        normal = np.where(target.grid.mask, target.climatology.at(times), np.nan)
        name = target.variable
        about = {"units": target.units, "long_name": f"observed {name}"}
        found[name] = came.drop_attrs().assign_attrs(about)
        about = {"units": target.units, "long_name": f"training climatology of {name}"}
        found[f"{name}_climatology"] = came.copy(data=normal.astype(np.float32)).assign_attrs(about)
    together = xr.Dataset(found).assign_attrs(of_file(run.attributes))
    together["lat"].attrs, together["lon"].attrs = LATITUDE, LONGITUDE
    together["time"].attrs = {"standard_name": "time", "units_metadata": "leap_seconds: none"}
    return together


_INITIAL = "forecast_reference_time"
