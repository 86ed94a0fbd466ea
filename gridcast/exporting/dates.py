"""The calendar inside an exported program: which season and year lie some steps from a date."""

from __future__ import annotations

from dataclasses import dataclass

import cftime
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gridcast.errors import DataError
from gridcast.timeaxis import TimeAxis, Unit

# Days in a year of the calendars whose years are all alike.
_ALIKE = {"noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366, "360_day": 360}
_GREGORIAN = "proleptic_gregorian"
_FIRST = 2001  # a common year of the Gregorian calendar; the one before has a leap day


@dataclass(frozen=True)
class Seasons:
    """The seasons that dates of a series can lie in, numbered from 0, and their arithmetic.

    A season is a calendar month, where a step is months or years, or else a day of the year; the
    days of Gregorian leap years come after those of common years.

    Attributes:
      dates: one date for each season, at the clock time of the series.
      months: calendar month of each, 1 to 12.
      unit, every: one step is `every` units.
    """

    dates: np.ndarray
    months: Int[np.ndarray, " season"]
    unit: Unit
    every: int
    calendar: str

    @classmethod
    def of(cls, unit: Unit, every: int, calendar: str, second_of_day: int) -> Seasons:
        """
        Args:
          second_of_day: at which the series stamps its days.

        Raises:
          DataError: steps of hours, or of days in a calendar whose years are not known here.
        """
        if unit in ("year", "month"):
            dates = np.array([np.datetime64(f"{_FIRST}-{m:02}-01", "ns") for m in range(1, 13)])
            return cls(dates, np.arange(1, 13), unit, every, calendar)
        if unit != "day":
            raise DataError(
                f"a program for steps of {every} {unit}s cannot be exported: its seasons would be "
                "the hours of a year\n  expected: steps of days, months or years\n"
                "  fix: forecast with gridcast itself (gridcast forecast RUN)"
            )
        if calendar == _GREGORIAN:
            first = np.datetime64(f"{_FIRST}-01-01", "D")
            common, leap = first + np.arange(365), first + np.arange(-366, 0)
            dates = np.concatenate([common, leap])
            months = dates.astype("datetime64[M]").astype(int) % 12 + 1
            dates = dates.astype("datetime64[ns]") + np.timedelta64(second_of_day, "s")
            return cls(dates, months, unit, every, calendar)
        if calendar not in _ALIKE:
            raise DataError(
                f"a program for days of the calendar {calendar!r} cannot be exported\n"
                f"  expected: {_GREGORIAN}, {', '.join(_ALIKE)}\n"
                "  fix: forecast with gridcast itself (gridcast forecast RUN)"
            )
        since, days = f"seconds since {_FIRST}-01-01", np.arange(_ALIKE[calendar])
        dates = np.asarray(cftime.num2date(days * 86400 + second_of_day, since, calendar))
        return cls(dates, np.array([date.month for date in dates]), unit, every, calendar)

    @property
    def axis(self) -> TimeAxis:
        """The dates of the seasons as if they were a series of such steps."""
        return TimeAxis(self.dates, self.unit, self.every, np.arange(self.dates.size))

    def after(
        self, date: Int[Array, "batch 3"], steps: Int[np.ndarray, " step"]
    ) -> tuple[Int[Array, "batch step"], Int[Array, "batch step"]]:
        """Season and year of the dates some steps after each (year, month, day)."""
        year, month, day = (date[:, i, None] for i in range(3))
        ahead = jnp.asarray(steps * self.every, jnp.int32)
        if self.unit in ("year", "month"):
            later = year * 12 + month - 1 + ahead * (12 if self.unit == "year" else 1)
            return later % 12, later // 12
        if self.calendar != _GREGORIAN:
            length = len(self.dates)
            later = year * length + self._before(month) + day - 1 + ahead
            return later % length, later // length
        leap = _is_leap(year)
        of_year = self._before(month) + day - 1 + (leap & (month > 2))
        return _year_and_day(_days_before(year) + of_year + ahead)

    def exists(self, date: Int[Array, "batch 3"]) -> Bool[Array, " batch"]:
        """Whether the calendar has this date; of months and years the day does not matter."""
        year, month, day = date[:, 0], date[:, 1], date[:, 2]
        known = (month >= 1) & (month <= 12)
        if self.unit != "day":
            return known
        of_year = self._before(jnp.clip(month + 1, 1, 13)) - self._before(jnp.clip(month, 1, 12))
        if self.calendar == _GREGORIAN:
            of_year = of_year + (_is_leap(year) & (month == 2))
        return known & (day >= 1) & (day <= of_year)

    def _before(self, month: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
        """Days of a common year before each month, 1 to 13."""
        year = self.months[: 365 if self.calendar == _GREGORIAN else None]
        table = np.searchsorted(year, np.arange(14))
        return jnp.asarray(table, jnp.int32)[month]


def _is_leap(year: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
    return (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))


def _days_before(year: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """Days from 1 January of year 1 to that of `year`."""
    last = year - 1
    return last * 365 + last // 4 - last // 100 + last // 400


def _year_and_day(days: Int[Array, "*batch"]) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
    """The season, as `Seasons` numbers them, and the year of days since 1 January of year 1."""
    cycles, rest = days // 146097, days % 146097  # of 400 years
    centuries = jnp.minimum(rest // 36524, 3)  # the fourth has one day more
    rest = rest - centuries * 36524
    fours, rest = rest // 1461, rest % 1461
    years = jnp.minimum(rest // 365, 3)
    day, year = rest - years * 365, cycles * 400 + centuries * 100 + fours * 4 + years + 1
    return jnp.where(_is_leap(year), day + 365, day), year
