"""Which dates belong to training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from gridcast.config.bounds import Period
from gridcast.config.schema import SplitsConfig
from gridcast.errors import DataError
from gridcast.timeaxis import TimeAxis, label


@dataclass(frozen=True)
class Splits:
    """True for the dates of each split; a date may belong to none."""

    train: Bool[np.ndarray, " time"]
    validation: Bool[np.ndarray, " time"]
    test: Bool[np.ndarray, " time"]

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


def _inside(axis: TimeAxis, name: str, period: Period) -> np.ndarray:
    inside = axis.inside(*period.bounds)
    if not inside.any():
        raise DataError(
            f"the data hold no date of splits.{name} ({period})\n"
            f"  found: {label(axis.times[0])} to {label(axis.times[-1])}\n"
            f"  fix: move splits.{name} into these dates, or give longer data"
        )
    return inside
