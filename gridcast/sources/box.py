"""Area means over a box: an index, such as Nino 3.4, from a field."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.grid import Grid, describe_axis
from gridcast.sources import axes


def box_mean(series: xr.DataArray, box: Region) -> xr.DataArray:
    """The mean over a box, weighted with the area of the cells whose centres lie in it.

    Cells that are missing at all dates (land) do not count. A date on which another cell is
    missing is NaN: a mean over fewer cells would be another index.

    Args:
      series: canonical.

    Returns:
      float32 [time, 1, 1] at the middle of the box, name and attributes as given.

    Raises:
      DataError: no cell of the box has values.
    """
    lat, lon = (series[name].values.astype(np.float64) for name in ("lat", "lon"))
    origin = str(series.name)
    try:
        rows = axes.order_latitude(lat, box, origin).index
        columns = axes.order_longitude(lon, box, origin).index
    except DataError:  # it knows boxes as data.region only
        raise _no_cell("centre of a cell lies", series, box) from None
    cells = series.values[:, rows[:, None], columns].astype(np.float64)
    area = Grid(lat, lon, np.ones((lat.size, lon.size), bool)).area[rows[:, None], columns]
    sea = np.isfinite(cells).any(axis=0)
    if not sea.any():
        raise _no_cell("value was observed", series, box)
    values = (cells[:, sea] @ (area[sea] / area[sea].sum())).astype(np.float32)
    coords = {
        "time": series["time"],
        "lat": ("lat", [np.mean(box.lat)], series["lat"].attrs),
        "lon": ("lon", [np.mean(box.lon) % 360.0], series["lon"].attrs),
    }
    dims = ("time", "lat", "lon")
    return xr.DataArray(values[:, None, None], coords, dims, series.name, series.attrs)


def _no_cell(what: str, series: xr.DataArray, box: Region) -> DataError:
    lat, lon = (describe_axis(series[name].values) for name in ("lat", "lon"))
    return DataError(
        f"{series.name}: no {what} in the box lat {list(box.lat)}, lon {list(box.lon)}\n"
        f"  found: lat {lat}, lon {lon}\n"
        "  expected: at least one cell with values in mean_over\n"
        "  fix: another mean_over, or a larger data.region"
    )
