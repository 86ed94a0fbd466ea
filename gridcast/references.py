"""Reference forecasts: what a model must beat. Fitted on training dates, in scaled anomalies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from gridcast.frames.windows import positions_at
from gridcast.timeaxis import TimeAxis

Fields = Float[np.ndarray, "batch lat lon channel"]
Forecasts = Float[np.ndarray, "batch lead lat lon channel"]


@runtime_checkable
class Reference(Protocol):
    """A forecast from the last observed frame, called like a model."""

    def __call__(self, frames: Float[np.ndarray, "batch time lat lon channel"]) -> Forecasts: ...


@dataclass(frozen=True)
class TrainingSeries:
    """What a reference may be fitted on.

    Attributes:
      values: scaled anomalies, 0 off the mask and where nothing was observed; the whole series, of
        which `inside` may be used.
      inside: True on training dates with observations.
      weight: relative cell area, 0 off the mask, summing to 1 for each channel.
      seen: where there were observations; None: everywhere.
    """

    values: Float[np.ndarray, "time lat lon channel"]
    axis: TimeAxis
    inside: Bool[np.ndarray, " time"]
    weight: Float[np.ndarray, "lat lon channel"]
    seen: Bool[np.ndarray, "time lat lon channel"] | None = None

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "time lat lon channel"],
        axis: TimeAxis,
        inside: Bool[np.ndarray, " time"],
        weight: Float[np.ndarray, "lat lon channel"],
    ) -> TrainingSeries:
        """From scaled anomalies that are NaN where nothing was observed."""
        seen = np.isfinite(values)
        if seen.all():
            return cls(values, axis, inside, weight)
        observed = (seen & (weight > 0)).any(axis=(1, 2, 3))
        return cls(np.where(seen, values, 0.0), axis, inside & observed, weight, seen)

    def pairs(self, lead: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (initial, verifying) of training frames `lead` steps apart."""
        initial = np.flatnonzero(self.inside)
        later = positions_at(self.axis, initial, np.array([lead]))[:, 0]
        usable = (later >= 0) & self.inside[later]
        return initial[usable], later[usable]


@dataclass(frozen=True)
class Damping:
    """The last anomaly times a factor for each lead and cell."""

    factor: Float[np.ndarray, "lead lat lon channel"]

    def __call__(self, frames: Float[np.ndarray, "batch time lat lon channel"]) -> Forecasts:
        return frames[:, -1, None] * self.factor


def climatology(training: TrainingSeries, leads: int) -> Damping:
    """The seasonal cycle itself: no anomaly."""
    return Damping(np.zeros((leads, *training.values.shape[1:]), np.float32))


def persistence(training: TrainingSeries, leads: int) -> Damping:
    """The last anomaly stays."""
    return Damping(np.ones((leads, *training.values.shape[1:]), np.float32))


def damped_persistence(training: TrainingSeries, leads: int) -> Damping:
    """The last anomaly, damped by its regression through the origin for each lead and cell."""
    return Damping(np.stack([_regression(training.values, training, k) for k in _to(leads)]))


def _to(leads: int) -> range:
    return range(1, leads + 1)


def _regression(values: np.ndarray, training: TrainingSeries, lead: int) -> np.ndarray:
    """Slope through the origin of the field `lead` steps later on the field now, per cell."""
    now, later = training.pairs(lead)
    if now.size == 0:
        return np.zeros(values.shape[1:], np.float32)
    before = values[now]
    if training.seen is not None:
        # Only pairs of which both were observed count, in the product and in the square.
        before = np.where(training.seen[now] & training.seen[later], before, 0.0)
    product = np.einsum("txyc,txyc->xyc", before, values[later], dtype=np.float64)
    square = np.einsum("txyc,txyc->xyc", before, before, dtype=np.float64)
    return np.where(square > 0, product / np.where(square > 0, square, 1.0), 0.0).astype(np.float32)


@dataclass(frozen=True)
class LinearInverseModel:
    """Penland & Sardeshmukh (1995): anomalies as a damped linear system in their leading EOFs.

    Attributes:
      patterns: [cell, eof] EOFs in area-weighted space, orthonormal.
      root_weight: [cell] square root of relative cell area.
      propagator: [eof, eof] of one step, acting on row vectors of principal components.
      residual: [lead, lat, lon, channel] damping of what lies outside the EOFs.
    """

    patterns: Float[np.ndarray, "cell eof"]
    root_weight: Float[np.ndarray, " cell"]
    propagator: Float[np.ndarray, "eof eof"]
    residual: Float[np.ndarray, "lead lat lon channel"]

    def __call__(self, frames: Float[np.ndarray, "batch time lat lon channel"]) -> Forecasts:
        last = frames[:, -1]
        out = np.empty((last.shape[0], *self.residual.shape), np.float32)
        components = self._components(last)
        outside = last - self._field(components, last.shape)
        for k, residual in enumerate(self.residual):
            components = components @ self.propagator
            out[:, k] = self._field(components, last.shape) + residual * outside
        return out

    def _components(self, fields: Fields) -> Float[np.ndarray, "batch eof"]:
        return (fields.reshape(len(fields), -1) * self.root_weight) @ self.patterns

    def _field(self, components: np.ndarray, shape: tuple[int, ...]) -> Fields:
        weighted = components @ self.patterns.T
        safe = np.where(self.root_weight > 0, self.root_weight, 1.0)
        return np.where(self.root_weight > 0, weighted / safe, 0.0).reshape(shape)


def linear_inverse_model(
    training: TrainingSeries, leads: int, eofs: int = 20
) -> LinearInverseModel:
    """A LIM in the leading `eofs` EOFs, with a locally damped residual outside them.

    The propagator is the lag-1 regression of the principal components; longer leads are its
    powers. Short or small series get fewer EOFs (at most a tenth of the training frames).
    """
    frames = training.values[training.inside]
    root_weight = np.sqrt(training.weight.reshape(-1))
    flat = frames.reshape(len(frames), -1).astype(np.float64) * root_weight
    eofs = max(1, min(eofs, int((root_weight > 0).sum()), len(frames) // 10))
    patterns = _leading_eofs(flat, eofs)
    draft = LinearInverseModel(
        patterns, root_weight, np.eye(eofs), np.zeros((0, *frames.shape[1:]), np.float32)
    )
    components = draft._components(training.values)
    now, later = training.pairs(1)
    propagator, *_ = np.linalg.lstsq(components[now], components[later], rcond=None)
    outside = training.values - draft._field(components, training.values.shape)
    residual = np.stack([_regression(outside, training, k) for k in _to(leads)])
    return LinearInverseModel(patterns, root_weight, propagator, residual)


def _leading_eofs(flat: Float[np.ndarray, "time cell"], eofs: int) -> np.ndarray:
    """Right singular vectors, from the covariance of whichever side is smaller."""
    time, cell = flat.shape
    if cell <= time:
        return np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :eofs]
    value, vector = np.linalg.eigh(flat @ flat.T)
    keep = vector[:, ::-1][:, :eofs]
    scale = np.sqrt(np.maximum(value[::-1][:eofs], np.finfo(float).tiny))
    return flat.T @ keep / scale


REFERENCES: dict[str, Callable[[TrainingSeries, int], Reference]] = {
    "climatology": climatology,
    "persistence": persistence,
    "damped_persistence": damped_persistence,
    "lim": linear_inverse_model,
}

# The references that a network can correct: a factor times the last frame.
BASES: dict[str, Callable[[TrainingSeries, int], Damping]] = {
    "climatology": climatology,
    "persistence": persistence,
    "damped_persistence": damped_persistence,
}


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
        error = reference(training.values[initial[part]][:, None]) - training.values[later[part]]
        counted = np.broadcast_to(usable[part][..., None, None, None], error.shape)
        if training.seen is not None:
            counted = counted & training.seen[later[part]] & training.seen[initial[part]][:, None]
        total += np.square(np.where(counted, error, 0.0), dtype=np.float64).sum(axis=0)
        count += counted.sum(axis=0)
    return np.sqrt(total / np.maximum(count, 1)).astype(np.float32)
