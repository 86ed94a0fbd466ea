"""Series on the cells and dates of another series: the first variable decides both."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy
import xarray as xr
from jaxtyping import Float

from gridcast.errors import DataError
from gridcast.grid import Grid, describe_axis
from gridcast.sources.leads import step_text
from gridcast.timeaxis import TimeAxis, label

_SAME = 1e-4  # degrees, as in Grid.require_same; also relative, for the spacing of centres
_PRESENT = 0.5  # share of a cell that has to be observed


def to_grid(series: xr.DataArray, grid: Grid) -> xr.DataArray:
    """A canonical series on the cells of `grid`, whatever the mask of `grid`.

    Along each axis the mean over the cell, weighted with the exact overlap, where the source is
    as fine or finer (first-order conservative: Jones 1999, Mon. Wea. Rev. 127, 2204-2210), linear
    between centres where it is coarser. Cells that the source has too stay as they are. Of cells
    that are partly missing or partly outside of the source the rest counts, if it is half of the
    cell or more; others are NaN.

    Raises:
      DataError: no cell of the grid has a value at any date.
    """
    lat, lon = (series[name].values.astype(np.float64) for name in ("lat", "lon"))
    rows, columns = weights(Grid(lat, lon, np.ones((lat.size, lon.size), bool)), grid)
    values = np.full((series.sizes["time"], *grid.shape), np.nan, np.float32)
    for target, field in zip(values, series.values, strict=True):
        seen = np.isfinite(field)
        share = rows @ seen.astype(np.float64) @ columns.T
        total = rows @ np.where(seen, field, 0.0).astype(np.float64) @ columns.T
        enough = share > _PRESENT - 1e-9
        target[enough] = total[enough] / share[enough]
    if np.isnan(values).all():
        raise DataError(
            f"{series.name} has no value on the grid\n"
            f"  found: lat {describe_axis(lat)}, lon {describe_axis(lon)}\n"
            f"  expected: values within lat {describe_axis(grid.lat)}, "
            f"lon {describe_axis(grid.lon)}\n"
            "  fix: give data that cover the grid, or move data.region"
        )
    return _like(series, values, series["time"].values, grid.lat, grid.lon)


def align_dates(series: xr.DataArray, axis: TimeAxis) -> xr.DataArray:
    """A canonical series on the dates of `axis`, NaN where it has none.

    Dates belong together that lie in the same year, month or day, where that is the unit of the
    step, whatever their stamp and calendar; dates of hours and minutes have to be equal.

    Raises:
      DataError: a series of another frequency, or without any date of `axis`.
    """
    ours = TimeAxis.of(series["time"].values)
    if (ours.unit, ours.every) != (axis.unit, axis.every):
        raise DataError(
            f"{series.name} has one value every {ours.frequency}\n"
            f"  expected: every {axis.frequency}, as the first variable\n"
            "  fix: resample one of them, for example ds.resample(time='1D').mean()"
        )
    place = {step: k for k, step in enumerate(step_text(ours.times, axis.unit))}
    source = np.array([place.get(step, -1) for step in step_text(axis.times, axis.unit)])
    known = source >= 0
    if not known.any():
        raise DataError(
            f"{series.name} has no date of the first variable\n"
            f"  found: {label(ours.times[0])} to {label(ours.times[-1])}\n"
            f"  expected: dates within {label(axis.times[0])} to {label(axis.times[-1])}, with the "
            "same step\n  fix: give data of the same dates"
        )
    values = np.full((axis.times.size, *series.shape[1:]), np.nan, np.float32)
    values[known] = series.values[source[known]]
    return _like(series, values, axis.times, series["lat"].values, series["lon"].values)


def weights(source: Grid, target: Grid) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Weights of the source's rows and columns, [target row, source row] and alike.

    `rows @ field @ columns.T` is the sum of weighted values; the weights of a cell sum to the
    share of it that the source covers.
    """
    (lat, lon), (target_lat, target_lon) = cell_edges(source), cell_edges(target)
    rows, columns = _same_cells(source.lat, target.lat), _same_cells(source.lon, target.lon)
    if rows is None and _finer(source.lat, target.lat):
        rows = _overlap(*(np.sin(np.deg2rad(edges)) for edges in (lat, target_lat)), period=None)
    if columns is None and _finer(source.lon, target.lon):
        columns = _overlap(lon, target_lon, period=360.0)
    return (
        _between(source.lat, lat, target.lat, around=False) if rows is None else rows,
        _between(source.lon, lon, target.lon, around=source.wraps) if columns is None else columns,
    )


def cell_edges(grid: Grid) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Edges of rows and of columns in degrees, half way between centres."""
    rows = np.clip(_middles(grid.lat, None), -90.0, 90.0)
    return rows, _middles(grid.lon, 360.0 if grid.wraps else None)


def _middles(centres: np.ndarray, period: float | None) -> np.ndarray:
    if centres.size == 1:  # as in Grid.area
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = 0.5 * (centres[1:] + centres[:-1])
    if period is not None:
        first = 0.5 * (centres[0] + centres[-1] - period)
        return np.concatenate([[first], middle, [first + period]])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _finer(source: np.ndarray, target: np.ndarray) -> bool:
    """Whether the source's cells are as narrow as the target's, or narrower."""
    ours, theirs = (
        float(np.median(np.diff(centres))) if centres.size > 1 else 1.0
        for centres in (source, target)
    )
    return ours <= theirs * (1 + _SAME)


def _same_cells(source: np.ndarray, target: np.ndarray) -> scipy.sparse.csr_array | None:
    """Weights of 1, where the target's centres are neighbouring centres of the source.

    The outermost edges of a cut grid are a guess, so overlap would not quite give this.
    """
    offset = np.abs((target[:, None] - source + 180.0) % 360.0 - 180.0)
    nearest = offset.argmin(axis=1)
    neighbours = (np.diff(nearest) % source.size == 1).all() and target.size > 1
    if not neighbours or offset.min(axis=1).max() > _SAME:
        return None
    ones, row = np.ones(target.size), np.arange(target.size)
    return scipy.sparse.csr_array(
        scipy.sparse.coo_array((ones, (row, nearest)), (target.size, source.size))
    )


def _overlap(
    source: Float[np.ndarray, " x1"], target: Float[np.ndarray, " t1"], period: float | None
) -> scipy.sparse.csr_array:
    """Which share of each target cell each source cell covers, from the edges of both."""
    row, column, share = [], [], []
    for turn in (0.0,) if period is None else (-period, 0.0, period):
        edges = source + turn
        for k, (low, high) in enumerate(pairwise(target)):
            first = max(int(np.searchsorted(edges, low, side="right")) - 1, 0)
            last = min(int(np.searchsorted(edges, high, side="left")), edges.size - 1)
            part = np.diff(np.clip(edges[first : last + 1], low, high)) / (high - low)
            row += [k] * part.size
            column += range(first, first + part.size)
            share += part.tolist()
    shape = target.size - 1, source.size - 1
    return scipy.sparse.csr_array(scipy.sparse.coo_array((share, (row, column)), shape))


def _between(
    source: Float[np.ndarray, " x"],
    edges: Float[np.ndarray, " x1"],
    target: Float[np.ndarray, " t"],
    *,
    around: bool,
) -> scipy.sparse.csr_array:
    """Weights of the two source centres around each target centre.

    Between the outermost centre and the edge of its cell the centre's value holds.
    """
    size = source.size
    if around:
        target = (target - source[0]) % 360.0 + source[0]
        source = np.append(source, source[0] + 360.0)
        covered = np.ones(target.size)
    else:  # the same meridian, whatever turn it is counted on
        middle = 0.5 * (source[0] + source[-1])
        target = (target - middle + 180.0) % 360.0 + middle - 180.0
        covered = ((target > edges[0] - _SAME) & (target < edges[-1] + _SAME)).astype(np.float64)
    if source.size == 1:
        return scipy.sparse.csr_array(covered[:, None])
    left = np.clip(np.searchsorted(source, target, side="right") - 1, 0, source.size - 2)
    weight = np.clip((target - source[left]) / (source[left + 1] - source[left]), 0.0, 1.0)
    rows = np.tile(np.arange(target.size), 2)
    columns = np.concatenate([left, (left + 1) % size])
    shares = np.concatenate([(1.0 - weight) * covered, weight * covered])
    return scipy.sparse.csr_array(
        scipy.sparse.coo_array((shares, (rows, columns)), (target.size, size))
    )


def _like(
    series: xr.DataArray, values: np.ndarray, time: np.ndarray, lat: np.ndarray, lon: np.ndarray
) -> xr.DataArray:
    """Other values on other axes, named and described as `series`."""
    places = {"time": time, "lat": lat, "lon": lon}
    coords = {name: (name, place, series[name].attrs) for name, place in places.items()}
    return xr.DataArray(values, coords, ("time", "lat", "lon"), series.name, series.attrs)
