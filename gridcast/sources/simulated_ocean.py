"""A stochastic seasonal ocean, stepped linearly, whose best forecast and its error are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float, Float32

from gridcast.errors import DataError
from gridcast.sources.simulated_currents import ocean_currents, ocean_noise, ocean_operator
from gridcast.sources.simulated_relief import (
    check_count,
    create_relief,
    random_stream,
    smooth_field,
)

SPIN_UP_YEARS = 50


@dataclass(frozen=True, eq=False)
class OceanSystem:
    """Monthly sea-surface temperature as seasonal cycle + anomaly x, with

        x[t + 1] = A x[t] + s[calendar month of t + 1] S w,    w white noise

    on the ocean cells. A Gauss-Markov model in the sense of Penland and Sardeshmukh (1995,
    J. Climate 8, 1999-2024): A^lead x is the forecast of least mean square error.

    Attributes:
      lat, lon: degrees of the cell centres, ascending; longitude wraps.
      mask: True at sea.
      relief: m, negative at sea.
      operator: A. Cells are numbered along `mask.ravel()`.
      noise_factor: S in K; the noise of a month has the covariance s^2 S S^T.
      monthly_amplitude: s, from January to December.
      seasonal_cycle: degC, from January to December, NaN on land.
    """

    lat: Float[np.ndarray, " lat"]
    lon: Float[np.ndarray, " lon"]
    mask: Bool[np.ndarray, "lat lon"]
    relief: Float32[np.ndarray, "lat lon"]
    operator: scipy.sparse.csr_array
    noise_factor: scipy.sparse.csr_array
    monthly_amplitude: Float[np.ndarray, " 12"]
    seasonal_cycle: Float32[np.ndarray, "12 lat lon"]

    @classmethod
    def create(cls, shape: tuple[int, int] = (45, 90), seed: int = 0) -> OceanSystem:
        """An ocean on a global grid of `shape` (lat, lon) cells.

        Raises:
          DataError: fewer than 3 rows or columns, or a negative seed.
        """
        lat, lon, relief = create_relief(shape, seed)
        mask = relief < 0
        rng = random_stream(seed, "ocean")
        u, v = ocean_currents(lat, mask)
        damping = 0.95 + 0.02 * np.tanh(smooth_field(lat, lon, rng, wavenumber=2.0))
        strength = 1.0 + 0.25 * np.tanh(smooth_field(lat, lon, rng, wavenumber=2.0))
        amplitude = 0.3 * strength * _profile(lat, at_equator=1.3, at_poles=0.4)[:, None]
        month = np.arange(12)
        cycle = _seasonal_cycle(lat, lon, smooth_field(lat, lon, rng, wavenumber=2.0))
        return cls(
            lat=lat,
            lon=lon,
            mask=mask,
            relief=relief,
            operator=ocean_operator(mask, u, v, damping[mask]),
            noise_factor=ocean_noise(mask, amplitude[mask]),
            monthly_amplitude=1.0 + 0.25 * np.cos(2.0 * np.pi * (month - 1) / 12.0),
            seasonal_cycle=np.where(mask, cycle, np.nan).astype(np.float32),
        )

    def simulate(self, years: int, seed: int) -> Float32[np.ndarray, "time lat lon"]:
        """Monthly sea-surface temperature in degC from a January on, NaN on land.

        The first 50 years from rest are thrown away: what is left is statistically stationary.

        Raises:
          DataError: fewer than 1 year, or a negative seed.
        """
        years = check_count("the number of years", years, 1, 100_000)
        rng = random_stream(seed, "ocean weather")
        sst = np.full((years, 12, *self.mask.shape), np.nan, dtype=np.float32)
        state = np.zeros(int(self.mask.sum()))
        for year in range(-SPIN_UP_YEARS, years):
            white = rng.standard_normal((state.size, 12))
            noise = self.noise_factor @ white * self.monthly_amplitude
            for month in range(12):
                state = self.operator @ state + noise[:, month]
                if year >= 0:
                    sst[year, month, self.mask] = self.seasonal_cycle[month, self.mask] + state
        return sst.reshape(-1, *self.mask.shape)

    def optimal_forecast(
        self, anomaly: Float[np.ndarray, "*start lat lon"], leads: Sequence[int]
    ) -> Float[np.ndarray, "*start lead lat lon"]:
        """The anomaly expected `leads` months after `anomaly` (K; land cells are not read).

        Returns:
          float64, NaN on land.

        Raises:
          DataError: another grid, NaN at sea, or leads that are not whole numbers from 0 on.
        """
        leads = [check_count("a lead", lead, 0, 1200) for lead in leads]
        if anomaly.shape[-2:] != self.mask.shape:
            raise DataError(
                f"the anomaly has the shape {anomaly.shape}\n"
                f"  expected: [..., lat, lon] ending in {self.mask.shape}"
            )
        state = anomaly[..., self.mask].astype(np.float64)
        if not np.isfinite(state).all():
            raise DataError(
                f"the anomaly is missing in {int((~np.isfinite(state)).sum())} places at sea\n"
                "  expected: a value in each cell of the mask"
            )
        start = state.shape[:-1]
        state = state.reshape(-1, state.shape[-1]).T
        forecast = np.full((*start, len(leads), *self.mask.shape), np.nan)
        for step in range(max(leads, default=0) + 1):
            for place in (k for k, lead in enumerate(leads) if lead == step):
                forecast[..., place, self.mask] = state.T.reshape(*start, -1)
            state = self.operator @ state
        return forecast

    def expected_error(self, max_lead: int) -> Float[np.ndarray, "12 lead lat lon"]:
        """Standard deviation in K of the optimal forecast's error, exact; no forecast does better.

        The covariance of the error grows as P[k + 1] = A P[k] A^T + s^2 S S^T. Only s depends on
        the month, so P[k] is a sum of A^j S S^T A^jT, of which only the diagonals are needed.

        Returns:
          Month of the initial date (January first) x leads 1 to `max_lead` x lat x lon, NaN on
          land.

        Raises:
          DataError: `max_lead` below 1.
        """
        max_lead = check_count("max_lead", max_lead, 1, 1200)
        cells = int(self.mask.sum())
        grown = np.zeros((max_lead, cells))
        for first in range(0, cells, 512):  # by columns of S: the whole would not fit at 1 degree
            spread = self.noise_factor[:, first : first + 512].toarray()
            for j in range(max_lead):
                grown[j] += np.einsum("ij,ij->i", spread, spread)
                spread = self.operator @ spread
        error = np.full((12, max_lead, *self.mask.shape), np.nan)
        for initial in range(12):
            for lead in range(1, max_lead + 1):
                # Noise that entered j steps before the target entered in the month lead - j.
                entered = (initial + lead - np.arange(lead)) % 12
                variance = self.monthly_amplitude[entered] ** 2 @ grown[:lead]
                error[initial, lead - 1, self.mask] = np.sqrt(variance)
        return error

    def optimal_rmse(self, max_lead: int) -> Float[np.ndarray, " lead"]:
        """`expected_error` as one number for each lead: root of the mean square over the months
        and the ocean's area (cosine of latitude).

        Raises:
          DataError: `max_lead` below 1.
        """
        weight = np.where(self.mask, np.cos(np.deg2rad(self.lat))[:, None], 0.0)
        square = np.nan_to_num(self.expected_error(max_lead)) ** 2
        return np.sqrt(np.einsum("mkij,ij->k", square, weight) / (12 * weight.sum()))


def _profile(lat: Float[np.ndarray, " lat"], at_equator: float, at_poles: float) -> np.ndarray:
    return at_poles + (at_equator - at_poles) * np.cos(np.deg2rad(lat)) ** 2


def _seasonal_cycle(
    lat: Float[np.ndarray, " lat"],
    lon: Float[np.ndarray, " lon"],
    warm_pools: Float[np.ndarray, "lat lon"],
) -> Float[np.ndarray, "12 lat lon"]:
    """degC: 28 at the equator, -1.5 at the poles; warmest in September north and March south."""
    north = np.deg2rad(lat)
    year = 2.0 * np.pi * np.arange(12)[:, None] / 12.0
    annual = (
        5.0 * np.sin(2.0 * north) * np.abs(np.sin(2.0 * north)) * np.cos(year - 4.0 * np.pi / 3)
    )
    semiannual = 0.5 * np.cos(north) ** 4 * np.cos(2.0 * year - np.pi / 2)
    zonal = _profile(lat, at_equator=28.0, at_poles=-1.5) + annual + semiannual
    pools = np.tanh(warm_pools) * (np.cos(north) ** 4)[:, None]
    return zonal[:, :, None] + pools + 0.0 * lon
