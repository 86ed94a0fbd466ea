"""Static layers on the grid of the data: elevation, land mask and position."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Float32

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.canonical import canonical_field
from gridcast.sources.netcdf import opened
from gridcast.sources.regrid import cell_edges, weights
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

    elevation: height on the cells of the grid, as `regrid.to_grid` says; minus its mean over the
      grid, divided by its standard deviation (by 1 where it is constant).
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
    """A whole field on the cells of `grid`, as `regrid.to_grid` says.

    Args:
      values, lat, lon: the source in canonical form, degrees.

    Raises:
      DataError: a source that does not cover every cell (1 % may lack), or is missing there.
    """
    source = Grid(lat, lon, np.ones((lat.size, lon.size), dtype=bool))
    _require_cover((cell_edges(source), cell_edges(grid)), source.wraps)
    rows, columns = weights(source, grid)
    missing = np.isnan(values)
    if missing.any() and (rows @ missing.astype(np.float64) @ columns.T > 0).any():
        raise DataError(
            f"the elevation is missing in {int(missing.sum())} cells of its file, some on the grid "
            "of the data\n  fix: fill them, for example with 0 over the sea"
        )
    covered = rows.sum(axis=1)[:, None] * columns.sum(axis=1)
    return np.asarray(rows @ np.where(missing, 0.0, values) @ columns.T) / covered


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
