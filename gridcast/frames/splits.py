"""Which dates belong to training, validation and test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from gridcast.config.bounds import Period
from gridcast.config.schema import SplitsConfig
from gridcast.errors import DataError
from gridcast.timeaxis import TimeAxis, label

Dates = Bool[np.ndarray, " time"]


@dataclass(frozen=True)
class Splits:
    """True for the dates of each split; a date may belong to none."""

    train: Dates
    validation: Dates
    test: Dates

    @classmethod
    def by_date(cls, axis: TimeAxis, config: SplitsConfig) -> Splits:
        """Cut a series by the config's dates.

        Raises:
          DataError: a split without any date of the series.
        """
        return cls(
            *(
                _inside(axis, name, getattr(config, name))
                for name in ("train", "validation", "test")
            )
        )


def by_years(axis: TimeAxis, window: int) -> SplitsConfig:
    """Training, validation and test in whole calendar years, in this order, of all the dates.

    Validation and test have 15 % of the years each, and at least the length of two windows.

    Args:
      window: steps of a window, inputs and leads.

    Raises:
      DataError: that leaves less for training than for the test.
    """
    years = np.unique(axis.dates[:, 0]).tolist()
    a_year = axis.times.size / len(years)
    held = max(round(0.15 * len(years)), math.ceil(2 * window / a_year))
    if len(years) < 3 * held:
        raise DataError(
            f"{len(years)} year(s) of data are too few for training, and {held} each for "
            f"validation and test\n  found: {label(axis.times[0])} to {label(axis.times[-1])}, "
            f"windows of {window} steps\n"
            "  fix: say which dates are which: splits={'train': [FIRST, LAST], ...}; or fewer "
            "inputs and leads"
        )
    ends = {"train": years[: -2 * held], "validation": years[-2 * held : -held]}
    ends["test"] = years[-held:]
    return SplitsConfig.model_validate(
        {name: [f"{part[0]:04d}", f"{part[-1]:04d}"] for name, part in ends.items()}
    )


def blocked_folds(axis: TimeAxis, config: SplitsConfig, folds: int, buffer: int) -> list[Splits]:
    """Cut a series into blocks of years, each of them the test of one fold.

    The dates from the first of training to the last of test fall into `folds` blocks of whole
    calendar years, as equal as possible. Fold k is tested on block k, validated on the next (the
    last fold: on the one before), and trained on all others. No training date lies within
    `buffer` steps of these two blocks, and no validation date within `buffer` steps of the test
    block; steps are counted on the calendar, so gaps count as time. Blocked cross-validation with
    buffers: Roberts et al. (2017).

    Raises:
      DataError: fewer years than folds, or a fold without a training or validation date.
    """
    period = axis.inside(config.train.bounds[0], config.test.bounds[1])
    year = axis.dates[:, 0]
    years = np.unique(year[period])
    if years.size < folds:
        raise DataError(
            f"cross-validation with {folds} folds, and the data hold {years.size} year(s) from "
            f"{config.train.first} to {config.test.last}\n"
            "  expected: a year or more for each fold\n"
            "  fix: fewer crossval.folds, or longer data"
        )
    blocks = [period & np.isin(year, part) for part in np.array_split(years, folds)]
    splits = []
    for number, test in enumerate(blocks):
        after = number + 1 if number + 1 < folds else number - 1
        away_from_test = _beyond(axis, test, buffer)
        validation = blocks[after] & away_from_test
        train = period & away_from_test & _beyond(axis, blocks[after], buffer)
        fold = f"fold {number + 1} of {folds} with a buffer of {buffer} step(s)"
        if not validation.any():
            raise DataError(
                f"{fold} has no validation date\n"
                "  expected: blocks longer than the buffer\n"
                "  fix: a smaller crossval.buffer, or fewer crossval.folds"
            )
        if not train.any():
            raise DataError(
                f"{fold} has no training date\n"
                "  expected: dates beyond the buffers of the test and validation blocks\n"
                "  fix: a smaller crossval.buffer, or more years from splits.train to splits.test"
            )
        splits.append(Splits(train, validation, test))
    return splits


def _beyond(axis: TimeAxis, block: Dates, buffer: int) -> Dates:
    """The dates more than `buffer` steps before the first or after the last of a block."""
    first, last = axis.steps[block][[0, -1]]
    return (axis.steps < first - buffer) | (axis.steps > last + buffer)


def _inside(axis: TimeAxis, name: str, period: Period) -> Dates:
    inside = axis.inside(*period.bounds)
    if not inside.any():
        raise DataError(
            f"the data hold no date of splits.{name} ({period})\n"
            f"  found: {label(axis.times[0])} to {label(axis.times[-1])}\n"
            f"  fix: move splits.{name} into these dates, or give longer data"
        )
    return inside
