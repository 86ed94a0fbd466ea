"""Where one forecast beats another: a test in each cell, and one of all cells together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from gridcast.scratch import blocks
from gridcast.verification.metrics import Pairs
from gridcast.verification.significance import block_length, few_blocks, in_order, ratio

ByLead = Float[np.ndarray, " lead"]
ByCell = Float[np.ndarray, " cell"]


class FieldTest(NamedTuple):
    """Where the model's mean square error differs from the reference's.

    Attributes:
      difference: model minus reference, in squared units of the series; NaN where nothing counts.
      p_value: of no difference; NaN where too few dates count.
      significant: True where a difference is, among as many as were tested.
      better: share of the area where the model is better, significant or not.
      surely_better, surely_worse: share of it where it is significantly so.
    """

    difference: Float[np.ndarray, "lead lat lon"]
    p_value: Float[np.ndarray, "lead lat lon"]
    significant: Bool[np.ndarray, "lead lat lon"]
    better: ByLead
    surely_better: ByLead
    surely_worse: ByLead


def field_test(
    model: Pairs,
    reference: Pairs,
    dates: Int[np.ndarray, "window lead"],
    *,
    block: int | None = None,
    level: float = 0.1,
) -> FieldTest:
    """Test each cell with `diebold_mariano`, and all cells of a lead with `false_discovery`.

    Args:
      dates: as in `DateSums.of`.
      block: None: `block_length` of each lead.
      level: share of false ones among the significant cells. Where cells vary together, 0.1 is
        right for a field significance of 5 % (Wilks 2016).
    """
    inside = model.weight > 0
    order = in_order(model.verified, dates)
    difference = np.full((order.shape[1], *inside.shape), np.nan)
    p_value, significant = difference.copy(), np.zeros(difference.shape, bool)
    rows, columns = np.nonzero(inside)
    for lead, windows in enumerate(order.T):
        length = block or block_length(len(windows), lead + 1)
        for some in blocks(rows.size, 8 * windows.size):
            cells = rows[some], columns[some]
            ours, truth, theirs = (
                fields[:, lead][windows[:, None], *cells].astype(np.float64)
                for fields in (model.forecast, model.observed, reference.forecast)
            )
            loss = (ours - truth) ** 2 - (theirs - truth) ** 2
            difference[lead, *cells], p_value[lead, *cells] = diebold_mariano(loss, length)
        significant[lead, inside] = false_discovery(p_value[lead, inside], level)
    area = np.where(np.isfinite(difference), model.weight, 0.0)

    def share(where: np.ndarray) -> np.ndarray:
        return ratio((area * where).sum(axis=(1, 2)), area.sum(axis=(1, 2)))

    better, worse = difference < 0, difference > 0
    shares = (share(where) for where in (better, better & significant, worse & significant))
    return FieldTest(difference, p_value, significant, *shares)


def diebold_mariano(
    difference: Float[np.ndarray, "date cell"], block: int
) -> tuple[ByCell, ByCell]:
    """Mean difference of loss, and the probability of one as large, either way, if there is none.

    Diebold & Mariano (1995), with Bartlett's window over `block` lags for the variance of the mean
    (Newey & West 1987), and for its uncertainty, as Coroneo & Iacone (2020) advise, a distribution
    that knows the window: t with the freedom and the factor of `few_blocks`. A block of 1 is
    Student's t test.

    Args:
      difference: NaN where a cell does not count; other dates then stay as far apart as they are.

    Returns:
      The mean, NaN without any date; p, NaN with less than two blocks of dates.
    """
    seen = np.isfinite(difference)
    count = seen.sum(axis=0)
    mean = ratio(np.where(seen, difference, 0.0).sum(axis=0), count)
    away = np.where(seen, difference - mean, 0.0)
    total = (away**2).sum(axis=0)
    for lag in range(1, block):
        total += 2 * (1 - lag / block) * (away[lag:] * away[:-lag]).sum(axis=0)
    tested = count >= max(2 * block, 2)
    freedom, factor = few_blocks(np.where(tested, count, 2 * block), block)
    error = np.sqrt(np.maximum(total, 0.0)) / np.maximum(count, 1)
    size = np.where(mean == 0, 0.0, np.inf)
    np.divide(factor * np.abs(mean), error, out=size, where=error > 0)
    return mean, np.where(tested, 2 * scipy.special.stdtr(freedom, -size), np.nan)


def false_discovery(p_value: ByCell, level: float) -> Bool[np.ndarray, " cell"]:
    """Which tests are significant, with a share of `level` false ones among them.

    Benjamini & Hochberg (1995); for fields, Wilks (2016). NaN was not tested.
    """
    tested = np.sort(p_value[np.isfinite(p_value)])
    passing = tested[tested <= level * np.arange(1, tested.size + 1) / max(tested.size, 1)]
    return p_value <= passing[-1] if passing.size else np.zeros(p_value.shape, bool)
