"""Reference forecasts, fitted on training dates: what a model must beat, what it may correct."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np
from jaxtyping import Float

from gridcast.config.models import ReferenceConfig
from gridcast.frames.fields import Fields
from gridcast.frames.windows import positions_at
from gridcast.references.analogues import Analogues, analogues
from gridcast.references.lim import choose_eofs, linear_inverse_model
from gridcast.references.lim_by_rows import LimByRows
from gridcast.references.linear import (
    ArrayLike,
    Fit,
    LinearReference,
    Reference,
    climatology,
    damped_persistence,
    persistence,
)
from gridcast.references.series import TrainingSeries, training_bands

__all__ = [
    "BASE_ARRAYS",
    "REFERENCES",
    "Analogues",
    "LimByRows",
    "LinearReference",
    "Reference",
    "TrainingSeries",
    "analogues",
    "climatology",
    "damped_persistence",
    "error_deviation",
    "fit_base",
    "fit_base_by_rows",
    "linear_inverse_model",
    "persistence",
    "restore",
    "training_bands",
]

# What every forecast is held against.
REFERENCES: dict[str, Fit] = {
    "climatology": climatology,
    "persistence": persistence,
    "damped_persistence": damped_persistence,
    "lim": linear_inverse_model,
}


def fit_base(
    name: str,
    training: TrainingSeries,
    leads: int,
    options: ReferenceConfig,
    validation: np.ndarray,
) -> Reference:
    """The reference that a network corrects, or that is the model itself.

    Args:
      options: how it is fitted.
      validation: [time] dates on which the number of EOFs is chosen, where there is a choice.
    """
    if name == "damped_persistence":
        return damped_persistence(training, leads, by_month=options.by_month)
    if name not in ("lim", "analogues"):
        return REFERENCES[name](training, leads)
    fit, read = linear_inverse_model, {"seasonal", "shrink", "more_eofs"}
    if name == "analogues":
        fit, read = analogues, {"neighbours"}
    how, eofs = options.model_dump(include=read), options.eofs
    if not isinstance(eofs, int):
        eofs = choose_eofs(training, validation, leads, eofs, fit, **how)
    return fit(training, leads, eofs, **how)


def fit_base_by_rows(
    name: str,
    bands: Iterable[tuple[Fields, TrainingSeries]],
    leads: int,
    options: ReferenceConfig,
    validation: np.ndarray,
) -> dict[str, np.ndarray]:
    """The arrays of a reference that knows nothing of other cells; otherwise as `fit_base`.

    Args:
      bands: as `training_bands` gives them.
    """
    damping = []
    for _, training in bands:
        reference = fit_base(name, training, leads, options, validation)
        assert isinstance(reference, LinearReference)
        damping.append(reference.damping)
    return {"damping": np.concatenate(damping, axis=2)}


BASE_ARRAYS = tuple(f.name for kind in (LinearReference, Analogues) for f in fields(kind))


def restore(arrays: dict[str, ArrayLike]) -> Reference:
    """The reference with these arrays, as `vars` gives them; of numpy or of jax."""
    return Analogues(**arrays) if "library" in arrays else LinearReference(**arrays)


def error_deviation(
    reference: Reference, training: TrainingSeries, leads: int
) -> Float[np.ndarray, "lead lat lon channel"]:
    """Root mean square error of a reference over training dates, for each lead and cell."""
    initial = np.flatnonzero(training.inside)
    later = positions_at(training.axis, initial, np.arange(1, leads + 1))
    usable = (later >= 0) & training.inside[later]
    total = np.zeros((leads, *training.values.shape[1:]))
    count = np.zeros_like(total)
    for part in np.array_split(np.arange(initial.size), max(1, initial.size // 64)):
        chosen = initial[part]
        state = None if training.state is None else training.state[chosen]
        made = reference(training.values[chosen][:, None], training.season[chosen], state)
        error = np.asarray(made) - training.values[later[part]]
        counted = np.broadcast_to(usable[part][..., None, None, None], error.shape)
        if training.seen is not None:
            counted = counted & training.seen[later[part]] & training.seen[chosen][:, None]
        total += np.square(np.where(counted, error, 0.0), dtype=np.float64).sum(axis=0)
        count += counted.sum(axis=0)
    return np.sqrt(total / np.maximum(count, 1)).astype(np.float32)
