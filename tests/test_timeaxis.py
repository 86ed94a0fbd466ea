"""Dates are counted by their calendar, gaps are found, and dates move on as the series goes."""

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast.errors import DataError
from gridcast.timeaxis import TimeAxis, label, season_fields, shift


def dates(*text: str) -> np.ndarray:
    return np.array(text, dtype="datetime64[ns]")


def every(freq: str, count: int, start: str = "2000-01-01", calendar: str = "standard"):
    cf = calendar != "standard"
    return xr.date_range(start, periods=count, freq=freq, calendar=calendar, use_cftime=cf).values


@pytest.mark.parametrize(
    ("freq", "unit", "count"),
    [
        ("MS", "month", 1),
        ("ME", "month", 1),
        ("3MS", "month", 3),
        ("YS", "year", 1),
        ("2YS", "year", 2),
        ("D", "day", 1),
        ("5D", "day", 5),
        ("6h", "hour", 6),
        ("30min", "minute", 30),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_the_step_is_found_in_every_calendar(freq, unit, count, calendar):
    axis = TimeAxis.of(every(freq, 40, calendar=calendar))
    assert (axis.unit, axis.every) == (unit, count)
    np.testing.assert_array_equal(axis.steps, np.arange(40))
    assert axis.gaps == []


def test_mid_month_dates_are_monthly_although_their_days_differ():
    axis = TimeAxis.of(dates("2001-01-16T12", "2001-02-15", "2001-03-16T12", "2001-04-16"))
    assert axis.frequency == "month"
    np.testing.assert_array_equal(axis.steps, [0, 1, 2, 3])


def test_a_few_days_inside_a_month_are_daily():
    assert TimeAxis.of(dates("2001-01-30", "2001-01-31", "2001-02-01")).frequency == "day"


@given(st.sets(st.integers(1, 58), max_size=12), st.sampled_from(["MS", "ME", "D", "6h"]))
@settings(deadline=None, max_examples=40)
def test_removed_dates_are_the_gaps_that_are_reported(removed, freq):
    full = every(freq, 60)
    kept = np.array([i for i in range(60) if i not in removed or i in (1, 2)])
    axis = TimeAxis.of(full[kept])
    np.testing.assert_array_equal(axis.steps, kept)
    missing = sum(int(gap.split()[0]) for gap in axis.gaps)
    assert missing == 60 - kept.size


def test_a_gap_names_the_dates_around_it():
    axis = TimeAxis.of(dates("2000-01-01", "2000-02-01", "2000-06-01"))
    assert axis.gaps == ["3 step(s) missing between 2000-02-01 and 2000-06-01"]


@pytest.mark.parametrize(
    "times",
    [
        dates("2000-01-01", "2000-01-02T03:04:05", "2000-01-09"),
        dates("2000-01-01", "2000-01-11", "2000-01-21", "2000-02-01", "2000-02-11"),
        dates("2000-01-01T00:00:00", "2000-01-01T00:01:30", "2000-01-01T00:03:00"),
        dates("2000-01-01", "2000-06-01", "2001-01-01", "2001-06-01"),
    ],
    ids=["anyhow", "dekads", "90 seconds", "five and seven months"],
)
def test_times_without_a_constant_step_are_refused(times):
    with pytest.raises(DataError, match="the times are irregular"):
        TimeAxis.of(times)


@pytest.mark.parametrize("count", [0, 1])
def test_a_series_needs_two_dates(count):
    with pytest.raises(DataError, match=f"found {count} time step"):
        TimeAxis.of(dates("2000-01-01")[:count])


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize("freq", ["MS", "ME", "D", "YS", "3MS", "6h"])
def test_moving_on_gives_the_dates_that_the_series_has(freq, calendar):
    times = every(freq, 90, "1999-12-01", calendar)
    axis = TimeAxis.of(times[:50])
    for start, steps in ((0, 0), (0, 49), (49, 1), (49, np.int64(40)), (10, -7)):
        assert axis.after(start, steps) == times[start + steps]


def test_month_ends_stay_month_ends_through_february():
    axis = TimeAxis.of(every("ME", 12, "2001-01-31"))
    assert label(axis.after(0, 1)) == "2001-02-28"
    assert label(axis.after(0, 37)) == "2004-02-29"


def test_a_series_stamped_on_the_28th_stays_there():
    times = np.array([f"2001-{m:02d}-28" for m in range(1, 13)], dtype="datetime64[ns]")
    assert label(TimeAxis.of(times).after(0, 37)) == "2004-02-28"


def test_a_month_later_than_31_january_is_the_last_of_february():
    assert label(shift(np.datetime64("2001-01-31", "ns"), "month", 1)) == "2001-02-28"
    day = cftime.datetime(2001, 1, 30, calendar="360_day")
    assert label(shift(day, "month", 1)) == "2001-02-30"


def test_the_phase_of_a_month_does_not_depend_on_its_stamp():
    starts, ends = TimeAxis.of(every("MS", 24)), TimeAxis.of(every("ME", 24))
    np.testing.assert_array_equal(starts.phase(), ends.phase())
    np.testing.assert_allclose(starts.phase()[:12], (np.arange(12) + 0.5) / 12)


def test_the_phase_of_a_day_counts_the_days_of_its_own_year():
    axis = TimeAxis.of(dates("2000-12-31", "2001-01-01"))
    np.testing.assert_allclose(axis.phase(), [365 / 366, 0])


def test_bounds_are_inside():
    axis = TimeAxis.of(every("MS", 24))
    inside = axis.inside((2000, 3, 1), (2000, 5, 31))
    np.testing.assert_array_equal(np.flatnonzero(inside), [2, 3, 4])


def test_labels_show_a_clock_only_where_there_is_one():
    assert label(np.datetime64("2000-01-01T00:00", "ns")) == "2000-01-01"
    assert label(np.datetime64("2000-01-01T06:30", "ns")) == "2000-01-01T06:30"
    assert label(cftime.datetime(850, 2, 30, calendar="360_day")) == "0850-02-30"


def test_a_monthly_step_lasts_as_long_as_its_month():
    assert TimeAxis.of(every("MS", 3)).days_per_step.tolist() == [31, 29, 31]
    assert TimeAxis.of(every("6h", 3)).days_per_step.tolist() == [0.25] * 3
    assert TimeAxis.of(every("YS", 3, calendar="noleap")).days_per_step.tolist() == [365] * 3


def test_where_a_date_lies_in_its_year_is_the_same_of_both_kinds_of_dates():
    days = np.arange("1896-01-01", "2105-01-01", 11, dtype="datetime64[D]").astype("datetime64[ns]")
    days += np.timedelta64(6, "h")
    series = xr.DataArray(np.zeros(days.size), {"time": days}, ["time"])
    standard = series.convert_calendar("standard", use_cftime=True)["time"].values
    found, wanted = season_fields(days, "day"), season_fields(standard, "day")
    for ours, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, expected)
    phase, month, year = season_fields(dates("2000-12-31T12", "1900-03-01"), "day")
    np.testing.assert_allclose(phase, [365.5 / 366, 59 / 365])
    np.testing.assert_allclose(year, [2000 + 365.5 / 366, 1900 + 59 / 365])
    assert month.tolist() == [12, 3]
