"""Forecasts of the past, made as they would have been made then, by model and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.forecasting import Predictor
from gridcast.frames.fields import Fields, months_of, target_series
from gridcast.frames.splits import Splits
from gridcast.frames.windows import FrameSeries, Observed, hindcast_windows, positions_at
from gridcast.labelling import class_axis, valid_times
from gridcast.references import (
    TrainingSeries,
)
from gridcast.timeaxis import TimeAxis
from gridcast.verification.by_name import (
    anomalies,
    anomaly_forecasts,
    deviations_of,
    reference_odds,
)

MODEL = "model"
# What the model corrects.
BASE = "base"


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
      steps: of the calendar of the series, at which each forecast verifies.
      months: calendar month of these dates, 1 to 12.
      deviations: standard deviations by name, of a model that forecasts them; of the references,
        those of their errors in training. Otherwise empty.
    """

    initial: Int[np.ndarray, " window"]
    made: Float[np.ndarray, "window lead lat lon output"]
    verified: Bool[np.ndarray, "window lead"]
    forecasts: dict[str, Float[np.ndarray, "window lead lat lon target ..."]]
    observed: Float[np.ndarray, "window lead lat lon target"]
    normal: Float[np.ndarray, "window lead lat lon target"]
    steps: Int[np.ndarray, "window lead"]
    months: Int[np.ndarray, "window lead"]
    deviations: dict[str, Float[np.ndarray, "window lead lat lon target"]]


def make_hindcast(
    predictor: Predictor,
    fields: Fields,
    series: Sequence[xr.DataArray],
    arrays: FrameSeries,
    axis: TimeAxis,
    splits: Splits,
    observed: Observed | None,
    base: Predictor | None = None,
) -> Hindcast:
    """Forecast the test dates with the model and with each reference fitted on training dates.

    Args:
      base: what the model corrects, where this is none of the references that are always there.
    """
    leads = predictor.leads
    initial = hindcast_windows(axis, splits.test, predictor.inputs, leads, observed)
    verifying = positions_at(axis, initial, np.arange(1, leads + 1))
    known = splits.test if observed is None else splits.test & observed.targets
    verified = same_dates(verifying, known)
    made = predictor(arrays, initial)
    answers = target_series(fields.config, series)
    times = valid_times(axis, initial, leads)
    months = months_of(times.reshape(-1)).reshape(times.shape)
    further = {} if base is None else {BASE: base(arrays, initial)}
    deviations = {}
    if fields.classes is not None:
        observations = fields.observed_classes(answers, axis)
        training = TrainingSeries.of(fields.scaled(answers), axis, splits.train, fields.weight)
        forecasts = {name: class_axis(fields, m) for name, m in {MODEL: made, **further}.items()}
        forecasts |= reference_odds(fields, training, observations[initial], months, initial)
        normal = np.zeros((*verifying.shape, *observations.shape[1:]), np.float32)
    else:
        scaled = fields.scaled(answers, plain=True)
        observations = anomalies(fields, scaled)
        training = TrainingSeries.of(scaled, axis, splits.train, fields.weight)
        told = {MODEL: made, **further}
        forecasts, normal = anomaly_forecasts(fields, training, times, months, initial, told)
        if fields.normal:
            deviations = deviations_of(fields, training, told, forecasts)
    seen = np.where((verifying >= 0)[..., None, None, None], observations[verifying], np.nan)
    steps = axis.steps[initial][:, None] + np.arange(1, leads + 1)
    return Hindcast(initial, made, verified, forecasts, seen, normal, steps, months, deviations)


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
        together("steps"),
        together("months"),
        {
            name: np.concatenate([part.deviations[name] for part in parts])
            for name in parts[0].deviations
        },
    )
