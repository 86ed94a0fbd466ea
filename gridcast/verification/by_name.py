"""What the model and the references forecast, in one form: anomalies, spreads or odds by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gridcast.frames.fields import Fields
from gridcast.frames.trailing import trailing_mean
from gridcast.frames.windows import ArrayLike
from gridcast.labelling import means, physical_values
from gridcast.models.heads import LEAST_PROBABILITY, class_probabilities
from gridcast.references import (
    REFERENCES,
    Reference,
    TrainingSeries,
    damped_persistence,
    error_deviation,
)

# Damped persistence around the mean of the years before.
DAMPED_TRAILING = "damped_trailing"
# The reference of the skill scores of distributions, ensembles and terciles.
CLIMATOLOGY = "climatology"


@dataclass(frozen=True)
class Fitted:
    """A reference, and the training series that it was fitted on.

    Attributes:
      mean: scaled anomalies that the series are departures from; None: none were taken off.
    """

    reference: Reference
    training: TrainingSeries
    mean: Float[np.ndarray, "time lat lon target"] | None = None

    def forecast(
        self, initial: Int[np.ndarray, " window"], months: Int[np.ndarray, "window lead"]
    ) -> Float[np.ndarray, "window lead lat lon target"]:
        """Scaled anomalies."""
        made = self.reference(self.training.values[initial][:, None], months[:, 0])
        return made if self.mean is None else self.mean[initial][:, None] + made

    def deviation(self, leads: int) -> Float[np.ndarray, "lead lat lon target"]:
        """The error that it had in training."""
        return error_deviation(self.reference, self.training, leads)


def fit_references(
    fields: Fields, training: TrainingSeries, leads: int, names: Iterable[str] = tuple(REFERENCES)
) -> dict[str, Fitted]:
    """What every forecast of values is held against, by name."""
    fitted = {name: Fitted(REFERENCES[name](training, leads), training) for name in names}
    if (years := fields.config.frames.trailing) is not None:
        seen = training.values
        if training.seen is not None:
            seen = np.where(training.seen, seen, np.nan)
        mean = trailing_mean(seen, training.axis, years)
        # What was not observed is as the years before.
        departures = np.nan_to_num(seen - mean)
        about = replace(training, values=departures)
        fitted[DAMPED_TRAILING] = Fitted(damped_persistence(about, leads), about, mean)
    return fitted


def anomaly_forecasts(
    fields: Fields,
    references: Mapping[str, Fitted],
    times: np.ndarray,
    months: Int[np.ndarray, "window lead"],
    initial: Int[np.ndarray, " window"],
    made: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Anomalies by name, and the climatology that they are against.

    Args:
      made: what heads forecast: the model's, and of what it corrects.
    """
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
    for name, fitted in references.items():
        forecasts[name] = bounded(anomalies(fields, fitted.forecast(initial, months)))
    return forecasts, normal.astype(np.float32)


def training_errors(
    fields: Fields, references: Mapping[str, Fitted], leads: int
) -> dict[str, Float[np.ndarray, "lead lat lon target"]]:
    """How sure each reference is, in the units of each series: its error in training.

    Beside a model that does not say so, only how sure climatology is, which others are held
    against.
    """
    known = references if fields.normal else {CLIMATOLOGY: references[CLIMATOLOGY]}
    return {name: anomalies(fields, fitted.deviation(leads)) for name, fitted in known.items()}


def anomalies(
    fields: Fields, scaled: Float[ArrayLike, "*time lat lon target"]
) -> Float[ArrayLike, "*time lat lon target"]:
    """In the units of each series."""
    deviations = np.broadcast_arrays(
        *(plain.scaler.deviation for plain in fields.plain), fields.plain[0].grid.area
    )[:-1]
    return scaled * np.stack(deviations, axis=-1)


def fit_odds(
    training: TrainingSeries, leads: int
) -> dict[str, tuple[Fitted, Float[np.ndarray, "lead lat lon target"]]]:
    """The references whose forecasts of values become probabilities, and their errors."""
    names = [name for name in REFERENCES if name not in (CLIMATOLOGY, "persistence")]
    fitted = {name: Fitted(REFERENCES[name](training, leads), training) for name in names}
    return {name: (one, one.deviation(leads)) for name, one in fitted.items()}


def reference_odds(
    fields: Fields,
    fitted: Mapping[str, tuple[Fitted, Float[np.ndarray, "lead lat lon target"]]],
    now: np.ndarray,
    months: np.ndarray,
    initial: np.ndarray,
) -> dict[str, np.ndarray]:
    """Probabilities of each reference: forecasts of values, with the error they had in training.

    Climatology is the odds of the training years; persistence says that the class stays.

    Args:
      fitted: by `fit_odds`.
      now: [window lat lon target] the class at each initial date, NaN where not observed.
      months: [window lead] calendar month of each forecast.
    """
    assert fields.classes is not None
    edges = fields.classes.edges_at(months)
    odds = np.moveaxis(fields.classes.odds[months - 1], 2, -1)
    found = {CLIMATOLOGY: odds}
    for name in REFERENCES:
        if name == CLIMATOLOGY:
            continue
        if name == "persistence":
            count = odds.shape[-1]
            stays = np.eye(count)[np.nan_to_num(now).astype(int)]
            stays = LEAST_PROBABILITY + (1 - count * LEAST_PROBABILITY) * stays
            # A class that was not observed cannot stay.
            seen = np.isfinite(now)[:, None, ..., None]
            found[name] = np.where(seen, stays[:, None], odds)
            continue
        reference, error = fitted[name]
        mean = reference.forecast(initial, months)
        deviation = np.broadcast_to(error, mean.shape)
        parts = map(jnp.asarray, (mean, deviation, edges))
        found[name] = np.moveaxis(np.asarray(class_probabilities(*parts)), 2, -1)
    return found
