"""What CF wants said in our files: names, attributes and dimensions."""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import xarray as xr

from gridcast.errors import ConfigError
from gridcast.frames.fields import Fields
from gridcast.frames.transform import FrameTransform
from gridcast.sources.units import family
from gridcast.sources.values import is_difference

CONVENTIONS = "CF-1.11"
# Of the values of a forecast.
DIMS = ("forecast_reference_time", "forecast_period", "lat", "lon")
LATITUDE = {
    "standard_name": "latitude",
    "long_name": "latitude",
    "units": "degrees_north",
    "axis": "Y",
}
LONGITUDE = {
    "standard_name": "longitude",
    "long_name": "longitude",
    "units": "degrees_east",
    "axis": "X",
}


def of_file(attributes: dict[str, str]) -> dict[str, str]:
    """Global attributes with those that CF wants in every file.

    The environment variable SOURCE_DATE_EPOCH, seconds since 1970, is taken for the time of writing
    (reproducible-builds.org).

    Raises:
      ConfigError: it is something else.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    try:
        made = dt.datetime.fromtimestamp(int(given), dt.UTC) if given else dt.datetime.now(dt.UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(
            f"SOURCE_DATE_EPOCH: {given[:40]!r}, expected seconds since 1970\n"
            "  fix: unset this environment variable"
        ) from None
    now = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"Conventions": CONVENTIONS, "history": f"{now} gridcast", **attributes}


def dims_of(labels: list[str] | None) -> tuple[str, ...]:
    """Of a forecast: of classes, which have labels, or of values."""
    return DIMS if labels is None else (*DIMS[:2], "category", *DIMS[2:])


def described(fields: Fields) -> dict[str, dict[str, Any]]:
    """The names of what is forecast, and the attributes of each."""
    if fields.classes is not None:
        what = "forecast probability of each class of"
        return {
            f"{target.variable}_probability": {
                "long_name": f"{what} {_title(target)}",
                "units": "1",
            }
            for target in fields.targets
        }
    found = {target.variable: _about(target) for target in fields.targets}
    for target in fields.targets if fields.normal else ():
        name = f"{target.variable}_standard_deviation"
        about = {
            "long_name": f"standard deviation of the forecast of {_title(target)}",
            "units": target.units,
        }
        if family(target.units) == "temperature":
            about["units_metadata"] = "temperature: difference"
        found[name] = about
        found[target.variable]["ancillary_variables"] = name
    return found


def _title(transform: FrameTransform) -> str:
    return str(transform.attributes.get("long_name", transform.variable))


def _about(transform: FrameTransform) -> dict[str, Any]:
    about = dict(transform.attributes)
    about["long_name"] = f"forecast of {_title(transform)}"
    if family(transform.units) == "temperature":
        field = xr.DataArray(name=transform.variable, attrs=transform.attributes)
        kind = "difference" if is_difference(field) else "on_scale"
        about["units_metadata"] = f"temperature: {kind}"
    return about
