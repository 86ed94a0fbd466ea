"""Linear references: the last anomaly damped, by itself or around a system of EOFs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gridcast.frames.places import Place, take_static
from gridcast.references.series import TrainingSeries

# Of numpy on the host, of jax inside a model.
ArrayLike = Any
Frames = Float[ArrayLike, "batch time lat lon target"]
State = Float[ArrayLike, "batch state_lat state_lon variable"]
Forecasts = Float[ArrayLike, "batch lead lat lon target"]


@runtime_checkable
class Reference(Protocol):
    """A forecast from the last observed frame, called like a model.

    Args:
      frames: scaled anomalies of the targets; the last frame counts.
      month: calendar month (1 to 12) of the first lead, for references that know seasons.
      state: the last frame of all variables, where a reference starts from more than the targets.
      place: where in the grid the frames were taken from; None: the whole grid.
    """

    def __call__(
        self,
        frames: Frames,
        month: Int[ArrayLike, " batch"] | None = None,
        state: State | None = None,
        place: Place | None = None,
    ) -> Forecasts: ...


@dataclass(frozen=True)
class LinearReference:
    """The last frame damped, or a system of EOFs with what lies outside them damped.

    Arrays of numpy or of jax: the same formula runs on the host and inside a model.

    Attributes:
      damping: factors of the last frame, or of its part outside the EOFs; one season or 12.
      patterns: the targets' anomaly for one unit of each principal component.
      projection: principal components are the sum of the state times this.
      propagators: components at each lead from those at the start, acting on row vectors.
    """

    damping: Float[ArrayLike, "season lead lat lon target"]
    patterns: Float[ArrayLike, "eof lat lon target"] | None = None
    projection: Float[ArrayLike, "state_lat state_lon variable eof"] | None = None
    propagators: Float[ArrayLike, "seasons lead eof eof"] | None = None

    def __call__(
        self,
        frames: Frames,
        month: Int[ArrayLike, " batch"] | None = None,
        state: State | None = None,
        place: Place | None = None,
    ) -> Forecasts:
        last = frames[:, -1]
        damping = _of_season(self.damping, month, place)
        if self.patterns is None or self.projection is None or self.propagators is None:
            return last[:, None] * damping
        xp = jnp if isinstance(last, jax.Array) else np
        # Accelerators round products of matrices coarsely: a model would not be its reference.
        with jax.default_matmul_precision("highest"):
            components = xp.tensordot(last if state is None else state, self.projection, 3)
            inside = xp.tensordot(components, self.patterns, 1)
            propagators = _of_season(self.propagators, month, None)
            ahead = xp.matmul(components[:, None, None, :], propagators)[:, :, 0]
            return xp.tensordot(ahead, self.patterns, 1) + (last - inside)[:, None] * damping


def _of_season(
    table: Float[ArrayLike, "season lead *more"],
    month: Int[ArrayLike, " batch"] | None,
    place: Place | None,
) -> Float[ArrayLike, "#batch lead *cut"]:
    """The rows of the season of each forecast, cut out where its frames were."""
    if len(table) == 1:
        if place is None:
            return table
        moved = jnp.moveaxis(jnp.asarray(table[0]), 0, -1)
        return jnp.moveaxis(take_static(moved, place), -1, 1)
    assert month is not None, "a reference that knows seasons needs the month"
    if place is None:
        return table[month - 1]
    # [12 lead lat lon target] -> [batch 12 lead lat lon target] at the places
    moved = take_static(jnp.asarray(table).transpose(2, 3, 0, 1, 4), place)
    return jax.vmap(lambda t, m: t[m])(moved.transpose(0, 3, 4, 1, 2, 5), month - 1)


def climatology(training: TrainingSeries, leads: int) -> LinearReference:
    """The seasonal cycle itself: no anomaly."""
    return LinearReference(np.zeros((1, leads, *training.values.shape[1:]), np.float32))


def persistence(training: TrainingSeries, leads: int) -> LinearReference:
    """The last anomaly stays."""
    return LinearReference(np.ones((1, leads, *training.values.shape[1:]), np.float32))


def damped_persistence(
    training: TrainingSeries, leads: int, *, by_month: bool = False
) -> LinearReference:
    """The last anomaly, damped by its regression through the origin for each lead and cell.

    Args:
      by_month: one regression for each calendar month of the first lead, from forecasts of this
        month and its two neighbours; where there are none, that of all months.
    """
    whole = regressions(training.values, training, leads)
    if not by_month:
        return LinearReference(whole[None])
    months = [
        regressions(training.values, training, leads, near(month, training), whole)
        for month in range(1, 13)
    ]
    return LinearReference(np.stack(months))


def near(month: int, training: TrainingSeries) -> np.ndarray:
    """[time] whether a forecast from each date begins in this month or a neighbour of it."""
    return (training.season - month + 1) % 12 <= 2


def regressions(
    values: Float[np.ndarray, "time lat lon channel"],
    training: TrainingSeries,
    leads: int,
    chosen: np.ndarray | None = None,
    fallback: np.ndarray | None = None,
) -> Float[np.ndarray, "lead lat lon channel"]:
    """Slope through the origin of the field at each lead on the field now, per cell.

    Args:
      chosen: [time] initial dates that count; None: all.
      fallback: slopes where no pair of dates counts; None: 0.
    """
    slopes = np.zeros((leads, *values.shape[1:]), np.float32)
    for k in range(leads):
        now, later = training.pairs(k + 1)
        if chosen is not None:
            now, later = now[chosen[now]], later[chosen[now]]
        if now.size == 0:
            slopes[k] = 0.0 if fallback is None else fallback[k]
            continue
        before = values[now]
        if training.seen is not None:
            # Only pairs of which both were observed count, in the product and in the square.
            before = np.where(training.seen[now] & training.seen[later], before, 0.0)
        product = np.einsum("txyc,txyc->xyc", before, values[later], dtype=np.float64)
        square = np.einsum("txyc,txyc->xyc", before, before, dtype=np.float64)
        slopes[k] = quotient(product, square)
    return slopes


def quotient(
    above: Float[np.ndarray, "*cells"], below: Float[np.ndarray, "*cells"]
) -> Float[np.ndarray, "*cells"]:
    """`above / below`; 0 where nothing is below."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


Fit = Callable[[TrainingSeries, int], Reference]
