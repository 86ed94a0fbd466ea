"""Dates of a coordinate: datetime64[ns] where they fit, else dates of their calendar."""

from __future__ import annotations

import contextlib

import cftime
import numpy as np
import xarray as xr

from gridcast.errors import DataError
from gridcast.timeaxis import label

GREGORIAN = ("standard", "gregorian", "proleptic_gregorian")


def read_dates(coordinate: xr.Variable, origin: str) -> np.ndarray:
    """datetime64[ns] where all dates fit, else cftime objects; in the order given.

    Raises:
      DataError: no dates at all, missing ones, or numbers that are not CF time.
    """
    times = coordinate.values
    if times.dtype.kind in "SU":  # WRF writes 2001-01-01_00:00:00
        text = [t.decode() if isinstance(t, bytes) else str(t) for t in times]
        with contextlib.suppress(ValueError):
            times = np.array([t.strip().replace("_", "T") for t in text], dtype="datetime64[s]")
    if times.dtype.kind == "M" and not np.isnat(times).any():
        if times.dtype == "datetime64[ns]":
            return times
        times = as_cftime(times, cftime.datetime(1, 1, 1, calendar="proleptic_gregorian"))
    elif not (times.dtype == object and all(hasattr(t, "calendar") for t in times)):
        units = coordinate.attrs.get("units", "none")
        raise DataError(
            f"{origin}: time holds no dates, or missing ones: {times.dtype}, units {units!r}\n"
            "  expected: CF time, for example units 'days since 1950-01-01'"
        )
    if all(t.calendar in GREGORIAN and 1678 <= t.year <= 2261 for t in times):
        return np.array([t.isoformat() for t in times], dtype="datetime64[ns]")
    return times


def as_cftime(times: np.ndarray, like: cftime.datetime) -> np.ndarray:
    """datetime64 of any resolution as cftime objects of the type and calendar of `like`."""
    dates = np.empty(times.size, dtype=object)
    for i, text in enumerate(times.astype("datetime64[s]").astype(str)):
        date, clock = text.split("T")
        numbers = [int(part) for part in (*date.rsplit("-", 2), *clock.split(":"))]
        dates[i] = cftime.datetime(*numbers, calendar=like.calendar)
        if type(like) is not cftime.datetime:  # DatetimeNoLeap and such have one calendar each
            dates[i] = type(like)(*numbers)
    return dates


def require_unique(times: np.ndarray, origin: str) -> None:
    """Raise unless sorted dates are there, of one calendar and each once."""
    if not times.size:
        raise DataError(f"{origin}: there is no time step at all")
    calendars = {t.calendar for t in times} if times.dtype == object else set()
    if len(calendars) > 1:
        raise DataError(f"{origin}: dates of several calendars: {', '.join(sorted(calendars))}")
    twice = np.unique(times[1:][times[1:] == times[:-1]])
    if twice.size:
        shown = ", ".join(label(t) for t in twice[:3])
        raise DataError(
            f"{origin}: {twice.size} date(s) occur more than once: {shown}"
            f"{', ...' if twice.size > 3 else ''}\n"
            "  fix: remove overlapping files, or ds.drop_duplicates('time')"
        )
