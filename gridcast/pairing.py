"""Two runs on the dates that both forecast: which is better at each lead, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.class_pairing import at_dates, class_scores
from gridcast.errors import DataError
from gridcast.grid import Grid, describe_axis
from gridcast.paired import Paired
from gridcast.paired_classes import PairedClasses
from gridcast.report.cases import in_test
from gridcast.report.contents import Contents, Subject, contents
from gridcast.timeaxis import label
from gridcast.verification.metrics import Pairs
from gridcast.verification.significance import DateSums, compare

# Observations of two runs that differ by more than this share of their range are not the same.
_SAME = 1e-4
_LEAD = "forecast_period"


def compare_runs(first: str | Path, second: str | Path) -> list[Paired | PairedClasses]:
    """Compare each variable that two runs forecast, by `verification.significance.compare`.

    Of runs of classes the ranked probability score and the hit rate are compared.

    Both are judged by their `hindcast.nc` against the `observations.nc` of the first, on the dates
    in the test years of both that both have a forecast of at every lead that both have.

    Raises:
      DataError: no run, no hindcast, values against classes, no variable in common, other units,
        classes, steps, grids or observations, or no date in common.
    """
    with contents(first) as ours, contents(second) as theirs:
        names = (str(first), str(second))
        subjects = [
            {subject.variable: subject for subject in run.subjects()} for run in (ours, theirs)
        ]
        common = [name for name in subjects[0] if name in subjects[1]]
        if not common:
            forecast = (
                f"{n} forecasts {', '.join(s)}" for n, s in zip(names, subjects, strict=True)
            )
            raise DataError(
                f"the runs forecast no variable in common\n  found: {'; '.join(forecast)}\n"
                "  expected: two runs with the same target"
            )
        return [_paired(names, subjects[0][name], subjects[1][name]) for name in common]


def _paired(names: tuple[str, str], ours: Subject, theirs: Subject) -> Paired | PairedClasses:
    both = (ours, theirs)
    _same("what they forecast", names, ["classes" if s.classes else "values" for s in both])
    for name, subject in zip(names, both, strict=True):
        _require_files(name, subject)
    _same("units", names, [one.units for one in both])
    _same("steps", names, [one.step for one in both])
    mask = _common_cells(names, ours.grid, theirs.grid)
    hindcasts = [_hindcast(one.run) for one in both]
    leads = min(one.sizes[_LEAD] for one in hindcasts)
    _same("leads", names, [one[_LEAD].values[:leads].tolist() for one in hindcasts])
    dates = _common_dates(names, both, leads, mask)
    variable = ours.variable
    about = (dates, leads, mask)
    told = {
        "names": names,
        "variable": variable,
        "step": ours.step,
        "dates": len(dates),
        "first": label(dates[0]),
        "last": label(dates[-1]),
        "cells": int(mask.sum()),
    }
    if ours.classes:
        scores = class_scores(names, both, *about)
        return PairedClasses(**told, **scores)
    observed = _observed(ours.run)[variable].sel(time=dates).values
    other = _observed(theirs.run)[variable].sel(time=dates).values
    _require_same_observations(names, variable, observed, other, mask)
    normal = _observed(ours.run)[f"{variable}_climatology"].sel(time=dates).values
    weight = np.where(mask, ours.grid.area, 0.0)
    sums = [_sums(one, variable, dates, leads, observed, normal, weight) for one in hindcasts]
    square = [one.square.sum(axis=0) / one.area.sum(axis=0) for one in sums]
    rmse = np.sqrt(np.stack(square))
    return Paired(**told, units=ours.units, rmse=rmse, compared=compare(*sums))


def _sums(
    hindcast: xr.Dataset,
    variable: str,
    dates: np.ndarray,
    leads: int,
    observed: Float[np.ndarray, "date lat lon"],
    normal: Float[np.ndarray, "date lat lon"],
    weight: Float[np.ndarray, "lat lon"],
) -> DateSums:
    """Of the forecasts of these dates; one lead is in memory at a time."""
    parts = []
    judged = np.ones((len(dates), 1), bool)
    truth = np.where(weight > 0, observed - normal, 0.0).astype(np.float32)[:, None]
    for lead in range(leads):
        values = at_dates(hindcast[variable], lead, dates).values
        anomaly = np.where(weight > 0, values - normal, 0.0).astype(np.float32)[:, None]
        pairs = Pairs(anomaly, truth, judged, weight, gaps=True)
        parts.append(DateSums.of(pairs, np.arange(len(dates))[:, None]))
    names = ("square", "product", "forecast", "observed", "area")
    joined = ([getattr(part, name) for part in parts] for name in names)
    return DateSums(*(np.concatenate(found, axis=1) for found in joined))


def _hindcast(run: Contents) -> xr.Dataset:
    assert run.hindcast is not None
    return run.hindcast


def _observed(run: Contents) -> xr.Dataset:
    assert run.observations is not None
    return run.observations


def _require_files(name: str, subject: Subject) -> None:
    ends = ("_probability", "_class") if subject.classes else ("", "")
    for file, end in zip(("hindcast", "observations"), ends, strict=True):
        found = getattr(subject.run, file)
        if found is None or subject.variable + end not in found:
            raise DataError(
                f"{name}: no {file}.nc with {subject.variable}{end}\n"
                "  expected: the files that training leaves\n  fix: train it again"
            )


def _same(what: str, names: tuple[str, str], found: Sequence[Any]) -> None:
    if found[0] != found[1]:
        told = ", ".join(f"{name}: {one}" for name, one in zip(names, found, strict=True))
        raise DataError(f"the runs differ in {what}\n  found: {told}\n  expected: the same")


def _common_cells(names: tuple[str, str], ours: Grid, theirs: Grid) -> Bool[np.ndarray, "lat lon"]:
    for axis in ("lat", "lon"):
        a, b = getattr(ours, axis), getattr(theirs, axis)
        if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=1e-4):
            _same(axis, names, [describe_axis(a), f"{describe_axis(b)}, other cells"])
    mask = ours.mask & theirs.mask
    if not mask.any():
        raise DataError(f"{names[0]} and {names[1]} have no cell with values in common")
    return mask


def _common_dates(
    names: tuple[str, str],
    both: tuple[Subject, Subject],
    leads: int,
    mask: Bool[np.ndarray, "lat lon"],
) -> np.ndarray:
    """In order of time: forecast by both at every lead, observed, and in the test years of both."""
    found = []
    for subject in both:
        times = _hindcast(subject.run)["time"].isel({_LEAD: slice(leads)})
        test = in_test(subject, times)
        found += [times.values[test[:, lead], lead] for lead in range(leads)]
        observed = _observed(subject.run)[subject.variable]
        seen = np.isfinite(observed.values[:, mask]).any(axis=1)
        found.append(observed["time"].values[seen])
    calendars = {str(getattr(np.ravel(one)[0], "calendar", "")) for one in found if one.size}
    dates = reduce(np.intersect1d, found) if len(calendars) == 1 else np.array([])
    if not dates.size:
        periods = [str(subject.run.config.splits.test) for subject in both]
        raise DataError(
            f"no date that both runs forecast at all {leads} leads\n"
            f"  found: test dates of {names[0]} {periods[0]}, of {names[1]} {periods[1]}\n"
            "  expected: test dates in common, in one calendar"
        )
    return dates


def _require_same_observations(
    names: tuple[str, str],
    variable: str,
    ours: Float[np.ndarray, "date lat lon"],
    theirs: Float[np.ndarray, "date lat lon"],
    mask: Bool[np.ndarray, "lat lon"],
) -> None:
    known = np.isfinite(ours) & np.isfinite(theirs) & mask
    if not known.any():
        raise DataError(f"{names[0]} and {names[1]} have no observation of {variable} in common")
    apart = float(np.abs(ours[known] - theirs[known]).max())
    if apart > _SAME * max(float(np.ptp(ours[known])), 1e-30):
        raise DataError(
            f"the runs were judged by different observations of {variable}: they differ by up to "
            f"{apart:.3g}\n  expected: one series behind {names[0]} and {names[1]}\n"
            "  fix: gridcast evaluate RUN --forecast NAME=hindcast.nc judges both by those of RUN"
        )
