"""Scores of a hindcast as labelled data: of values, and of probabilities of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gridcast.config.schema import VerificationConfig
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.frames.transform import FrameTransform
from gridcast.scratch import lead_blocks
from gridcast.sources.units import family
from gridcast.stages import stage
from gridcast.verification.class_scores import of_classes, of_terciles
from gridcast.verification.confidence import confidence
from gridcast.verification.distributions import distributions, uncertain
from gridcast.verification.events import csi, fss
from gridcast.verification.hindcast import Hindcast
from gridcast.verification.labelled import ONE, labelled, skill
from gridcast.verification.metrics import METRICS, Pairs, squared_error
from gridcast.verification.parts import parts

_LONG_NAMES = {
    "rmse": "root mean square error, pooled over dates and area",
    "mae": "mean absolute error",
    "bias": "mean of forecast minus observed",
    "acc": "anomaly correlation, uncentred, pooled over dates and area",
}


@stage("verification")
def score(
    hindcast: Hindcast,
    fields: Fields,
    attributes: dict[str, str],
    verification: VerificationConfig,
) -> list[xr.Dataset]:
    """The scores of each target.

    Returns:
      Of values: over (forecast, lead) rmse, mae, bias in the units of the series, acc, and `skill`
      [reference, lead] = 1 - MSE of the model / MSE of the reference (Murphy 1988); over
      (forecast, lead, lat, lon) rmse_map; over (reference, lead, lat, lon) skill_map, NaN off the
      mask; where the config names thresholds, csi and fss; and what `distributions`,
      `of_terciles`, `confidence` and `parts` return.
      Of classes: rps, hit_rate, log_score, brier [.., category], the ranked probability skill
      score as `skill`, and reliability: forecast_probability, observed_frequency and share of
      cases over (forecast, lead, category, bin).
    """
    if not hindcast.verified.any():
        raise DataError(
            "no date can be verified at every lead\n"
            "  fix: a longer splits.test, or fewer frames.leads"
        )
    found = []
    for i, target in enumerate(fields.targets):
        if fields.classes is None:
            variables = _of_values(hindcast, fields, i, verification)
            shown = "rmse acc"
        else:
            variables = of_classes(hindcast, fields, i)
            shown = "rps hit_rate"
        about = attributes | {
            "title": f"scores of forecasts of {target.variable}",
            "headline": shown,
        }
        found.append(labelled(variables, hindcast, target, about))
    return found


def _of_values(
    hindcast: Hindcast, fields: Fields, i: int, verification: VerificationConfig
) -> dict[str, Any]:
    target = fields.targets[i]
    gaps = fields.config.frames.missing == "mask"
    observed, weight = hindcast.observed[..., i], target.grid.weight
    pairs = {
        name: Pairs(anomaly[..., i], observed, hindcast.verified, weight, gaps)
        for name, anomaly in hindcast.forecasts.items()
    }
    square = np.stack([squared_error(p) for p in pairs.values()])
    judged = np.zeros(square.shape[1:], bool)
    for leads, rows in lead_blocks(observed.shape):
        seen = np.isfinite(observed[:, leads, rows]) & hindcast.verified[:, leads, None, None]
        judged[leads, rows] = seen.any(axis=0)
    pooled = np.stack([p.area_mean(s) for p, s in zip(pairs.values(), square, strict=True)])
    units = {"units": target.units}
    if family(target.units) == "temperature":
        units["units_metadata"] = "temperature: difference"
    by_lead = {
        metric: (
            ("forecast", "lead"),
            np.stack([function(p) for p in pairs.values()]),
            {**(ONE if metric == "acc" else units), "long_name": _LONG_NAMES[metric]},
        )
        for metric, function in METRICS.items()
    }
    told = uncertain(hindcast, pairs, i)
    root = {**units, "long_name": "root mean square error over dates, of each cell"}
    return {
        **by_lead,
        **skill(pooled, square, target, "1 - MSE of the model / MSE of the reference"),
        "rmse_map": (
            ("forecast", "lead", "lat", "lon"),
            np.where(target.grid.mask & judged, np.sqrt(square), np.nan).astype(np.float32),
            root,
        ),
        **_of_events(hindcast, target, i, verification),
        **distributions(told, list(pairs), units),
        **of_terciles(hindcast, told, i),
        **confidence(hindcast, pairs, units, target.grid.mask),
        **parts(hindcast, pairs, units, target.grid, verification.boxes),
    }


def _of_events(
    hindcast: Hindcast, target: FrameTransform, i: int, verification: VerificationConfig
) -> dict[str, Any]:
    """How well events above thresholds were placed."""
    if not verification.thresholds:
        return {}
    thresholds, sides = verification.thresholds, verification.neighbourhood
    leads, names = hindcast.verified.shape[1], list(hindcast.forecasts)
    hits = np.empty((len(names), leads, len(thresholds)))
    fractions = np.empty((*hits.shape, len(sides)))
    for at in np.ndindex(hits.shape):
        name, lead, k = names[at[0]], slice(at[1], at[1] + 1), at[2]
        normal = hindcast.normal[:, lead, ..., i]
        ours, theirs = hindcast.forecasts[name], hindcast.observed
        ours, theirs = (one[:, lead, ..., i] + normal for one in (ours, theirs))
        pair = (ours, theirs, hindcast.verified[:, lead], target.grid.mask, thresholds[k])
        hits[at] = csi(*pair)[0]
        fractions[at] = [fss(*pair, side)[0] for side in sides]
    about = {"csi": "critical success index", "fss": "fractions skill score"}
    return {
        "csi": (
            ("forecast", "lead", "threshold"),
            hits,
            {**ONE, "long_name": f"{about['csi']} of values above the threshold"},
        ),
        "fss": (
            ("forecast", "lead", "threshold", "side"),
            fractions,
            {**ONE, "long_name": f"{about['fss']} of values above the threshold"},
        ),
        "threshold": (
            "threshold",
            verification.thresholds,
            {"units": target.units, "long_name": "an event is above this"},
        ),
        "side": (
            "side",
            verification.neighbourhood,
            {**ONE, "long_name": "cells of the side of the square"},
        ),
    }
