"""Scores as a data set: the skill against each reference, coordinates and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from gridcast.cf import of_file
from gridcast.frames.transform import FrameTransform
from gridcast.verification.hindcast import MODEL, Hindcast
from gridcast.verification.tables import LEAD

ONE = {"units": "1"}


def skill(
    pooled: Float[np.ndarray, "forecast lead"],
    maps: Float[np.ndarray, "forecast lead lat lon"],
    target: FrameTransform,
    about: str,
) -> dict[str, Any]:
    """1 - score of the model / score of each reference; the model comes first."""
    over = ("reference", "lead")
    with np.errstate(invalid="ignore", divide="ignore"):  # a reference without any error
        whole = 1 - pooled[:1] / pooled[1:]
        cells = np.where(target.grid.mask, 1 - maps[:1] / maps[1:], np.nan)
    attributes = {**ONE, "long_name": about}
    return {
        "skill": (over, whole, attributes),
        "skill_map": ((*over, "lat", "lon"), cells.astype(np.float32), attributes),
    }


def labelled(
    variables: dict[str, Any],
    hindcast: Hindcast,
    target: FrameTransform,
    attributes: dict[str, str],
) -> xr.Dataset:
    """The scores of a target with the coordinates that all have."""
    names = list(hindcast.forecasts)
    references = [name for name in names if name != MODEL]
    return xr.Dataset(
        {
            **variables,
            "dates": (
                "lead",
                hindcast.verified.sum(axis=0),
                {**ONE, "long_name": "number of verification dates"},
            ),
        },
        coords={
            "forecast": ("forecast", names, {"long_name": "which forecast is judged"}),
            "reference": ("reference", references, {"long_name": "which forecast is to be beaten"}),
            "lead": (
                "lead",
                np.arange(1, hindcast.verified.shape[1] + 1),
                {**ONE, "long_name": f"{LEAD}{target.step}"},
            ),
            "lat": (
                "lat",
                target.grid.lat,
                {"units": "degrees_north", "standard_name": "latitude"},
            ),
            "lon": (
                "lon",
                target.grid.lon,
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
        },
        attrs=of_file(attributes),
    )
