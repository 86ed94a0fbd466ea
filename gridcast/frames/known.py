"""What is known in advance of every date: the season and the light of the sun, as channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from gridcast.timeaxis import Unit, season_fields

_SOLAR_CONSTANT = 1361.0  # W m-2 at the mean distance of the Earth (Kopp and Lean 2011)
_OBLIQUITY = np.deg2rad(23.44)
_EQUINOX = 79.5 / 365.0  # noon of 21 March, as a phase of the year
_CHANNELS = {"season": ["cos_season", "sin_season"], "insolation": ["insolation"]}


def known_names(names: Sequence[Literal["season", "insolation"]]) -> list[str]:
    """Names of the channels of `known_fields`."""
    return [channel for name in names for channel in _CHANNELS[name]]


def known_fields(
    names: Sequence[Literal["season", "insolation"]],
    times: np.ndarray,
    unit: Unit,
    lat: Float[np.ndarray, " lat"],
) -> Float32[np.ndarray, "time lat known"]:
    """Channels of the order of 1 that depend on date and latitude only, in order of `known_names`.

    season: cosine and sine of the phase of the year, the same at all latitudes.
    insolation: `daily_insolation` divided by 500 W m-2, minus 0.6: -0.6 in the polar night, 0.5
      on the summer pole, 0.27 at most at the equator.

    Args:
      times: dates of any calendar.
      unit: of the step of the series; a month counts by its middle.
      lat: degrees north.
    """
    phase = season_fields(times, unit)[0]
    channels: list[np.ndarray] = []
    for name in names:
        if name == "season":
            for wave in (np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)):
                channels.append(np.broadcast_to(wave[:, None], (phase.size, lat.size)))
        else:
            channels.append(daily_insolation(phase, lat) / 500.0 - 0.6)
    empty = np.zeros((phase.size, lat.size, 0))
    return (np.stack(channels, axis=-1) if channels else empty).astype(np.float32)


def daily_insolation(
    phase: Float[np.ndarray, " time"], lat: Float[np.ndarray, " lat"]
) -> Float[np.ndarray, "time lat"]:
    """Sunlight at the top of the atmosphere, W m-2, mean over the day.

    Berger 1978 (J. Atmos. Sci. 35, 2362-2367) for a circular orbit: the eccentricity is left out,
    which is wrong by 3 % of the light and three days of the season at most.

    Args:
      phase: of the year, 0 to 1 from 1 January.
      lat: degrees north.
    """
    sine = np.sin(_OBLIQUITY) * np.sin(2 * np.pi * (phase - _EQUINOX))
    declination, latitude = np.arcsin(sine)[:, None], np.deg2rad(lat)
    # Half of the day's length as an angle: 0 in the polar night, pi in the polar day.
    half_day = np.arccos(np.clip(-np.tan(latitude) * np.tan(declination), -1.0, 1.0))
    high = half_day * np.sin(latitude) * np.sin(declination)
    low = np.sin(half_day) * np.cos(latitude) * np.cos(declination)
    return _SOLAR_CONSTANT / np.pi * (high + low)
