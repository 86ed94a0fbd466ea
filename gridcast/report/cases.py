"""Each forecast of the test dates beside what came: errors, indices, worst and best cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.config.bounds import Region
from gridcast.grid import Grid
from gridcast.report.contents import Subject
from gridcast.scratch import blocks
from gridcast.verification.indices import Pattern, index_patterns, index_series

_INDICES = 3
_MANY = 10  # members that have quantiles; of fewer the range is shown
_WITHIN = 1.2816  # standard deviations about the mean that hold 80 % of a normal distribution
Band = Float[np.ndarray, "bound window lead"]


@dataclass(frozen=True)
class Index:
    """A mean over a box as anomalies, units of the series.

    Attributes:
      band: between which values it is forecast to lie, as `told` says; None where the run does not
        know it: then `told` says why.
    """

    name: str
    times: np.ndarray
    observed: Float[np.ndarray, " time"]
    forecast: Float[np.ndarray, "window lead"]
    band: Band | None
    told: str


@dataclass(frozen=True)
class Cases:
    """The forecasts whose dates all lie in the test years.

    Attributes:
      initial: the initial date of each; `valid` the dates that they are for.
      rmse: of the model, over area and leads, NaN where something was not observed; `normal`: of
        climatology.
    """

    initial: np.ndarray
    valid: np.ndarray
    rmse: Float[np.ndarray, " window"]
    normal: Float[np.ndarray, " window"]
    indices: list[Index]

    def extremes(self, count: int) -> tuple[list[int], list[int]]:
        """Windows with the largest error, and with the most gained over climatology."""
        leads = self.valid.shape[1]
        gain = self.normal**2 - self.rmse**2
        return largest_apart(self.rmse, leads, count), largest_apart(gain, leads, count)


def largest_apart(value: Float[np.ndarray, " window"], leads: int, count: int) -> list[int]:
    """Windows with the largest value, none of which overlaps with a larger one."""
    found = []
    for k in np.argsort(-value, kind="stable").tolist():  # NaN comes last
        apart = all(abs(k - other) >= leads for other in found)
        if np.isfinite(value[k]) and apart and len(found) < count:
            found.append(k)
    return found


def cases(subject: Subject) -> Cases | None:
    """None of classes (see `class_cases`), and where hindcast.nc or observations.nc is missing."""
    run, name = subject.run, subject.variable
    if subject.classes or run.hindcast is None or run.observations is None:
        return None
    if name not in run.hindcast or name not in run.observations:
        return None
    inside = np.flatnonzero(in_test(subject, run.hindcast["time"]).all(axis=1))
    if not inside.size:
        return None
    valid = run.hindcast["time"].values[inside]
    grid = subject.grid
    patterns = shown_patterns(grid, run.config.verification.boxes, name)
    # The area of cells that are counted: some observations may lack, and then the case is left out.
    weight = grid.weight[grid.mask]
    rmse, normal, made = [], [], []
    # Of forecasts and what came there are errors, in float64, too.
    for some in blocks(inside.size, 32 * valid.shape[1] * grid.mask.size):
        forecast, came = anomalies(subject, inside[some])
        error, nothing = (forecast - came)[..., grid.mask] ** 2, came[..., grid.mask] ** 2
        rmse.append(np.sqrt((error @ weight).mean(axis=1)))
        normal.append(np.sqrt((nothing @ weight).mean(axis=1)))
        made.append(np.stack([index_series(forecast, one) for one in patterns.values()]))
    series = np.concatenate(made, axis=1)
    times = run.observations["time"]
    test = np.flatnonzero(in_test(subject, times))
    seen = _observed_indices(run.observations, name, test, list(patterns.values()))
    indices = [
        Index(one, times.values[test], seen[k], series[k], *_band(subject, one, inside, series[k]))
        for k, one in enumerate(patterns)
    ]
    initial = run.hindcast["forecast_reference_time"].values[inside]
    return Cases(initial, valid, np.concatenate(rmse), np.concatenate(normal), indices)


def _observed_indices(
    observations: xr.Dataset, name: str, dates: np.ndarray, patterns: list[Pattern]
) -> Float[np.ndarray, "index date"]:
    """Each index as observed, read some dates at a time."""
    found = np.empty((len(patterns), dates.size))
    for some in blocks(dates.size, 16 * patterns[0].size):
        few = observations[[name, f"{name}_climatology"]].isel(time=dates[some])
        anomaly = few[name].values - few[f"{name}_climatology"].values
        for k, pattern in enumerate(patterns):
            found[k, some] = index_series(anomaly[:, None], pattern)[:, 0]
    return found


def anomalies(
    subject: Subject, windows: np.ndarray
) -> tuple[
    Float[np.ndarray, "window lead lat lon"],
    Float[np.ndarray, "window lead lat lon"],
]:
    """Of the hindcast, and observed, against the training climatology; NaN off the mask."""
    run, name = subject.run, subject.variable
    assert run.hindcast is not None
    assert run.observations is not None
    forecast = run.hindcast[name].isel(forecast_reference_time=windows)
    came, normal = at_dates(run.observations, name, forecast["time"].values)
    return forecast.values - normal, came - normal


def at_dates(observations: xr.Dataset, name: str, times: np.ndarray) -> tuple[Any, Any]:
    """What was observed and the climatology at dates [window, lead]; NaN where not in the file."""
    came, normal = fields_at(observations, (name, f"{name}_climatology"), times)
    return came, normal


def fields_at(
    observations: xr.Dataset, names: tuple[str, ...], times: np.ndarray
) -> list[np.ndarray]:
    """Variables at dates [window, lead]; NaN where they are not in the file."""
    flat, where = np.unique(times.ravel(), return_inverse=True)
    found = observations[list(names)].reindex(time=flat)
    return [found[name].values[where.reshape(times.shape)] for name in names]


def in_test(subject: Subject, times: xr.DataArray) -> Bool[np.ndarray, "..."]:
    """Whether dates lie in the test years of the config."""
    first, last = subject.run.config.splits.test.bounds
    parts = times.dt
    key = parts.year * 10000 + parts.month * 100 + parts.day
    begin, end = (y * 10000 + m * 100 + d for y, m, d in (first, last))
    return np.asarray((key >= begin) & (key <= end))


def shown_patterns(grid: Grid, boxes: Mapping[str, Region], variable: str) -> dict[str, Pattern]:
    """The boxes of the config, Nino 3.4 where it lies in the grid, or else the whole area.

    Args:
      variable: the name of a single series, which is its own index.
    """
    if grid.mask.size == 1:
        return {variable: grid.weight}
    found = index_patterns(grid, boxes)
    chosen = {name: found[name] for name in [*boxes, "nino34"] if name in found}
    return dict(list(chosen.items())[:_INDICES]) or {"mean of the area": grid.weight}


def _band(
    subject: Subject, index: str, windows: np.ndarray, centre: Float[np.ndarray, "window lead"]
) -> tuple[Band | None, str]:
    """Quantiles of an index, of the predicted distribution or of members, and what they are."""
    run, name = subject.run, subject.variable
    assert run.hindcast is not None
    deviation = f"{name}_standard_deviation"
    if subject.single and deviation in run.hindcast:
        half = _WITHIN * run.hindcast[deviation].values[windows, :, 0, 0].astype(np.float64)
        return np.stack([centre - half, centre + half]), "Bands hold 80 % of what it forecasts."
    if _has(run.indices, name, index):
        assert run.indices is not None
        initial = run.hindcast["forecast_reference_time"].values[windows]
        each = run.indices[name].sel(index=index, forecast_reference_time=initial)
        values = each.transpose("realization", ...).values.astype(np.float64)
        shared = "They leave out what all members get wrong alike: more lies outside than they say."
        if len(values) >= _MANY:
            band = np.quantile(values, [0.1, 0.9], axis=0)
            return band, f"Bands hold 80 % of {len(values)} members. {shared}"
        band = np.stack([values.min(axis=0), values.max(axis=0)])
        return band, f"Bands are the range of {len(values)} members. {shared}"
    if deviation in run.hindcast:
        why = (
            "the model says how sure it is of each cell, not of a mean of cells, which err together"
        )
    elif run.config.train.members > 1:
        why = "this run keeps no forecasts of its members (indices.nc)"
    else:
        why = "the model forecasts one value, without members or a distribution"
    return None, f"No bands: {why}."


def _has(indices: xr.Dataset | None, name: str, index: str) -> bool:
    return indices is not None and name in indices and index in indices["index"].values
