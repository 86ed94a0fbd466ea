"""The years that trials of settings are judged on, none of them of the test, and by which error."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gridcast.config import Config
from gridcast.errors import DataError, TrainingError
from gridcast.frames.fields import NORMAL, Fields
from gridcast.frames.splits import Splits, blocked_folds
from gridcast.opening import Source
from gridcast.timeaxis import TimeAxis
from gridcast.verification.categories import CategoryPairs, rps
from gridcast.verification.ensembles import NormalPairs, crps
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.metrics import Pairs, rmse

_BEGINNING = (0, 1, 1)


@dataclass(frozen=True)
class Years:
    """A source that ends before the test, its folds, and a digest of both.

    Attributes:
      axis: of the source, gaps and all.
    """

    source: Source
    axis: TimeAxis
    folds: list[Splits]
    digest: str

    @classmethod
    def of(cls, config: Config, source: Source, inputs: int) -> Years:
        """Cut a source; the arguments are those of `folds_of`."""
        splits = config.splits
        last = (splits.train if config.tune.how == "blocks" else splits.validation).bounds[1]
        axis = TimeAxis.of(source.series[0]["time"].values)
        known = np.flatnonzero(axis.inside(_BEGINNING, last))
        source = replace(source, series=[one.isel(time=known) for one in source.series])
        axis = TimeAxis.of(source.series[0]["time"].values)
        folds = folds_of(config, axis, inputs)
        digest = hashlib.sha256(" ".join(map(str, axis.times)).encode())
        relief = [] if source.elevation is None else [source.elevation]
        for one in [*source.series, *relief]:
            digest.update(one.values.tobytes())
        for fold in folds:
            for dates in (fold.train, fold.validation, fold.test):
                digest.update(dates.tobytes())
        return cls(source, axis, folds, digest.hexdigest())


def folds_of(config: Config, axis: TimeAxis, inputs: int) -> list[Splits]:
    """The splits of each fold: fitted on, validated on, and, as `test`, judged.

    "blocks": as `blocked_folds`, of the training dates. "ahead": as in the experiment itself, but
    earlier. The last years that are judged end with the validation dates, each fold before steps
    back by as many calendar years as the validation has; the same number of years before the judged
    ones validates, and all before these train. Rolling origin: Tashman (2000).

    Between them lie `crossval.buffer` steps, by default the most inputs of any trial + leads. Dates
    that not every trial has a forecast for, at the beginning of the record, are not judged.

    Args:
      axis: of a series that ends before the test.
      inputs: the most frames that any trial is given.

    Raises:
      DataError: too few years for the folds.
    """
    reach = inputs + config.frames.leads
    buffer = config.crossval.buffer or reach
    if config.tune.how == "ahead":
        folds = _ahead(config, axis, buffer)
    else:
        whole = config.splits.model_copy(update={"test": config.splits.train})
        try:
            folds = blocked_folds(axis, whole, config.tune.folds, buffer)
        except DataError as error:
            raise DataError(str(error).replace("crossval.folds", "tune.folds")) from None
    late = axis.steps >= reach - 1
    return [Splits(fold.train, fold.validation, fold.test & late) for fold in folds]


def _ahead(config: Config, axis: TimeAxis, buffer: int) -> list[Splits]:
    splits, count = config.splits, config.tune.folds
    period = axis.inside(splits.train.bounds[0], splits.validation.bounds[1])
    year = axis.dates[:, 0]
    years = np.unique(year[period])
    length = np.unique(year[axis.inside(*splits.validation.bounds)]).size
    if not 0 < length * (count + 1) < years.size:
        raise DataError(
            f"{count} folds ahead judge {length} year(s) each, as many as splits.validation has, "
            f"and validate on as many\n  found: {years.size} year(s) from {splits.train.first} to "
            f"{splits.validation.last}\n  expected: more than {length * (count + 1)}\n"
            "  fix: fewer tune.folds, or a shorter splits.validation"
        )
    folds = []
    for end in range(years.size - (count - 1) * length, years.size + 1, length):
        before, judged = years[end - 2 * length], years[end - length]
        test = period & (year >= judged) & (year <= years[end - 1])
        validation = period & (year >= before) & _ends_before(axis, year >= judged, buffer)
        train = period & _ends_before(axis, year >= before, buffer)
        if not (validation.any() and train.any()):
            raise DataError(
                f"the fold that judges {judged} to {years[end - 1]} has no date to train or "
                f"validate on: the buffer is {buffer} step(s)\n"
                "  fix: a smaller crossval.buffer, or a longer splits.validation"
            )
        folds.append(Splits(train, validation, test))
    return folds


def _ends_before(axis: TimeAxis, later: np.ndarray, buffer: int) -> np.ndarray:
    return axis.steps < axis.steps[later][0] - buffer


def moved(splits: Splits, axis: TimeAxis, to: TimeAxis) -> Splits:
    """The same dates on another axis, whose gaps have been treated."""
    parts = []
    for inside in (splits.train, splits.validation, splits.test):
        dates = set(axis.times[inside].tolist())
        parts.append(np.array([time in dates for time in to.times.tolist()]))
    return Splits(*parts)


def measure(config: Config) -> str:
    """What a trial is judged by: mse, crps of distributions, rps of classes."""
    if config.target.classes is not None:
        return "rps"
    return "crps" if config.train.loss in NORMAL else "mse"


def reference_of(config: Config) -> str:
    """The forecast that errors are relative to."""
    return "damped_persistence" if measure(config) == "mse" else "climatology"


def errors(hindcast: Hindcast, fields: Fields, name: str) -> Float[np.ndarray, "target lead"]:
    """The `measure` of one forecast, pooled over dates and area.

    Raises:
      TrainingError: it is not finite.
    """
    forecast, gaps = hindcast.forecasts[name], fields.config.frames.missing == "mask"
    found = []
    for i, target in enumerate(fields.targets):
        judged = (hindcast.observed[..., i], hindcast.verified, target.grid.weight)
        if fields.classes is not None:
            found.append(rps(CategoryPairs(forecast[..., i, :], *judged)))
        elif fields.normal:
            deviation = hindcast.deviations[name][..., i]
            found.append(crps(NormalPairs(forecast[..., i], deviation, *judged, gaps)))
        else:
            found.append(rmse(Pairs(forecast[..., i], *judged, gaps)) ** 2)
    if not np.isfinite(found).all():
        raise TrainingError(f"the forecasts of {name.replace('_', ' ')} are not finite")
    return np.stack(found)
