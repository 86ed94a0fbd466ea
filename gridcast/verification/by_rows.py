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
    damping: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    errors: dict[str, list[np.ndarray]] = {}
    edges, odds = [], []
    for cut, training in training_bands(fields, answers, axis, inside, plain=True):
        references = fit_references(cut, training, leads, NAMES)
        past, mask = training.inside, np.logical_or.reduce(cut.target_mask, axis=-1)
        seen, then = anomalies(cut, training.values[past]), months_of(axis.times[past])
        terciles = Terciles.fit(seen, then, mask, months)
        edges.append(terciles.edges)
        odds.append(terciles.odds)
        for name, error in training_errors(cut, references, leads).items():
            errors.setdefault(name, []).append(error)
        for name, fitted in references.items():
            # Nothing else is kept: what was fitted on is the series.
            assert isinstance(fitted.reference, LinearReference)
            damping[name].append(fitted.reference.damping)
    whole = TrainingSeries(fields.scaled(answers, plain=True), axis, inside, fields.weight)
    linear = {name: LinearReference(np.concatenate(d, axis=2)) for name, d in damping.items()}
    return FittedByRows(
        {name: Fitted(reference, whole) for name, reference in linear.items()},
        {name: np.concatenate(parts, axis=1) for name, parts in errors.items()},
        Terciles(months - 1, np.concatenate(edges, axis=2), np.concatenate(odds, axis=2)),
    )
