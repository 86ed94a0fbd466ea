"""Dates counted in whole steps of their calendar: months are not a constant length of time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd
from operator import attrgetter
from typing import Any, Literal

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from gridcast.errors import DataError

Unit = Literal["year", "month", "day", "hour", "minute"]
_SECONDS: dict[Unit, int] = {"day": 86400, "hour": 3600, "minute": 60}


@dataclass(frozen=True)
class TimeAxis:
    """Sorted, unique dates and the number of steps from the first to each.

    Attributes:
      times: datetime64[ns], or cftime objects for other calendars.
      unit, every: one step is `every` units, for example 6 hours or 1 month.
      steps: steps since the first date; a jump of more than 1 is a gap.
    """

    times: np.ndarray
    unit: Unit
    every: int
    steps: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray) -> TimeAxis:
        """Find the step of sorted, unique dates.

        Raises:
          DataError: fewer than two dates, or dates that no constant step explains.
        """
        times = np.asarray(times)
        if times.size < 2:
            raise DataError(
                f"found {times.size} time step(s); a forecast needs a series\n"
                "  fix: give all files of the series, for example data.path: 'sst.*.nc'"
            )
        fields = _Fields(times)
        months = fields.year * 12 + fields.month - 1
        monthly = _one_stamp_a_month(fields) and bool((np.diff(months) > 0).all())
        if monthly:
            every = _common_step(np.diff(months))
            if int(np.median(np.diff(months))) > 3 * every:
                raise _irregular(times, _seconds_since_first(times))
            if every % 12 == 0:
                return cls(times, "year", every // 12, (months - months[0]) // every)
            return cls(times, "month", every, (months - months[0]) // every)
        seconds = _seconds_since_first(times)
        every = _common_step(np.diff(seconds))
        typical = int(np.median(np.diff(seconds)))
        if every % 60 or typical > 3 * every:
            raise _irregular(times, seconds)
        for unit, length in _SECONDS.items():
            if every % length == 0:
                return cls(times, unit, every // length, (seconds - seconds[0]) // every)
        raise AssertionError("unreachable: every is whole minutes")

    @property
    def calendar(self) -> str:
        return self.times[0].calendar if self.times.dtype == object else "proleptic_gregorian"

    @property
    def clock(self) -> tuple[str, int]:
        """The calendar, and the second of the day of the first date: when days are stamped."""
        return self.calendar, int(_Fields(self.times[:1]).second_of_day[0])

    @property
    def frequency(self) -> str:
        return step_name(self.unit, self.every)

    @cached_property
    def gaps(self) -> list[str]:
        """One phrase for each gap, with the dates around it."""
        return [
            f"{self.steps[i + 1] - self.steps[i] - 1} step(s) missing between "
            f"{label(self.times[i])} and {label(self.times[i + 1])}"
            for i in np.flatnonzero(np.diff(self.steps) > 1)
        ]

    @cached_property
    def dates(self) -> np.ndarray:
        """(year, month, day) of each time, as an integer array [time, 3]."""
        fields = _Fields(self.times)
        return np.stack([fields.year, fields.month, fields.day], axis=1)

    def inside(self, first: tuple[int, int, int], last: tuple[int, int, int]) -> np.ndarray:
        """Which times lie between two (year, month, day) dates, both included."""
        keys = self.dates @ np.array([10000, 100, 1])
        key = [np.dot(bound, (10000, 100, 1)) for bound in (first, last)]
        return (keys >= key[0]) & (keys <= key[1])

    def phase(self) -> np.ndarray:
        """Where each time lies in its year, 0 to 1; months by their middle, whatever the stamp."""
        return season_fields(self.times, self.unit)[0]

    def after(self, index: int, steps: int | np.integer) -> Any:
        """The date `steps` steps after time `index`, in this calendar."""
        return shift(self.times[index], self.unit, self.every * int(steps), self._stamps)

    def times_at(self, steps: np.ndarray) -> np.ndarray:
        """The dates of any steps, counted as in `steps`: before, within, in a gap or after."""
        asked, where = np.unique(steps, return_inverse=True)
        known = dict(zip(self.steps.tolist(), self.times, strict=True))
        dates = [known[s] if s in known else self.after(0, s) for s in asked.tolist()]
        return np.array(dates, dtype=self.times.dtype)[where.reshape(np.shape(steps))]

    @cached_property
    def days_per_step(self) -> np.ndarray:
        """Days that each step lasts: the length of its month, for a monthly series."""
        if self.unit == "month" and self.every == 1:
            return _Fields(self.times).days_in_month.astype(np.float64)
        ends = self.times_at(self.steps + 1)
        if self.times.dtype == object:
            spans = [end - begin for end, begin in zip(ends, self.times, strict=True)]
            return np.array([span / dt.timedelta(days=1) for span in spans])
        return (ends - self.times) / np.timedelta64(1, "D")

    @cached_property
    def _stamps(self) -> dict[int, Any]:
        """For each month, a date as this series stamps it (first day, middle, last day)."""
        return {int(m): t for m, t in zip(self.dates[:, 1], self.times, strict=True)}


def step_name(unit: Unit, every: int) -> str:
    """One step in words: "month", "6 hours"."""
    return unit if every == 1 else f"{every} {unit}s"


def season_fields(times: np.ndarray, unit: Unit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each of `times` lies in its year (0 to 1), its month (1 to 12), its decimal year."""
    fields = _Fields(np.asarray(times))
    if unit in ("year", "month"):
        phase = (fields.month - 0.5) / 12.0
    else:
        day = fields.dayofyear - 1 + fields.second_of_day / 86400.0
        phase = day / fields.days_in_year
    return phase, fields.month, fields.year + phase


def shift(time: Any, unit: Unit, count: int, stamps: dict[int, Any] | None = None) -> Any:
    """`time` moved by `count` units of its calendar.

    Months keep the day on which the series stamps that month (`stamps`), else the day of `time`,
    or the month's last day where it has no such day.
    """
    if unit in _SECONDS:
        if isinstance(time, np.datetime64):
            return time + np.timedelta64(count * _SECONDS[unit], "s")
        return time + dt.timedelta(seconds=count * _SECONDS[unit])
    fields = _Fields(np.array([time]))
    months = int(fields.year[0] * 12 + fields.month[0] - 1) + count * (12 if unit == "year" else 1)
    year, month = divmod(months, 12)
    stamp = (stamps or {}).get(month + 1, time)
    pattern = _Fields(np.array([stamp]))
    calendar = "proleptic_gregorian" if isinstance(time, np.datetime64) else time.calendar
    first = cftime.datetime(year, month + 1, 1, calendar=calendar)
    last_day = first.daysinmonth
    # A series stamped on every 28th is not one stamped at the ends of its months.
    every_stamp = _Fields(np.array([*(stamps or {}).values(), stamp]))
    ends_month = bool((every_stamp.day == every_stamp.days_in_month).all())
    day = last_day if ends_month else min(int(pattern.day[0]), last_day)
    moved = cftime.datetime(year, month + 1, day, calendar=calendar)
    moved += dt.timedelta(seconds=int(pattern.second_of_day[0]))
    if isinstance(time, np.datetime64):
        return np.datetime64(moved.isoformat(), "ns")
    return type(time)(*moved.timetuple()[:6], **_calendar_argument(time))


def label(time: Any) -> str:
    """A date as people write it: the time of day only where there is one."""
    text = (
        str(time.astype("datetime64[s]")) if isinstance(time, np.datetime64) else time.isoformat()
    )
    date, _, clock = text.partition("T")
    return date if not clock or clock.startswith("00:00:00") else f"{date}T{clock[:5]}"


def _irregular(times: np.ndarray, seconds: np.ndarray) -> DataError:
    return DataError(
        f"the times are irregular: steps between {_span(float(np.diff(seconds).min()))} and "
        f"{_span(float(np.diff(seconds).max()))}, from {label(times[0])} to {label(times[-1])}\n"
        "  expected: yearly, monthly, daily, hourly or another constant step of whole minutes\n"
        "  fix: resample the series, for example ds.resample(time='1D').mean()"
    )


def _calendar_argument(time: Any) -> dict[str, str]:
    return {"calendar": time.calendar} if type(time) is cftime.datetime else {}


# By the names of xarray, in whose accessor a few dates take 3 ms; dates are asked for one by one.
_QUICK: dict[str, Callable[[pd.DatetimeIndex], Any]] = {
    **{name: attrgetter(name) for name in ("year", "month", "day", "hour", "minute", "second")},
    "days_in_month": attrgetter("days_in_month"),
    "dayofyear": attrgetter("day_of_year"),
    "days_in_year": lambda index: 365 + index.is_leap_year,
}


class _Fields:
    """Calendar fields of dates of any calendar, as integer arrays, each when it is asked for.

    Those of xarray (year, month, day, dayofyear, days_in_month, days_in_year), and `second_of_day`.
    """

    def __init__(self, times: np.ndarray):
        self._times = times
        self._index = pd.DatetimeIndex(times) if times.dtype.kind == "M" else None

    def __getattr__(self, name: str) -> np.ndarray:
        if self._index is not None and name in _QUICK:
            found = _QUICK[name](self._index)
        else:
            found = getattr(xr.DataArray(self._times, dims="time").dt, name)
        found = np.asarray(found).astype(np.int64)
        setattr(self, name, found)
        return found

    @cached_property
    def second_of_day(self) -> np.ndarray:
        return self.hour * 3600 + self.minute * 60 + self.second


def _one_stamp_a_month(fields: _Fields) -> bool:
    """First, last or middle of the month, within two days: at most one date in a month."""
    near_start = fields.day <= 2
    near_end = fields.days_in_month - fields.day <= 1
    spread = fields.day.max() - fields.day.min()
    return bool(near_start.all() or near_end.all() or spread <= 2)


def _common_step(differences: np.ndarray) -> int:
    return reduce(gcd, (int(d) for d in np.unique(differences)))


def _seconds_since_first(times: np.ndarray) -> np.ndarray:
    if times.dtype == object:
        return np.array([round((t - times[0]).total_seconds()) for t in times], dtype=np.int64)
    return ((times - times[0]) / np.timedelta64(1, "s")).round().astype(np.int64)


def _span(seconds: float) -> str:
    for unit, length in _SECONDS.items():
        if seconds >= length:
            return f"{seconds / length:g} {unit}s"
    return f"{seconds:g} seconds"
