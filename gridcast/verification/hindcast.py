"""Forecasts of the past, made as they would have been made then, by model and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as attributes
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.forecasting import Predictor
from gridcast.frames.fields import Fields, months_of, target_series
from gridcast.frames.splits import Splits
from gridcast.frames.windows import FrameSeries, Observed, hindcast_windows, positions_at
from gridcast.labelling import class_axis
from gridcast.references import TrainingSeries
from gridcast.scratch import kept, room
from gridcast.sources.store import stored
from gridcast.timeaxis import TimeAxis
from gridcast.verification.by_name import (
    anomalies,
    anomaly_forecasts,
    fit_odds,
    fit_references,
    reference_odds,
    training_errors,
)
from gridcast.verification.by_rows import fit_by_rows
from gridcast.verification.terciles import Terciles

MODEL = "model"
# What the model corrects.
BASE = "base"


@dataclass(frozen=True)
class Hindcast:
    """Forecasts of one split's dates beside what came.

    Arrays of fields may be files (`gridcast.scratch`), each lead in one piece: whoever goes through
    them takes some leads at a time.

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
      deviations: standard deviations by name, of a model that forecasts them, and of the
        references: those of their errors in training. Otherwise of climatology alone; of classes
        none.
      terciles: of the training climatology; None of classes.
      members: anomalies by name, of the forecasts that are ensembles; these have their mean among
        `forecasts`.
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
    terciles: Terciles | None = None
    members: dict[str, Float[np.ndarray, "window lead lat lon target member"]] = field(
        default_factory=dict
    )

    def first_leads(self, count: int) -> Hindcast:
        """Of some leads only."""

        def cut(part: Any) -> Any:
            if isinstance(part, dict):
                return {name: cut(one) for name, one in part.items()}
            if isinstance(part, Terciles):
                return replace(part, row=part.row[:, :count])
            return part[:, :count] if isinstance(part, np.ndarray) and part.ndim > 1 else part

        return Hindcast(**{one.name: cut(getattr(self, one.name)) for one in attributes(self)})


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
    ahead = np.arange(1, leads + 1)
    initial = hindcast_windows(axis, splits.test, predictor.inputs, leads, observed)
    verifying = positions_at(axis, initial, ahead)
    known = splits.test if observed is None else splits.test & observed.targets
    verified = same_dates(verifying, known)
    steps = axis.steps[initial][:, None] + ahead
    times = axis.times_at(steps)
    months = months_of(times.reshape(-1)).reshape(times.shape)
    answers = target_series(fields.config, series)
    models = {MODEL: predictor} if base is None else {MODEL: predictor, BASE: base}
    errors, terciles = {}, None
    if fields.classes is not None:
        observations = fields.observed_classes(answers, axis)
        training = TrainingSeries.of(fields.scaled(answers), axis, splits.train, fields.weight)
        fitted = fit_odds(training, leads)

        def by_name(chosen: slice, made: dict[str, np.ndarray]) -> dict[str, Any]:
            now = initial[chosen]
            forecasts = {name: class_axis(fields, one) for name, one in made.items()}
            forecasts |= reference_odds(fields, fitted, observations[now], months[chosen], now)
            normal = np.zeros((*verifying[chosen].shape, *observations.shape[1:]), np.float32)
            return {"forecasts": forecasts, "normal": normal, "deviations": {}}

    else:
        scaled = fields.scaled(answers, plain=True)
        observations = anomalies(fields, scaled)
        if stored(answers[0]):
            by_rows = fit_by_rows(fields, answers, axis, splits.train, months, leads)
            references, errors, terciles = by_rows
        else:
            training = TrainingSeries.of(scaled, axis, splits.train, fields.weight)
            references = fit_references(fields, training, leads)
            errors = training_errors(fields, references, leads)
            past, mask = training.inside, np.logical_or.reduce(fields.target_mask, axis=-1)
            terciles = Terciles.fit(observations[past], months_of(axis.times[past]), mask, months)

        def by_name(chosen: slice, made: dict[str, np.ndarray]) -> dict[str, Any]:
            dates = times[chosen], months[chosen], initial[chosen]
            forecasts, normal = anomaly_forecasts(fields, references, *dates, made)
            deviations = {}
            if fields.normal:
                deviations = {n: anomalies(fields, one[..., 1::2]) for n, one in made.items()}
            return {"forecasts": forecasts, "normal": normal, "deviations": deviations}

    def of_windows(chosen: slice) -> dict[str, Any]:
        made = {name: model(arrays, initial[chosen]) for name, model in models.items()}
        then = verifying[chosen]
        seen = np.where((then >= 0)[..., None, None, None], observations[then], np.nan)
        return {"made": made[MODEL], "observed": seen, **by_name(chosen, made)}

    nbytes = leads * observations[0].nbytes
    whole = kept(of_windows, initial.size, nbytes, predictor.batch_size)
    for name, error in errors.items():
        whole["deviations"][name] = np.broadcast_to(error, (initial.size, *error.shape))
    return Hindcast(
        initial=initial,
        verified=verified,
        steps=steps,
        months=months,
        terciles=terciles,
        **whole,
    )


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

    def together(found: Sequence[Any]) -> Any:
        first = found[0]
        if isinstance(first, dict):
            return {name: together([one[name] for one in found]) for name in first}
        if isinstance(first, Terciles):
            return Terciles.joined(found)
        if first is None or first.ndim < 3:
            return None if first is None else np.concatenate(found)
        whole = room((sum(map(len, found)), *first.shape[1:]), first.dtype)
        at = np.cumsum([0, *map(len, found)])
        for one, k in zip(found, at, strict=False):
            for lead in range(whole.shape[1]):
                whole[k : k + len(one), lead] = one[:, lead]
        return whole

    names = [one.name for one in attributes(Hindcast)]
    return Hindcast(**{name: together([getattr(part, name) for part in parts]) for name in names})
