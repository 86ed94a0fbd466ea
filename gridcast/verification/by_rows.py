"""What a hindcast of stored series is held against, fitted some rows of the grid at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.frames.fields import Fields, months_of
from gridcast.references import (
    REFERENCES,
    LimByRows,
    LinearReference,
    TrainingSeries,
    training_bands,
)
from gridcast.timeaxis import TimeAxis
from gridcast.verification.by_name import Fitted, anomalies, fit_references, training_errors
from gridcast.verification.terciles import Terciles

LIM = "lim"
# Those that know nothing of other cells.
NAMES = tuple(name for name in REFERENCES if name != LIM)


class FittedByRows(NamedTuple):
    """As of series in memory; the EOFs of LIM are those of some dates (`LimByRows`)."""

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
    """Fit on the dates where `inside` is True, in three passes over the store.

    Args:
      answers: stored.
      months: that forecasts are for.
    """

    def bands() -> Iterator[tuple[Fields, TrainingSeries]]:
        return training_bands(fields, answers, axis, inside, plain=True)

    lim = LimByRows.fit(lambda: (training for _, training in bands()), fields.weight, leads)
    last = 0
    damping: dict[str, list[np.ndarray]] = {name: [] for name in REFERENCES}
    errors: dict[str, list[np.ndarray]] = {}
    edges, odds = [], []
    for cut, training in bands():
        references = fit_references(cut, training, leads, NAMES)
        first, last = last, last + training.values.shape[1]
        references[LIM] = Fitted(*lim.of_rows(training, slice(first, last)))
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
    joined = {name: np.concatenate(parts, axis=2) for name, parts in damping.items()}
    linear = {name: LinearReference(joined[name]) for name in NAMES}
    linear[LIM] = lim.whole(joined[LIM])
    return FittedByRows(
        {name: Fitted(reference, whole) for name, reference in linear.items()},
        {name: np.concatenate(parts, axis=1) for name, parts in errors.items()},
        Terciles(months - 1, np.concatenate(edges, axis=2), np.concatenate(odds, axis=2)),
    )
