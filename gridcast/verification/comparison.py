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
from gridcast.scratch import kept
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
            forecasts[name] = _means(ensemble)
    return replace(judged, forecasts=forecasts, members=members)


@dataclass(frozen=True)
class _System:
    """Anomalies of one system against the climatology of the run, 0 off the mask.

    Attributes:
      mean: of the members that there are.
      members: on each date those that there are come first, NaN after them. Large arrays are as
        `gridcast.scratch.room`.
      count: how many there are of every target.
    """

    mean: Float[np.ndarray, "window lead lat lon target"]
    members: Float[np.ndarray, "window lead member lat lon target"]
    count: Int[np.ndarray, "window lead"]


def _read(
    hindcast: Hindcast, fields: Fields, axis: TimeAxis, source: Forecasts, regrid: bool
) -> _System:
    several = len(fields.targets) > 1
    found = [
        read_forecast(
            source,
            target,
            axis,
            hindcast.initial,
            hindcast.verified.shape[1],
            variable=target.variable if several else None,
            box=_box(fields.config, i),
            regrid=regrid,
        )
        for i, target in enumerate(fields.targets)
    ]
    least = min(len(one.members) for one in found)

    def of_windows(chosen: slice) -> dict[str, np.ndarray]:
        means, members, counts = [], [], []
        for i, (target, one) in enumerate(zip(fields.targets, found, strict=True)):
            normal, mask = hindcast.normal[chosen, ..., i], target.grid.mask
            some = one.members[:, chosen]
            there = np.asarray(np.isfinite(some[..., mask]).any(axis=-1))
            first = np.argsort(~there, axis=0, kind="stable")[:least, ..., None, None]
            means.append(np.where(mask, one.values[chosen] - normal, 0.0))
            ordered = np.take_along_axis(some, first, axis=0)
            members.append(np.where(mask, ordered - normal, 0.0))
            counts.append(there.sum(axis=0))
        return {
            "mean": np.stack(means, axis=-1),
            "members": np.moveaxis(np.stack(members, axis=-1), 0, 2),
            "count": np.min(counts, axis=0),
        }

    nbytes = hindcast.normal[0].nbytes * least
    return _System(**kept(of_windows, len(hindcast.initial), nbytes))


def _means(
    members: Float[np.ndarray, "window lead lat lon target member"],
) -> Float[np.ndarray, "window lead lat lon target"]:
    def of_windows(chosen: slice) -> dict[str, np.ndarray]:
        return {"mean": members[chosen].mean(axis=-1, dtype=np.float64).astype(np.float32)}

    return kept(of_windows, len(members), members[0].nbytes)["mean"]


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
    return None if count < 2 else np.moveaxis(system.members[:, :leads, :count], 2, -1)


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
