"""The numbers of a field: what counts as missing, and what cannot be meant."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float32

from gridcast.errors import DataError
from gridcast.sources.units import family, spelling
from gridcast.timeaxis import label


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
        t, i, j = np.unravel_index(int(np.argmax(np.isinf(values))), values.shape)
        place = f"lat {data['lat'].values[i]:g}, lon {data['lon'].values[j]:g}"
        raise DataError(
            f"{origin}: {data.name} is infinite on {label(data['time'].values[t])} at {place}, "
            f"in {int(np.isinf(values).sum())} place(s) in all\n"
            "  expected: numbers, or missing values (NaN or _FillValue)"
        )
    floor = -900.0 if family(units) in ("temperature", "rate") or spelling(units) == "mm" else -1e10
    fill = low if low <= floor else high if high >= 1e10 else None
    if fill is not None:
        raise DataError(
            f"{origin}: {data.name} holds {fill:g} ({units}): a fill value that is not declared\n"
            f"  fix: ncatted -a _FillValue,{data.name},o,f,{fill:g} FILE, "
            f"or in xarray ds.where(ds.{data.name} != {fill:g})"
        )
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
