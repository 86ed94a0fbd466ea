"""The numbers of a field: what counts as missing, what cannot be meant, what is a series."""

from __future__ import annotations

import logging
import re

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32

from gridcast.errors import DataError
from gridcast.sources.units import family, spelling
from gridcast.timeaxis import TimeAxis, label

log = logging.getLogger("gridcast")

# What stands for missing values where nobody said so: in files, and never measured so exactly.
_HABITS = (9.99, 9.999, 99.9, 99.99, 99.999, 999.0, 999.9, 999.99, 9999.0, 9999.9, 99999.0, 32767.0)
_FILLS = np.array([*_HABITS, *(-v for v in _HABITS), -9.9, -99.0, -32768.0], np.float32)
FILLS_AND_ZERO = np.array([0.0, *_FILLS], np.float32)
_TEMPERATURES = {"degC": (-173.0, 150.0), "K": (100.0, 423.0)}  # of air, sea, land and ice
_OF_FORECASTS = ("forecast_reference_time", "forecast_period", "category", "time", "lat", "lon")


def is_difference(data: xr.DataArray) -> bool:
    """Whether temperatures are anomalies, for which K and degC are the same."""
    told = str(data.attrs.get("units_metadata", "")).replace(" ", "")
    named = (data.name, data.attrs.get("long_name", ""), data.attrs.get("standard_name", ""))
    return told == "temperature:difference" or any("anom" in str(n).lower() for n in named)


def within_valid_range(
    values: Float32[np.ndarray, ...], field: xr.DataArray
) -> Float32[np.ndarray, ...]:
    """NaN outside valid_min, valid_max and valid_range, which packed files give packed."""
    low, high = field.attrs.get(
        "valid_range", (field.attrs.get("valid_min"), field.attrs.get("valid_max"))
    )
    scale = float(field.encoding.get("scale_factor", 1.0))
    offset = float(field.encoding.get("add_offset", 0.0))
    for limit, sign in ((low, 1.0), (high, -1.0)):
        if limit is None:
            continue
        packed = np.asarray(limit).dtype.kind in "iu" and values.dtype != field.encoding.get(
            "dtype"
        )
        bound = float(limit) * scale + offset if packed else float(limit)
        slack = 1e-6 * max(abs(bound), scale if packed else 0.0)
        outside = sign * values < sign * bound - slack
        values = np.where(outside, np.float32("nan"), values)
    return values


def check_values(data: xr.DataArray, origin: str) -> None:
    """Raise where values are infinite, undeclared fill values, or contradict their units.

    Raises:
      DataError: naming the first date and cell, the value, or the units.
    """
    values, units = data.values, data.attrs["units"]
    low, high = (float(f.reduce(values, axis=None)) for f in (np.fmin, np.fmax))
    if np.isinf([low, high]).any():
        raise DataError(
            f"{origin}: {data.name} is infinite {_place(data, np.isinf(values))}, "
            f"in {int(np.isinf(values).sum())} place(s) in all\n"
            "  expected: numbers, or missing values (NaN or _FillValue)"
        )
    floor = -900.0 if family(units) in ("temperature", "rate") or spelling(units) == "mm" else -1e10
    fill = low if low <= floor else high if high >= 1e10 else None
    if fill is None:
        fill = next((v for v in (low, high) if _stands_apart(values, v)), None)
    if fill is not None:
        raise _not_declared(data, fill, origin)
    if family(units) != "temperature" or np.isnan(low) or is_difference(data):
        return
    sample = values[:: max(1, values.size // 1_000_000)]
    middle = float(np.nanmedian(sample)) if np.isfinite(sample).any() else low
    if (middle > 150) == (spelling(units) == "degC"):
        raise DataError(
            f"{origin}: units are contradictory: {data.name} is declared {units!r}, and its median "
            f"is {middle:.4g}\n"
            "  fix: correct the attribute `units`; anomalies in K need 'anomaly' in long_name"
        )
    lowest, highest = _TEMPERATURES[spelling(units)]
    if low < lowest or high > highest:
        found = low if low < lowest else high
        raise DataError(
            f"{origin}: {data.name} is {found:g} {units} {_place(data, values == found)}\n"
            f"  expected: temperatures of {lowest:g} to {highest:g} {units}, or missing values\n"
            "  fix: set to NaN what stands for missing values, or correct the attribute `units`"
        )


def check_series(data: xr.DataArray, origin: str) -> None:
    """Raise unless a canonical array is a series; note its gaps, and cells that are always 0.

    Raises:
      DataError: fewer than two dates, dates that no constant step explains, or undeclared fill
        values.
    """
    try:
        axis = TimeAxis.of(data["time"].values)
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
    _check_still(data, origin)
    for gap in axis.gaps:
        log.info("%s: %s", origin, gap)


def check_name(name: str, origin: str) -> None:
    """Raise where a forecast cannot be written under this name.

    Raises:
      DataError: of a coordinate of forecasts, or not a name in NetCDF.
    """
    begins = name[:1].isalnum() or name[:1] == "_" or name[:1] > "\x7f"
    if begins and not re.search(r"[\x00-\x1f\x7f/]|\s$", name) and name not in _OF_FORECASTS:
        return
    raise DataError(
        f"{origin}: a variable cannot have the name {name!r} in NetCDF files of forecasts\n"
        f"  expected: letters, digits and _, and none of {', '.join(_OF_FORECASTS)}\n"
        "  fix: rename it"
    )


def _check_still(data: xr.DataArray, origin: str) -> None:
    first = data.values[0]
    still = np.isin(first, FILLS_AND_ZERO) & (first == data.values[-1])
    still[still] = (data.values[:, still] == first[still]).all(axis=0)
    check_still_cells(data, first, still, origin)


def check_still_cells(
    data: xr.DataArray,
    first: Float32[np.ndarray, "lat lon"],
    still: Bool[np.ndarray, "lat lon"],
    origin: str,
) -> None:
    """Raise where a cell holds nothing but a fill value; note cells that hold nothing but 0.

    Args:
      first: the field of the first date.
      still: which cells hold one of `FILLS_AND_ZERO` at the first date and the same at all others.

    Raises:
      DataError: naming the value.
    """
    observed = int(np.isfinite(first).sum())
    if data.sizes["time"] < 3 or not still.any() or still.sum() == observed:
        return
    fills = first[still & (first != 0)]
    if fills.size:
        raise _not_declared(data, float(fills[0]), origin)
    log.warning(
        "%s: %d of %d cells are always 0: where that means no value, make it missing (NaN)",
        *(origin, int(still.sum()), observed),
    )


def _stands_apart(values: Float32[np.ndarray, ...], extreme: float) -> bool:
    """Whether the lowest or highest value is a habitual fill value, far from all others.

    A positive one counts where it occurs twice: 99.9 mm may have fallen once.
    """
    if not np.isin(np.float32(extreme), _FILLS):
        return False
    others = values[np.isfinite(values) & (values != np.float32(extreme))]
    if not others.size or (extreme > 0 and (values == np.float32(extreme)).sum() < 2):
        return False
    nearest = float(np.abs(others - np.float32(extreme)).min())
    return nearest > 0.05 * float(np.ptp(others))


def _not_declared(data: xr.DataArray, fill: float, origin: str) -> DataError:
    return DataError(
        f"{origin}: {data.name} holds {fill:g} ({data.attrs['units']}): a fill value that is not "
        "declared\n"
        f"  fix: ncatted -a _FillValue,{data.name},o,f,{fill:g} FILE, "
        f"or in xarray ds.where(ds.{data.name} != {fill:g})"
    )


def _place(data: xr.DataArray, where: Bool[np.ndarray, "time lat lon"]) -> str:
    t, i, j = np.unravel_index(int(np.argmax(where)), where.shape)
    there = f"lat {data['lat'].values[i]:g}, lon {data['lon'].values[j]:g}"
    return f"on {label(data['time'].values[t])} at {there}"
