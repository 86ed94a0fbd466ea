"""How sure differences between forecasts of classes are: resampled dates, as of values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gridcast.verification.categories import ClassSums
from gridcast.verification.significance import Interval, block_length, intervals, ratio


class ClassComparison(NamedTuple):
    """95 % intervals of pooled scores of classes, NaN at leads with less than two blocks of dates.

    Attributes:
      rps_difference: ranked probability score of the first minus that of the second.
      skill: 1 - RPS of the first / RPS of the second.
      hit_rate_difference: hit rate of the first minus that of the second.
      block: how many dates in a row were drawn together.
    """

    rps_difference: Interval
    skill: Interval
    hit_rate_difference: Interval
    block: Int[np.ndarray, " lead"]


def compare_classes(first: ClassSums, second: ClassSums) -> ClassComparison:
    """Compare by resampled blocks of dates, the same for both, as `significance.compare`.

    Args:
      first, second: of the same dates in order of time.
    """
    dates, leads = first.area.shape
    length = np.array([block_length(dates, lead) for lead in range(1, leads + 1)])

    def statistics(counts: np.ndarray, lead: int) -> tuple[np.ndarray, ...]:
        ours, theirs = (
            [ratio(counts @ part[:, lead], counts @ sums.area[:, lead]) for part in sums[:2]]
            for sums in (first, second)
        )
        return ours[0] - theirs[0], 1 - ratio(ours[0], theirs[0]), ours[1] - theirs[1]

    rps, skill, hits = intervals(statistics, 3, dates, length)
    return ClassComparison(rps, skill, hits, length)
