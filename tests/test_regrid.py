"""Other grids: means and planes are kept, holes do not spread; other dates: each in its step."""

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.canonical import canonical
from gridcast.sources.regrid import align_dates, to_grid
from gridcast.sources.static import on_grid
from gridcast.timeaxis import TimeAxis


def centres(low: float, high: float, count: int) -> np.ndarray:
    return low + (high - low) / count * (np.arange(count) + 0.5)


def grid(lat, lon) -> Grid:
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    return Grid(lat, lon, np.ones((lat.size, lon.size), bool))


def days(count: int) -> np.ndarray:
    return np.arange(count).astype("timedelta64[D]") + np.datetime64("2001-01-30", "ns")


def series(lat, lon, values=None, times=None) -> xr.DataArray:
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    times = days(2) if times is None else times
    if values is None:
        values = np.random.default_rng(0).normal(size=(len(times), lat.size, lon.size))
    coords = {"time": times, "lat": lat, "lon": lon}
    shaped = np.broadcast_to(values, (len(times), lat.size, lon.size)).astype(np.float32)
    return xr.DataArray(shaped, coords, ("time", "lat", "lon"), "rain", {"units": "mm day-1"})


def test_the_same_grid_gives_the_very_same_numbers():
    lat, lon = np.array([-50.0, -48.1, -46.4, -44.0]), centres(-30, 40, 7)
    source = series(lat, lon)
    source[:, 1, 2] = np.nan
    source[1, 0, 0] = np.nan
    out = to_grid(source, grid(lat + 1e-5, lon))
    assert out.values.tobytes() == source.values.tobytes()
    assert out.dims == ("time", "lat", "lon")
    assert (out.name, out.attrs, out.dtype) == ("rain", {"units": "mm day-1"}, np.float32)
    np.testing.assert_array_equal(out["lat"], lat + 1e-5)


def test_a_part_of_the_same_grid_gives_the_very_same_numbers_also_across_longitude_0():
    lat = np.rad2deg(np.arcsin(np.linspace(-0.95, 0.95, 12)))  # uneven: edges of a part are guesses
    source = series(lat, centres(0, 360, 24))
    source[:, 3] = np.nan
    out = to_grid(source, grid(lat[2:7], centres(-45, 60, 7)))
    expected = np.roll(source.values, 3, axis=2)[:, 2:7, :7]
    np.testing.assert_array_equal(out.values, expected)


@given(st.integers(2, 7), st.integers(3, 9), st.integers(0, 4), st.floats(-20, 20))
@settings(deadline=None, max_examples=25)
def test_from_finer_grids_the_area_mean_is_kept(rows, columns, extra, start):
    lat, lon = centres(-90, 90, 2 * rows + extra), centres(0, 360, 2 * columns + extra)
    source = series(lat, lon)
    target = grid(centres(-90, 90, rows), start + centres(0, 360, columns))
    out = to_grid(source, target)

    def mean(values, count):
        band = np.diff(np.sin(np.deg2rad(np.linspace(-90, 90, count + 1))))
        return np.average(values.mean(axis=2), axis=1, weights=band)

    expected = mean(source.values.astype(np.float64), lat.size)
    np.testing.assert_allclose(mean(out.values.astype(np.float64), rows), expected, atol=1e-6)


def test_from_finer_grids_by_hand():
    # Rows 0..30 and 30..60: sin 30 - sin 0 = 1/2, sin 60 - sin 30 = 0.3660254.
    source = series([15, 45, 75, 85], [15, 45, 75, 105], np.arange(16.0).reshape(4, 4))
    area = np.array([0.5, np.sqrt(3) / 2 - 0.5])
    expected = (area @ [0.5, 4.5]) / area.sum()
    out = to_grid(source, grid([30, 90], [30, 90]))
    assert out.values[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_from_coarser_grids_it_is_the_bilinear_interpolation_of_scipy():
    lat, lon = np.arange(-40, 41, 10.0), np.arange(100, 201, 12.5)
    source = series(lat, lon)
    target = grid(np.arange(-40, 41, 3.7), np.arange(100, 200, 2.9))
    places = np.stack(np.meshgrid(target.lat, target.lon, indexing="ij"), axis=-1)
    out = to_grid(source, target)
    for date in (0, 1):
        oracle = RegularGridInterpolator((lat, lon), source.values[date].astype(np.float64))
        np.testing.assert_allclose(out.values[date], oracle(places), atol=1e-6)


def test_each_axis_by_itself_is_finer_or_coarser():
    lat, lon, between = centres(-40, 40, 80), np.arange(100, 201, 10.0), np.arange(105, 196, 2.0)
    # One row in ten holds 10, and no centre of the target lies near: their mean is about 1.
    rows = np.where(np.arange(80) % 10 == 0, 10.0, 0.0)[:, None]
    out = to_grid(series(lat, lon, rows + 0.5 * lon), grid(centres(-40, 40, 8), between))
    np.testing.assert_allclose(out.values[0], np.tile(1 + 0.5 * between, (8, 1)), atol=0.1)


def test_bilinear_goes_through_longitude_zero():
    wave = (np.arange(12.0) - 3) ** 2  # 64 | 9 at the seam
    target = np.arange(-15, 345, 15.0)
    out = to_grid(series([-30, 0, 30], np.arange(12) * 30.0, wave), grid([-15, 0, 15], target))
    by_hand = np.interp(target % 360, np.arange(13) * 30.0, [*wave, wave[0]])
    np.testing.assert_allclose(out.values[0], np.tile(by_hand, (3, 1)), rtol=1e-6)


def test_a_sliver_that_lacks_does_not_lower_the_mean():
    source = series(centres(-30, 30, 60), centres(100.005, 180, 80), 7.0)
    target = grid(centres(-30, 30, 30), centres(100, 180, 40))
    np.testing.assert_allclose(to_grid(source, target).values, 7, rtol=1e-6)
    field = source.values[0].astype(np.float64)
    whole = on_grid(field, source["lat"].values, source["lon"].values, target)
    np.testing.assert_allclose(whole, 7, rtol=1e-12)


@pytest.mark.parametrize("count", [12, 72], ids=["coarser", "finer"])
def test_a_turn_of_the_source_around_the_earth_changes_nothing(count):
    lat, lon = centres(-90, 90, count), centres(0, 360, count)
    source = series(lat, lon)
    signed = source.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon")
    target = grid(centres(-30, 30, 15), centres(-25, 50, 15))
    out, other = (to_grid(canonical(one), target) for one in (source, signed))
    assert np.isfinite(out.values).all()
    np.testing.assert_array_equal(out.values, other.values)


def test_of_a_cell_that_is_partly_missing_the_rest_counts_if_it_is_half():
    values = np.tile([[1.0, 2.0, 10, 20], [3, 4, 30, 40]], (2, 1))
    source = series([-3, -1, 1, 3], [1, 3, 5, 7], values)
    for row, column, expected in (
        ([], [], (2.5, 25.0)),
        ([2], [0], (np.mean([2, 3, 4]), 25.0)),
        ([2, 3], [0, 0], (3.0, 25.0)),
        ([2, 2, 3], [0, 1, 0], (np.nan, 25.0)),
        ([2, 3, 3], [3, 2, 3], (2.5, np.nan)),
    ):
        holes = source.copy(deep=True)
        holes.values[1, row, column] = np.nan
        out = to_grid(holes, grid([-2, 2], [2, 6]))
        np.testing.assert_allclose(out.values[1, 1], expected, rtol=1e-3)
        np.testing.assert_allclose(out.values[0, 1], (2.5, 25.0), rtol=1e-3)  # only its own date


def test_between_coarse_cells_a_missing_one_leaves_the_nearer_half():
    source = series([0, 10], [0, 10], [[1.0, np.nan], [1.0, np.nan]])
    out = to_grid(source, grid([5], [1.0, 4.9, 5.1, 9.0])).values[0, 0]
    np.testing.assert_array_equal(out, [1, 1, np.nan, np.nan])


@pytest.mark.parametrize("width", [2.0, 8.0], ids=["finer", "coarser"])
def test_cells_outside_of_the_source_are_missing(width):
    source = series(np.arange(-20, 21, width), np.arange(100, 149, width), 7.0)
    target = grid(np.arange(-46, 47, 4.0), np.arange(0, 360, 4.0))
    out = to_grid(source, target).values[0]
    lat_in = np.abs(target.lat) <= 20 + width / 2
    lon_in = (target.lon >= 100 - width / 2) & (target.lon <= 148 + width / 2)
    expected = np.where(lat_in[:, None] & lon_in, 7.0, np.nan)
    np.testing.assert_array_equal(out, expected)


def test_a_source_without_any_value_on_the_grid_is_refused():
    source = series(centres(-30, 30, 6), centres(100, 180, 8))
    with pytest.raises(DataError, match=r"^rain has no value on the grid\n  found: lat -25 to 25"):
        to_grid(source, grid(centres(-30, 30, 6), centres(200, 280, 8)))
    with pytest.raises(DataError, match="no value on the grid"):
        to_grid(source * np.nan, grid(centres(-30, 30, 3), centres(100, 180, 4)))


MONTHS = np.array([f"2001-{m:02d}-01" for m in range(1, 13)], dtype="datetime64[ns]")


def on(times, values=None) -> xr.DataArray:
    numbers = np.arange(len(times)) if values is None else values
    return series([0], [0], np.reshape(numbers, (-1, 1, 1)), times)


def aligned(one: xr.DataArray, times) -> list[float]:
    out = align_dates(one, TimeAxis.of(times))
    np.testing.assert_array_equal(out["time"].values, times)
    assert (out.name, out.attrs, out.dtype) == (one.name, one.attrs, np.float32)
    return out.values.ravel().tolist()


@pytest.mark.parametrize(
    "stamps",
    [
        [np.datetime64(f"2001-{m:02d}-15T12:00", "ns") for m in range(1, 13)],
        [np.datetime64(f"2001-{m:02d}", "M") + 1 - np.timedelta64(1, "D") for m in range(1, 13)],
        [cftime.Datetime360Day(2001, m, 30) for m in range(1, 13)],
        [cftime.DatetimeNoLeap(2001, m, 1) for m in range(1, 13)],
    ],
    ids=["middle", "last day", "360_day", "noleap"],
)
def test_months_belong_together_whatever_their_stamp_and_calendar(stamps):
    times = np.array(stamps)
    times = times if times.dtype == object else times.astype("datetime64[ns]")
    np.testing.assert_array_equal(aligned(on(times), MONTHS), np.arange(12.0))
    back = aligned(on(MONTHS), times)
    np.testing.assert_array_equal(back, np.arange(12.0))


def test_dates_that_lack_are_missing_and_dates_too_many_are_left_out():
    out = aligned(on(MONTHS[[2, 3, 5, 6, 7]], [3, 4, 6, 7, 8]), MONTHS[3:10])
    np.testing.assert_array_equal(out, [4, np.nan, 6, 7, 8, np.nan, np.nan])


def test_days_belong_together_whatever_their_hour_and_a_leap_day_is_missing():
    leap = np.datetime64("2004-02-27", "ns") + np.arange(4).astype("timedelta64[D]")
    dates = [(2004, 2, 27), (2004, 2, 28), (2004, 3, 1)]
    noleap = np.array([cftime.DatetimeNoLeap(*date, 12) for date in dates])
    np.testing.assert_array_equal(aligned(on(noleap), leap), [0, 1, np.nan, 2])


def test_hours_have_to_be_equal():
    hours = np.datetime64("2004-02-27", "ns") + np.arange(5) * np.timedelta64(6, "h")
    np.testing.assert_array_equal(aligned(on(hours), hours[1:]), [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"^rain has no date of the first variable\n  found: 2004-"):
        align_dates(on(hours + np.timedelta64(3, "h")), TimeAxis.of(hours))


def test_years_belong_together_whatever_their_month():
    years = np.array([f"{y}-01-01" for y in range(2000, 2004)], dtype="datetime64[ns]")
    summers = np.array([f"{y}-07-01" for y in range(2001, 2005)], dtype="datetime64[ns]")
    np.testing.assert_array_equal(aligned(on(summers), years), [np.nan, 0, 1, 2])


@pytest.mark.parametrize("times", [days(9), MONTHS[::3], days(9)[::2]])
def test_another_frequency_is_refused(times):
    found = TimeAxis.of(times).frequency
    with pytest.raises(DataError, match=f"(?s)one value every {found}\n  expected: every month"):
        align_dates(on(times), TimeAxis.of(MONTHS))


def test_values_stay_with_their_dates_on_a_grid():
    source = series([0, 1], [0, 1, 2], times=MONTHS)
    out = align_dates(source, TimeAxis.of(MONTHS[4:]))
    np.testing.assert_array_equal(out.values, source.values[4:])
    np.testing.assert_array_equal(out["lon"], source["lon"])
