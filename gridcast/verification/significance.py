"""How sure pooled scores are: confidence intervals from resampled verification dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError
from gridcast.scratch import blocks
from gridcast.verification.metrics import Pairs

ByDate = Float[np.ndarray, "date lead"]
ByLead = Float[np.ndarray, " lead"]
Resampled = Float[np.ndarray, "resample lead"]


def block_length(dates: int, lead: int) -> int:
    """How many dates in a row are taken as one: 1.3 * sqrt(dates), and no less than the lead.

    Errors of neighbouring dates are alike, and at lead k forecasts have k - 1 steps in common.
    Lazarus et al. (2018) advise this length for the variance of a mean with persistence of
    unknown form, together with the wider intervals of few blocks.
    """
    return max(lead, int(np.ceil(1.3 * np.sqrt(dates))))


@dataclass(frozen=True)
class DateSums:
    """What pooled scores are made of: sums over area for each verification date, in order of time.

    Attributes:
      square: squared error.
      product, forecast, observed: forecast * observed, forecast^2 and observed^2.
      area: of the cells that count at this date.
    """

    square: ByDate
    product: ByDate
    forecast: ByDate
    observed: ByDate
    area: ByDate

    @classmethod
    def of(cls, pairs: Pairs, dates: Int[np.ndarray, "window lead"]) -> DateSums:
        """Sum a forecast over area.

        Args:
          dates: of which date each forecast is, as its position or step in the series.

        Raises:
          DataError: leads that are not verified on the same dates, or a date twice.
        """
        inside = pairs.weight > 0
        weight = pairs.weight[inside].astype(np.float64)
        sums = []
        for lead, windows in enumerate(in_order(pairs.verified, dates).T):
            found = []
            for some in blocks(windows.size, 8 * weight.size):
                ours, theirs = (
                    fields[windows[some], lead][:, inside].astype(np.float64)
                    for fields in (pairs.forecast, pairs.observed)
                )
                seen = np.isfinite(theirs)
                ours, theirs = np.where(seen, ours, 0.0), np.where(seen, theirs, 0.0)
                parts = ((ours - theirs) ** 2, ours * theirs, ours**2, theirs**2, seen)
                found.append([part @ weight for part in parts])
            sums.append([np.concatenate(part) for part in zip(*found, strict=True)])
        return cls(*(np.stack(part, axis=1) for part in zip(*sums, strict=True)))

    def resampled(self, counts: Float[np.ndarray, "resample date"], lead: int) -> DateSums:
        """Sums over resampled dates of one lead: [resample, 1] in place of [date, lead]."""
        here = slice(lead, lead + 1)
        return DateSums(
            counts @ self.square[:, here],
            counts @ self.product[:, here],
            counts @ self.forecast[:, here],
            counts @ self.observed[:, here],
            counts @ self.area[:, here],
        )

    @property
    def mean_square(self) -> ByDate:
        """Mean square error; NaN where nothing counts."""
        return ratio(self.square, self.area)

    @property
    def acc(self) -> ByDate:
        """Anomaly correlation, as in `metrics.acc`."""
        return ratio(self.product, np.sqrt(self.forecast * self.observed))


class Interval(NamedTuple):
    """Bounds of a confidence interval; NaN where there is none."""

    low: ByLead
    high: ByLead


class Comparison(NamedTuple):
    """Confidence intervals of pooled scores.

    Attributes:
      rmse_difference: RMSE of the model minus that of the reference, in units of the series.
      skill: 1 - MSE of the model / MSE of the reference.
      acc: anomaly correlation of the model.
      block: how many dates in a row were drawn together.
    """

    rmse_difference: Interval
    skill: Interval
    acc: Interval
    block: Int[np.ndarray, " lead"]


def compare(
    model: DateSums,
    reference: DateSums,
    *,
    block: int | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Confidence intervals by resampling blocks of verification dates, the same for both forecasts.

    Circular blocks (Politis & Romano 1992; of the moving ones of Kuensch 1989, the kind that draws
    each date equally often). Intervals of percentiles, widened for the number of blocks (Hesterberg
    2015) by `few_blocks`: of 70 persistent dates, intervals of 95 % then hold the truth in about
    93 % of cases, without it in 85 %.

    Args:
      block: dates in a row that are drawn together; None: `block_length` of each lead.
      level: share of such intervals that hold the truth.

    Returns:
      NaN at leads with less than two blocks of dates, and where a resample has no score: a forecast
      of no anomaly has no correlation.
    """
    dates, leads = model.square.shape
    length = np.array([block or block_length(dates, lead) for lead in range(1, leads + 1)])

    def statistics(counts: np.ndarray, lead: int) -> tuple[np.ndarray, ...]:
        ours, theirs = (sums.resampled(counts, lead) for sums in (model, reference))
        return (
            (np.sqrt(ours.mean_square) - np.sqrt(theirs.mean_square))[:, 0],
            (1 - ratio(ours.mean_square, theirs.mean_square))[:, 0],
            ours.acc[:, 0],
        )

    difference, skill, correlation = intervals(
        statistics, 3, dates, length, resamples=resamples, level=level, seed=seed
    )
    return Comparison(difference, skill, correlation, length)


def intervals(
    statistics: Callable[[np.ndarray, int], Sequence[np.ndarray]],
    count: int,
    dates: int,
    length: Int[np.ndarray, " lead"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Confidence intervals of any statistics of dates, as `compare` says.

    Args:
      statistics: `count` of them, each [resample], from [resample date] how often each date was
        drawn, and the place of the lead.
      length: dates in a row that are drawn together, of each lead.
    """
    bounds = np.full((count, 2, length.size), np.nan)
    drawn: dict[int, np.ndarray] = {}
    for lead, size in enumerate(length.tolist()):
        if dates < 2 * size:
            continue
        if size not in drawn:
            drawn[size] = draw_dates(dates, size, resamples, seed)
        freedom, factor = few_blocks(np.array([dates]), size)
        tail = float(
            scipy.special.ndtr(scipy.special.stdtrit(freedom, (1 - level) / 2) / factor)[0]
        )
        for bound, statistic in zip(bounds, statistics(drawn[size], lead), strict=True):
            bound[:, lead] = np.quantile(statistic, [tail, 1 - tail])
    return [Interval(low, high) for low, high in bounds]


def draw_dates(
    dates: int, block: int, resamples: int, seed: int
) -> Float[np.ndarray, "resample date"]:
    """How often each date is drawn: blocks begin anywhere on the circle of dates."""
    begin = np.random.default_rng(seed).integers(dates, size=(resamples, -(-dates // block)))
    drawn = (begin[..., None] + np.arange(block)) % dates
    drawn = drawn.reshape(resamples, -1)[:, :dates] + dates * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * dates).reshape(resamples, -1) * 1.0


def in_order(
    verified: Bool[np.ndarray, "window lead"], dates: Int[np.ndarray, "window lead"]
) -> Int[np.ndarray, "date lead"]:
    """Which window forecasts each verification date at each lead, in order of time.

    Raises:
      DataError: leads that are not verified on the same dates, or a date twice.
    """
    order = []
    for lead, judged in enumerate(verified.T):
        windows = np.flatnonzero(judged)
        order.append(windows[np.argsort(dates[windows, lead], kind="stable")])
        when = dates[order[-1], lead]
        if not np.array_equal(when, np.unique(dates[order[0], 0])):
            raise DataError(
                f"lead {lead + 1} is verified on {when.size} dates, not those of lead 1, "
                "or on one of them twice\n"
                "  expected: the same dates at each lead, each once"
            )
    return np.stack(order, axis=1)


def few_blocks(
    dates: Int[np.ndarray, "*cell"], block: int
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """What the variance of a mean over few blocks asks for, beside a normal distribution.

    Returns:
      The degrees of freedom of Bartlett's window, 1.5 * dates / block (Priestley 1981), at most
      dates - 1; and the factor of Harvey, Leybourne & Newbold (1997) on a standard score, with the
      block in place of the horizon.
    """
    freedom = np.minimum(1.5 * dates / block, dates - 1)
    return freedom, np.sqrt((dates - block) * (dates - block + 1)) / dates


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`; NaN where `below` is not positive."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
