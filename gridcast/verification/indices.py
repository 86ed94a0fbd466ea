"""Scores of climate indices, such as Nino 3.4: means of anomalies over boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.config.bounds import Region
from gridcast.errors import ConfigError, DataError
from gridcast.grid import Grid, describe_axis
from gridcast.scratch import blocks
from gridcast.verification.metrics import Pairs

Pattern = Float[np.ndarray, "lat lon"]
Series = Float[np.ndarray, "window lead"]

# A box, or two of which the second is subtracted. Nino: Trenberth (1997); dipole mode index of the
# Indian Ocean: Saji et al. (1999).
INDICES: dict[str, tuple[Region, ...]] = {
    "nino12": (Region(lat=(-10, 0), lon=(270, 280)),),
    "nino3": (Region(lat=(-5, 5), lon=(210, 270)),),
    "nino34": (Region(lat=(-5, 5), lon=(190, 240)),),
    "nino4": (Region(lat=(-5, 5), lon=(160, 210)),),
    "dmi": (Region(lat=(-10, 10), lon=(50, 70)), Region(lat=(-10, 0), lon=(90, 110))),
}
SEASONS = ("DJF", "MAM", "JJA", "SON")
_NOISE = 1e-6  # degrees, of coordinates


class IndexScores(NamedTuple):
    """Scores of an index, each over the dates on which all its cells were observed; NaN without.

    Attributes:
      rmse: root mean square error, in units of the series.
      acc: correlation of anomalies against the training climatology, uncentred: the main one. A
        steady error lowers it.
      correlation: Pearson's, about the means of the dates themselves; NaN for less than 3 dates.
      dates: how many they are.
      seasonal_rmse, seasonal_acc, seasonal_correlation, seasonal_dates: of the dates in each of
        `SEASONS`.
    """

    rmse: Float[np.ndarray, " lead"]
    acc: Float[np.ndarray, " lead"]
    correlation: Float[np.ndarray, " lead"]
    dates: Int[np.ndarray, " lead"]
    seasonal_rmse: Float[np.ndarray, "season lead"]
    seasonal_acc: Float[np.ndarray, "season lead"]
    seasonal_correlation: Float[np.ndarray, "season lead"]
    seasonal_dates: Int[np.ndarray, "season lead"]


def index_patterns(grid: Grid, boxes: Mapping[str, Region]) -> dict[str, Pattern]:
    """What each cell adds to an index, by name: the index is the sum of pattern * anomaly.

    Of `INDICES`, those whose boxes lie inside the cells of the grid and have values in at least
    half of their area; and all of `boxes`. As in `box_mean`, a cell belongs to the box that holds
    its centre, and counts by its area.

    Raises:
      ConfigError: a box named like one of `INDICES`.
      DataError: one of `boxes` without any cell, or without any cell inside the mask.
    """
    found = {
        name: _pattern(grid, parts)
        for name, parts in INDICES.items()
        if all(_within(grid, box) and _mostly_known(grid, box) for box in parts)
    }
    for name, box in boxes.items():
        if name in INDICES:
            raise ConfigError(
                f"a box is named {name!r}, which is an index already\n  fix: another name"
            )
        inside = cells_in(grid, box)
        if not (inside & grid.mask).any():
            what = "cell with values" if inside.any() else "centre of a cell"
            raise DataError(
                f"{name}: no {what} lies in the box lat {list(box.lat)}, lon {list(box.lon)}\n"
                f"  found: lat {describe_axis(grid.lat)}, lon {describe_axis(grid.lon)}\n"
                "  expected: a box over the grid, with at least one cell inside the mask\n"
                "  fix: another box, or a larger data.region"
            )
        found[name] = _pattern(grid, (box,))
    return found


def index_series(fields: Float[np.ndarray, "window lead lat lon"], pattern: Pattern) -> Series:
    """The index in each field; NaN where one of its cells is, as it would be another index."""
    cells = pattern != 0
    series = np.empty(fields.shape[:2])
    for leads in blocks(fields.shape[1], 8 * len(fields) * int(cells.sum())):
        series[:, leads] = fields[:, leads][:, :, cells].astype(np.float64) @ pattern[cells]
    return series


def seasons_of(months: Int[np.ndarray, "window lead"]) -> Int[np.ndarray, "window lead"]:
    """The place in `SEASONS` of calendar months, 1 to 12."""
    return months % 12 // 3


def index_scores(
    pairs: Pairs, pattern: Pattern, seasons: Int[np.ndarray, "window lead"]
) -> IndexScores:
    """Score the index of a pattern, over all verification dates of a lead and by their season.

    Args:
      pattern: one of `index_patterns`.
      seasons: place in `SEASONS` of the date that each forecast is for, by `seasons_of`.
    """
    forecast, observed = (index_series(f, pattern) for f in (pairs.forecast, pairs.observed))
    counted = pairs.verified & np.isfinite(observed)
    chosen = [counted & (seasons == season) for season in range(len(SEASONS))]
    by_season = zip(*(_scores(forecast, observed, some) for some in chosen), strict=True)
    return IndexScores(
        *_scores(forecast, observed, counted), *(np.stack(score) for score in by_season)
    )


def cells_in(grid: Grid, box: Region) -> Bool[np.ndarray, "lat lon"]:
    """The cells whose centres lie in a box, bounds included."""
    (south, north), (west, east) = box.lat, box.lon
    rows = (grid.lat >= south - _NOISE) & (grid.lat <= north + _NOISE)
    columns = (grid.lon - west + _NOISE) % 360 <= east - west + 2 * _NOISE
    return rows[:, None] & columns


def _pattern(grid: Grid, parts: tuple[Region, ...]) -> Pattern:
    pattern = np.zeros(grid.shape)
    for sign, box in zip((1, -1), parts, strict=False):
        area = np.where(cells_in(grid, box), grid.weight, 0.0)
        pattern += sign * area / area.sum()
    return pattern


def _within(grid: Grid, box: Region) -> bool:
    """Whether a box lies inside the outer edges of the grid's cells."""
    (south, north), (west, east) = (_edges(axis) for axis in (grid.lat, grid.lon))
    along = south - _NOISE <= box.lat[0] and box.lat[1] <= north + _NOISE
    begin = (box.lon[0] - west + _NOISE) % 360
    around = begin + box.lon[1] - box.lon[0] <= east - west + 2 * _NOISE
    return bool(along and (grid.wraps or around))


def _edges(axis: np.ndarray) -> tuple[float, float]:
    if axis.size == 1:  # as in Grid.area
        return axis[0] - 0.5, axis[0] + 0.5
    return 1.5 * axis[0] - 0.5 * axis[1], 1.5 * axis[-1] - 0.5 * axis[-2]


def _mostly_known(grid: Grid, box: Region) -> bool:
    area = np.where(cells_in(grid, box), grid.area, 0.0)
    return bool(area.any() and area[grid.mask].sum() >= 0.5 * area.sum())


def _scores(
    forecast: Series, observed: Series, counted: Bool[np.ndarray, "window lead"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """RMSE, uncentred and centred correlation and number of dates, each [lead]."""
    dates = counted.sum(axis=0)

    def mean(values: Series) -> Float[np.ndarray, " lead"]:
        total = np.where(counted, values, 0.0).sum(axis=0)
        return np.divide(total, dates, out=np.full(total.shape, np.nan), where=dates > 0)

    ours, theirs = forecast - mean(forecast), observed - mean(observed)
    square = mean(forecast**2), mean(observed**2)
    variance = mean(ours**2), mean(theirs**2)
    # What rounding leaves of a constant is no variance.
    varies = (dates >= 3) & (variance[0] > 1e-20 * square[0]) & (variance[1] > 1e-20 * square[1])
    acc, correlation = (
        np.divide(product, root, out=np.full(root.shape, np.nan), where=(root > 0) & usable)
        for product, root, usable in (
            (mean(forecast * observed), np.sqrt(square[0] * square[1]), dates > 0),
            (mean(ours * theirs), np.sqrt(variance[0] * variance[1]), varies),
        )
    )
    return np.sqrt(mean((forecast - observed) ** 2)), acc, correlation, dates
