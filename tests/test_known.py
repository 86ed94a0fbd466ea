"""The season is a circle, and sunlight is that of the textbook."""

import cftime
import numpy as np
import pytest

from gridcast.frames.known import daily_insolation, known_fields, known_names

LAT = np.arange(-90, 91, 7.5)
EQUINOX, JUNE, DECEMBER = 79.5 / 365, 79.5 / 365 + 0.25, 79.5 / 365 - 0.25 + 1


def at(phase: float, lat: float) -> float:
    return float(daily_insolation(np.array([phase]), np.array([float(lat)]))[0, 0])


def test_insolation_by_hand():
    assert at(EQUINOX, 0) == pytest.approx(1361 / np.pi)  # 433 W m-2
    assert at(EQUINOX + 0.5, 60) == pytest.approx(1361 / np.pi / 2)
    # The sun circles at the height of the obliquity: its sine, all day.
    for phase, pole in ((JUNE, 90), (DECEMBER, -90)):
        assert at(phase, pole) == pytest.approx(1361 * np.sin(np.deg2rad(23.44)))
        assert at(phase, -pole) == 0
        assert at(phase, -0.75 * pole) == pytest.approx(0, abs=1e-9)  # 67.5 degrees: polar night
    assert at(EQUINOX, 90) == pytest.approx(0, abs=1e-9)


def test_the_daily_mean_is_the_mean_over_the_hours():
    hours = (np.arange(20000) + 0.5) / 20000 * 2 * np.pi - np.pi
    for phase in (0.0, 0.13, EQUINOX, JUNE, 0.7):
        sine = np.sin(np.deg2rad(23.44)) * np.sin(2 * np.pi * (phase - EQUINOX))
        for lat in (-80.0, -66.0, -30.0, 0.0, 12.0, 55.0, 75.0, 90.0):
            up = np.sin(np.deg2rad(lat)) * sine
            across = np.cos(np.deg2rad(lat)) * np.sqrt(1 - sine**2)
            expected = 1361 * np.clip(up + across * np.cos(hours), 0, None).mean()
            assert at(phase, lat) == pytest.approx(expected, abs=0.01)


def test_half_a_year_later_the_hemispheres_have_changed_places():
    phase = np.linspace(0, 1, 25)
    later = daily_insolation(phase + 0.5, LAT)
    np.testing.assert_allclose(later, daily_insolation(phase, LAT)[:, ::-1], atol=1e-9)


def test_the_year_of_the_whole_earth_is_a_quarter_of_the_solar_constant():
    lat, phase = np.arange(-89.5, 90), (np.arange(360) + 0.5) / 360
    area = np.cos(np.deg2rad(lat))
    mean = (daily_insolation(phase, lat) * area).sum(axis=1) / area.sum()
    np.testing.assert_allclose(mean, 1361 / 4, rtol=1e-3)


def test_the_sun_is_highest_in_the_right_months():
    months = np.array([f"2001-{m:02d}-01" for m in range(1, 13)], dtype="datetime64[ns]")
    fields = known_fields(["insolation"], months, "month", np.array([-45.0, 45.0]))[..., 0]
    assert fields[:, 1].argmax() == 5  # June
    assert fields[:, 0].argmax() == 11  # December
    days = np.arange("2001-01-01", "2002-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    north = known_fields(["insolation"], days, "day", np.array([45.0]))[:, 0, 0]
    assert abs(days[north.argmax()] - np.datetime64("2001-06-21")) <= np.timedelta64(2, "D")
    assert abs(days[north.argmin()] - np.datetime64("2001-12-21")) <= np.timedelta64(2, "D")


def test_channels_are_named_in_order_and_of_the_order_of_one():
    days = np.arange("2001-01-01", "2003-01-01", 5, dtype="datetime64[D]").astype("datetime64[ns]")
    fields = known_fields(["insolation", "season"], days, "day", LAT)
    assert known_names(["insolation", "season"]) == ["insolation", "cos_season", "sin_season"]
    assert fields.shape == (days.size, LAT.size, 3)
    assert fields.dtype == np.float32
    assert fields.min() >= -1
    assert fields.max() <= 1
    light = daily_insolation((np.array([0.0])), LAT)[0]
    np.testing.assert_allclose(fields[0, :, 0], light / 500 - 0.6, atol=1e-6)
    np.testing.assert_allclose(fields[0, :, 1:], [[1, 0]] * LAT.size, atol=1e-6)
    np.testing.assert_allclose((fields[..., 1:] ** 2).sum(axis=-1), 1, atol=1e-5)
    assert known_fields([], days, "day", LAT).shape == (days.size, LAT.size, 0)


def test_a_quarter_of_the_year_turns_the_season_by_a_right_angle_in_any_calendar():
    days = np.array([cftime.Datetime360Day(2001, m, 1) for m in (1, 4, 7, 10)])
    fields = known_fields(["season"], days, "day", np.array([10.0]))[:, 0]
    np.testing.assert_allclose(fields, [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-6)


def test_a_month_counts_by_its_middle_whatever_its_stamp():
    first = np.array(["2001-02-01", "2001-03-01"], dtype="datetime64[ns]")
    last = np.array(["2001-02-28", "2001-03-31"], dtype="datetime64[ns]")
    names = ["season", "insolation"]
    ours, theirs = (known_fields(names, times, "month", LAT) for times in (first, last))
    np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(known_fields(names, first, "day", LAT), ours)
