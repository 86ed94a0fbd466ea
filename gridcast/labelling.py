"""Forecasts as labelled data in physical units: CF coordinates, mask and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.cf import DIMS, LATITUDE, LONGITUDE, described, dims_of, of_file
from gridcast.errors import DataError
from gridcast.frames.fields import AMOUNTS, Fields
from gridcast.grid import Grid
from gridcast.scratch import blocks, kept
from gridcast.timeaxis import TimeAxis, label

_HOURS = {"day": 24.0, "hour": 1.0, "minute": 1.0 / 60.0}
_BEYOND = 1e6  # standard deviations that no forecast is meant to depart by


def label_forecast(
    fields: Fields,
    forecast: Float[np.ndarray, "window lead lat lon output"],
    axis: TimeAxis,
    initial: Int[np.ndarray, " window"],
    attributes: dict[str, str],
) -> xr.Dataset:
    """A CF data set: values in the units of each series, or probabilities of classes.

    Dimensions forecast_reference_time, forecast_period, lat, lon (and, first of the last three,
    category); NaN off the mask. `time` is the valid date of each pair. Months and years are
    counted as steps, shorter units in hours. Values that are large as a whole are in a file, as
    `gridcast.scratch.room`.

    Raises:
      DataError: a value inside the mask is not finite, or beyond a million standard deviations.
    """
    times = valid_times(axis, initial, forecast.shape[1])
    labels = None if fields.classes is None else fields.classes.labels

    def values(chosen: slice) -> dict[str, np.ndarray]:
        if labels is None:
            return _values(fields, forecast[chosen], times[chosen])
        return _probabilities(fields, forecast[chosen])

    made = kept(values, len(forecast), 8 * forecast[0].size)
    found = {
        name: (dims_of(labels), made[name], about) for name, about in described(fields).items()
    }
    grid, leads = fields.targets[0].grid, forecast.shape[1]
    dataset = labelled(found, axis, initial, leads, grid, labels, attributes)
    _require_sound(fields, dataset, forecast)
    return dataset


def labelled(
    arrays: dict[str, Any],
    axis: TimeAxis,
    initial: Int[np.ndarray, " window"],
    leads: int,
    grid: Grid,
    labels: list[str] | None,
    attributes: dict[str, str],
) -> xr.Dataset:
    """The data set of `label_forecast` from its arrays, each with dimensions and attributes.

    Args:
      labels: of the classes; None: values.
    """
    steps = np.arange(1, leads + 1) * axis.every
    if axis.unit in _HOURS:
        period, units = steps * _HOURS[axis.unit], "hours"
    else:
        period, units = steps.astype(np.int32), axis.unit
    no_leap = {"units_metadata": "leap_seconds: none"}
    dataset = xr.Dataset(
        arrays,
        coords={
            "forecast_reference_time": (
                DIMS[0],
                axis.times[initial],
                {"standard_name": "forecast_reference_time", **no_leap},
            ),
            "forecast_period": (
                DIMS[1],
                period,
                {"standard_name": "forecast_period", "units": units},
            ),
            "time": (
                DIMS[:2],
                valid_times(axis, initial, leads),
                {"standard_name": "time", "long_name": "time that the forecast is for", **no_leap},
            ),
            "lat": (DIMS[2], grid.lat, LATITUDE),
            "lon": (DIMS[3], grid.lon, LONGITUDE),
        },
    )
    if labels is not None:
        about = {"long_name": "class of the value, from low to high"}
        dataset = dataset.assign_coords(category=("category", labels, about))
    dataset.attrs = of_file(attributes)
    # A record dimension: forecasts of further dates can be added to the file.
    dataset.encoding["unlimited_dims"] = {DIMS[0]}
    return dataset


def _require_sound(
    fields: Fields,
    dataset: xr.Dataset,
    scaled: Float[np.ndarray, "window lead lat lon output"],
) -> None:
    """Raise where a forecast is not a number or none that can be meant: a file of it would not say.

    Args:
      scaled: what `dataset` was made from.
    """
    for i, (name, variable) in enumerate(dataset.data_vars.items()):
        target = fields.targets[i % len(fields.targets)]  # values of all, then deviations of all
        wrong, what = _places(variable.values, target.grid.mask, np.inf), "not finite"
        if wrong is None and fields.classes is None:
            wrong = _places(scaled[..., i], target.grid.mask, _BEYOND)
            what = "beyond a million standard deviations"
        if wrong is not None:
            (window, lead, *_, row, column), count = wrong
            when = label(dataset["time"].values[window, lead])
            raise DataError(
                f"the forecast of {name} is {what} in {count} places, the first for "
                f"{when} at {target.grid.lat[row]:g}N {target.grid.lon[column]:g}E\n"
                "  expected: a number in every cell of the mask; no file is written\n"
                "  fix: look for extreme values in the last frames of the data; or train with a "
                "smaller train.learning_rate, or another data.transform"
            )


def _places(
    values: Float[np.ndarray, "window ..."], mask: Bool[np.ndarray, "lat lon"], bound: float
) -> tuple[np.ndarray, int] | None:
    """Where values inside the mask are first not below a bound, and how many; None: nowhere."""
    first, count = None, 0
    for part in blocks(len(values), 4 * values[:1].nbytes):
        wrong = ~(np.abs(values[part]) < bound) & mask
        if first is None and wrong.any():
            first = np.argwhere(wrong)[0]
            first[0] += part.start
        count += int(wrong.sum())
    return None if first is None else (first, count)


def valid_times(axis: TimeAxis, initial: Int[np.ndarray, " window"], leads: int) -> np.ndarray:
    """[window lead] the date that each forecast is for."""
    return axis.times_at(axis.steps[initial][:, None] + np.arange(1, leads + 1))


def physical_values(
    fields: Fields, forecast: Float[np.ndarray, "window lead lat lon output"], times: np.ndarray
) -> list[Float[np.ndarray, "window lead lat lon"]]:
    """Values of each target in its units, NaN off the mask.

    Args:
      forecast: what the model's head forecasts: scaled anomalies, or amounts.
      times: as `valid_times`.
    """
    if fields.config.train.loss == AMOUNTS:
        return [t.masked(forecast[..., i]) for i, t in enumerate(fields.targets)]
    mean = means(fields, forecast)
    return [t.physical(mean[..., i], times) for i, t in enumerate(fields.targets)]


def means(
    fields: Fields, forecast: Float[np.ndarray, "window lead lat lon output"]
) -> Float[np.ndarray, "window lead lat lon target"]:
    """Of a mean and a standard deviation side by side the mean; of values themselves."""
    return forecast[..., ::2] if fields.normal else forecast


def class_axis(
    fields: Fields, forecast: Float[np.ndarray, "window lead lat lon output"]
) -> Float[np.ndarray, "window lead lat lon target class"]:
    """The classes of each target, which lie side by side, on an axis of their own."""
    return forecast.reshape(*forecast.shape[:-1], len(fields.targets), -1)


def _values(fields: Fields, forecast: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    values = physical_values(fields, forecast, times)
    found = {t.variable: value for t, value in zip(fields.targets, values, strict=True)}
    for i, target in enumerate(fields.targets) if fields.normal else ():
        spread = forecast[..., 2 * i + 1] * target.scaler.deviation
        spread = np.where(target.grid.mask, spread, np.nan)
        found[f"{target.variable}_standard_deviation"] = spread.astype(np.float32)
    return found


def _probabilities(fields: Fields, forecast: np.ndarray) -> dict[str, np.ndarray]:
    split = class_axis(fields, forecast)
    found = {}
    for i, target in enumerate(fields.targets):
        probability = np.where(target.grid.mask[:, :, None], split[..., i, :], np.nan)
        moved = np.moveaxis(probability, -1, 2).astype(np.float32)
        found[f"{target.variable}_probability"] = moved
    return found
