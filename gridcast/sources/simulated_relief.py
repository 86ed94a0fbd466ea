"""An imaginary planet: a global grid and its relief, from a seed."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

from gridcast.errors import DataError

LAND_FRACTION = 0.3


def create_relief(
    shape: tuple[int, int], seed: int
) -> tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"], Float[np.ndarray, "lat lon"]]:
    """A global grid of `shape` (lat, lon) cells and its relief.

    Continents come from a smooth random field on the sphere, so every resolution of one seed
    shows the same continents. Mountains are rough at the scale of 2 to 6 cells.

    Returns:
      lat: degrees north of the cell centres, ascending.
      lon: degrees east, from 0.
      elevation: m above the sea, float32; positive on land (30 % of the area), negative at sea.

    Raises:
      DataError: fewer than 3 rows or columns, or a negative seed.
    """
    rows, columns = _check_shape(shape)
    rng = random_stream(seed, "relief")
    lat = -90.0 + (np.arange(rows) + 0.5) * 180.0 / rows
    lon = np.arange(columns) * 360.0 / columns
    height = smooth_field(lat, lon, rng, wavenumber=3.0)
    height -= _sea_level(height, lat)
    rough = scipy.ndimage.gaussian_filter1d(
        rng.standard_normal((rows, columns)), 1.0, 0, mode="nearest"
    )
    rough = scipy.ndimage.gaussian_filter1d(rough, 1.0, 1, mode="wrap")
    rough /= rough.std()
    # A factor, not a sum: roughness never moves the coast.
    land = (250.0 + 900.0 * np.tanh(height)) * np.exp(0.9 * np.tanh(rough))
    sea = -(50.0 + 4000.0 * np.tanh(-2.0 * height)) * np.exp(0.3 * np.tanh(rough))
    return lat, lon, np.where(height > 0, land, sea).astype(np.float32)


def smooth_field(
    lat: Float[np.ndarray, " lat"],
    lon: Float[np.ndarray, " lon"],
    rng: np.random.Generator,
    wavenumber: float,
) -> Float[np.ndarray, "lat lon"]:
    """A random field without seam or poles, of about zero mean and unit variance.

    A sum of plane waves through the sphere; `wavenumber` is their mean number in radians, that
    is about as many highs and lows around the equator.
    """
    north, east = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    point = np.stack(
        [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north) + 0.0 * east]
    )
    waves = 40
    direction = rng.standard_normal((waves, 3))
    direction *= wavenumber / np.linalg.norm(direction, axis=1, keepdims=True)
    direction *= rng.uniform(0.5, 1.5, (waves, 1))
    phase = rng.uniform(0.0, 2.0 * np.pi, (waves, 1, 1))
    return (
        np.cos(np.einsum("wk,kij->wij", direction, point) + phase).sum(axis=0)
        * (2.0 / waves) ** 0.5
    )


def random_stream(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each use of one seed, so that parts can change independently.

    Raises:
      DataError: a seed below 0 or not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed is {seed!r}\n  expected: a whole number, 0 or larger")
    return np.random.default_rng([int(seed), *name.encode()])


def check_count(name: str, value: int, least: int, most: int) -> int:
    """`value` if it is a whole number from `least` to `most`.

    Raises:
      DataError: if it is not.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        raise DataError(f"{name} is {value!r}\n  expected: a whole number from {least} to {most}")
    return int(value)


def _check_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise DataError(
            f"the grid is given as {tuple(shape)!r}\n"
            "  expected: numbers of rows and columns, for example (45, 90)"
        )
    return (
        check_count("the number of grid rows", shape[0], 3, 2000),
        check_count("the number of grid columns", shape[1], 3, 4000),
    )


def _sea_level(height: Float[np.ndarray, "lat lon"], lat: Float[np.ndarray, " lat"]) -> float:
    """The height above which `LAND_FRACTION` of the area lies."""
    area = np.repeat(np.cos(np.deg2rad(lat)), height.shape[1])
    order = np.argsort(height, axis=None)
    above = 1.0 - np.cumsum(area[order]) / area.sum()
    return float(height.ravel()[order[np.argmax(above <= LAND_FRACTION)]])
