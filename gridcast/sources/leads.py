"""Leads of forecasts: lengths of time or months of the calendar, and the steps they lead to."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from gridcast.errors import DataError
from gridcast.timeaxis import Unit, label

# Leads of ECMWF's monthly means: 1 is the first whole month after the initial date.
WHOLE_MONTHS = ("forecastmonth", "leadtime_month", "fcmonth")
_SECONDS = {
    **dict.fromkeys(("week", "weeks"), 604800.0),
    **dict.fromkeys(("day", "days", "d"), 86400.0),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), 3600.0),
    **dict.fromkeys(("minute", "minutes", "min"), 60.0),
    **dict.fromkeys(("second", "seconds", "sec", "s"), 1.0),
    **{f"{part}seconds": size for part, size in (("milli", 1e-3), ("micro", 1e-6), ("nano", 1e-9))},
}
_MONTHS = {
    **dict.fromkeys(("month", "months", "mon"), 1.0),
    **dict.fromkeys(("year", "years", "yr"), 12.0),
}
# How much of a date's text says in which step it lies; of hours and minutes all does.
_TEXT: dict[Unit, int] = {"year": len("2000"), "month": len("2000-01"), "day": len("2000-01-01")}


@dataclass(frozen=True)
class Leads:
    """From initial dates to the dates that are forecast.

    Attributes:
      length: of each lead, in months (whole or half ones) or in seconds.
      count: which of both; "whole months" begin with the first day of a month, 0 with the first
        such day at or after the initial date.
    """

    length: Float[np.ndarray, " lead"]
    count: Literal["months", "whole months", "seconds"]

    @classmethod
    def of(cls, coordinate: xr.Variable, name: str, origin: str) -> Leads | None:
        """Read a coordinate; None where its units are no length of time.

        Raises:
          DataError: months in other parts than halves.
        """
        values = coordinate.values.reshape(-1)
        if values.dtype.kind == "m":
            return cls(values / np.timedelta64(1, "s"), "seconds")
        numbers = values.astype(np.float64)
        if name.lower() in WHOLE_MONTHS:
            return cls(numbers - 1.0, "whole months")
        units = str(coordinate.attrs.get("units", "")).strip().lower()
        if units in _SECONDS:
            return cls(numbers * _SECONDS[units], "seconds")
        if units not in _MONTHS:
            return None
        months = numbers * _MONTHS[units]
        halves = np.round(2 * months) / 2
        odd = np.abs(months - halves) > 1e-3
        if odd.any():
            raise DataError(
                f"{origin}: {name} holds {numbers[odd][0]:g} {units}\n"
                "  expected: whole or half months"
            )
        return cls(halves, "months")

    def in_half(self, unit: Unit, every: int, starts: np.ndarray) -> bool:
        """Whether they lead to the middles of steps, of which one begins at each initial date."""
        if self.count != "seconds":
            return bool((self.length % 1 == 0.5).all())
        if unit in ("year", "month"):
            return False
        # Half a day after noon a day ends.
        if unit == "day" and any("T" in label(time) for time in starts):
            return False
        steps = self.length / (every * _SECONDS[unit])
        return bool((np.abs(steps % 1 - 0.5) < 1e-6).all())

    def initial_steps(self, starts: Shaped[np.ndarray, " initial"], unit: Unit) -> np.ndarray:
        """The step of each initial date, as text."""
        if self.count == "whole months":
            return _month_text(_months(starts, round_up=True), unit)
        return step_text(starts, unit)

    def valid_steps(
        self, starts: Shaped[np.ndarray, " initial"], unit: Unit, origin: str
    ) -> Shaped[np.ndarray, "initial lead"]:
        """The step that is forecast from each initial date at each lead, as text.

        Raises:
          DataError: months, of steps that are shorter.
        """
        if self.count == "seconds":
            return step_text(_later(starts, self.length), unit)
        if unit not in ("year", "month"):
            raise DataError(
                f"{origin}: leads are counted in months\n  expected: forecasts of each {unit}\n"
                "  fix: give forecasts with the step of the run"
            )
        first = _months(starts, round_up=self.count == "whole months")
        return _month_text(first[:, None] + np.floor(self.length).astype(int), unit)


def step_text(times: np.ndarray, unit: Unit) -> np.ndarray:
    """Each date as the text of the step it lies in, whatever its stamp and calendar."""
    flat, where = np.unique(times.reshape(-1), return_inverse=True)
    return np.array([label(time)[: _TEXT.get(unit)] for time in flat])[where].reshape(times.shape)


def _later(starts: np.ndarray, seconds: Float[np.ndarray, " lead"]) -> np.ndarray:
    if starts.dtype == object:
        spans = np.array([dt.timedelta(seconds=float(s)) for s in seconds], dtype=object)
        return starts[:, None] + spans
    return starts[:, None] + np.round(seconds).astype("timedelta64[s]")


def _months(times: np.ndarray, *, round_up: bool) -> Int[np.ndarray, " initial"]:
    """Months since year 0; `round_up`: of the next first day of a month."""
    dates = [label(time)[:10].split("-") for time in times]
    return np.array([12 * int(y) + int(m) - 1 + (round_up and int(d) > 1) for y, m, d in dates])


def _month_text(months: Int[np.ndarray, "..."], unit: Unit) -> np.ndarray:
    text = [f"{m // 12:04d}-{m % 12 + 1:02d}"[: _TEXT.get(unit)] for m in months.reshape(-1)]
    return np.array(text).reshape(months.shape)
