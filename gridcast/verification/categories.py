"""Scores of probabilities of ordered classes: arrays in, one number for each lead out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError

Probability = Float[np.ndarray, "pair class"]
Occurred = Int[np.ndarray, " pair"]
Score = Callable[[Probability, Occurred], Float[np.ndarray, " pair"]]


@dataclass(frozen=True)
class CategoryPairs:
    """Forecast probabilities and the class that occurred, and which of them are judged.

    A pair of a date and a cell counts where it is verified, inside the mask, and its class is
    known. Means over pairs are weighted by cell area.

    Attributes:
      probability: of each class, the lowest first; anything off the mask.
      observed: index of the class that occurred; NaN where unknown, anything off the mask.
      verified: True where the window's forecast at this lead is judged.
      weight: relative cell area, 0 off the mask.
    """

    probability: Float[np.ndarray, "window lead lat lon class"]
    observed: Float[np.ndarray, "window lead lat lon"]
    verified: Bool[np.ndarray, "window lead"]
    weight: Float[np.ndarray, "lat lon"]

    def __post_init__(self) -> None:
        for lead in range(self.leads):
            if not self.counted(lead).any():
                raise DataError("there is a lead without any verification date with a known class")
        for lead in range(self.leads):
            self._require_odds(lead)
            came = self.observed[:, lead][self.counted(lead)]
            if not ((came >= 0) & (came < self.classes) & (came == np.rint(came))).all():
                raise DataError(
                    "an observation inside the mask is no class\n"
                    f"  expected: whole numbers from 0 to {self.classes - 1}, or NaN"
                )

    def _require_odds(self, lead: int) -> None:
        inside = self.verified[:, lead, None, None] & (self.weight > 0)
        probability = _chosen(self.probability[:, lead], inside)
        if not np.isfinite(probability).all():
            raise DataError("a probability is not finite inside the mask")
        if (probability < 0).any():
            raise DataError("a probability is below 0 inside the mask")
        if (np.abs(probability @ np.ones(self.classes) - 1) > 1e-4).any():
            raise DataError("probabilities do not sum to 1 inside the mask")

    @property
    def leads(self) -> int:
        return self.probability.shape[1]

    @property
    def classes(self) -> int:
        return self.probability.shape[-1]

    def counted(self, lead: int) -> Bool[np.ndarray, "window lat lon"]:
        """The pairs of a lead that count."""
        inside = self.verified[:, lead, None, None] & (self.weight > 0)
        return inside & ~np.isnan(self.observed[:, lead])

    def at(self, lead: int) -> tuple[Probability, Occurred, Float[np.ndarray, " pair"]]:
        """Probabilities, classes and areas of the pairs of a lead that count, one after another."""
        counted = self.counted(lead)
        return (
            _chosen(self.probability[:, lead], counted).astype(np.float64),
            self.observed[:, lead][counted].astype(np.int64),
            np.broadcast_to(self.weight, counted.shape)[counted],
        )

    def mean(self, score: Score) -> Float[np.ndarray, " lead"]:
        """Mean of `score` over the pairs of each lead."""
        means = []
        for lead in range(self.leads):
            probability, occurred, area = self.at(lead)
            means.append(np.average(score(probability, occurred), weights=area))
        return np.array(means)


def rps(pairs: CategoryPairs) -> Float[np.ndarray, " lead"]:
    """Ranked probability score: 0 is perfect, one less than the number of classes the worst.

    The sum over the K - 1 boundaries between classes of (forecast - observed probability of the
    classes below)^2, not divided by K - 1. Epstein (1969), in the form of Murphy (1971).
    """
    return pairs.mean(_rps)


def rps_map(pairs: CategoryPairs) -> Float[np.ndarray, "lead lat lon"]:
    """`rps` of each cell, over the dates that count; NaN where there is none."""
    maps = np.full((pairs.leads, *pairs.weight.shape), np.nan)
    for lead in range(pairs.leads):
        counted = pairs.counted(lead)
        probability, occurred, _ = pairs.at(lead)
        score = np.zeros(counted.shape)
        score[counted] = _rps(probability, occurred)
        dates = counted.sum(axis=0)
        np.divide(score.sum(axis=0), dates, out=maps[lead], where=dates > 0)
    return maps


def brier(pairs: CategoryPairs) -> Float[np.ndarray, "lead class"]:
    """Brier score of each class against all others (Brier 1950, the half of it in use today)."""
    return np.stack([pairs.mean(_brier_of(index)) for index in range(pairs.classes)], axis=1)


def log_score(pairs: CategoryPairs) -> Float[np.ndarray, " lead"]:
    """Mean of -log of the probability of the class that occurred, in nats (Good 1952).

    Ignorance, if one counts in bits; infinite where a class occurred that was called impossible.
    """
    return pairs.mean(_log_score)


def hit_rate(pairs: CategoryPairs) -> Float[np.ndarray, " lead"]:
    """Share of the pairs whose most likely class occurred; classes that tie share the hit."""
    return pairs.mean(_hit)


class ClassSums(NamedTuple):
    """Sums over area of each window: what the pooled scores of probabilities are made of.

    Attributes:
      rps, hits: of `rps` and `hit_rate`.
      area: of the cells that count.
    """

    rps: Float[np.ndarray, "window lead"]
    hits: Float[np.ndarray, "window lead"]
    area: Float[np.ndarray, "window lead"]


def class_sums(pairs: CategoryPairs) -> ClassSums:
    """Sum the scores of each window over area: 0 where no class is known."""
    rps, hits, area = (np.zeros(pairs.verified.shape) for _ in range(3))
    for lead in range(pairs.leads):
        probability, occurred, cells = pairs.at(lead)
        window = np.nonzero(pairs.counted(lead))[0]
        scores = (_rps(probability, occurred), _hit(probability, occurred), np.ones(cells.size))
        for total, score in zip((rps, hits, area), scores, strict=True):
            total[:, lead] = np.bincount(window, cells * score, minlength=len(total))
    return ClassSums(rps, hits, area)


class Reliability(NamedTuple):
    """A reliability diagram for each class.

    Attributes:
      forecast: mean probability of the forecasts in a bin; NaN where there is none.
      observed: how often the class occurred after these forecasts; NaN where there is none.
      share: of the bin in all forecasts; sums to 1 over the bins, 0 where there is none.
    """

    forecast: Float[np.ndarray, "lead class bin"]
    observed: Float[np.ndarray, "lead class bin"]
    share: Float[np.ndarray, "lead class bin"]


def reliability(pairs: CategoryPairs, bins: int = 10) -> Reliability:
    """Forecast probability against observed frequency, in bins of equal width.

    Each bin holds its lower edge, the last also probability 1. All are weighted by cell area.
    """
    totals = np.zeros((3, pairs.leads, pairs.classes, bins))
    for lead in range(pairs.leads):
        probability, occurred, area = pairs.at(lead)
        for index in range(pairs.classes):
            forecast = probability[:, index]
            # In single precision 0.7 lies on its edge, however it was stored before.
            edge = (forecast.astype(np.float32) * np.float32(bins)).astype(np.int64)
            place = np.minimum(edge, bins - 1)
            for total, value in zip(totals, (forecast, occurred == index, 1), strict=True):
                total[lead, index] = np.bincount(place, area * value, minlength=bins)
    forecast, observed, share = totals
    forecast, observed = (
        np.divide(total, share, out=np.full_like(share, np.nan), where=share > 0)
        for total in (forecast, observed)
    )
    return Reliability(forecast, observed, share / share.sum(axis=-1, keepdims=True))


def _chosen(
    probability: Float[np.ndarray, "*cells class"], where: Bool[np.ndarray, "*cells"]
) -> Probability:
    """`probability[where]`, some thirty times faster."""
    return probability.reshape(-1, probability.shape[-1]).take(np.flatnonzero(where), axis=0)


def _rps(probability: Probability, occurred: Occurred) -> Float[np.ndarray, " pair"]:
    below = np.cumsum(probability, axis=-1)[:, :-1]
    reached = occurred[:, None] <= np.arange(below.shape[-1])
    return ((below - reached) ** 2).sum(axis=-1)


def _brier_of(index: int) -> Score:
    return lambda probability, occurred: (probability[:, index] - (occurred == index)) ** 2


def _log_score(probability: Probability, occurred: Occurred) -> Float[np.ndarray, " pair"]:
    likelihood = _of_class(probability, occurred)
    return -np.log(likelihood, out=np.full_like(likelihood, -np.inf), where=likelihood > 0)


def _hit(probability: Probability, occurred: Occurred) -> Float[np.ndarray, " pair"]:
    likeliest = probability == probability.max(axis=-1, keepdims=True)
    return _of_class(likeliest / likeliest.sum(axis=-1, keepdims=True), occurred)


def _of_class(values: Probability, occurred: Occurred) -> Float[np.ndarray, " pair"]:
    return np.take_along_axis(values, occurred[:, None], axis=-1)[:, 0]
