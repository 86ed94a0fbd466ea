"""The linear inverse model (Penland & Sardeshmukh 1995), of one season or of twelve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gridcast.frames.windows import positions_at
from gridcast.references.linear import LinearReference, Reference, near, quotient, regressions
from gridcast.references.series import TrainingSeries

# A month's neighbours count less than the month itself where its own operator is fitted.
NEIGHBOUR = 0.7
# Steps before a date that say something of what was not observed then, and how firmly the
# regression on them is held.
HISTORY = (0, 3, 6, 9)
FILL_RIDGE = 0.05


def linear_inverse_model(
    training: TrainingSeries,
    leads: int,
    eofs: int = 20,
    *,
    seasonal: bool = False,
    shrink: float = 0.2,
    more_eofs: int = 5,
) -> LinearReference:
    """A LIM in the leading `eofs` EOFs, with a locally damped residual outside them.

    The propagator is the lag-1 regression of the principal components; longer leads are its
    powers. Short or small series get fewer EOFs (at most a tenth of the training frames).

    Args:
      seasonal: an operator for each calendar month, cyclo-stationary (OrtizBevia 1997), fitted on
        steps into this month and, with less weight, its neighbours.
      shrink: how firmly the months are held to the operator of the whole year: the departure is a
        ridge regression with this share of each component's variance.
      more_eofs: of each variable that the state has beside the targets. Where such a variable was
        not observed in training, its components are estimated from those of the targets.
    """
    projection, vectors = _projection(training, eofs, more_eofs)
    components = components_of(training, projection)
    patterns = _patterns(training, vectors, components)
    operators = fit_operators(training, components, seasonal, shrink)
    reconstructed = np.tensordot(components, patterns, 1)
    return LinearReference(
        regressions(training.values - reconstructed, training, leads)[None],
        patterns.astype(np.float32),
        projection.astype(np.float32),
        powers(operators, leads, training.months).astype(np.float32),
    )


def fit_operators(
    training: TrainingSeries,
    components: Float[np.ndarray, "time eof"],
    seasonal: bool,
    shrink: float,
) -> Float[np.ndarray, "season eof eof"]:
    """One step of the principal components, for the whole year or for each month stepped into."""
    now, later = training.pairs(1)
    before, after = components[now], components[later]
    whole, *_ = np.linalg.lstsq(before, after, rcond=None)
    if not seasonal:
        return whole[None]
    rest, operators = after - before @ whole, []
    for month in range(1, 13):
        weight = month_weight(month, training)[now][:, None]
        ridge = np.diag(shrink * weight.sum() * (before**2).mean(axis=0))
        square = before.T @ (weight * before) + ridge
        departure = np.linalg.lstsq(square, before.T @ (weight * rest), rcond=None)[0]
        operators.append(whole + departure)
    return np.stack(operators)


def month_weight(month: int, training: TrainingSeries) -> Float[np.ndarray, " time"]:
    """How much a step from each date counts where the operator into this month is fitted."""
    return np.where(training.season == month, 1.0, NEIGHBOUR) * near(month, training)


def powers(
    operators: Float[np.ndarray, "season eof eof"], leads: int, months: int
) -> Float[np.ndarray, "season lead eof eof"]:
    """Products of the operators on the way to each lead; a step goes on by so many months."""
    count, eofs = operators.shape[:2]
    found = np.empty((count, leads, eofs, eofs))
    for season in range(count):
        product = np.eye(eofs)
        for k in range(leads):
            product = product @ operators[(season + k * months) % count]
            found[season, k] = product
    return found


def choose_eofs(
    training: TrainingSeries,
    validation: np.ndarray,
    leads: int,
    candidates: Sequence[int],
    fit: Callable[..., Reference] = linear_inverse_model,
    **how: Any,
) -> int:
    """The truncation whose forecasts of validation dates have the smallest error.

    The mean square error is pooled over dates and area, and counts relative to climatology's at
    each lead; forecasts start from dates in training or validation.

    Args:
      validation: [time] dates that are judged; fitted on none of them.
      fit: makes the reference of the series, the leads, a candidate and `how`.
    """
    # A date between the splits, or in the test, may not be started from.
    initial = np.flatnonzero(training.inside | validation)
    later = positions_at(training.axis, initial, np.arange(1, leads + 1))
    judged = (later >= 0) & validation[later]
    some = judged.any(axis=1)
    initial, later, judged = initial[some], later[some], judged[some]
    errors = {}
    for eofs in candidates:
        model = fit(training, leads, eofs, **how)
        squares = np.zeros((2, leads))  # of the model, and of climatology
        for part in np.array_split(np.arange(initial.size), max(1, initial.size // 64)):
            now, came = initial[part], training.values[later[part]].astype(np.float64)
            made = model(training.values[now][:, None], training.season[now], training.start[now])
            counted = judged[part][..., None, None, None]
            if training.seen is not None:
                counted = counted & training.seen[later[part]]
            for square, error in zip(squares, (made - came, came), strict=True):
                total = (np.where(counted, error, 0.0) ** 2).sum(axis=0)
                square += np.tensordot(total, training.weight, 3)
        ratio = quotient(*squares)[judged.any(axis=0)]
        errors[eofs] = float(ratio.mean()) if ratio.size else 0.0
    return min(errors, key=lambda eofs: (errors[eofs], eofs))


def _projection(
    training: TrainingSeries, eofs: int, more_eofs: int
) -> tuple[Float[np.ndarray, "lat lon variable eof"], Float[np.ndarray, "cell leading"]]:
    """What makes principal components of a state; and the EOFs of its first variables.

    The targets have common EOFs, in area-weighted space; each further variable has its own.
    """
    start, weight = training.start, training.start_weight
    together = _together(training)
    groups = [slice(0, together), *(slice(i, i + 1) for i in range(together, start.shape[-1]))]
    parts, leading = [], np.empty((0, 0))
    for number, group in enumerate(groups):
        inside = training.inside
        if number and training.state_seen is not None:
            inside = inside & training.state_seen[:, group].all(axis=1)
        root = np.sqrt(weight[..., group].reshape(-1).astype(np.float64))
        frames = start[inside][..., group].reshape(int(inside.sum()), -1)
        asked = more_eofs if number else eofs
        count = max(1, min(asked, int((root > 0).sum()), len(frames) // 10))
        vectors = _leading_eofs(frames * root, count)
        part = np.zeros((*start.shape[1:], vectors.shape[1]))
        part[..., group, :] = (root[:, None] * vectors).reshape(*part[..., group, :].shape)
        parts.append(part)
        leading = leading if number else vectors
    return np.concatenate(parts, axis=-1), leading


def components_of(
    training: TrainingSeries, projection: Float[np.ndarray, "lat lon variable eof"]
) -> Float[np.ndarray, "time eof"]:
    """Principal components of all dates, those of further variables estimated where they lack.

    The estimate is a ridge regression on the components of the targets, of the date and of
    `HISTORY` steps before. In place of a date that the series lacks stands the last before it.
    """
    components = np.tensordot(training.start, projection, 3)
    seen = training.state_seen
    if seen is None or seen.all():
        return components
    belongs = np.abs(projection).sum(axis=(0, 1)).argmax(axis=0)
    further = belongs >= _together(training)
    # The first dates take the first of all for what was before: nothing comes round from the end.
    steps = training.axis.steps
    before = [np.searchsorted(steps, steps - lag, side="right") - 1 for lag in HISTORY]
    known = np.concatenate([components[np.maximum(at, 0)][:, ~further] for at in before], axis=1)
    for eof in np.flatnonzero(further):
        there = seen[:, belongs[eof]]
        fitted = there & training.inside
        if there.all() or not fitted.any():
            continue
        square = known[fitted].T @ known[fitted]
        ridge = FILL_RIDGE * np.trace(square) / len(square) * np.eye(len(square))
        slope = np.linalg.solve(square + ridge, known[fitted].T @ components[fitted, eof])
        components[~there, eof] = known[~there] @ slope
    return components


def _elsewhere(training: TrainingSeries) -> bool:
    """Whether the answer is on another grid than the state: an index of a field."""
    return training.start.shape[1:3] != training.values.shape[1:3]


def _together(training: TrainingSeries) -> int:
    """How many variables of the state, the first ones, have common EOFs."""
    return 1 if _elsewhere(training) else training.values.shape[-1]


def _patterns(
    training: TrainingSeries,
    vectors: Float[np.ndarray, "cell leading"],
    components: Float[np.ndarray, "time eof"],
) -> Float[np.ndarray, "eof lat lon target"]:
    """What one unit of each component means for the targets."""
    shape = training.values.shape[1:]
    if _elsewhere(training):
        inside = training.inside
        answers = training.values[inside].reshape(int(inside.sum()), -1)
        return np.linalg.lstsq(components[inside], answers, rcond=None)[0].reshape(-1, *shape)
    root = np.sqrt(training.weight.reshape(-1).astype(np.float64))
    safe = np.where(root > 0, root, 1.0)
    fields = np.where(root[:, None] > 0, vectors / safe[:, None], 0.0)
    patterns = np.zeros((components.shape[1], *shape))
    patterns[: vectors.shape[1]] = fields.T.reshape(-1, *shape)
    return patterns


def _leading_eofs(flat: Float[np.ndarray, "time cell"], eofs: int) -> np.ndarray:
    """Right singular vectors, from the covariance of whichever side is smaller."""
    time, cell = flat.shape
    if cell <= time:
        return np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :eofs]
    value, vector = np.linalg.eigh(flat @ flat.T)
    keep = vector[:, ::-1][:, :eofs]
    scale = np.sqrt(np.maximum(value[::-1][:eofs], np.finfo(float).tiny))
    return flat.T @ keep / scale
