"""Anomalies of a series for people: against a climatology of dates that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr

from gridcast.config.bounds import Period
from gridcast.errors import ConfigError, DataError
from gridcast.frames.climatology import Climatology
from gridcast.frames.transform import grid_of
from gridcast.sources.units import family
from gridcast.timeaxis import TimeAxis, label


def anomaly(
    series: xr.DataArray,
    period: Sequence[str | int],
    *,
    kind: Literal["harmonics", "monthly", "mean"] = "harmonics",
    harmonics: int = 3,
    trend: bool = False,
) -> xr.DataArray:
    """Departures from the seasonal cycle of `period`, which forecasts are made of as well.

    Args:
      series: canonical; NaN off the mask and where nothing was observed.
      period: first and last date of the climatology, both included. There is no default: a
        climatology of all dates knows the years that a forecast is judged on.
      kind, harmonics, trend: as `frames.climatology` in a config.

    Returns:
      float32 (time, lat, lon) at every date, in the units of the series; `climatology_period` is
      among its attributes.

    Raises:
      ConfigError: `period` is no pair of dates.
      DataError: the series has no date in it, or too few for a climatology.
    """
    try:
        bounds = Period.model_validate(period)
    except ValueError as error:
        raise ConfigError(
            f"the period of the climatology is {period!r}\n"
            "  expected: its first and last date, such as ('1950', '1994') or "
            "('1982-01', '2006-12')"
        ) from error
    axis = TimeAxis.of(series["time"].values)
    inside = axis.inside(*bounds.bounds)
    if not inside.any():
        raise DataError(
            f"the data hold no date from {bounds}\n"
            f"  found: {label(axis.times[0])} to {label(axis.times[-1])}\n"
            "  fix: a period within these dates"
        )
    fitted = Climatology.fit(
        series.values[inside],
        axis.times[inside],
        grid_of(series).mask,
        unit=axis.unit,
        kind=kind,
        harmonics=harmonics,
        trend=trend,
    )
    departure = (series.values - fitted.at(axis.times)).astype(np.float32)
    units = str(series.attrs["units"])
    name = series.attrs.get("long_name", series.name)
    about = {
        "units": units,
        "long_name": f"anomaly of {name}",
        "climatology_period": str(bounds),
        **{key: series.attrs[key] for key in ("source",) if key in series.attrs},
    }
    if family(units) == "temperature":
        about["units_metadata"] = "temperature: difference"
    found = series.copy(data=departure).rename(f"{series.name}_anomaly")
    found.attrs = about
    return found
