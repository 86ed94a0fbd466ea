"""Analogues (Lorenz 1969): what came after the training dates that were most like today."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gridcast.frames.places import Place
from gridcast.frames.trailing import steps_of
from gridcast.frames.windows import positions_at
from gridcast.references.lim import linear_inverse_model
from gridcast.references.linear import ArrayLike, Forecasts, Frames, State, quotient
from gridcast.references.series import TrainingSeries

# Two dates whose components differ by less than this share of their length are one date: what
# rounding makes of it is far less, and a real analogue is never so near.
SAME = 1e-4


@dataclass(frozen=True)
class Analogues:
    """The mean of what followed the nearest training dates of the same season, damped.

    A date of the library does not find itself, nor what lies within a year of it: judged on what
    it was fitted on, a forecast would know what came.

    Attributes:
      projection: principal components are the sum of the state times this.
      library: principal components of each training date.
      season: calendar month (1 to 12) of the first step after each of them.
      year: when each of them was, in years.
      later: the targets at each lead after it, NaN where not observed.
      damping: factor of the mean at each lead and cell, its regression on what came.
      neighbours: of one for each date that counts: how many are taken is its length.
    """

    projection: Float[ArrayLike, "state_lat state_lon variable eof"]
    library: Float[ArrayLike, "date eof"]
    season: Int[ArrayLike, " date"]
    year: Float[ArrayLike, " date"]
    later: Float[ArrayLike, "date lead lat lon target"]
    damping: Float[ArrayLike, "lead lat lon target"]
    neighbours: Float[ArrayLike, " neighbour"]

    def __call__(
        self,
        frames: Frames,
        month: Int[ArrayLike, " batch"] | None = None,
        state: State | None = None,
        place: Place | None = None,
    ) -> Forecasts:
        assert month is not None, "analogues need the month"
        assert place is None, "analogues need the whole grid"
        last = frames[:, -1] if state is None else state
        xp = jnp if isinstance(last, jax.Array) else np
        # Accelerators round products of matrices coarsely, and then no date knows itself.
        with jax.default_matmul_precision("highest"):
            components = xp.tensordot(last, self.projection, 3)
        return self.mean(components, month) * self.damping

    def mean(
        self, components: Float[ArrayLike, "batch eof"], month: Int[ArrayLike, " batch"]
    ) -> Forecasts:
        """What followed the nearest dates, on average; 0 where nothing is known of it."""
        xp: Any = jnp if isinstance(components, jax.Array) else np
        square = ((components[:, None] - self.library) ** 2).sum(axis=-1)
        itself = square <= SAME**2 * (self.library**2).sum(axis=-1)
        own = xp.where(itself, self.year, -np.inf).max(axis=1, keepdims=True)
        same = (self.season - month[:, None] + 1) % 12 <= 2
        distance = xp.where(same & (abs(self.year - own) > 0.99), square, np.inf)
        nearest = xp.argsort(distance, axis=1, stable=True)[:, : self.neighbours.shape[0]]
        found = xp.isfinite(xp.take_along_axis(distance, nearest, axis=1))
        later = self.later[nearest]
        counted = found[..., None, None, None, None] & xp.isfinite(later)
        number = xp.maximum(counted.sum(axis=1, dtype=np.float32), 1.0)
        return xp.where(counted, later, 0.0).sum(axis=1) / number


def analogues(
    training: TrainingSeries, leads: int, eofs: int = 20, neighbours: int = 10
) -> Analogues:
    """Fit on training dates from which every lead was observed within training.

    Args:
      eofs: distances are between that many principal components.
      neighbours: how many dates are averaged.
    """
    projection = np.asarray(linear_inverse_model(training, 1, eofs).projection)
    initial = np.flatnonzero(training.inside)
    ahead = positions_at(training.axis, initial, np.arange(1, leads + 1))
    whole = ((ahead >= 0) & training.inside[ahead]).all(axis=1)
    initial, ahead = initial[whole], ahead[whole]
    later = training.values[ahead]
    if training.seen is not None:
        later = np.where(training.seen[ahead], later, np.float32(np.nan))
    if len(initial) == 0:  # one date that is like none, after which nothing was observed
        initial = np.flatnonzero(training.inside)[:1]
        later = np.full((len(initial), leads, *training.values.shape[1:]), np.nan, np.float32)
    steps = training.axis.steps[initial] / steps_of(1, training.axis)
    draft = Analogues(
        projection,
        np.tensordot(training.start[initial], projection, 3),
        training.season[initial],
        steps.astype(np.float32),
        later,
        np.ones(later.shape[1:], np.float32),
        np.ones(min(neighbours, len(initial)), np.float32),
    )
    product, square = np.zeros((2, *later.shape[1:]))
    for part in np.array_split(np.arange(len(initial)), max(1, len(initial) // 64)):
        made = draft.mean(draft.library[part], draft.season[part]).astype(np.float64)
        made = np.where(np.isfinite(later[part]), made, 0.0)
        product += (made * np.nan_to_num(later[part])).sum(axis=0)
        square += (made**2).sum(axis=0)
    return replace(draft, damping=quotient(product, square).astype(np.float32))
