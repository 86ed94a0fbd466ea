"""A hindcast and the forecasts of other systems, judged on the same dates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int

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
    system has none of them. A system with two members or more is an ensemble of as many as it has
    on each of these dates: where there are more, the first of them. One that has a single member on
    some date is the mean of those that there are.

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
    systems: dict[str, _System] = {}
    usable = hindcast.verified
    for name, source in others.items():
        if name in hindcast.forecasts:
            raise DataError(
                f"{name!r} is the name of another forecast\n"
                f"  found: {', '.join(hindcast.forecasts)}\n"
                "  fix: give the file another name, NAME=FILE"
            )
        try:
            systems[name] = _read(hindcast, fields, axis, source, regrid)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        usable = usable & (systems[name].count > 0)
    judged = _on_same_dates(hindcast, usable)
    forecasts, members = dict(judged.forecasts), {}
    for name, system in systems.items():
        forecasts[name] = system.mean[:, : judged.verified.shape[1]]
        if (ensemble := _ensemble(name, system, judged)) is not None:
            members[name] = ensemble
            forecasts[name] = ensemble.mean(axis=-1, dtype=np.float64).astype(np.float32)
    return replace(judged, forecasts=forecasts, members=members)


@dataclass(frozen=True)
class _System:
    """Anomalies of one system against the climatology of the run, 0 off the mask.

    Attributes:
      mean: of the members that there are.
      members: on each date those that there are come first, NaN after them.
      count: how many there are of every target.
    """

    mean: Float[np.ndarray, "window lead lat lon target"]
    members: Float[np.ndarray, "member window lead lat lon target"]
    count: Int[np.ndarray, "window lead"]


def _read(
    hindcast: Hindcast, fields: Fields, axis: TimeAxis, source: Forecasts, regrid: bool
) -> _System:
    several = len(fields.targets) > 1
    means, members, counts = [], [], []
    for i, target in enumerate(fields.targets):
        found = read_forecast(
            source,
            target,
            axis,
            hindcast.initial,
            hindcast.verified.shape[1],
            variable=target.variable if several else None,
            box=_box(fields.config, i),
            regrid=regrid,
        )
        normal, mask = hindcast.normal[..., i], target.grid.mask
        there = np.asarray(np.isfinite(found.members[..., mask]).any(axis=-1))
        first = np.argsort(~there, axis=0, kind="stable")[..., None, None]
        means.append(np.where(mask, found.values - normal, 0.0))
        ordered = np.take_along_axis(found.members, first, axis=0)
        members.append(np.where(mask, ordered - normal, 0.0))
        counts.append(there.sum(axis=0))
    least = min(len(one) for one in members)
    return _System(
        np.stack(means, axis=-1),
        np.stack([one[:least] for one in members], axis=-1),
        np.min(counts, axis=0),
    )


def _ensemble(
    name: str, system: _System, judged: Hindcast
) -> Float[np.ndarray, "window lead lat lon target member"] | None:
    """As many members as there are on every date that is judged; None of a single one."""
    leads = judged.verified.shape[1]
    there = system.count[:, :leads][judged.verified]
    count, most = int(there.min()), int(there.max())
    if count < most:
        scored = "their mean is scored" if count < 2 else f"the first {count} are scored"
        _log.info("%s has %d to %d members: %s", name, count, most, scored)
    return None if count < 2 else np.moveaxis(system.members[:count, :, :leads], 0, -1)


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
    hindcast, usable = hindcast.first_leads(count), usable[:, :count]
    dates = [hindcast.steps[usable[:, k], k] for k in range(count)]
    same = reduce(np.intersect1d, dates) if dates else np.empty(0, int)
    if not same.size:
        raise DataError(
            "no date has forecasts of all systems at every lead\n"
            f"  found: {numbers} dates with forecasts of all at leads 1 to {len(numbers)}\n"
            "  expected: forecasts from each date of the test period, from lead 1 on"
        )
    return replace(hindcast, verified=usable & np.isin(hindcast.steps, same))
