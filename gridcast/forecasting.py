"""Forecasts: direct leads, rolled out beyond them, and back to labelled data in physical units."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, Float, Int

from gridcast.accelerator import jit
from gridcast.frames.transform import FrameTransform
from gridcast.models import ForecastModel
from gridcast.sources.units import family
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis

CONVENTIONS = "CF-1.11"
_HOURS = {"day": 24.0, "hour": 1.0, "minute": 1.0 / 60.0}


@dataclass(frozen=True)
class Predictor:
    """A model with its weights, compiled once for batches of one size.

    Attributes:
      inputs, leads: frames that the model takes, and leads that it gives at once.
    """

    graph: nnx.GraphDef
    state: Any
    inputs: int
    leads: int
    batch_size: int

    @classmethod
    def of(cls, model: ForecastModel, inputs: int, batch_size: int) -> Predictor:
        graph, state = nnx.split(model)
        return cls(graph, state, inputs, model.damping[...].shape[0], batch_size)

    @cached_property
    def _run(self) -> Callable[..., Array]:
        return jit(lambda state, *window: nnx.merge(self.graph, state)(*window))

    def __call__(
        self,
        frames: Float[np.ndarray, "series lat lon channel"],
        season: Float[np.ndarray, "series_and_after 2"],
        initial: Int[np.ndarray, " window"],
        leads: int | None = None,
    ) -> Float[np.ndarray, "window lead lat lon channel"]:
        """Scaled anomalies `leads` steps ahead from each initial position.

        Leads that the model was not trained for come from rolling out: its own forecasts become
        its inputs. Then `season` must know the dates after the last initial position as well.
        """
        leads = leads or self.leads
        past = np.arange(1 - self.inputs, 1)
        out = []
        for at in range(0, initial.size, self.batch_size):
            chosen = initial[at : at + self.batch_size]
            # The last batch is filled up, so that one compiled program serves all.
            filled = np.concatenate([chosen, np.repeat(chosen[-1:], self.batch_size - chosen.size)])
            window = jnp.asarray(frames[filled[:, None] + past])
            blocks = []
            for lead in range(0, leads, self.leads):
                angles = jnp.asarray(season[filled[:, None] + lead + past])
                block = self._run(self.state, window, angles)
                window = jnp.concatenate([window, block], axis=1)[:, -self.inputs :]
                blocks.append(np.asarray(block))
            out.append(np.concatenate(blocks, axis=1)[: chosen.size, :leads])
        return np.concatenate(out)


def label_forecast(
    transform: FrameTransform,
    scaled: Float[np.ndarray, "window lead lat lon channel"],
    axis: TimeAxis,
    initial: Int[np.ndarray, " window"],
    attributes: dict[str, str],
) -> xr.Dataset:
    """A CF data set in the units of the series, NaN off the mask.

    Dimensions forecast_reference_time, forecast_period, lat, lon; `time` is the valid date of
    each pair. Months and years are counted as steps, shorter units in hours.
    """
    leads = scaled.shape[1]
    times = axis.times_at(axis.steps[initial][:, None] + np.arange(1, leads + 1))
    dims = ("forecast_reference_time", "forecast_period", "lat", "lon")
    values = transform.physical(scaled[..., 0], times)
    steps = np.arange(1, leads + 1) * axis.every
    if axis.unit in _HOURS:
        period, units = steps * _HOURS[axis.unit], "hours"
    else:
        period, units = steps.astype(np.int32), axis.unit
    about = dict(transform.attributes)
    about["long_name"] = f"forecast of {about.get('long_name', transform.variable)}"
    if family(transform.units) == "temperature":
        field = xr.DataArray(name=transform.variable, attrs=transform.attributes)
        kind = "difference" if is_difference(field) else "on_scale"
        about["units_metadata"] = f"temperature: {kind}"
    no_leap = {"units_metadata": "leap_seconds: none"}
    dataset = xr.Dataset(
        {transform.variable: (dims, values, about)},
        coords={
            "forecast_reference_time": (
                dims[0],
                axis.times[initial],
                {"standard_name": "forecast_reference_time", **no_leap},
            ),
            "forecast_period": (
                dims[1],
                period,
                {"standard_name": "forecast_period", "units": units},
            ),
            "time": (
                dims[:2],
                times,
                {"standard_name": "time", "long_name": "time that the forecast is for", **no_leap},
            ),
            "lat": (dims[2], transform.grid.lat, _LATITUDE),
            "lon": (dims[3], transform.grid.lon, _LONGITUDE),
        },
    )
    dataset.attrs = of_file(attributes)
    # A record dimension: forecasts of further dates can be added to the file.
    dataset.encoding["unlimited_dims"] = {dims[0]}
    return dataset


def of_file(attributes: dict[str, str]) -> dict[str, str]:
    """Global attributes with those that CF wants in every file."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"Conventions": CONVENTIONS, "history": f"{now} gridcast", **attributes}


_LATITUDE = {
    "standard_name": "latitude",
    "long_name": "latitude",
    "units": "degrees_north",
    "axis": "Y",
}
_LONGITUDE = {
    "standard_name": "longitude",
    "long_name": "longitude",
    "units": "degrees_east",
    "axis": "X",
}
