"""The fields of one forecast file: which variable, on which cells, of which members."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.grid import Grid, describe_axis
from gridcast.sources import axes
from gridcast.sources.axes import LAT, LON, Order
from gridcast.sources.forecast_axes import MEMBER, find
from gridcast.sources.regrid import to_grid
from gridcast.sources.values import check_values, within_valid_range

_BLOCK = 2**26  # bytes that are read at once
_SAME = 1e-4  # degrees, as in Grid.require_same


@dataclass(frozen=True)
class Cells:
    """Rows and columns of a file, in the order that is wanted.

    Attributes:
      rows, columns: positions in the file.
      lat, lon: their degrees, as in Grid.
      onto: the grid to interpolate to, or None.
    """

    rows: Int[np.ndarray, " lat"]
    columns: Int[np.ndarray, " lon"]
    lat: Float[np.ndarray, " lat"]
    lon: Float[np.ndarray, " lon"]
    onto: Grid | None = None


@dataclass(frozen=True)
class ForecastFile:
    """A variable of an open data set.

    Attributes:
      dims: its dimensions besides member, latitude and longitude.
      member: the dimension of its members, or None.
    """

    dataset: xr.Dataset
    field: xr.DataArray
    dims: tuple[Hashable, ...]
    member: Hashable | None
    lat: xr.DataArray
    lon: xr.DataArray
    origin: str

    @classmethod
    def of(cls, dataset: xr.Dataset, variable: str | None, usual: str, origin: str) -> ForecastFile:
        """
        Args:
          variable: its name; None: `usual` if it is there, else the only one with a place.

        Raises:
          DataError: no such variable, several, or one without latitude and longitude.
        """
        field = dataset[_choose(dataset, variable, usual, origin)]
        lat, lon = (dataset[axes.find(dataset, field.dims, k, origin)] for k in (LAT, LON))
        rest = [d for d in field.dims if d not in (*lat.dims, *lon.dims)]
        named = find(dataset, rest, MEMBER)
        along = dataset[named].dims if named is not None else ()
        along = along or [d for d in rest if str(d).lower() in MEMBER.names]
        member = along[0] if along else None
        dims = tuple(d for d in rest if d != member)
        if not dims:  # a single field
            dims = ("forecast",)
            dataset = dataset.expand_dims(dims)
        return cls(dataset, dataset[field.name], dims, member, lat, lon, origin)

    def cells(self, grid: Grid, *, regrid: bool = False) -> Cells:
        """The cells of `grid`.

        Args:
          regrid: where the file does not have them, interpolate from all that it has.

        Raises:
          DataError: the file does not have them.
        """
        rows, columns = self._orders()
        places = _places(rows.values, grid.lat), _places(columns.values, grid.lon)
        if places[0] is not None and places[1] is not None:
            return Cells(rows.index[places[0]], columns.index[places[1]], grid.lat, grid.lon)
        if regrid:
            return Cells(rows.index, columns.index, rows.values, columns.values, grid)
        name, found, asked = (
            ("latitude", rows.values, grid.lat)
            if places[0] is None
            else ("longitude", columns.values, grid.lon)
        )
        raise DataError(
            f"{self.origin}: {name} is {describe_axis(found)}, without the cells of the run\n"
            f"  expected: {describe_axis(asked)}, as in training\n"
            "  fix: regrid it to the grid of the run, for example: cdo remapbil,HINDCAST.nc IN OUT"
        )

    def cells_in(self, box: Region) -> Cells:
        """The cells whose centres lie in a box.

        Raises:
          DataError: there is none.
        """
        try:
            rows, columns = self._orders(box)
        except DataError:  # it knows boxes as data.region only
            rows, columns = self._orders()
            raise DataError(
                f"{self.origin}: no cell in the box lat {list(box.lat)}, lon {list(box.lon)}\n"
                f"  found: lat {describe_axis(rows.values)}, lon {describe_axis(columns.values)}\n"
                "  expected: fields that cover the box of mean_over, or the mean itself"
            ) from None
        return Cells(rows.index, columns.index, rows.values, columns.values)

    def read(
        self,
        at: Int[np.ndarray, "field dim"],
        dates: np.ndarray,
        cells: Cells,
    ) -> Iterator[tuple[Int[np.ndarray, " some"], Float[np.ndarray, "some member lat lon"]]]:
        """Fields on cells, float32 in the units of the file, some at a time; NaN where missing.

        Args:
          at: positions along `dims`.
          dates: [field] what error messages call them.

        Yields:
          Which of the fields, and their values.
        """
        lat, lon = self.lat.dims[0], self.lon.dims[0]
        spans = {lat: _span(cells.rows), lon: _span(cells.columns)}
        rows, columns = cells.rows - spans[lat].start, cells.columns - spans[lon].start
        order = (*self.dims, *([] if self.member is None else [self.member]), lat, lon)
        field = self.field.isel(spans)
        step = self._step(field)
        corners, corner_of = np.unique(at // step, axis=0, return_inverse=True)
        for k, start in enumerate(corners * step):
            chosen = np.flatnonzero(corner_of == k)
            part = dict(zip(self.dims, map(slice, start, start + step), strict=True))
            block = field.isel(part).transpose(*order).values
            with np.errstate(over="ignore"):  # 1e300 becomes infinite and is reported as such
                values = block[tuple((at[chosen] - start).T)].astype(np.float32)
            values = values.reshape(
                len(chosen), -1, *values.shape[-2:]
            )  # a member, if there is none
            values = values[..., rows[:, None], columns]
            values = within_valid_range(values, self.field)
            yield chosen, self._checked(values, dates[chosen], cells)

    def _step(self, field: xr.DataArray) -> Int[np.ndarray, " dim"]:
        """How far to go along each of `dims` at once, for a block; along the last ones first."""
        sizes = [field.sizes[dim] for dim in self.dims]
        count, step = max(1, _BLOCK * prod(sizes) // (4 * field.size)), []
        for size in reversed(sizes):
            step.insert(0, min(size, count))
            count = max(1, count // size)
        return np.array(step)

    def _orders(self, box: Region | None = None) -> tuple[Order, Order]:
        return (
            axes.order_latitude(self.lat.values, box, self.origin),
            axes.order_longitude(self.lon.values, box, self.origin),
        )

    def _checked(
        self, values: Float[np.ndarray, "field member row column"], dates: np.ndarray, cells: Cells
    ) -> Float[np.ndarray, "field member lat lon"]:
        """Raise for values that cannot be meant; interpolate where that is asked for."""
        count, members = values.shape[:2]
        flat = xr.DataArray(
            values.reshape(-1, *values.shape[2:]),
            {"time": np.repeat(dates, members), "lat": cells.lat, "lon": cells.lon},
            ("time", "lat", "lon"),
            str(self.field.name),
            {"units": "1", **self.field.attrs},
        )
        check_values(flat, self.origin)
        if cells.onto is None:
            return values
        moved = np.full((count * members, *cells.onto.shape), np.nan, np.float32)
        some = np.isfinite(flat.values).any(axis=(1, 2))
        if some.any():
            moved[some] = to_grid(flat[some], cells.onto).values
        return moved.reshape(count, members, *cells.onto.shape)


def _choose(dataset: xr.Dataset, variable: str | None, usual: str, origin: str) -> str:
    names = [str(name) for name in dataset.data_vars]
    if variable is not None and variable not in names:
        near = difflib.get_close_matches(variable, names, n=1, cutoff=0.0)
        raise DataError(
            f"{origin}: there is no variable {variable!r}; found {', '.join(names) or 'none'}"
            + (f"\n  nearest: {near[0]}" if near else "")
        )
    if variable is not None or usual in names:
        return usual if variable is None else variable
    placed = [name for name in names if _has_place(dataset, name)]
    found = [name for name in placed if dataset[name].ndim > 2] or placed  # no land mask
    if len(found) != 1:
        raise DataError(
            f"{origin}: {len(found)} variables have latitude and longitude: {', '.join(found)}\n"
            f"  expected: {usual}, as the run forecasts, or a single one\n"
            f"  fix: rename it, for example: ncrename -v {(found or ['NAME'])[0]},{usual} FILE"
        )
    return found[0]


def _has_place(dataset: xr.Dataset, name: str) -> bool:
    field = dataset[name]
    if field.dtype.kind not in "fiu":
        return False
    try:
        return all(axes.find(dataset, field.dims, kind, "") is not None for kind in (LAT, LON))
    except DataError:
        return False


def _places(found: np.ndarray, asked: np.ndarray) -> Int[np.ndarray, " asked"] | None:
    """Where the degrees asked for are among those found, on whatever turn; None: not all are."""
    offset = np.abs((asked[:, None] - found + 180.0) % 360.0 - 180.0)
    return offset.argmin(axis=1) if offset.min(axis=1).max() < _SAME else None


def _span(index: Int[np.ndarray, " n"]) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)
