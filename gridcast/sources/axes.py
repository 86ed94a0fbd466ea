"""Which dimension is which, and the order of rows and columns in canonical form."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.grid import describe_axis

TOLERANCE = 1e-6  # degrees: bounds of a region are inclusive, noise below this is rounded away
_FAR = 1e4  # degrees: no convention turns round so often
_NO_DEGREES = {"rad", "radian", "radians", "m", "meter", "meters", "metre", "metres", "km"}
_PLAIN_DEGREES = {"", "1", "deg", "degree", "degrees"}


@dataclass(frozen=True)
class Kind:
    """How one axis is recognised: certainly by `units`, standard name and `names`, else `loose`."""

    word: str
    units: str
    axis: str
    names: tuple[str, ...]
    loose: tuple[str, ...] = ()


TIME = Kind("time", r".* since .*", "T", ("time", "t", "valid_time", "times", "date", "datetime"))
LAT = Kind("latitude", r"degrees?_?n(orth)?", "Y", ("lat", "latitude", "nav_lat"), ("y",))
LON = Kind("longitude", r"degrees?_?e(ast)?", "X", ("lon", "long", "longitude", "nav_lon"), ("x",))


@dataclass(frozen=True)
class Order:
    """Which row, column or step comes where: `values[k]`, degrees or a date, is at `index[k]`.

    `twins` are pairs of file columns that lie on the same meridian, one of them left out.
    """

    index: Int[np.ndarray, " n"]
    values: Shaped[np.ndarray, " n"]
    twins: tuple[tuple[int, int], ...] = ()

    @property
    def span(self) -> slice:
        """The shortest contiguous part of the file that holds all of `index`."""
        every = [*self.index, *(i for pair in self.twins for i in pair)]
        return slice(int(min(every)), int(max(every)) + 1)


def certainty(name: Hashable, coordinate: xr.Variable, kind: Kind) -> int:
    """0: not this axis, 1: perhaps, 2 and 3: by its attributes, dtype or name."""
    attrs = coordinate.attrs
    units = str(attrs.get("units", "")).strip().lower()
    standard = str(attrs.get("standard_name", "")).lower()
    short = str(name).lower()
    if standard == kind.word or (standard == "" and short in kind.names):
        return 3
    if kind is TIME and (coordinate.dtype.kind == "M" or _holds_cftime(coordinate)):
        return 2
    if standard.startswith(("projection_", "grid_")):  # metres, or a rotated pole
        return 0
    if re.fullmatch(kind.units, units) or short in kind.names:
        return 2
    by_habit = str(attrs.get("axis", "")).upper() == kind.axis or short in kind.loose
    return int(by_habit and (kind is TIME or units in _PLAIN_DEGREES))


def find(dataset: xr.Dataset, dims: Sequence[Hashable], kind: Kind, origin: str) -> Hashable:
    """The name of the 1-D coordinate variable of this kind, along one of `dims`.

    Raises:
      DataError: none, several, only a 2-D one, one in other units than degrees, or a dimension
        without coordinate values.
    """
    flat: list[tuple[int, bool, Hashable]] = []
    curved: list[Hashable] = []
    for name, variable in dataset.variables.items():
        sure = certainty(name, variable, kind)
        if sure and variable.ndim == 1 and variable.dims[0] in dims:
            flat.append((sure, name == variable.dims[0], name))
        elif (
            sure >= 2 and kind is not TIME and variable.ndim >= 2 and set(variable.dims) <= {*dims}
        ):
            curved.append(name)
    if curved and not any(sure >= 2 for sure, _, _ in flat):
        raise DataError(
            f"{origin}: the grid is curvilinear: {kind.word} {str(curved[0])!r} has dimensions "
            f"{_listed(dataset[curved[0]].dims)}\n"
            f"  expected: {kind.word} with one dimension\n"
            "  fix: regrid to a regular grid first, for example: cdo remapbil,r360x180 IN OUT"
        )
    if not flat:
        bare = [d for d in dims if str(d).lower() in kind.names + kind.loose]
        found = (
            f"dimension {str(bare[0])!r} has no coordinate values"
            if bare
            else f"no {kind.word} among the dimensions {_listed(dims)}"
        )
        raise DataError(
            f"{origin}: {found}\n"
            f"  expected: dimensions time, latitude and longitude, each with a coordinate\n"
            f"  fix: add a coordinate with standard_name {kind.word!r} to the file"
        )
    best = max(flat, key=lambda item: item[:2])
    rivals = [name for sure, own, name in flat if (sure, own) == best[:2]]
    if len({dataset[name].dims[0] for name in rivals}) > 1:
        raise DataError(
            f"{origin}: more than one {kind.word}: {_listed(rivals)}\n"
            f"  fix: drop one of them, or set standard_name to {kind.word!r} on one only"
        )
    units = str(dataset[best[2]].attrs.get("units", "")).strip().lower()
    if kind is not TIME and units in _NO_DEGREES:
        raise DataError(
            f"{origin}: {kind.word} {str(best[2])!r} is in {units}\n"
            "  expected: degrees\n  fix: convert it, and correct its attribute `units`"
        )
    return best[2]


def order_latitude(values: np.ndarray, region: Region | None, origin: str) -> Order:
    """Rows from south to north, within `region`."""
    lat = _clean(values, "latitude", origin)
    if np.abs(lat).max() > 90 + TOLERANCE:
        raise DataError(
            f"{origin}: latitude goes from {lat.min():g} to {lat.max():g}\n"
            "  expected: degrees north, -90 to 90\n"
            "  fix: regrid to a regular latitude-longitude grid first"
        )
    index = np.argsort(lat, kind="stable")
    lat = lat[index]
    repeated = np.flatnonzero(np.diff(lat) == 0)
    if repeated.size:
        raise DataError(f"{origin}: latitude {lat[repeated[0]]:g} occurs twice")
    if region is not None:
        south, north = region.lat
        keep = (lat >= south - TOLERANCE) & (lat <= north + TOLERANCE)
        if not keep.any():
            raise _nothing_selected("latitude", lat, region.lat, origin)
        index, lat = index[keep], lat[keep]
    return Order(index, lat)


def order_longitude(values: np.ndarray, region: Region | None, origin: str) -> Order:
    """Columns from west to east, within `region`, in the convention of `Grid.lon`."""
    raw = _clean(values, "longitude", origin)
    if np.ptp(raw) > 360 + TOLERANCE:
        raise DataError(
            f"{origin}: longitude goes from {raw.min():g} to {raw.max():g}, more than once around\n"
            "  expected: degrees east\n"
            "  fix: regrid to a regular latitude-longitude grid first"
        )
    lon = np.round(np.round(raw % 360.0, 6) % 360.0, 6)
    index = np.lexsort((raw, lon))
    first = np.flatnonzero(np.append(True, np.diff(lon[index]) > 0))
    twins = []
    for k in np.setdiff1d(np.arange(lon.size), first):
        pair = int(index[k - 1]), int(index[k])
        if abs(raw[pair[0]] - raw[pair[1]]) < 180:
            raise DataError(f"{origin}: longitude {lon[pair[0]]:g} occurs twice")
        twins.append(pair)
    index, lon = index[first], _even_if_around(lon[index[first]])
    gaps = np.diff(np.append(lon, lon[0] + 360.0))
    widest = int(np.argmax(gaps))
    # Columns on both sides of longitude 0 with a hole elsewhere: a region that crosses it.
    if gaps[widest] > max(1.5 * np.median(gaps), gaps[-1] + TOLERANCE):
        index, lon = np.roll(index, -widest - 1), _below_zero(np.roll(lon, -widest - 1))
    if region is not None and region.lon[1] - region.lon[0] < 360 - TOLERANCE:
        west, east = region.lon
        offset = (lon - west + TOLERANCE) % 360.0
        chosen = np.flatnonzero(offset <= east - west + 2 * TOLERANCE)
        if not chosen.size:
            raise _nothing_selected("longitude", lon, region.lon, origin)
        if chosen.size < lon.size:
            chosen = chosen[np.argsort(offset[chosen], kind="stable")]
            index, lon = index[chosen], _below_zero(np.round(lon[chosen] % 360.0, 6))
    return Order(index, lon, tuple(twins))


def _clean(values: np.ndarray, word: str, origin: str) -> np.ndarray:
    """Coordinate values in float64 without the noise of their storage."""
    if values.size == 0 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise DataError(
            f"{origin}: {word} holds missing or non-numeric values, or none\n"
            "  expected: one finite number of degrees for every row and column"
        )
    if np.abs(values.astype(np.float64)).max() > _FAR:
        raise DataError(f"{origin}: {word} goes up to {np.abs(values).max():g} degrees")
    if values.dtype == np.float32:  # 39.325 is stored as 39.32500076: read what was meant
        values = values.astype(str)
    return np.round(values.astype(np.float64), 6)


def _even_if_around(lon: np.ndarray) -> np.ndarray:
    """Exact longitudes for an even axis around the globe.

    A third of a degree has other last digits at -0.333 than at 359.667, in float32; its spacing
    does not depend on that, and neither does its first column.
    """
    even = np.round(lon[0] + np.arange(lon.size) * (360.0 / lon.size), 6)
    return even if np.abs(even - lon).max() < 1e-4 else lon


def _below_zero(lon: np.ndarray) -> np.ndarray:
    """Ascending longitudes: the columns before the step down, 358 -> 0, become negative."""
    down = np.flatnonzero(np.diff(lon) < 0)
    if not down.size:
        return lon
    west = np.arange(lon.size) <= down[0]
    return np.where(west, np.round(lon - 360.0, 6), lon)


def _nothing_selected(
    word: str, values: np.ndarray, asked: tuple[float, float], origin: str
) -> DataError:
    short = word[:3]
    return DataError(
        f"{origin}: no {word} lies in data.region.{short}: {list(asked)}\n"
        f"  found: {word} {describe_axis(values)}\n"
        f"  fix: choose data.region.{short} within this range"
    )


def _holds_cftime(coordinate: xr.Variable) -> bool:
    if coordinate.dtype != object or coordinate.size == 0:
        return False
    return hasattr(coordinate.values.flat[0], "calendar")


def _listed(names: Sequence[Hashable]) -> str:
    return ", ".join(str(name) for name in names)
