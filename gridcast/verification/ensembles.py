"""Scores of forecasts that say how sure they are: ensembles, and normal distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy
from jaxtyping import Bool, Float

from gridcast.errors import DataError
from gridcast.scratch import lead_blocks, room
from gridcast.verification.metrics import Pairs, rmse

Fields = Float[np.ndarray, "window lead lat lon"]
Cells = Float[np.ndarray, " pair"]


@dataclass(frozen=True)
class EnsemblePairs:
    """Members of an ensemble beside observed anomalies, and which of them are judged.

    Attributes:
      members: units of the series, anything off the mask.
      observed, verified, weight, gaps: as in `Pairs`.
    """

    members: Float[np.ndarray, "member window lead lat lon"]
    observed: Fields
    verified: Bool[np.ndarray, "window lead"]
    weight: Float[np.ndarray, "lat lon"]
    gaps: bool = False

    def __post_init__(self) -> None:
        _ = self.centre  # it checks forecasts, observations and dates

    @cached_property
    def centre(self) -> Pairs:
        """The mean of the members, as one forecast."""
        mean = room(self.observed.shape, np.float64)
        for leads, rows in lead_blocks(self.observed.shape):
            some = self.members[:, :, leads, rows]
            mean[:, leads, rows] = some.mean(axis=0, dtype=np.float64)
        return Pairs(mean, self.observed, self.verified, self.weight, self.gaps)

    def at(self, lead: int, rows: slice) -> tuple[Float[np.ndarray, "member pair"], Cells, Cells]:
        """Members, observations and areas of the pairs of a lead, in some rows, that count."""
        counted = _counted(self, lead, rows)
        members = self.members[:, :, lead, rows][:, counted].astype(np.float64)
        observed = self.observed[:, lead, rows][counted].astype(np.float64)
        return members, observed, np.broadcast_to(self.weight[rows], counted.shape)[counted]

    def crps_at(self, lead: int, rows: slice, fair: bool) -> Cells:
        members, observed, _ = self.at(lead, rows)
        count = len(members)
        if fair:
            self._require_two("a fair score")
        error = np.abs(members - observed).mean(axis=0)
        # The mean distance between members needs their order, not each pair of them.
        members.sort(axis=0)
        rank = 2.0 * np.arange(count) - count + 1.0
        return error - rank @ members / (count * (count - 1) if fair else count**2)

    def variance_at(self, lead: int, rows: slice) -> Cells:
        self._require_two("a spread")
        members, *_ = self.at(lead, rows)
        return members.var(axis=0, ddof=1) * (1 + 1 / len(members))

    def chance_above(self, threshold: np.ndarray) -> Fields:
        count = np.zeros(self.observed.shape)
        for member in self.members:
            count += member > threshold
        return count / len(self.members)

    def _require_two(self, what: str) -> None:
        if len(self.members) < 2:
            raise DataError(
                f"{what} of an ensemble of {len(self.members)} member(s)\n"
                "  expected: two members or more\n"
                "  fix: forecast with more members"
            )


@dataclass(frozen=True)
class NormalPairs:
    """Normal distributions beside observed anomalies, and which of them are judged.

    Attributes:
      mean, deviation: units of the series, anything off the mask; a deviation of 0 is a forecast
        that is sure of its mean.
      observed, verified, weight, gaps: as in `Pairs`.
    """

    mean: Fields
    deviation: Fields
    observed: Fields
    verified: Bool[np.ndarray, "window lead"]
    weight: Float[np.ndarray, "lat lon"]
    gaps: bool = False

    def __post_init__(self) -> None:
        _ = self.centre  # it checks forecasts, observations and dates
        for leads, rows in lead_blocks(self.observed.shape):
            inside = self.verified[:, leads, None, None] & (self.weight[rows] > 0)
            deviation = self.deviation[:, leads, rows][inside]
            if not (np.isfinite(deviation) & (deviation >= 0)).all():
                raise DataError("a deviation inside the mask is below 0 or not finite")

    @classmethod
    def of_climatology(cls, pairs: Pairs, deviation: np.ndarray) -> NormalPairs:
        """No anomaly, give or take that of the training years: the reference of a CRPS skill.

        Args:
          pairs: any forecast of the dates and cells to be judged.
          deviation: of anomalies, [lat, lon] or [window, lead, lat, lon].
        """
        spread = np.broadcast_to(deviation, pairs.observed.shape)
        none = np.broadcast_to(np.zeros((), spread.dtype), spread.shape)
        return cls(none, spread, pairs.observed, pairs.verified, pairs.weight, pairs.gaps)

    @cached_property
    def centre(self) -> Pairs:
        """The mean, as one forecast."""
        return Pairs(self.mean, self.observed, self.verified, self.weight, self.gaps)

    def at(self, lead: int, rows: slice) -> tuple[Cells, Cells, Cells]:
        """Observed minus mean, deviation and area of the pairs of a lead, in some rows."""
        counted = _counted(self, lead, rows)
        mean, deviation, observed = (
            fields[:, lead, rows][counted].astype(np.float64)
            for fields in (self.mean, self.deviation, self.observed)
        )
        area = np.broadcast_to(self.weight[rows], counted.shape)[counted]
        return observed - mean, deviation, area

    # fair: a distribution is no sample
    def crps_at(self, lead: int, rows: slice, fair: bool) -> Cells:
        error, deviation, _ = self.at(lead, rows)
        z = in_deviations(error, deviation)
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        # z (2 cdf - 1), in a form that has a limit for no deviation.
        return error * (2 * scipy.special.ndtr(z) - 1) + deviation * (
            2 * density - 1 / np.sqrt(np.pi)
        )

    def variance_at(self, lead: int, rows: slice) -> Cells:
        return self.at(lead, rows)[1] ** 2

    def chance_above(self, threshold: np.ndarray) -> Fields:
        # Anything may stand off the mask, and it is not looked at.
        with np.errstate(invalid="ignore", over="ignore"):
            distance = self.mean.astype(np.float64) - threshold
            return scipy.special.ndtr(
                in_deviations(distance, self.deviation.astype(np.float64), tie=-np.inf)
            )


Uncertain = EnsemblePairs | NormalPairs


def crps(pairs: Uncertain, fair: bool = False) -> Float[np.ndarray, " lead"]:
    """Continuous ranked probability score, pooled over dates and area, in units of the series.

    0 is perfect; of one member, the mean absolute error. 1 - CRPS / CRPS of
    `NormalPairs.of_climatology` is the skill score. Matheson & Winkler (1976); Hersbach (2000);
    of normal distributions in the closed form of Gneiting et al. (2005).

    Args:
      fair: score the members as a sample of an ensemble without end, so that ensembles of
        different size compare (Ferro 2014). A distribution is such an ensemble: it scores the same.

    Raises:
      DataError: a fair score of one member.
    """
    return pairs.centre.area_mean(_mean(pairs, lambda lead, rows: pairs.crps_at(lead, rows, fair)))


def crps_map(pairs: Uncertain, fair: bool = False) -> Float[np.ndarray, "lead lat lon"]:
    """`crps` of each cell, over the dates that count; NaN where there is none."""
    score = _mean(pairs, lambda lead, rows: pairs.crps_at(lead, rows, fair))
    for lead, rows in one_lead(pairs):
        judged = _counted(pairs, lead, rows).any(axis=0)
        score[lead, rows] = np.where(judged, score[lead, rows], np.nan)
    return score


def spread(pairs: Uncertain) -> Float[np.ndarray, " lead"]:
    """Root of the mean variance of the forecasts, pooled as `rmse` is, in units of the series.

    Of m members: their unbiased variance times (m + 1) / m, which in a reliable ensemble is the
    mean square error of the mean of the members (Fortin et al. 2014).

    Raises:
      DataError: of one member.
    """
    return np.sqrt(pairs.centre.area_mean(_mean(pairs, pairs.variance_at)))


def spread_error_ratio(pairs: Uncertain) -> Float[np.ndarray, " lead"]:
    """`spread` over the RMSE of the mean: 1 is reliable, less is too sure; NaN without error."""
    ours, error = spread(pairs), rmse(pairs.centre)
    return np.divide(ours, error, out=np.full_like(ours, np.nan), where=error > 0)


def at_lead(pairs: Uncertain, lead: int) -> Uncertain:
    """One lead of them, as forecasts of a single lead."""
    at = slice(lead, lead + 1)
    judged = {"observed": pairs.observed[:, at], "verified": pairs.verified[:, at]}
    if isinstance(pairs, EnsemblePairs):
        return replace(pairs, members=pairs.members[:, :, at], **judged)
    return replace(pairs, mean=pairs.mean[:, at], deviation=pairs.deviation[:, at], **judged)


def one_lead(pairs: Uncertain) -> Iterator[tuple[int, slice]]:
    """Each lead, and so many of its rows as are worked on at once."""
    windows, leads, *cells = pairs.observed.shape
    for lead in range(leads):
        for _, rows in lead_blocks((windows, 1, *cells), _itemsize(pairs)):
            yield lead, rows


def _itemsize(pairs: Uncertain) -> int:
    return 8 * (len(pairs.members) if isinstance(pairs, EnsemblePairs) else 1)


def _counted(pairs: Uncertain, lead: int, rows: slice) -> Bool[np.ndarray, "window lat lon"]:
    inside = pairs.verified[:, lead, None, None] & (pairs.weight[rows] > 0)
    return inside & np.isfinite(pairs.observed[:, lead, rows])


def _mean(
    pairs: Uncertain, score: Callable[[int, slice], Cells]
) -> Float[np.ndarray, "lead lat lon"]:
    """Mean over dates of what `score` gives for the pairs of a lead; 0 where there is none."""

    def fields(leads: slice, rows: slice) -> Fields:
        some = np.zeros(pairs.observed[:, leads, rows].shape)
        for k, lead in enumerate(range(leads.start, leads.stop)):
            some[:, k][_counted(pairs, lead, rows)] = score(lead, rows)
        return some

    return pairs.centre.mean_of(fields, _itemsize(pairs))


def in_deviations(distance: np.ndarray, deviation: np.ndarray, tie: float = 0.0) -> np.ndarray:
    """Distance / deviation; without deviation beyond all bounds, or `tie` for no distance."""
    sure = np.where(distance == 0, tie, np.copysign(np.inf, distance))
    return np.divide(distance, deviation, out=sure, where=deviation > 0)
