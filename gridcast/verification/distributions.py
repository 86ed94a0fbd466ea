"""Scores of forecasts that say how sure they are, as labelled scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gridcast.verification.by_name import CLIMATOLOGY
from gridcast.verification.calibration import pit_histogram, rank_histogram
from gridcast.verification.ensembles import (
    EnsemblePairs,
    NormalPairs,
    Uncertain,
    crps,
    spread,
    spread_error_ratio,
)
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.labelled import ONE
from gridcast.verification.metrics import Pairs

_BINS = 10


def uncertain(hindcast: Hindcast, pairs: Mapping[str, Pairs], i: int) -> dict[str, Uncertain]:
    """The forecasts of target `i` that are ensembles or distributions.

    Args:
      pairs: all forecasts of this target.

    Returns:
      Nothing where climatology is the only one.
    """
    told: dict[str, Uncertain] = {}
    for name, one in pairs.items():
        judged = (one.observed, one.verified, one.weight, one.gaps)
        if name in hindcast.members:
            members = np.moveaxis(hindcast.members[name][..., i, :], -1, 0)
            told[name] = EnsemblePairs(members, *judged)
        elif name in hindcast.deviations:
            told[name] = NormalPairs(one.forecast, hindcast.deviations[name][..., i], *judged)
    return told if told.keys() - {CLIMATOLOGY} else {}


def distributions(
    told: Mapping[str, Uncertain], names: Sequence[str], units: Mapping[str, str]
) -> dict[str, Any]:
    """CRPS, spread and histograms.

    Args:
      told: as `uncertain`, with climatology among them.
      names: of all forecasts; the rows of the others are NaN.

    Returns:
      Over (forecast, lead): crps, crps_skill = 1 - CRPS / CRPS of climatology, spread,
      spread_error_ratio; over (forecast, lead, pit): pit_share of the distributions. Where there
      are ensembles: over (forecast, lead) fair_crps, over forecast their members, over (forecast,
      lead, rank) rank_share, NaN beyond the members that there are. Both shares are flat where
      forecasts are reliable.
    """
    if not told:
        return {}
    normal = {name: one for name, one in told.items() if isinstance(one, NormalPairs)}
    ensembles = {name: one for name, one in told.items() if isinstance(one, EnsemblePairs)}

    def table(function: Callable[[Any], np.ndarray], of: Mapping[str, Uncertain]) -> np.ndarray:
        return by_forecast(names, {name: function(one) for name, one in of.items()})

    score, over = table(crps, told), ("forecast", "lead")
    about = "continuous ranked probability score"
    found = {
        "crps": (over, score, {**units, "long_name": about}),
        "crps_skill": (
            over,
            1 - score / score[list(names).index(CLIMATOLOGY)],
            {**ONE, "long_name": "1 - CRPS / CRPS of climatology"},
        ),
        "spread": (
            over,
            table(spread, told),
            {**units, "long_name": "root of the mean variance of the forecast"},
        ),
        "spread_error_ratio": (
            over,
            table(spread_error_ratio, told),
            {**ONE, "long_name": "spread / RMSE of the mean; 1 is reliable"},
        ),
        "pit_share": (
            (*over, "pit"),
            table(lambda one: pit_histogram(one, _BINS), normal),
            {**ONE, "long_name": "share of cases by forecast probability of no more than came"},
        ),
        "pit": (
            "pit",
            (np.arange(_BINS) + 0.5) / _BINS,
            {**ONE, "long_name": "middle of a bin of forecast probability"},
        ),
    }
    if not ensembles:
        return found
    count = [len(ensembles[name].members) if name in ensembles else 0 for name in names]
    return found | {
        "fair_crps": (
            over,
            table(lambda one: crps(one, fair=True), told),
            {**units, "long_name": f"{about}, of members as of an ensemble without end"},
        ),
        "members": (
            "forecast",
            np.array(count, np.int32),
            {**ONE, "long_name": "members of an ensemble; 0 of a forecast that is none"},
        ),
        "rank_share": (
            (*over, "rank"),
            table(rank_histogram, ensembles),
            {**ONE, "long_name": "share of cases by how many members lie below what came"},
        ),
        "rank": (
            "rank",
            np.arange(max(count) + 1, dtype=np.int32),
            {**ONE, "long_name": "members below what came"},
        ),
    }


def by_forecast(
    names: Sequence[str], rows: Mapping[str, Float[np.ndarray, "lead ..."]]
) -> Float[np.ndarray, "forecast lead ..."]:
    """The rows in the order of the names, NaN where there is none or a row is shorter."""
    shape = np.max([row.shape for row in rows.values()], axis=0)
    table = np.full((len(names), *shape), np.nan)
    for k, name in enumerate(names):
        if name in rows:
            table[(k, *map(slice, rows[name].shape))] = rows[name]
    return table
