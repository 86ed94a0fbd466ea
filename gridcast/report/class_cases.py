"""Each forecast of classes of the test dates beside what came: its ranked probability score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gridcast.report.cases import fields_at, in_test, largest_apart
from gridcast.report.contents import Subject
from gridcast.scratch import blocks
from gridcast.verification.categories import CategoryPairs, class_sums


@dataclass(frozen=True)
class ClassCases:
    """The forecasts whose dates all lie in the test years.

    Attributes:
      initial: the initial date of each; `valid` the dates that they are for.
      rps: of the model, over area and leads, NaN where something was not observed; `normal`: of
        climatology.
    """

    initial: np.ndarray
    valid: np.ndarray
    rps: Float[np.ndarray, " window"]
    normal: Float[np.ndarray, " window"]

    def extremes(self, count: int) -> tuple[list[int], list[int]]:
        """Windows with the largest score, and with the most gained over climatology."""
        leads = self.valid.shape[1]
        gain = self.normal - self.rps
        return largest_apart(self.rps, leads, count), largest_apart(gain, leads, count)


def class_cases(subject: Subject) -> ClassCases | None:
    """None where hindcast.nc is missing, or observations.nc or the classes in it."""
    run, name = subject.run, subject.variable
    if run.hindcast is None or run.observations is None:
        return None
    if f"{name}_probability" not in run.hindcast or f"{name}_class" not in run.observations:
        return None
    inside = np.flatnonzero(in_test(subject, run.hindcast["time"]).all(axis=1))
    if not inside.size:
        return None
    size = 4 * run.hindcast[f"{name}_probability"][0].size
    found = [_scores(subject, inside[some]) for some in blocks(inside.size, size)]
    rps, normal = (np.concatenate(part) for part in zip(*found, strict=True))
    initial = run.hindcast["forecast_reference_time"].values[inside]
    return ClassCases(initial, run.hindcast["time"].values[inside], rps, normal)


def odds_and_classes(
    subject: Subject, windows: np.ndarray
) -> tuple[
    Float[np.ndarray, "window lead lat lon class"],
    Float[np.ndarray, "window lead lat lon"],
    Float[np.ndarray, "window lead lat lon class"],
]:
    """Of the hindcast, which class came, and of climatology; NaN off the mask."""
    run, name = subject.run, subject.variable
    assert run.hindcast is not None
    assert run.observations is not None
    forecast = run.hindcast[f"{name}_probability"].isel(forecast_reference_time=windows)
    names = (f"{name}_class", f"{name}_climatology_probability")
    came, normal = fields_at(run.observations, names, forecast["time"].values)
    return np.moveaxis(forecast.values, 2, -1), came, np.moveaxis(normal, 2, -1)


def _scores(
    subject: Subject, windows: np.ndarray
) -> tuple[Float[np.ndarray, " window"], Float[np.ndarray, " window"]]:
    """RPS over area and leads of the model and of climatology."""
    forecast, came, normal = odds_and_classes(subject, windows)
    weight, verified = subject.grid.weight, np.ones(came.shape[:2], bool)
    known = np.isfinite(came[:, :, subject.grid.mask])
    if not known.any(axis=(0, 2)).all():  # a lead of which nothing is known at any date
        return np.full(len(windows), np.nan), np.full(len(windows), np.nan)
    found = []
    for odds in (forecast, normal):
        sums = class_sums(CategoryPairs(odds, came, verified, weight))
        found.append(np.where(known.all(axis=(1, 2)), sums.rps.mean(axis=1), np.nan))
    return found[0], found[1]
