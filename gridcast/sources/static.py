"""Static layers on the grid of the data: elevation, land mask and position."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Float32
from scipy import sparse

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.canonical import canonical_field
from gridcast.sources.netcdf import opened
from gridcast.sources.units import convert, family, spelling

_NAMES = ("elevation", "orography", "topo", "topography", "z", "height", "rose", "band1")
_GRAVITY = 9.80665  # m s-2, the standard value by which geopotential is divided
_LOWEST, _HIGHEST = -12000.0, 9000.0  # m, of the Earth
_COVERED = 0.99  # share of a cell that the source has to cover


def open_elevation(path: str | Path) -> xr.DataArray:
    """Height of the surface (negative: depth of the sea) from a NetCDF file.

    Args:
      path: a file with a variable named elevation, orography, topo, topography, z, height, rose or
        Band1, or with one field of latitude and longitude only; m, km or geopotential (m2 s-2).

    Returns:
      float32 [lat, lon] in m, latitude ascending, longitude as in `Grid`.

    Raises:
      DataError: no such field, other units, or heights that the Earth does not have.
    """
    with opened(path) as dataset:
        field = canonical_field(dataset, _NAMES, origin=str(path))
    units, values = field.attrs["units"], field.values
    if spelling(units) == "m2 s-2":
        values = (values / np.float64(_GRAVITY)).astype(np.float32)
    elif family(units) == "length":
        values = convert(values, units, "m")
    elif spelling(units) == "1":
        logging.getLogger("gridcast").info("%s: %s without units: taken as m", path, field.name)
    else:
        raise DataError(
            f"{path}: {field.name} has units {units!r}\n  expected: m, or geopotential in m2 s-2"
        )
    low, high = (float(f.reduce(values, axis=None)) for f in (np.fmin, np.fmax))
    if low < _LOWEST or high > _HIGHEST:
        raise DataError(
            f"{path}: {field.name} goes from {low:g} to {high:g} m\n"
            f"  expected: {_LOWEST:g} to {_HIGHEST:g} m\n"
            "  fix: declare the fill value (_FillValue), or correct the attribute `units`"
        )
    return field.copy(data=values).assign_attrs(units="m")


def static_layers(
    layers: Sequence[str], grid: Grid, elevation: xr.DataArray | None = None
) -> tuple[Float32[np.ndarray, "lat lon layer"], list[str]]:
    """Layers on the cells of `grid`, of the order of 1, as channels for a model.

    elevation: height, averaged over each cell with the exact area of overlap (first-order
      conservative: Jones 1999, Mon. Wea. Rev. 127, 2204-2210), or interpolated bilinearly where
      the source is coarser than the grid; minus its mean over the grid, divided by its standard
      deviation (by 1 where it is constant).
    land_mask: fraction of the cell above sea level, 0 to 1, by the same method.
    position: sine and cosine of latitude and of longitude, four channels.

    Args:
      elevation: m, as `open_elevation` returns it; needed for elevation and land_mask.

    Returns:
      The channels, and their names.

    Raises:
      DataError: an unknown layer, no elevation given, or one that does not cover the grid.
    """
    channels: list[np.ndarray] = []
    names: list[str] = []
    for layer in layers:
        if layer == "position":
            for word, degrees in (("lat", grid.lat[:, None]), ("lon", grid.lon[None, :])):
                for function in (np.sin, np.cos):
                    channels.append(np.broadcast_to(function(np.deg2rad(degrees)), grid.shape))
                    names.append(f"{function.__name__}_{word}")
            continue
        if layer not in ("elevation", "land_mask"):
            raise DataError(
                f"there is no static layer {layer!r}\n  known: elevation, land_mask, position"
            )
        if elevation is None:
            raise DataError(
                f"the static layer {layer!r} needs a file of elevation, none is given\n"
                "  fix: static.path: a NetCDF file of elevation in m"
            )
        height = elevation.values.astype(np.float64)
        if layer == "land_mask":
            height = np.where(np.isnan(height), np.nan, height > 0)
        field = on_grid(height, elevation["lat"].values, elevation["lon"].values, grid)
        if layer == "elevation":
            deviation = field.std()
            # The average of equal numbers differs from them in the last digits.
            constant = deviation <= 1e-9 * max(1.0, float(np.abs(field).max()))
            field = (field - field.mean()) / (1.0 if constant else deviation)
        channels.append(field)
        names.append(layer)
    stacked = np.stack(channels, axis=-1) if channels else np.zeros((*grid.shape, 0))
    return stacked.astype(np.float32), names


def on_grid(
    values: Float[np.ndarray, "y x"],
    lat: Float[np.ndarray, " y"],
    lon: Float[np.ndarray, " x"],
    grid: Grid,
) -> Float[np.ndarray, "lat lon"]:
    """A field on the cells of `grid`: their area mean, or bilinear where the source is coarser.

    Args:
      values, lat, lon: the source in canonical form, degrees.

    Raises:
      DataError: a source that does not cover every cell (1 % may lack), or is missing there.
    """
    source = Grid(lat, lon, np.ones((lat.size, lon.size), dtype=bool))
    edges = _edges(source), _edges(grid)
    _require_cover(edges, source.wraps)
    coarser = any(
        _spacing(fine) > _spacing(target) * (1 + 1e-4)
        for fine, target in ((lat, grid.lat), (lon, grid.lon))
    )
    if coarser:
        rows = _between(lat, grid.lat, around=False)
        columns = _between(lon, grid.lon, around=source.wraps)
    else:
        bands = [np.sin(np.deg2rad(e[0])) for e in edges]
        rows = _overlap(bands[0], bands[1], period=None)
        columns = _overlap(edges[0][1], edges[1][1], period=360.0)
    missing = np.isnan(values)
    if missing.any() and (rows @ missing.astype(np.float64) @ columns.T > 0).any():
        raise DataError(
            f"the elevation is missing in {int(missing.sum())} cells of its file, some on the grid "
            "of the data\n  fix: fill them, for example with 0 over the sea"
        )
    return np.asarray(rows @ np.where(missing, 0.0, values) @ columns.T)


def _edges(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
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


def _spacing(centres: np.ndarray) -> float:
    return float(np.median(np.diff(centres))) if centres.size > 1 else 1.0


def _overlap(
    source: Float[np.ndarray, " x1"], target: Float[np.ndarray, " t1"], period: float | None
) -> sparse.csr_array:
    """Which share of each target cell each source cell covers, [target, source]; rows sum to 1."""
    row, column, share = [], [], []
    for turn in (0.0,) if period is None else (-period, 0.0, period):
        edges = source + turn
        for k, (low, high) in enumerate(pairwise(target)):
            first = max(int(np.searchsorted(edges, low, side="right")) - 1, 0)
            last = min(int(np.searchsorted(edges, high, side="left")), edges.size - 1)
            part = np.clip(edges[first : last + 1], low, high)
            widths = np.diff(part)
            row += [k] * widths.size
            column += range(first, first + widths.size)
            share += widths.tolist()
    weights = sparse.csr_array(
        sparse.coo_array((share, (row, column)), shape=(target.size - 1, source.size - 1))
    )
    return sparse.csr_array(sparse.diags_array(1.0 / weights.sum(axis=1)) @ weights)


def _between(
    source: Float[np.ndarray, " x"], target: Float[np.ndarray, " t"], *, around: bool
) -> sparse.csr_array:
    """Weights of the two source centres around each target centre, [target, source].

    Between the outermost centre and the edge of its cell the centre's value holds.
    """
    size = source.size
    if around:
        target = (target - source[0]) % 360.0 + source[0]
        source = np.append(source, source[0] + 360.0)
    else:  # the same meridian, whatever turn it is counted on
        middle = 0.5 * (source[0] + source[-1])
        target = (target - middle + 180.0) % 360.0 + middle - 180.0
    if source.size == 1:
        return sparse.csr_array(np.ones((target.size, 1)))
    left = np.clip(np.searchsorted(source, target, side="right") - 1, 0, source.size - 2)
    weight = np.clip((target - source[left]) / (source[left + 1] - source[left]), 0.0, 1.0)
    rows = np.tile(np.arange(target.size), 2)
    columns = np.concatenate([left, (left + 1) % size])
    shares = np.concatenate([1.0 - weight, weight])
    return sparse.csr_array(sparse.coo_array((shares, (rows, columns)), (target.size, size)))


def _require_cover(
    edges: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], around: bool
) -> None:
    """Raise unless the source covers every row and column of the target."""
    (rows, columns), (target_rows, target_columns) = edges
    turns = (-360.0, 0.0, 360.0)
    for word, source, target, shifts in (
        ("latitude", rows, target_rows, (0.0,)),
        ("longitude", columns, target_columns, () if around else turns),
    ):
        if not shifts:
            continue
        low, high = target[:-1], target[1:]
        covered = sum(
            np.clip(np.minimum(high, source[-1] + s) - np.maximum(low, source[0] + s), 0.0, None)
            for s in shifts
        )
        lacking: Bool[np.ndarray, " cells"] = covered < _COVERED * (high - low)
        if not lacking.any():
            continue
        starts = np.flatnonzero(lacking & ~np.append(False, lacking[:-1]))
        ends = np.flatnonzero(lacking & ~np.append(lacking[1:], False))
        ranges = [f"{low[a]:g} to {high[b]:g}" for a, b in zip(starts, ends, strict=True)]
        raise DataError(
            f"the elevation does not cover the grid: {word} {' and '.join(ranges)} is missing\n"
            f"  found: {word} {source[0]:g} to {source[-1]:g}\n"
            f"  expected: at least {target[0]:g} to {target[-1]:g}\n"
            "  fix: use a global file of elevation, or a smaller data.region"
        )
