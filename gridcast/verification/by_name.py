"""What the model and the references forecast, in one form: anomalies, spreads or odds by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gridcast.frames.fields import Fields
from gridcast.frames.trailing import trailing_mean
from gridcast.labelling import means, physical_values
from gridcast.models.heads import LEAST_PROBABILITY, class_probabilities
from gridcast.references import (
    REFERENCES,
    TrainingSeries,
    damped_persistence,
    error_deviation,
)

# Damped persistence around the mean of the years before.
DAMPED_TRAILING = "damped_trailing"


def anomaly_forecasts(
    fields: Fields,
    training: TrainingSeries,
    times: np.ndarray,
    months: np.ndarray,
    initial: np.ndarray,
    made: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Anomalies by name, and the climatology that they are against.

    Args:
      made: what heads forecast: the model's, and of what it corrects.
    """
    leads = times.shape[1]
    normal = np.stack([plain.normal(times) for plain in fields.plain], axis=-1)

    def bounded(anomaly: np.ndarray) -> np.ndarray:
        """None of the forecasts says what cannot be."""
        for i, plain in enumerate(fields.plain):
            if plain.lowest is not None:
                least = plain.lowest - normal[..., i]
                anomaly[..., i] = np.maximum(anomaly[..., i], least)
        return anomaly

    forecasts = {}
    for name, one in made.items():
        if all(target.linear for target in fields.targets):
            forecasts[name] = anomalies(fields, means(fields, one))
        else:
            values = np.stack(physical_values(fields, one, times), axis=-1)
            forecasts[name] = np.where(fields.target_mask, values - normal, 0.0)
    last = training.values[initial][:, None]
    for name, fit in REFERENCES.items():
        forecasts[name] = bounded(anomalies(fields, fit(training, leads)(last, months[:, 0])))
    if (years := fields.config.frames.trailing) is not None:
        mean = _trailing(training, years)
        damped = damped_persistence(_about(training, mean), leads)
        # What was not observed is as the years before.
        departure = _about(training, mean).values[initial][:, None]
        drifted = mean[initial][:, None] + damped(departure)
        forecasts[DAMPED_TRAILING] = bounded(anomalies(fields, drifted))
    return forecasts, normal.astype(np.float32)


def _trailing(training: TrainingSeries, years: int) -> np.ndarray:
    seen = training.values
    if training.seen is not None:
        seen = np.where(training.seen, seen, np.nan)
    return trailing_mean(seen, training.axis, years)


def _about(training: TrainingSeries, mean: np.ndarray) -> TrainingSeries:
    """Departures from a mean, 0 where nothing was observed."""
    values = training.values - mean
    if training.seen is not None:
        values = np.where(training.seen, values, 0.0)
    return replace(training, values=values)


def deviations_of(
    fields: Fields,
    training: TrainingSeries,
    made: Mapping[str, np.ndarray],
    forecasts: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """How sure each forecast is, in the units of each series."""
    leads = next(iter(made.values())).shape[1]
    found = {name: anomalies(fields, one[..., 1::2]) for name, one in made.items()}
    years = fields.config.frames.trailing
    for name, forecast in forecasts.items():
        if name in found:
            continue
        known = training
        if name == DAMPED_TRAILING and years is not None:
            known = _about(training, _trailing(training, years))
        fit = REFERENCES.get(name, damped_persistence)
        error = anomalies(fields, error_deviation(fit(known, leads), known, leads))
        found[name] = np.broadcast_to(error, forecast.shape)
    return found


def anomalies(
    fields: Fields, scaled: Float[np.ndarray, "*time lat lon target"]
) -> Float[np.ndarray, "*time lat lon target"]:
    """In the units of each series."""
    deviations = np.broadcast_arrays(
        *(plain.scaler.deviation for plain in fields.plain), fields.plain[0].grid.area
    )[:-1]
    return scaled * np.stack(deviations, axis=-1)


def reference_odds(
    fields: Fields,
    training: TrainingSeries,
    now: np.ndarray,
    months: np.ndarray,
    initial: np.ndarray,
) -> dict[str, np.ndarray]:
    """Probabilities of each reference: forecasts of values, with the error they had in training.

    Climatology is the odds of the training years; persistence says that the class stays.

    Args:
      now: [window lat lon target] the class at each initial date, NaN where not observed.
      months: [window lead] calendar month of each forecast.
    """
    assert fields.classes is not None
    leads = months.shape[1]
    edges = fields.classes.edges_at(months)
    odds = np.moveaxis(fields.classes.odds[months - 1], 2, -1)
    found = {"climatology": odds}
    for name, fit in REFERENCES.items():
        if name == "climatology":
            continue
        if name == "persistence":
            count = odds.shape[-1]
            stays = np.eye(count)[np.nan_to_num(now).astype(int)]
            stays = LEAST_PROBABILITY + (1 - count * LEAST_PROBABILITY) * stays
            # A class that was not observed cannot stay.
            seen = np.isfinite(now)[:, None, ..., None]
            found[name] = np.where(seen, stays[:, None], odds)
            continue
        reference = fit(training, leads)
        mean = reference(training.values[initial][:, None], months[:, 0])
        deviation = np.broadcast_to(error_deviation(reference, training, leads), mean.shape)
        parts = map(jnp.asarray, (mean, deviation, edges))
        found[name] = np.moveaxis(np.asarray(class_probabilities(*parts)), 2, -1)
    return found
