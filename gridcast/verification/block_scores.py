"""Scores of each block of years of a cross-validation, beside those of all years."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from gridcast.frames.fields import Fields
from gridcast.verification import categories
from gridcast.verification.categories import CategoryPairs
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.labelled import ONE
from gridcast.verification.metrics import Pairs, acc, rmse


def block_scores(
    blocks: Sequence[Hindcast], names: Sequence[str], fields: Fields, attributes: dict[str, str]
) -> xr.Dataset:
    """The headline scores of each block by itself.

    Args:
      names: of the blocks: their years.

    Returns:
      VARIABLE_rmse, in units of the series, and VARIABLE_acc, or of classes VARIABLE_rps and
      VARIABLE_hit_rate, over (block, forecast, lead); NaN of a block whose leads have no date in
      common, or where nothing was observed.
    """
    found: dict[str, Any] = {}
    for i, target in enumerate(fields.targets):
        scores = [_scores(one, fields, i) for one in blocks]
        for metric in scores[0]:
            about = {"units": target.units} if metric == "rmse" else ONE
            values = np.stack([one[metric] for one in scores])
            over = ("block", "forecast", "lead")
            found[f"{target.variable}_{metric}"] = (over, values, about)
    leads = blocks[0].verified.shape[1]
    coords = {
        "block": ("block", list(names), {"long_name": "years that are forecast"}),
        "forecast": list(blocks[0].forecasts),
        "lead": np.arange(1, leads + 1, dtype=np.int32),
    }
    return xr.Dataset(found, coords, attributes)


def _scores(block: Hindcast, fields: Fields, i: int) -> dict[str, np.ndarray]:
    """Each [forecast lead]."""
    metrics: dict[str, Any] = {"rmse": rmse, "acc": acc}
    if fields.classes is not None:
        metrics = {"rps": categories.rps, "hit_rate": categories.hit_rate}
    observed, weight = block.observed[..., i], fields.targets[i].grid.weight
    shape = (len(block.forecasts), block.verified.shape[1])
    inside = np.isfinite(observed) & (weight > 0) & block.verified[:, :, None, None]
    if not inside.any(axis=(0, 2, 3)).all():
        return {metric: np.full(shape, np.nan) for metric in metrics}
    pairs: list[Any] = []
    for forecast in block.forecasts.values():
        judged = (observed, block.verified, weight)
        if fields.classes is not None:
            pairs.append(CategoryPairs(forecast[..., i, :], *judged))
        else:
            gaps = fields.config.frames.missing == "mask"
            pairs.append(Pairs(forecast[..., i], *judged, gaps))
    return {name: np.stack([metric(one) for one in pairs]) for name, metric in metrics.items()}
