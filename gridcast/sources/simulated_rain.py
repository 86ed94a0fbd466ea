"""A rain field that a turning wind drives against the relief."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from gridcast.sources.simulated_relief import (
    check_count,
    create_relief,
    random_stream,
    smooth_field,
)

PERSISTENCE = 0.9  # of the wind from one month to the next
TURN = np.deg2rad(80.0)  # a month; not 90: its period would then be a harmonic of the year
WIND = 5.0  # m/s, standard deviation of each component
OROGRAPHIC = 2.0  # mm/day, standard deviation over land before rain is kept from being negative
MOISTURE = 0.5  # mm/day, the same of what the westerly wind carries everywhere
FLICKER = 0.05  # relative noise of each cell and month
PATTERNS = 4
SPIN_UP_MONTHS = 120


@dataclass(frozen=True, eq=False)
class RainSystem:
    """Monthly rain that falls on the windward side of the mountains.

    The wind u + iv is the same over a region and turns by about 80 degrees a month, with noise:
    W[t + 1] = 0.9 exp(i 80 deg) W[t] + noise. Rain is
    max(0, base(lat, month) + moisture u + gain (u dh/dx + v dh/dy)) times a small noise. A cell's
    own rain tells the wind along its own slope, and next month that wind blows across it; the
    rain of its neighbours tells u, and together with the relief v as well: what next month's wind
    brings to this slope takes the relief to know.

    Attributes:
      lat, lon: degrees of the cell centres, ascending; longitude wraps.
      relief: m, negative at sea.
      slope_east, slope_north: rise of the land per cell, in units of the root mean square
        over land and both directions; central differences of max(relief, 0). Per cell, so that
        one convolution suits every latitude.
      wind_patterns: a few smooth patterns, whose squares sum to 1 in each cell.
      base: mm/day, from January to December.
    """

    lat: Float[np.ndarray, " lat"]
    lon: Float[np.ndarray, " lon"]
    relief: Float32[np.ndarray, "lat lon"]
    slope_east: Float[np.ndarray, "lat lon"]
    slope_north: Float[np.ndarray, "lat lon"]
    wind_patterns: Float[np.ndarray, "pattern lat lon"]
    base: Float[np.ndarray, "12 lat lon"]

    @classmethod
    def create(cls, shape: tuple[int, int] = (45, 90), seed: int = 0) -> RainSystem:
        """Rain on a global grid of `shape` (lat, lon) cells, with the relief of the ocean's seed.

        Raises:
          DataError: fewer than 3 rows or columns, or a negative seed.
        """
        lat, lon, relief = create_relief(shape, seed)
        rng = random_stream(seed, "rain")
        land = relief > 0
        height = np.pad(np.maximum(relief, 0.0).astype(np.float64), ((1, 1), (0, 0)), "edge")
        east = 0.5 * (np.roll(height, -1, axis=1) - np.roll(height, 1, axis=1))[1:-1]
        north = 0.5 * (height[2:] - height[:-2])
        # On a few cells the land can be flat: then there is no slope to measure by.
        typical = float(np.sqrt(np.mean(east[land] ** 2 + north[land] ** 2) / 2.0)) or 1.0
        patterns = np.stack([smooth_field(lat, lon, rng, wavenumber=1.0) for _ in range(PATTERNS)])
        return cls(
            lat=lat,
            lon=lon,
            relief=relief,
            slope_east=np.where(land, east / typical, 0.0),
            slope_north=np.where(land, north / typical, 0.0),
            wind_patterns=patterns / np.sqrt((patterns**2).sum(axis=0)),
            base=_base(lat, land),
        )

    def simulate(self, years: int, seed: int) -> Float32[np.ndarray, "time lat lon"]:
        """Monthly rain in mm/day from a January on, in every cell, 0 or more.

        Raises:
          DataError: fewer than 1 year, or a negative seed.
        """
        u, v = self.wind(years, seed)
        # Two slopes of mean square 1 times two winds of variance WIND^2.
        uphill = (u * self.slope_east + v * self.slope_north) * (OROGRAPHIC / (WIND * 2**0.5))
        base = np.tile(self.base, (u.shape[0] // 12, 1, 1))
        rain = np.maximum(base + uphill + u * (MOISTURE / WIND), 0.0)
        noise = random_stream(seed, "rain flicker").standard_normal(rain.shape)
        return (rain * np.exp(FLICKER * noise)).astype(np.float32)

    def wind(
        self, years: int, seed: int
    ) -> tuple[Float[np.ndarray, "time lat lon"], Float[np.ndarray, "time lat lon"]]:
        """The eastward and northward wind in m/s that `simulate` uses for this seed.

        Raises:
          DataError: fewer than 1 year, or a negative seed.
        """
        months = 12 * check_count("the number of years", years, 1, 100_000)
        rng = random_stream(seed, "wind")
        turn = PERSISTENCE * np.exp(1j * TURN)
        white = rng.standard_normal((SPIN_UP_MONTHS + months, 2, len(self.wind_patterns)))
        noise = WIND * np.sqrt(1.0 - PERSISTENCE**2) * (white[:, 0] + 1j * white[:, 1])
        strength = np.zeros_like(noise)
        for month in range(1, len(noise)):
            strength[month] = turn * strength[month - 1] + noise[month]
        wind = np.einsum("tp,pij->tij", strength[SPIN_UP_MONTHS:], self.wind_patterns)
        return wind.real, wind.imag


def _base(lat: Float[np.ndarray, " lat"], land: np.ndarray) -> Float[np.ndarray, "12 lat lon"]:
    """mm/day: a tropical belt that follows the sun, and two belts of storms that do not."""
    month = np.arange(12)[:, None]
    belt = 8.0 * np.cos(2.0 * np.pi * (month - 7) / 12.0)
    tropical = 4.0 * np.exp(-(((lat - belt) / 12.0) ** 2))
    storms = 1.5 * np.exp(-(((np.abs(lat) - 45.0) / 15.0) ** 2))
    zonal = 1.0 + tropical + storms
    return zonal[:, :, None] * np.where(land, 1.0, 0.8)
