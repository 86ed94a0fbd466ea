"""Forecasts of the past, made as they would have been made then, by model and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.forecasting import Predictor
from gridcast.frames.fields import Fields, months_of, target_series
from gridcast.frames.splits import Splits
from gridcast.frames.windows import FrameSeries, Observed, hindcast_windows, positions_at
from gridcast.labelling import class_axis, physical_values, valid_times
from gridcast.models.heads import LEAST_PROBABILITY, class_probabilities
from gridcast.references import REFERENCES, TrainingSeries, error_deviation
from gridcast.timeaxis import TimeAxis

MODEL = "model"


@dataclass(frozen=True)
class Hindcast:
    """Forecasts of one split's dates beside what came.

    Attributes:
      initial: positions of the initial dates.
      made: what the model's head forecasts, for labelling.
      verified: which forecasts are judged: those for dates that every lead has a forecast for.
      forecasts: by name, "model" and the references: anomalies in the units of the series, or,
        with a last axis of classes, probabilities.
      observed: anomalies against the training climatology, or classes; NaN where unknown.
      normal: the climatology at each date that is forecast, in the units of the series.
    """

    initial: Int[np.ndarray, " window"]
    made: Float[np.ndarray, "window lead lat lon output"]
    verified: Bool[np.ndarray, "window lead"]
    forecasts: dict[str, Float[np.ndarray, "window lead lat lon target ..."]]
    observed: Float[np.ndarray, "window lead lat lon target"]
    normal: Float[np.ndarray, "window lead lat lon target"]


def make_hindcast(
    predictor: Predictor,
    fields: Fields,
    series: Sequence[xr.DataArray],
    arrays: FrameSeries,
    axis: TimeAxis,
    splits: Splits,
    observed: Observed | None,
) -> Hindcast:
    """Forecast the test dates with the model and with each reference fitted on training dates."""
    leads = predictor.leads
    initial = hindcast_windows(axis, splits.test, predictor.inputs, leads, observed)
    verifying = positions_at(axis, initial, np.arange(1, leads + 1))
    known = splits.test if observed is None else splits.test & observed.targets
    verified = same_dates(verifying, known)
    made = predictor(arrays, initial)
    answers = target_series(fields.config, series)
    times = valid_times(axis, initial, leads)
    if fields.classes is not None:
        observations = fields.observed_classes(answers, axis)
        training = TrainingSeries.of(fields.scaled(answers), axis, splits.train, fields.weight)
        forecasts = {MODEL: class_axis(fields, made)}
        forecasts |= _reference_odds(fields, training, observations[initial], times, initial)
        normal = np.zeros((*verifying.shape, *observations.shape[1:]), np.float32)
    else:
        scaled = fields.scaled(answers, plain=True)
        observations = _anomalies(fields, scaled)
        training = TrainingSeries.of(scaled, axis, splits.train, fields.weight)
        forecasts, normal = _values(fields, training, times, initial, made)
    seen = np.where((verifying >= 0)[..., None, None, None], observations[verifying], np.nan)
    return Hindcast(initial, made, verified, forecasts, seen, normal)


def _values(
    fields: Fields,
    training: TrainingSeries,
    times: np.ndarray,
    initial: np.ndarray,
    made: np.ndarray,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Anomalies by name, and the climatology that they are against."""
    leads = made.shape[1]
    normal = np.stack([plain.normal(times) for plain in fields.plain], axis=-1)

    def bounded(anomaly: np.ndarray) -> np.ndarray:
        """None of the forecasts says what cannot be."""
        for i, plain in enumerate(fields.plain):
            if plain.lowest is not None:
                least = plain.lowest - normal[..., i]
                anomaly[..., i] = np.maximum(anomaly[..., i], least)
        return anomaly

    if all(target.linear for target in fields.targets):
        forecasts = {MODEL: _anomalies(fields, made)}
    else:
        values = np.stack(physical_values(fields, made, times), axis=-1)
        forecasts = {MODEL: np.where(fields.target_mask, values - normal, 0.0)}
    for name, fit in REFERENCES.items():
        scaled_forecast = fit(training, leads)(training.values[initial][:, None])
        forecasts[name] = bounded(_anomalies(fields, scaled_forecast))
    return forecasts, normal.astype(np.float32)


def _anomalies(
    fields: Fields, scaled: Float[np.ndarray, "*time lat lon target"]
) -> Float[np.ndarray, "*time lat lon target"]:
    """In the units of each series."""
    deviations = np.broadcast_arrays(
        *(plain.scaler.deviation for plain in fields.plain), fields.plain[0].grid.area
    )[:-1]
    return scaled * np.stack(deviations, axis=-1)


def _reference_odds(
    fields: Fields,
    training: TrainingSeries,
    now: np.ndarray,
    times: np.ndarray,
    initial: np.ndarray,
) -> dict[str, np.ndarray]:
    """Probabilities of each reference: forecasts of values, with the error they had in training.

    Climatology is the odds of the training years; persistence says that the class stays.

    Args:
      now: [window lat lon target] the class at each initial date, NaN where not observed.
    """
    assert fields.classes is not None
    leads = times.shape[1]
    months = months_of(times.reshape(-1)).reshape(times.shape)
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
        mean = reference(training.values[initial][:, None])
        deviation = np.broadcast_to(error_deviation(reference, training, leads), mean.shape)
        parts = map(jnp.asarray, (mean, deviation, edges))
        found[name] = np.moveaxis(np.asarray(class_probabilities(*parts)), 2, -1)
    return found


def same_dates(
    verifying: Int[np.ndarray, "window lead"], inside: Bool[np.ndarray, " time"]
) -> Bool[np.ndarray, "window lead"]:
    """Keep the forecasts for dates in the split that have a forecast at every lead.

    Scores at two leads then differ by the lead, not by the dates.
    """
    leads = verifying.shape[1]
    times = np.flatnonzero(inside)
    for lead in range(leads):
        times = np.intersect1d(times, verifying[:, lead])
    return np.isin(verifying, times)


def joined(parts: Sequence[Hindcast]) -> Hindcast:
    """Hindcasts of different dates as one, the order of their windows kept."""

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    forecasts = {
        name: np.concatenate([part.forecasts[name] for part in parts])
        for name in parts[0].forecasts
    }
    return Hindcast(
        together("initial"),
        together("made"),
        together("verified"),
        forecasts,
        together("observed"),
        together("normal"),
    )
