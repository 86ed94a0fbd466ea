"""The linear inverse model of a stored series, which is read some rows of the grid at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from gridcast.references.lim import fit_operators, powers
from gridcast.references.linear import LinearReference, quotient, regressions
from gridcast.references.series import TrainingSeries

# The EOFs are those of so many training dates, evenly spread, where there are more.
DATES = 1024


@dataclass(frozen=True)
class LimByRows:
    """`linear_inverse_model` without what lies outside the EOFs, which `of_rows` damps.

    Attributes:
      components: principal components of all dates.
      patterns: of all rows, as of a `LinearReference`.
      weight: relative cell area; a component is the sum of the state times its pattern times this.
    """

    components: Float[np.ndarray, "time eof"]
    patterns: Float[np.ndarray, "eof lat lon target"]
    weight: Float[np.ndarray, "lat lon target"]
    propagators: Float[np.ndarray, "seasons lead eof eof"]

    @classmethod
    def fit(
        cls,
        bands: Callable[[], Iterable[TrainingSeries]],
        weight: Float[np.ndarray, "lat lon target"],
        leads: int,
        eofs: int = 20,
    ) -> LimByRows:
        """In two passes over the rows.

        Of the dates that the EOFs are of, the covariance between dates is summed over the rows; its
        leading eigenvectors make the patterns and the components of each band. As many EOFs as in
        `linear_inverse_model`.

        Args:
          bands: gives all rows, from south to north, each time anew.
          weight: as `TrainingSeries.weight`, of all rows together.
        """
        root = np.sqrt(weight.astype(np.float64))
        square, chosen, dates = 0.0, np.zeros(0, int), 0
        for rows, training in _numbered(bands()):
            dates = int(training.inside.sum())
            chosen = _spread(np.flatnonzero(training.inside))
            frames = _flat(training.values[chosen] * root[rows])
            square = square + frames @ frames.T
        count = max(1, min(eofs, int((root > 0).sum()), dates // 10))
        value, vector = np.linalg.eigh(square)
        scale = np.sqrt(np.maximum(value[::-1][:count], np.finfo(float).tiny))
        leading = vector[:, ::-1][:, :count] / scale
        components, patterns, training = np.zeros(0), [], None
        for rows, training in _numbered(bands()):
            frames = _flat(training.values * root[rows])
            eof = (frames[chosen].T @ leading).T.reshape(count, *root[rows].shape)
            components = (components if components.size else 0.0) + frames @ _flat(eof).T
            patterns.append(quotient(eof, np.broadcast_to(root[rows], eof.shape)))
        assert training is not None
        operators = fit_operators(training, components, seasonal=False, shrink=0.0)
        return cls(
            components.astype(np.float32),
            np.concatenate(patterns, axis=1, dtype=np.float32),
            weight,
            powers(operators, leads, training.months).astype(np.float32),
        )

    def of_rows(
        self, training: TrainingSeries, rows: slice
    ) -> tuple[LinearReference, TrainingSeries]:
        """The forecasts of some rows from a state of components, and the series with this state."""
        patterns = self.patterns[:, rows]
        outside = training.values - np.tensordot(self.components, patterns, 1)
        damping = regressions(outside, training, self.propagators.shape[1])[None]
        same = np.eye(len(patterns), dtype=np.float32)[None, None]
        reference = LinearReference(damping, patterns, same, self.propagators)
        return reference, replace(training, state=self.components[:, None, None])

    def whole(self, damping: Float[np.ndarray, "season lead lat lon target"]) -> LinearReference:
        """Of all rows, from a state of fields."""
        projection = np.moveaxis(self.patterns * self.weight.astype(np.float32), 0, -1)
        return LinearReference(damping, self.patterns, projection, self.propagators)


def _spread(dates: Int[np.ndarray, " date"]) -> Int[np.ndarray, " chosen"]:
    """At most `DATES` of them, evenly spread."""
    count = min(dates.size, DATES)
    return dates[np.linspace(0, dates.size - 1, count).round().astype(int)]


def _flat(fields: Float[np.ndarray, "field lat lon target"]) -> Float[np.ndarray, "field cell"]:
    return fields.reshape(len(fields), -1)


def _numbered(bands: Iterable[TrainingSeries]) -> Iterator[tuple[slice, TrainingSeries]]:
    """Each band with its rows of the grid."""
    first = 0
    for training in bands:
        last = first + training.values.shape[1]
        yield slice(first, last), training
        first = last
