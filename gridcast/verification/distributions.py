"""Scores of forecasts that say how sure they are, as labelled scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gridcast.verification.calibration import pit_histogram
from gridcast.verification.ensembles import NormalPairs, crps, spread, spread_error_ratio
from gridcast.verification.metrics import Pairs

BINS = 10
_ONE = {"units": "1"}


def distributions(
    pairs: Mapping[str, Pairs], deviations: Mapping[str, np.ndarray], units: Mapping[str, str]
) -> dict[str, Any]:
    """CRPS, spread and rank histogram of normal distributions.

    Args:
      deviations: standard deviations of the same forecasts.

    Returns:
      Over (forecast, lead): crps, crps_skill = 1 - CRPS / CRPS of climatology, spread,
      spread_error_ratio; over (forecast, lead, bin): pit_share, which is flat where forecasts are
      reliable.
    """
    told = {
        name: NormalPairs(p.forecast, deviations[name], p.observed, p.verified, p.weight, p.gaps)
        for name, p in pairs.items()
        if name in deviations
    }
    if not told:
        return {}

    def table(function: Any) -> np.ndarray:
        """Rows of the forecasts without a distribution are NaN."""
        rows = {name: np.asarray(function(one)) for name, one in told.items()}
        empty = np.full_like(next(iter(rows.values())), np.nan)
        return np.stack([rows.get(name, empty) for name in pairs])

    score, over = table(crps), ("forecast", "lead")
    climate = score[list(pairs).index("climatology")]
    return {
        "crps": (over, score, {**units, "long_name": "continuous ranked probability score"}),
        "crps_skill": (
            over,
            1 - score / climate,
            {**_ONE, "long_name": "1 - CRPS / CRPS of climatology"},
        ),
        "spread": (
            over,
            table(spread),
            {**units, "long_name": "root of the mean variance of the forecast"},
        ),
        "spread_error_ratio": (
            over,
            table(spread_error_ratio),
            {**_ONE, "long_name": "spread / RMSE of the mean; 1 is reliable"},
        ),
        "pit_share": (
            (*over, "rank"),
            table(lambda one: pit_histogram(one, BINS)),
            {**_ONE, "long_name": "share of cases by forecast probability of no more than came"},
        ),
    }
