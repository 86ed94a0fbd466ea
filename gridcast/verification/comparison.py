"""A hindcast and the forecasts of other systems, judged on the same dates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields as attributes
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from gridcast.config import Config
from gridcast.config.bounds import Region
from gridcast.config.data import DataConfig, MoreConfig
from gridcast.errors import DataError
from gridcast.frames.fields import Fields, variables
from gridcast.timeaxis import TimeAxis
from gridcast.verification.foreign import Forecasts, read_forecast
from gridcast.verification.hindcast import Hindcast

_log = logging.getLogger("gridcast")


def beside(
    hindcast: Hindcast,
    fields: Fields,
    axis: TimeAxis,
    others: Mapping[str, Forecasts],
    *,
    regrid: bool = False,
) -> Hindcast:
    """The hindcast with forecasts of other systems among its own.

    Dates stay that all have a forecast for at every lead; the longest leads are left out where one
    system has none of them.

    Args:
      hindcast: of values; its windows are positions on `axis`.
      others: files, as `read_forecast` takes them, by the names that tables show.
      regrid: as in `read_forecast`.

    Raises:
      DataError: a run that forecasts classes, a name that is taken, no date in common, and all that
        `read_forecast` raises.
    """
    if fields.classes is not None:
        raise DataError(
            "the run forecasts probabilities of classes\n"
            "  expected: a run that forecasts values, to be compared with other forecasts of values"
        )
    forecasts, usable = dict(hindcast.forecasts), hindcast.verified
    for name, source in others.items():
        if name in forecasts:
            raise DataError(
                f"{name!r} is the name of another forecast\n  found: {', '.join(forecasts)}\n"
                "  fix: give the file another name, NAME=FILE"
            )
        try:
            forecasts[name], there = _anomalies(hindcast, fields, axis, source, regrid)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        usable = usable & there
    return _on_same_dates(replace(hindcast, forecasts=forecasts), usable)


def _anomalies(
    hindcast: Hindcast, fields: Fields, axis: TimeAxis, source: Forecasts, regrid: bool
) -> tuple[Float[np.ndarray, "window lead lat lon target"], Bool[np.ndarray, "window lead"]]:
    """One system's anomalies against the climatology of the run, and where it has all targets."""
    several = len(fields.targets) > 1
    anomalies = np.zeros_like(hindcast.observed)
    there = np.ones_like(hindcast.verified)
    for i, target in enumerate(fields.targets):
        found = read_forecast(
            source,
            target,
            axis,
            hindcast.initial,
            there.shape[1],
            variable=target.variable if several else None,
            box=_box(fields.config, i),
            regrid=regrid,
        )
        anomaly = found.values - hindcast.normal[..., i]
        anomalies[..., i] = np.where(target.grid.mask, anomaly, 0.0)
        there &= found.there
    return anomalies, there


def _box(config: Config, i: int) -> Region | None:
    """The box whose mean target `i` is, or None for a field."""
    variable = variables(config)[i]
    assert isinstance(variable, DataConfig | MoreConfig)
    return config.target.mean_over or variable.mean_over or config.data.mean_over


def _on_same_dates(hindcast: Hindcast, usable: Bool[np.ndarray, "window lead"]) -> Hindcast:
    """Judge the forecasts of those dates that have a usable one at every lead."""
    numbers = usable.sum(axis=0).tolist()
    count = int(usable.any(axis=0).cumprod().sum())
    if 0 < count < usable.shape[1]:
        _log.info("leads 1 to %d are compared; beyond, forecasts are lacking", count)
    hindcast, usable = _first_leads(hindcast, count), usable[:, :count]
    dates = [hindcast.steps[usable[:, k], k] for k in range(count)]
    same = reduce(np.intersect1d, dates) if dates else np.empty(0, int)
    if not same.size:
        raise DataError(
            "no date has forecasts of all systems at every lead\n"
            f"  found: {numbers} dates with forecasts of all at leads 1 to {len(numbers)}\n"
            "  expected: forecasts from each date of the test period, from lead 1 on"
        )
    return replace(hindcast, verified=usable & np.isin(hindcast.steps, same))


def _first_leads(hindcast: Hindcast, count: int) -> Hindcast:
    def cut(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: cut(one) for name, one in part.items()}
        return part[:, :count] if part.ndim > 1 else part

    return Hindcast(**{one.name: cut(getattr(hindcast, one.name)) for one in attributes(hindcast)})
