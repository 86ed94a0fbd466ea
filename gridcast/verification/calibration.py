"""Whether forecasts are as sure as they should be: where what came lies among them."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

from gridcast.errors import DataError
from gridcast.verification.categories import CategoryPairs
from gridcast.verification.ensembles import (
    EnsemblePairs,
    NormalPairs,
    Uncertain,
    in_deviations,
    one_lead,
)


def rank_histogram(pairs: EnsemblePairs) -> Float[np.ndarray, "lead rank"]:
    """Share of cases in which k = 0 .. m members lie below what came, by area; sums to 1.

    Flat in a reliable ensemble, a U in one that is too sure (Hamill 2001). Where members equal
    what came, the ranks it could have share the case evenly. NaN at a lead without observation.
    """
    ranks = len(pairs.members) + 1
    shares = np.zeros((pairs.observed.shape[1], ranks))
    for lead, rows in one_lead(pairs):
        members, observed, area = pairs.at(lead, rows)
        below, ties = (members < observed).sum(axis=0), (members == observed).sum(axis=0)
        area = area / (ties + 1)
        for k in range(int(ties.max(initial=0)) + 1):
            some = ties >= k
            shares[lead] += np.bincount(below[some] + k, area[some], minlength=ranks)
    return _to_one(shares)


def pit_histogram(pairs: NormalPairs, bins: int = 10) -> Float[np.ndarray, "lead bin"]:
    """Share of cases in bins of the forecast probability of no more than what came, by area.

    Read like a rank histogram; bins of equal width hold their lower edge, the last also 1. A
    forecast that is sure and right is in all bins alike (Gneiting, Balabdaoui & Raftery 2007).
    """
    shares = np.zeros((pairs.observed.shape[1], bins))
    for lead, rows in one_lead(pairs):
        error, deviation, area = pairs.at(lead, rows)
        place = (scipy.special.ndtr(in_deviations(error, deviation)) * bins).astype(np.int64)
        right = (deviation == 0) & (error == 0)
        inside = np.minimum(place, bins - 1)[~right]
        shares[lead] += np.bincount(inside, area[~right], minlength=bins)
        shares[lead] += area[right].sum() / bins
    return _to_one(shares)


def exceedance(pairs: Uncertain, threshold: float | np.ndarray) -> CategoryPairs:
    """The forecasts as probabilities of two classes: not above a threshold, and above it.

    For `categories.reliability`, `brier` and `log_score`. Of members: how many of them are above.

    Args:
      threshold: units of the series; a number, [lat, lon] or [window, lead, lat, lon].

    Raises:
      DataError: a threshold that is not finite inside the mask.
    """
    return between(pairs, np.broadcast_to(threshold, pairs.observed.shape)[:, :, None])


def between(
    pairs: Uncertain, edges: Float[np.ndarray, "window lead boundary lat lon"]
) -> CategoryPairs:
    """The forecasts as probabilities of the classes between ascending edges.

    What lies on an edge belongs below it, as in `gridcast.frames.classes`.

    Args:
      edges: units of the series.

    Raises:
      DataError: an edge that is not finite inside the mask.
    """
    inside = pairs.verified[:, :, None, None] & (pairs.weight > 0)
    limits = np.moveaxis(edges, 2, 0)
    if not np.isfinite(limits[:, inside]).all():
        raise DataError("a threshold is not finite inside the mask")
    probability = np.empty((*pairs.observed.shape, len(limits) + 1))
    number, reached = np.zeros(pairs.observed.shape), np.ones(pairs.observed.shape)
    for k, limit in enumerate(limits):
        above = pairs.chance_above(limit)
        # Rounding may leave a little less than nothing between edges that are close.
        probability[..., k] = np.maximum(reached - above, 0.0)
        number += pairs.observed > limit
        reached = above
    probability[..., -1] = reached
    came = np.where(np.isfinite(pairs.observed), number, np.nan)
    return CategoryPairs(probability, came, pairs.verified, pairs.weight)


def _to_one(shares: Float[np.ndarray, "lead bin"]) -> Float[np.ndarray, "lead bin"]:
    total = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, total, out=np.full_like(shares, np.nan), where=total > 0)
