"""Scores of a hindcast as labelled data: of values, and of probabilities of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gridcast.config.schema import VerificationConfig
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.frames.transform import FrameTransform
from gridcast.labelling import of_file
from gridcast.sources.units import family
from gridcast.verification import categories
from gridcast.verification.categories import CategoryPairs
from gridcast.verification.confidence import BOUNDS, confidence
from gridcast.verification.distributions import BINS, distributions
from gridcast.verification.events import csi, fss
from gridcast.verification.hindcast import MODEL, Hindcast
from gridcast.verification.metrics import METRICS, Pairs, squared_error
from gridcast.verification.parts import parts
from gridcast.verification.tables import LEAD

_LONG_NAMES = {
    "rmse": "root mean square error, pooled over dates and area",
    "mae": "mean absolute error",
    "bias": "mean of forecast minus observed",
    "acc": "anomaly correlation, uncentred, pooled over dates and area",
}
_CATEGORY_SCORES = {
    "rps": (categories.rps, "ranked probability score, sum over classes"),
    "hit_rate": (categories.hit_rate, "share of cases in which the most likely class came"),
    "log_score": (
        categories.log_score,
        "mean of -log of the probability of what came",
    ),
}
_ONE = {"units": "1"}


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
      mask; where the config names thresholds, csi and fss; and what `distributions`, `confidence`
      and `parts` return.
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
            variables = _of_classes(hindcast, fields, i)
            shown = "rps hit_rate"
        about = attributes | {
            "title": f"scores of forecasts of {target.variable}",
            "headline": shown,
        }
        found.append(_labelled(variables, hindcast, fields, target, verification, about))
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
    judged = (np.isfinite(observed) & hindcast.verified[:, :, None, None]).any(axis=0)
    pooled = np.stack([p.area_mean(s) for p, s in zip(pairs.values(), square, strict=True)])
    units = {"units": target.units}
    if family(target.units) == "temperature":
        units["units_metadata"] = "temperature: difference"
    by_lead = {
        metric: (
            ("forecast", "lead"),
            np.stack([function(p) for p in pairs.values()]),
            {**(_ONE if metric == "acc" else units), "long_name": _LONG_NAMES[metric]},
        )
        for metric, function in METRICS.items()
    }
    root = {**units, "long_name": "root mean square error over dates, of each cell"}
    return {
        **by_lead,
        **_skill(pooled, square, target, "1 - MSE of the model / MSE of the reference"),
        "rmse_map": (
            ("forecast", "lead", "lat", "lon"),
            np.where(target.grid.mask & judged, np.sqrt(square), np.nan).astype(np.float32),
            root,
        ),
        **_of_events(hindcast, target, i, verification),
        **distributions(
            pairs, {name: one[..., i] for name, one in hindcast.deviations.items()}, units
        ),
        **confidence(hindcast, pairs, units, target.grid.mask),
        **parts(hindcast, pairs, units, target.grid, verification.boxes),
    }


def _of_events(
    hindcast: Hindcast, target: FrameTransform, i: int, verification: VerificationConfig
) -> dict[str, Any]:
    """How well events above thresholds were placed."""
    if not verification.thresholds:
        return {}
    normal, mask = hindcast.normal[..., i], target.grid.mask
    observed = hindcast.observed[..., i] + normal
    hits, fractions = [], []
    for anomaly in hindcast.forecasts.values():
        pair = (anomaly[..., i] + normal, observed, hindcast.verified, mask)
        hits.append([csi(*pair, threshold) for threshold in verification.thresholds])
        fractions.append(
            [
                [fss(*pair, threshold, side) for side in verification.neighbourhood]
                for threshold in verification.thresholds
            ]
        )
    about = {"csi": "critical success index", "fss": "fractions skill score"}
    return {
        "csi": (
            ("forecast", "lead", "threshold"),
            np.moveaxis(np.array(hits), -1, 1),
            {**_ONE, "long_name": f"{about['csi']} of values above the threshold"},
        ),
        "fss": (
            ("forecast", "lead", "threshold", "side"),
            np.moveaxis(np.array(fractions), -1, 1),
            {**_ONE, "long_name": f"{about['fss']} of values above the threshold"},
        ),
    }


def _of_classes(hindcast: Hindcast, fields: Fields, i: int) -> dict[str, Any]:
    target = fields.targets[i]
    weight = target.grid.weight
    pairs = [
        CategoryPairs(odds[..., i, :], hindcast.observed[..., i], hindcast.verified, weight)
        for odds in hindcast.forecasts.values()
    ]
    by_lead = {
        name: (
            ("forecast", "lead"),
            np.stack([function(p) for p in pairs]),
            {**_ONE, "long_name": about},
        )
        for name, (function, about) in _CATEGORY_SCORES.items()
    }
    maps = np.stack([categories.rps_map(p) for p in pairs])
    reliability = [categories.reliability(p) for p in pairs]
    over = ("forecast", "lead", "category", "bin")
    names = {
        "forecast_probability": "mean forecast probability of the cases in the bin",
        "observed_frequency": "share of them in which the class came",
        "share": "share of all cases that fall in the bin",
    }
    return {
        **by_lead,
        **_skill(
            by_lead["rps"][1],
            maps,
            target,
            "1 - RPS of the model / RPS of the reference (RPSS)",
        ),
        "brier": (
            ("forecast", "lead", "category"),
            np.stack([categories.brier(p) for p in pairs]),
            {**_ONE, "long_name": "Brier score of each class"},
        ),
        "rps_map": (
            ("forecast", "lead", "lat", "lon"),
            np.where(target.grid.mask, maps, np.nan).astype(np.float32),
            {**_ONE, "long_name": "ranked probability score over dates, of each cell"},
        ),
        **{
            name: (over, np.stack([one[k] for one in reliability]), {**_ONE, "long_name": about})
            for k, (name, about) in enumerate(names.items())
        },
    }


def _skill(
    pooled: np.ndarray, maps: np.ndarray, target: FrameTransform, about: str
) -> dict[str, Any]:
    """1 - score of the model / score of each reference; the model comes first."""
    over = ("reference", "lead")
    with np.errstate(invalid="ignore", divide="ignore"):  # a reference without any error
        skill = 1 - pooled[:1] / pooled[1:]
        cells = np.where(target.grid.mask, 1 - maps[:1] / maps[1:], np.nan)
    attributes = {**_ONE, "long_name": about}
    return {
        "skill": (over, skill, attributes),
        "skill_map": ((*over, "lat", "lon"), cells.astype(np.float32), attributes),
    }


def _labelled(
    variables: dict[str, Any],
    hindcast: Hindcast,
    fields: Fields,
    target: FrameTransform,
    verification: VerificationConfig,
    attributes: dict[str, str],
) -> xr.Dataset:
    names = list(hindcast.forecasts)
    references = [name for name in names if name != MODEL]
    used = {dim for dims, *_ in variables.values() for dim in dims}
    unit = {"units": target.units}
    further = {
        "threshold": (verification.thresholds, {**unit, "long_name": "an event is above this"}),
        "side": (
            verification.neighbourhood,
            {**_ONE, "long_name": "cells of the side of the square"},
        ),
        "category": (
            [] if fields.classes is None else fields.classes.labels,
            {"long_name": "class of the value, from low to high"},
        ),
        "bound": (list(BOUNDS), {"long_name": "of an interval"}),
        "rank": (
            (np.arange(BINS) + 0.5) / BINS,
            {**_ONE, "long_name": "middle of a bin of forecast probability"},
        ),
    }
    return xr.Dataset(
        {
            **variables,
            "dates": (
                "lead",
                hindcast.verified.sum(axis=0),
                {"units": "1", "long_name": "number of verification dates"},
            ),
        },
        coords={
            "forecast": ("forecast", names, {"long_name": "which forecast is judged"}),
            "reference": ("reference", references, {"long_name": "which forecast is to be beaten"}),
            "lead": (
                "lead",
                np.arange(1, hindcast.verified.shape[1] + 1),
                {"units": "1", "long_name": f"{LEAD}{target.step}"},
            ),
            "lat": (
                "lat",
                target.grid.lat,
                {"units": "degrees_north", "standard_name": "latitude"},
            ),
            "lon": (
                "lon",
                target.grid.lon,
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
            **{name: (name, *given) for name, given in further.items() if name in used},
        },
        attrs=of_file(attributes),
    )
