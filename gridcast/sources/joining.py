"""Files that follow each other in time: whether they belong together, and in what order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Int

from gridcast.errors import DataError
from gridcast.grid import describe_axis
from gridcast.sources.canonical import check_series, same_units
from gridcast.sources.dates import GREGORIAN, as_cftime
from gridcast.timeaxis import label


def require_alike(path: Path, first: xr.DataArray, other: Path, piece: xr.DataArray) -> None:
    """Raise unless the canonical piece from `other` continues the first one.

    Raises:
      DataError: another grid, variable or units.
    """

    def differs(what: str, found: object, expected: object) -> DataError:
        return DataError(
            f"{other}: {what} {found}\n  expected: {expected}, as in {path}\n"
            "  fix: join only files of one product, on one grid"
        )

    for axis in ("lat", "lon"):
        ours, theirs = first[axis].values, piece[axis].values
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=1e-4):
            raise differs(axis, describe_axis(theirs), describe_axis(ours))
    if first.name != piece.name:
        raise differs("variable", piece.name, first.name)
    if not same_units(first.attrs["units"], piece.attrs["units"]):
        raise differs("units", repr(piece.attrs["units"]), repr(first.attrs["units"]))


def joined(paths: Sequence[Path], pieces: list[xr.DataArray]) -> xr.DataArray:
    """The canonical pieces in the order of their dates, on the coordinates of the first.

    Raises:
      DataError: as `joined_dates`, and what `check_series` raises.
    """
    times, order = joined_dates(paths, [piece["time"].values for piece in pieces])
    values = np.concatenate([piece.values for piece in pieces])
    if not np.array_equal(order, np.arange(order.size)):
        values = values[order]
    first = pieces[0]
    coords = {
        "time": ("time", times, first["time"].attrs),
        "lat": first["lat"],
        "lon": first["lon"],
    }
    data = xr.DataArray(values, coords, first.dims, first.name, first.attrs)
    logging.getLogger("gridcast").info("joined %d files along time", len(paths))
    check_series(data, origin_of(paths))
    return data


def origin_of(paths: Sequence[Path]) -> str:
    """What error messages call several files."""
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])


def joined_dates(
    paths: Sequence[Path], times: Sequence[np.ndarray]
) -> tuple[np.ndarray, Int[np.ndarray, " time"]]:
    """The dates of all files in order, and where each of them is in the concatenated files.

    Raises:
      DataError: dates of several calendars, or in more than one file.
    """
    old = next((t[0] for t in times if t.dtype == object), None)
    if old is not None and old.calendar in GREGORIAN:  # before 1678 in one file, after in another
        times = [as_cftime(t, old) if t.dtype.kind == "M" else t for t in times]
    calendars = {t[0].calendar if t.dtype == object else "standard" for t in times}
    if len(calendars) > 1:
        found = ", ".join(sorted(calendars))
        raise DataError(f"{origin_of(paths)}: calendars differ: {found}")
    dates = np.concatenate(times)
    owner = np.repeat(np.arange(len(paths)), [t.size for t in times])
    order = np.argsort(dates, kind="stable")
    dates, owner = dates[order], owner[order].tolist()
    twice = np.flatnonzero(dates[1:] == dates[:-1])
    if twice.size:
        k = int(twice[0])
        raise DataError(
            f"{paths[owner[k]]} and {paths[owner[k + 1]]} overlap: {twice.size} date(s) occur in "
            f"more than one file, the first is {label(dates[k])}\n"
            "  fix: give files that follow each other in time"
        )
    return dates, order
