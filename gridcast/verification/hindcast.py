"""Forecasts of the past, made as they would have been made then, by model and references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.forecasting import Predictor
from gridcast.frames.splits import Splits
from gridcast.frames.windows import hindcast_windows, positions_at
from gridcast.grid import Grid
from gridcast.references import REFERENCES, TrainingSeries
from gridcast.timeaxis import TimeAxis

MODEL = "model"


@dataclass(frozen=True)
class Hindcast:
    """Forecasts of one split's dates, in scaled anomalies.

    Attributes:
      initial: positions of the initial dates.
      verifying: position of the frame that each forecast is for, -1 where there is none.
      verified: which forecasts are judged: those for dates that every lead has a forecast for.
      forecasts: by name; "model" and the references.
    """

    initial: Int[np.ndarray, " window"]
    verifying: Int[np.ndarray, "window lead"]
    verified: Bool[np.ndarray, "window lead"]
    forecasts: dict[str, Float[np.ndarray, "window lead lat lon channel"]]


def make_hindcast(
    predictor: Predictor,
    frames: Float[np.ndarray, "time lat lon channel"],
    season: Float[np.ndarray, "time 2"],
    axis: TimeAxis,
    splits: Splits,
    grid: Grid,
) -> Hindcast:
    """Forecast the test dates with the model and with each reference fitted on training dates."""
    leads = predictor.leads
    initial = hindcast_windows(axis, splits.test, predictor.inputs, leads)
    verifying = positions_at(axis, initial, np.arange(1, leads + 1))
    verified = same_dates(verifying, splits.test)
    forecasts = {MODEL: predictor(frames, season, initial)}
    training = TrainingSeries(frames, axis, splits.train, grid.weight)
    for name, fit in REFERENCES.items():
        forecasts[name] = fit(training, leads)(frames[initial][:, None])
    return Hindcast(initial, verifying, verified, forecasts)


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
