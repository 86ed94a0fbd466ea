"""What a hindcast of stored series is held against, fitted some rows of the grid at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.frames.fields import Fields, months_of
from gridcast.references import LinearReference, TrainingSeries, training_bands
from gridcast.timeaxis import TimeAxis
from gridcast.verification.by_name import Fitted, anomalies, fit_references, training_errors
from gridcast.verification.terciles import Terciles

# Those that know nothing of other cells.
NAMES = ("climatology", "persistence", "damped_persistence")
_log = logging.getLogger("gridcast")


class FittedByRows(NamedTuple):
    """As of series in memory, but without LIM."""

    references: dict[str, Fitted]
    errors: dict[str, Float[np.ndarray, "lead lat lon target"]]
    terciles: Terciles


def fit_by_rows(
    fields: Fields,
    answers: Sequence[xr.DataArray],
    axis: TimeAxis,
    inside: Bool[np.ndarray, " time"],
    months: Int[np.ndarray, "window lead"],
    leads: int,
) -> FittedByRows:
    """Fit on the dates where `inside` is True, in one pass over the store.

    Args:
      answers: stored.
      months: that forecasts are for.
    """
    _log.info("stored series are not compared with a linear inverse model: it needs all cells")
    made = []
    for cut, training in training_bands(fields, answers, axis, inside, plain=True):
        references = fit_references(cut, training, leads, NAMES)
        past, mask = training.inside, np.logical_or.reduce(cut.target_mask, axis=-1)
        seen, then = anomalies(cut, training.values[past]), months_of(axis.times[past])
        terciles = Terciles.fit(seen, then, mask, months)
        made.append(FittedByRows(references, training_errors(cut, references, leads), terciles))
    whole = TrainingSeries(fields.scaled(answers, plain=True), axis, inside, fields.weight)

    def reference(name: str) -> LinearReference:
        parts = [part.references[name].reference for part in made]
        assert all(isinstance(part, LinearReference) for part in parts)
        return LinearReference(np.concatenate([vars(part)["damping"] for part in parts], axis=2))

    return FittedByRows(
        {name: Fitted(reference(name), whole) for name in NAMES},
        {
            name: np.concatenate([part.errors[name] for part in made], axis=1)
            for name in made[0].errors
        },
        Terciles(
            made[0].terciles.row,
            np.concatenate([part.terciles.edges for part in made], axis=2),
            np.concatenate([part.terciles.odds for part in made], axis=2),
        ),
    )
