"""A collection of files as one canonical series that is read some dates at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Int

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.sources import axes
from gridcast.sources.axes import LAT, LON, TIME
from gridcast.sources.canonical import canonical, choose, with_time
from gridcast.sources.dates import read_dates
from gridcast.sources.files import find_files
from gridcast.sources.joining import joined_dates, require_alike
from gridcast.sources.netcdf import opened
from gridcast.sources.packing import Packing
from gridcast.timeaxis import TimeAxis


@dataclass(frozen=True)
class Collection:
    """Files of one product, and which of their fields is which date of the series.

    Attributes:
      like: the field of one date in canonical form: grid, name and attributes of all.
      times: of the series, sorted and unique.
      owner: the file that each date is in.
      place: where in this file it is.
      packing: that all files share; None: they are packed each by itself, or not.
    """

    paths: list[Path]
    variable: str | None
    region: Region | None
    like: xr.DataArray
    times: np.ndarray
    owner: Int[np.ndarray, " time"]
    place: Int[np.ndarray, " time"]
    packing: Packing | None

    @classmethod
    def of(
        cls,
        source: str | Path | Sequence[str | Path],
        variable: str | None = None,
        region: Region | None = None,
    ) -> Collection:
        """Read the dates of all files, and one field.

        Raises:
          DataError: as `gridcast.sources.netcdf.open_frames`.
        """
        paths = find_files(source)
        times, like, packings = [], None, set()
        for path in paths:
            with opened(path) as dataset:
                whole, dim, dates = _with_dates(dataset, variable, str(path))
                times.append(dates)
                name = choose(whole, variable, (TIME, LAT, LON), str(path))
                packings.add(Packing.of(whole[name]))
                if like is None:
                    one = whole.isel({dim: slice(0, 1)})
                    like = canonical(
                        one, variable=variable, region=region, origin=str(path), series=False
                    )
        assert like is not None
        joined, order = joined_dates(paths, times)
        TimeAxis.of(joined)  # a step that is none shows before an hour is spent
        sizes = [one.size for one in times]
        owner = np.repeat(np.arange(len(paths)), sizes)[order]
        place = np.concatenate([np.arange(size) for size in sizes])[order]
        packing = packings.pop() if len(packings) == 1 else None
        return cls(paths, variable, region, like, joined, owner, place, packing)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.times.size, self.like.sizes["lat"], self.like.sizes["lon"]

    @property
    def digest(self) -> str:
        """Of the files, as far as their names, sizes and times of change tell, and the cut."""
        found = hashlib.sha256(repr((self.variable, self.region, self.shape)).encode())
        for path in self.paths:
            about = path.stat()
            found.update(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}".encode())
        return found.hexdigest()

    def read(self, dates: slice) -> xr.DataArray:
        """Some dates in canonical form: float32 [time, lat, lon].

        Raises:
          DataError: as `gridcast.sources.netcdf.open_frames`, of these dates.
        """
        owner, place = self.owner[dates], self.place[dates]
        values = np.empty((owner.size, *self.shape[1:]), np.float32)
        for number in np.unique(owner):
            path, inside = self.paths[number], owner == number
            with opened(path) as dataset:
                whole, dim, _ = _with_dates(dataset, self.variable, str(path))
                asked = np.sort(place[inside])
                piece = canonical(
                    whole.isel({dim: _as_slice(asked)}),
                    variable=self.variable,
                    region=self.region,
                    origin=str(path),
                    series=False,
                )
            require_alike(self.paths[0], self.like, path, piece)
            values[inside] = piece.values
        coords = {**self.like.coords, "time": ("time", self.times[dates])}
        return xr.DataArray(values, coords, self.like.dims, self.like.name, self.like.attrs)

    def blocks(self, step: int) -> Iterator[slice]:
        """All dates, so many at a time."""
        size = self.times.size
        return (slice(k, min(k + step, size)) for k in range(0, size, step))


def _as_slice(places: Int[np.ndarray, " n"]) -> slice | Int[np.ndarray, " n"]:
    """Places without a hole as a slice, which files are read much faster by."""
    whole = places.size == places[-1] - places[0] + 1
    return slice(int(places[0]), int(places[-1]) + 1) if whole else places


def _with_dates(
    data: xr.Dataset, variable: str | None, origin: str
) -> tuple[xr.Dataset, str, np.ndarray]:
    """The data with a dimension of time, its name, and its dates in the order of the data."""
    dataset = with_time(data)
    name = choose(dataset, variable, (TIME, LAT, LON), origin)
    axis = axes.find(dataset, dataset[name].dims, TIME, origin)
    times = read_dates(dataset[axis].variable, origin)
    if not times.size:
        raise DataError(f"{origin}: there is no time step at all")
    return dataset, str(dataset[axis].dims[0]), times
