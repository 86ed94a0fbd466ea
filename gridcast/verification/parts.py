"""Scores of parts of the hindcast: seasons, boxes and climate indices, as labelled scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gridcast.config.bounds import Region
from gridcast.grid import Grid
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.indices import (
    SEASONS,
    IndexScores,
    cells_in,
    index_patterns,
    index_scores,
    seasons_of,
)
from gridcast.verification.labelled import ONE
from gridcast.verification.metrics import Pairs, acc, rmse

_METRICS = {"rmse": rmse, "acc": acc}
_ABOUT = {
    "rmse": "root mean square error",
    "acc": "anomaly correlation, uncentred",
    "correlation": "correlation (Pearson)",
}


def parts(
    hindcast: Hindcast,
    pairs: Mapping[str, Pairs],
    units: Mapping[str, str],
    grid: Grid,
    boxes: Mapping[str, Region],
) -> dict[str, Any]:
    """Scores by season and in boxes, and of indices.

    Args:
      boxes: by name; each is scored as a region, cell by cell, and as an index, its mean.

    Returns:
      Over (forecast, lead, season): seasonal_rmse, seasonal_acc, of the seasons that every lead has
      dates in; over (forecast, lead, box): box_rmse, box_acc; over (forecast, lead, index):
      index_rmse, index_acc, index_correlation. What there is none of is left out.
    """
    seasons = seasons_of(hindcast.months)
    found: dict[str, Any] = {}
    for part, selections in {
        "season": {name: (seasons == i, None) for i, name in enumerate(SEASONS)},
        "box": {name: (None, cells_in(grid, box)) for name, box in boxes.items()},
    }.items():
        chosen = {
            name: [_cut(one, *selected) for one in pairs.values()]
            for name, selected in selections.items()
            if _is_left(next(iter(pairs.values())), *selected)
        }
        if not chosen:
            continue
        prefix = "seasonal" if part == "season" else part
        for metric, function in _METRICS.items():
            table = np.stack([[function(one) for one in cut] for cut in chosen.values()], axis=-1)
            about = {**(ONE if metric == "acc" else units), "long_name": _ABOUT[metric]}
            found[f"{prefix}_{metric}"] = (("forecast", "lead", part), table, about)
        found[part] = (part, list(chosen), {"long_name": f"{part} that the dates or cells are of"})
    return found | _indices(pairs, units, index_patterns(grid, boxes), seasons)


def _is_left(pairs: Pairs, dates: np.ndarray | None, cells: np.ndarray | None) -> bool:
    """Whether each lead has some of the dates, and the grid some of the cells."""
    verified = pairs.verified if dates is None else pairs.verified & dates
    area = pairs.weight if cells is None else pairs.weight[cells]
    return bool(verified.any(axis=0).all() and (area > 0).any())


def _cut(pairs: Pairs, dates: np.ndarray | None, cells: np.ndarray | None) -> Pairs:
    """Some of the dates, or of the cells."""
    verified = pairs.verified if dates is None else pairs.verified & dates
    weight = pairs.weight if cells is None else np.where(cells, pairs.weight, 0.0)
    return replace(pairs, verified=verified, weight=weight)


def _indices(
    pairs: Mapping[str, Pairs],
    units: Mapping[str, str],
    patterns: Mapping[str, np.ndarray],
    seasons: np.ndarray,
) -> dict[str, Any]:
    if not patterns:
        return {}
    scores: list[list[IndexScores]] = [
        [index_scores(one, pattern, seasons) for pattern in patterns.values()]
        for one in pairs.values()
    ]
    found: dict[str, Any] = {"index": ("index", list(patterns), {"long_name": "climate index"})}
    for metric, about in _ABOUT.items():
        table = np.array([[getattr(one, metric) for one in row] for row in scores])
        attributes = {**(units if metric == "rmse" else ONE), "long_name": f"{about} of the index"}
        over = ("forecast", "lead", "index")
        found[f"index_{metric}"] = (over, np.moveaxis(table, 1, -1), attributes)
    return found
