"""Scores of events, values above a threshold: arrays in, one number for each lead out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError

Fields = Float[np.ndarray, "window lead lat lon"]
Cells = Bool[np.ndarray, "date lat lon"]


def csi(
    forecast: Fields,
    observed: Fields,
    verified: Bool[np.ndarray, "window lead"],
    mask: Bool[np.ndarray, "lat lon"],
    threshold: float,
) -> Float[np.ndarray, " lead"]:
    """Critical success index, also threat score: hits / (hits + misses + false alarms).

    Cells are counted over all dates, whatever their area. Donaldson, Dyer & Kraus (1975).

    Args:
      forecast, observed: in units of the series; an observation may be NaN, and does not count.
      verified: True where the window's forecast at this lead is judged.
      mask: True for the cells that are judged.
      threshold: an event is a value above it, in units of the series.

    Returns:
      0 to 1; NaN where an event was neither forecast nor observed.

    Raises:
      DataError: a judged forecast that is not finite.
    """
    scores = []
    for ours, theirs, _ in _events(forecast, observed, verified, mask, threshold):
        either = int((ours | theirs).sum())
        scores.append(int((ours & theirs).sum()) / either if either else np.nan)
    return np.array(scores)


def fss(
    forecast: Fields,
    observed: Fields,
    verified: Bool[np.ndarray, "window lead"],
    mask: Bool[np.ndarray, "lat lon"],
    threshold: float,
    side: int,
) -> Float[np.ndarray, " lead"]:
    """Fractions skill score of Roberts & Lean (2008): 1 is perfect, 0 no event in the right place.

    1 - sum (f - o)^2 / (sum f^2 + sum o^2), f and o the fractions of a square in which the event
    was forecast and observed; both sums run over all dates and cells that count before the ratio
    is taken. Unlike theirs, a fraction is of the cells of the square that count, so that coasts
    and edges do not dilute it. Squares end at the edges of the grid.

    Args:
      forecast, observed, verified, mask, threshold: as in `csi`.
      side: of the square around each cell, in cells; an odd number.

    Returns:
      0 to 1; NaN where an event was neither forecast nor observed.

    Raises:
      DataError: a judged forecast that is not finite.
    """
    scores = []
    for ours, theirs, counted in _events(forecast, observed, verified, mask, threshold):
        cells = _in_square(counted, side)[counted]
        f, o = (_in_square(events, side)[counted] / cells for events in (ours, theirs))
        worst = (f**2).sum() + (o**2).sum()
        scores.append(1 - ((f - o) ** 2).sum() / worst if worst > 0 else np.nan)
    return np.array(scores)


def _events(
    forecast: Fields,
    observed: Fields,
    verified: Bool[np.ndarray, "window lead"],
    mask: Bool[np.ndarray, "lat lon"],
    threshold: float,
) -> Iterator[tuple[Cells, Cells, Cells]]:
    """For each lead: where events were forecast, where observed, and which cells count."""
    for lead in range(forecast.shape[1]):
        ours, theirs = (values[verified[:, lead], lead] for values in (forecast, observed))
        counted = mask & np.isfinite(theirs)
        if not np.isfinite(ours[counted]).all():
            raise DataError("a forecast is not finite inside the mask")
        yield (ours > threshold) & counted, (theirs > threshold) & counted, counted


def _in_square(cells: Cells, side: int) -> Int[np.ndarray, "date lat lon"]:
    """How many cells of the square around each are True; whole numbers, so without rounding."""
    counts = cells.astype(np.int64)
    for axis in (1, 2):
        size = counts.shape[axis]
        first = np.arange(size) - side // 2
        before, through = np.clip(first, 0, size), np.clip(first + side, 0, size)
        sums = np.insert(counts.cumsum(axis=axis), 0, 0, axis=axis)
        counts = sums.take(through, axis=axis) - sums.take(before, axis=axis)
    return counts
