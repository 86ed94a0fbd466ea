"""How sure it is that the model beats a reference, as labelled scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gridcast.sources.units import squared
from gridcast.verification.field_significance import field_test
from gridcast.verification.hindcast import MODEL, Hindcast
from gridcast.verification.labelled import ONE
from gridcast.verification.metrics import Pairs, rmse
from gridcast.verification.significance import DateSums, compare


def confidence(
    hindcast: Hindcast, pairs: Mapping[str, Pairs], units: Mapping[str, str], mask: np.ndarray
) -> dict[str, Any]:
    """Intervals of pooled scores, and where the model beats the best reference of each lead.

    Returns:
      Over (reference, lead, bound): rmse_difference_interval and skill_interval, 95 %; over (lead,
      bound): acc_interval of the model; over lead: best_reference (position in `reference`),
      area_better, area_surely_better, area_surely_worse; over (lead, lat, lon): mse_difference and
      significant, against the best reference, false discovery rate 0.1.
    """
    model = pairs[MODEL]
    names = [name for name in pairs if name != MODEL]
    sums = {name: DateSums.of(one, hindcast.steps) for name, one in pairs.items()}
    compared = [compare(sums[MODEL], sums[name]) for name in names]
    best = np.stack([rmse(pairs[name]) for name in names]).argmin(axis=0)
    tests = {i: field_test(model, pairs[names[i]], hindcast.steps) for i in np.unique(best)}

    def chosen(part: str) -> np.ndarray:
        return np.stack([getattr(tests[i], part)[lead] for lead, i in enumerate(best)])

    over = ("reference", "lead", "bound")
    level = "95 % interval, blocks of dates resampled"
    against = "the reference with the smallest RMSE at this lead"
    shares = {
        "area_better": (
            "better",
            f"share of the area where the model's MSE is below that of {against}",
        ),
        "area_surely_better": ("surely_better", "share of the area where it is so significantly"),
        "area_surely_worse": ("surely_worse", "share of the area where it is significantly above"),
    }
    square = {"units": squared(units["units"])}
    return {
        "rmse_difference_interval": (
            over,
            np.stack([np.stack(c.rmse_difference, axis=-1) for c in compared]),
            {**units, "long_name": f"RMSE of the model minus that of the reference, {level}"},
        ),
        "skill_interval": (
            over,
            np.stack([np.stack(c.skill, axis=-1) for c in compared]),
            {**ONE, "long_name": f"1 - MSE of the model / MSE of the reference, {level}"},
        ),
        "acc_interval": (
            ("lead", "bound"),
            np.stack(compared[0].acc, axis=-1),
            {**ONE, "long_name": f"anomaly correlation of the model, {level}"},
        ),
        "best_reference": (
            "lead",
            best.astype(np.int32),
            {**ONE, "long_name": f"place in `reference` of {against}"},
        ),
        **{
            name: ("lead", chosen(part), {**ONE, "long_name": about})
            for name, (part, about) in shares.items()
        },
        "mse_difference": (
            ("lead", "lat", "lon"),
            np.where(mask, chosen("difference"), np.nan).astype(np.float32),
            {**square, "long_name": f"MSE of the model minus that of {against}"},
        ),
        "significant": (
            ("lead", "lat", "lon"),
            (mask & chosen("significant")).astype(np.int8),
            {**ONE, "long_name": "1 where this differs from 0, false discovery rate 0.1"},
        ),
        "bound": ("bound", ["low", "high"], {"long_name": "of an interval"}),
    }
