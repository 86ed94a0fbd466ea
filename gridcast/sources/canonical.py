"""One canonical form for every labelled series: time, latitude, longitude in order, float32."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.sources import axes
from gridcast.sources.axes import LAT, LON, TIME, Order
from gridcast.sources.dates import read_dates, require_unique
from gridcast.sources.units import convert, same_units
from gridcast.sources.values import (
    check_name,
    check_series,
    check_values,
    is_difference,
    within_valid_range,
)

__all__ = ["canonical", "canonical_field", "check_series", "convert", "is_difference", "same_units"]

log = logging.getLogger("gridcast")

_KEPT = ("units", "long_name", "standard_name", "units_metadata", "source")
_LAT = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
_LON = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}


def canonical(
    data: xr.Dataset | xr.DataArray,
    *,
    variable: str | None = None,
    region: Region | None = None,
    origin: str = "the data",
    series: bool = True,
) -> xr.DataArray:
    """The series in canonical form; `data` is not changed.

    Time is sorted and unique (datetime64[ns], or cftime objects), latitude ascends, longitude is
    0..360 ascending (a region that crosses longitude 0 starts below 0). Files that differ only in
    the order or convention of their axes give the identical result.

    Args:
      variable: needed where several variables have time, latitude and longitude.
      region: a box to cut out, bounds included.
      origin: what error messages call the data: a path.
      series: False for a part of a series: one time step is enough, and the time step is not
        looked at (`check_series` does it for the whole).

    Returns:
      float32 [time, lat, lon], missing values NaN, in the units of the data.

    Raises:
      DataError: anything that does not fit this form, saying what was found.
    """
    dataset = with_time(_as_dataset(data, variable))
    dims = TIME, LAT, LON
    name = choose(dataset, variable, dims, origin)
    where = [axes.find(dataset, dataset[name].dims, kind, origin) for kind in dims]
    field = _squeeze(dataset[name], [dataset[axis].dims[0] for axis in where], origin)
    time, lat, lon = (dataset[axis].variable for axis in where)
    times = read_dates(time, origin)
    when = np.argsort(times, kind="stable")
    times = times[when]
    require_unique(times, origin)
    orders = (
        Order(when, times),
        axes.order_latitude(lat.values, region, origin),
        axes.order_longitude(lon.values, region, origin),
    )
    return _finish(_take(field, orders, origin), field, times, orders[1:], origin, series)


def canonical_field(
    data: xr.Dataset, names: Sequence[str], *, origin: str = "the data"
) -> xr.DataArray:
    """A field without time as float32 [lat, lon], in the canonical order of `canonical`.

    Args:
      names: of the variable, best first, in any case; else the only field there is.

    Raises:
      DataError: no such field, several, or one that does not fit this form.
    """
    known = {str(name).lower(): name for name in _fields(data, (LAT, LON))}
    named = [str(known[name]) for name in names if name in known]
    name = choose(data, named[0] if named else None, (LAT, LON), origin)
    where = [axes.find(data, data[name].dims, kind, origin) for kind in (LAT, LON)]
    field = _squeeze(data[name], [data[axis].dims[0] for axis in where], origin)
    orders = (
        axes.order_latitude(data[where[0]].values, None, origin),
        axes.order_longitude(data[where[1]].values, None, origin),
    )
    values = _take(field, orders, origin)
    coords = {"lat": ("lat", orders[0].values, _LAT), "lon": ("lon", orders[1].values, _LON)}
    return xr.DataArray(values, coords, ("lat", "lon"), str(name), _attributes(field, origin))


def _as_dataset(data: xr.Dataset | xr.DataArray, variable: str | None) -> xr.Dataset:
    if isinstance(data, xr.Dataset):
        return data
    name = data.name if data.name is not None else variable or "values"
    return data.to_dataset(name=name)


def with_time(dataset: xr.Dataset) -> xr.Dataset:
    """A single field with a scalar date is a series of one step."""
    if any(axes.certainty(n, v, TIME) > 1 and v.ndim for n, v in dataset.variables.items()):
        return dataset
    for name, coordinate in dataset.coords.items():
        if coordinate.ndim == 0 and axes.certainty(name, coordinate.variable, TIME) > 1:
            return dataset.expand_dims(name)
    return dataset


def _fields(dataset: xr.Dataset, kinds: Sequence[axes.Kind]) -> list[Hashable]:
    """Numeric variables that have all these axes."""
    found = []
    for name, field in dataset.data_vars.items():
        if field.dtype.kind not in "fiub" or field.ndim < len(kinds):
            continue
        try:
            for kind in kinds:
                axes.find(dataset, field.dims, kind, "")
        except DataError:
            continue
        found.append(name)
    return found


def choose(
    dataset: xr.Dataset, variable: str | None, kinds: Sequence[axes.Kind], origin: str
) -> Hashable:
    """The variable of this name, or the only one that has these axes."""
    names = [str(name) for name in dataset.data_vars]
    if variable is not None:
        if variable not in names:
            near = difflib.get_close_matches(variable, names, n=1, cutoff=0.0)
            raise DataError(
                f"{origin}: there is no variable {variable!r}; found {', '.join(names) or 'none'}"
                + (f"\n  fix: data.variable: {near[0]}" if near else "")
            )
        if dataset[variable].dtype.kind not in "fiub":
            raise DataError(
                f"{origin}: {variable!r} holds {dataset[variable].dtype}, expected numbers"
            )
        return variable
    found = _fields(dataset, kinds)
    words = ", ".join(kind.word for kind in kinds)
    if len(found) > 1:
        raise DataError(
            f"{origin}: {len(found)} variables have {words}: {', '.join(map(str, found))}\n"
            f"  fix: data.variable: {found[0]} (or another of them)"
        )
    if not found:
        numeric = [n for n, v in dataset.data_vars.items() if v.dtype.kind in "fiub"]
        if numeric:  # say what the largest of them lacks
            name = max(numeric, key=lambda n: (dataset[n].ndim, dataset[n].size))
            for kind in kinds:
                axes.find(dataset, dataset[name].dims, kind, f"{origin}: {name}")
        raise DataError(
            f"{origin}: no variable has {words}; found {', '.join(names) or 'no variable at all'}"
        )
    return found[0]


def _squeeze(field: xr.DataArray, dims: list[Hashable], origin: str) -> xr.DataArray:
    if len(set(dims)) < len(dims):
        raise DataError(
            f"{origin}: latitude and longitude share the dimension {str(dims[-1])!r}: a list of "
            "points, not a grid\n  fix: regrid to a regular latitude-longitude grid first"
        )
    extra = {d: n for d, n in zip(field.dims, field.shape, strict=True) if d not in dims}
    sizes = ", ".join(f"{d} ({n})" for d, n in extra.items())
    long = [d for d, n in extra.items() if n != 1]
    if long:
        raise DataError(
            f"{origin}: {field.name} has further dimensions: {sizes}\n"
            f"  expected: {', '.join(map(str, dims))}\n"
            f"  fix: select one, for example ds.isel({long[0]}=0), and save that"
        )
    if extra:
        log.info("%s: dropped the dimension %s of %s", origin, sizes, field.name)
    return field.isel(dict.fromkeys(extra, 0)).transpose(*dims)


def _take(field: xr.DataArray, orders: Sequence[Order], origin: str) -> np.ndarray:
    """Read the smallest box that holds the cells and put it in order, as float32."""
    box = [order.span for order in orders]
    raw = field.isel(dict(zip(field.dims, box, strict=True))).values
    with np.errstate(over="ignore"):  # 1e300 becomes infinite and is reported as such
        values = raw.astype(np.float32)
    values = within_valid_range(values, field)
    first = box[-1].start
    for kept, dropped in orders[-1].twins:
        columns = values[..., kept - first], values[..., dropped - first]
        if not np.array_equal(*columns, equal_nan=True):
            raise DataError(
                f"{origin}: two columns lie on the same meridian and differ (the first and last, "
                "360 degrees apart)\n  fix: drop one of them"
            )
        log.info("%s: dropped a column that repeats another, 360 degrees apart", origin)
    for axis, (order, part) in enumerate(zip(orders, box, strict=True)):
        index = order.index - part.start
        if not np.array_equal(index, np.arange(values.shape[axis])):
            values = np.take(values, index, axis=axis)
    return np.ascontiguousarray(values)


def _attributes(field: xr.DataArray, origin: str) -> dict[str, str]:
    attrs = {key: str(field.attrs[key]) for key in _KEPT if key in field.attrs}
    if not attrs.get("units", "").strip():
        log.info("%s: %s has no units: taken as '1'", origin, field.name)
        attrs["units"] = "1"
    return attrs


def _finish(
    values: np.ndarray,
    field: xr.DataArray,
    times: np.ndarray,
    orders: Sequence[Order],
    origin: str,
    series: bool,
) -> xr.DataArray:
    lat, lon = orders
    coords = {
        "time": ("time", times, {"standard_name": "time", "axis": "T"}),
        "lat": ("lat", lat.values, _LAT),
        "lon": ("lon", lon.values, _LON),
    }
    name = str(field.name)
    result = xr.DataArray(values, coords, ("time", "lat", "lon"), name, _attributes(field, origin))
    check_name(name, origin)
    check_values(result, origin)
    if series:
        check_series(result, origin)
    return result
