"""Scores of probabilities of classes, as labelled scores: the run's own, and of terciles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gridcast.frames.fields import Fields
from gridcast.verification import categories
from gridcast.verification.by_name import CLIMATOLOGY
from gridcast.verification.calibration import between
from gridcast.verification.categories import CategoryPairs, Reliability
from gridcast.verification.distributions import by_forecast
from gridcast.verification.ensembles import Uncertain, at_lead
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.labelled import ONE, skill
from gridcast.verification.terciles import CLASSES

_log = logging.getLogger("gridcast")
_SCORES = {
    "rps": (categories.rps, "ranked probability score, sum over classes"),
    "hit_rate": (categories.hit_rate, "share of cases in which the most likely class came"),
    "log_score": (categories.log_score, "mean of -log of the probability of what came"),
}
_RELIABILITY = {
    "forecast_probability": "mean forecast probability of the cases in the bin",
    "observed_frequency": "share of them in which the class came",
    "share": "share of all cases that fall in the bin",
}


def of_classes(hindcast: Hindcast, fields: Fields, i: int) -> dict[str, Any]:
    """Of target `i` of a run that forecasts classes, as `scores.score` says."""
    assert fields.classes is not None
    target = fields.targets[i]
    pairs = {
        name: CategoryPairs(
            odds[..., i, :], hindcast.observed[..., i], hindcast.verified, target.grid.weight
        )
        for name, odds in hindcast.forecasts.items()
    }
    by_lead = {
        name: (
            ("forecast", "lead"),
            np.stack([function(p) for p in pairs.values()]),
            {**ONE, "long_name": about},
        )
        for name, (function, about) in _SCORES.items()
    }
    maps = np.stack([categories.rps_map(p) for p in pairs.values()])
    about = "1 - RPS of the model / RPS of the reference (RPSS)"
    return {
        **by_lead,
        **skill(by_lead["rps"][1], maps, target, about),
        "brier": (
            ("forecast", "lead", "category"),
            np.stack([categories.brier(p) for p in pairs.values()]),
            {**ONE, "long_name": "Brier score of each class"},
        ),
        "rps_map": (
            ("forecast", "lead", "lat", "lon"),
            np.where(target.grid.mask, maps, np.nan).astype(np.float32),
            {**ONE, "long_name": "ranked probability score over dates, of each cell"},
        ),
        **_reliability(list(pairs), {n: categories.reliability(p) for n, p in pairs.items()}),
        "category": (
            "category",
            fields.classes.labels,
            {"long_name": "class of the value, from low to high"},
        ),
    }


def of_terciles(hindcast: Hindcast, told: Mapping[str, Uncertain], i: int) -> dict[str, Any]:
    """How well forecasts of target `i` that say how sure they are tell the terciles.

    The terciles are those of the training dates of each cell and calendar month; climatology is
    how often each came in training.

    Returns:
      Over (forecast, lead): rps, rpss = 1 - RPS / RPS of climatology; over (forecast, lead,
      category, bin): forecast_probability, observed_frequency, share. Nothing where training dates
      lack a month, or a lead lacks observations.
    """
    if not told or hindcast.terciles is None or not _is_known(hindcast, i):
        return {}
    names, rps, reliability = list(hindcast.forecasts), {}, {}
    leads = hindcast.verified.shape[1]
    for name, one in told.items():
        by_lead = [_in_terciles(hindcast, name, at_lead(one, k), i, k) for k in range(leads)]
        rps[name] = np.concatenate([score for score, _ in by_lead])
        reliability[name] = Reliability(
            *map(np.concatenate, zip(*(r for _, r in by_lead), strict=True))
        )
    over, what = ("forecast", "lead"), "terciles of the training climatology"
    score = by_forecast(names, rps)
    return {
        "rps": (
            over,
            score,
            {**ONE, "long_name": f"ranked probability score of {what}, sum over classes"},
        ),
        "rpss": (
            over,
            1 - score / rps[CLIMATOLOGY],
            {**ONE, "long_name": f"1 - RPS / RPS of climatology, of {what}"},
        ),
        **_reliability(names, reliability),
        "category": (
            "category",
            CLASSES.labels,
            {"long_name": f"{what}, by cell and calendar month, from low to high"},
        ),
    }


def _is_known(hindcast: Hindcast, i: int) -> bool:
    """Whether there are terciles of every verified date, and observations at every lead."""
    terciles, verified = hindcast.terciles, hindcast.verified
    assert terciles is not None
    absent = np.asarray(np.isnan(terciles.edges[..., i]).any(axis=(1, 2, 3)))
    lacking = absent[terciles.row] & verified
    if lacking.any():
        months = np.unique(hindcast.months[lacking]).tolist()
        _log.info("no scores of terciles: the training dates hold no month %s", months)
        return False
    return all(
        np.isfinite(hindcast.observed[verified[:, lead], lead, ..., i]).any()
        for lead in range(verified.shape[1])
    )


def _in_terciles(
    hindcast: Hindcast, name: str, one: Uncertain, i: int, lead: int
) -> tuple[np.ndarray, Reliability]:
    """Ranked probability score and reliability of one lead: of all, its classes would be large."""
    terciles = hindcast.terciles
    assert terciles is not None
    row = terciles.row[:, lead : lead + 1]
    pairs = between(one, terciles.edges[row, ..., i])
    if name == CLIMATOLOGY:
        odds = np.moveaxis(terciles.odds[row, ..., i], 2, -1)
        pairs = CategoryPairs(odds, pairs.observed, pairs.verified, pairs.weight)
    return categories.rps(pairs), categories.reliability(pairs)


def _reliability(names: Sequence[str], found: Mapping[str, Reliability]) -> dict[str, Any]:
    over = ("forecast", "lead", "category", "bin")
    return {
        name: (
            over,
            by_forecast(names, {key: one[k] for key, one in found.items()}),
            {**ONE, "long_name": about},
        )
        for k, (name, about) in enumerate(_RELIABILITY.items())
    }
