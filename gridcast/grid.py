"""The horizontal grid: latitudes, longitudes, mask, cell areas, and whether longitude wraps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gridcast.errors import DataError


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid in canonical form.

    Attributes:
      lat: degrees north of the cell centres, ascending.
      lon: degrees east of the cell centres, ascending, 0..360 (a region that crosses longitude 0
        starts below 0).
      mask: True where the series has values (ocean, for sea-surface temperature).
    """

    lat: Float[np.ndarray, " lat"]
    lon: Float[np.ndarray, " lon"]
    mask: Bool[np.ndarray, "lat lon"]

    def __post_init__(self) -> None:
        if self.mask.shape != (self.lat.size, self.lon.size):
            raise DataError(
                f"mask has shape {self.mask.shape}, the grid is {self.lat.size} x {self.lon.size}"
            )
        if not self.mask.any():
            raise DataError("every cell of the grid is missing: there is nothing to forecast")

    @property
    def shape(self) -> tuple[int, int]:
        return self.mask.shape

    def rows(self, rows: slice) -> Grid:
        """Some rows only."""
        return Grid(self.lat[rows], self.lon, self.mask[rows])

    @property
    def wraps(self) -> bool:
        """Whether the last column's eastern neighbour is the first column."""
        if self.lon.size < 3:
            return False
        spacing = (self.lon[-1] - self.lon[0]) / (self.lon.size - 1)
        return bool(abs(self.lon.size * spacing - 360.0) < 0.5 * spacing)

    @property
    def emptiest(self) -> int:
        """The column that a map of the globe begins with: of the fewest data, so no ocean is cut.

        0 where longitude does not wrap, or every cell has values.
        """
        if not self.wraps or self.mask.all():
            return 0
        return int((self.mask * self.area).sum(axis=0).argmin())

    def turned(self, start: int) -> Grid:
        """A globe that begins with column `start`, west of 180 degrees; longitude still ascends."""
        lon = np.concatenate([self.lon[start:], self.lon[:start] + 360.0])
        west = 360.0 if lon[0] >= 180.0 else 0.0
        return Grid(self.lat, lon - west, np.roll(self.mask, -start, axis=1))

    @property
    def area(self) -> Float[np.ndarray, "lat lon"]:
        """Cell areas up to a constant factor: exact on the sphere, for any spacing of latitude."""
        if self.lat.size == 1:
            edges = np.array([self.lat[0] - 0.5, self.lat[0] + 0.5])
        else:
            middle = 0.5 * (self.lat[1:] + self.lat[:-1])
            edges = np.concatenate(
                [[2 * self.lat[0] - middle[0]], middle, [2 * self.lat[-1] - middle[-1]]]
            )
        bands = np.diff(np.sin(np.deg2rad(np.clip(edges, -90.0, 90.0))))
        return np.repeat(bands[:, None], self.lon.size, axis=1)

    @property
    def weight(self) -> Float[np.ndarray, "lat lon"]:
        """Cell area inside the mask, 0 outside, summing to 1."""
        weight = np.where(self.mask, self.area, 0.0)
        return weight / weight.sum()

    @property
    def digest(self) -> str:
        """A short name of this grid: equal grids, to 1e-4 degree, have equal digests."""
        text = b"".join(
            [np.round(a * 1e4).astype("<i8").tobytes() for a in (self.lat, self.lon)]
            + [np.packbits(self.mask).tobytes()]
        )
        return hashlib.sha256(text).hexdigest()[:16]

    def require_same(self, other: Grid) -> None:
        """Raise unless `other` has these cells and this mask.

        Raises:
          DataError: naming the first thing that differs.
        """
        for name in ("lat", "lon"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-4):
                raise DataError(
                    f"the data's {name} is {describe_axis(theirs)}\n"
                    f"  expected: {describe_axis(ours)}, as in training\n"
                    "  fix: cut or regrid the data to the grid of the run"
                )
        if not np.array_equal(self.mask, other.mask):
            raise DataError(
                f"the data's mask differs from training in {int((self.mask != other.mask).sum())} "
                f"of {self.mask.size} cells\n"
                "  fix: use the same product as in training, or train again on this one"
            )

    def __str__(self) -> str:
        return (
            f"{self.lat.size} x {self.lon.size} cells, lat {self.lat[0]:g} to {self.lat[-1]:g}, "
            f"lon {self.lon[0]:g} to {self.lon[-1]:g}"
            f"{' (wraps)' if self.wraps else ''}, {100 * self.mask.mean():.0f} % with values"
        )


def describe_axis(values: np.ndarray) -> str:
    """One phrase for a coordinate, as error messages show it."""
    if values.size == 1:
        return f"{values[0]:g} (1 value)"
    return f"{values[0]:g} to {values[-1]:g} ({values.size} values)"
