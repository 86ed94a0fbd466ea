"""What is fitted on training dates is exact where it can be, invertible, and blind to gaps."""

from __future__ import annotations

import json

import cftime
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gridcast.config.schema import FramesConfig, SplitsConfig
from gridcast.errors import DataError
from gridcast.frames.climatology import Climatology
from gridcast.frames.scaling import Scaler
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform, grid_of
from gridcast.frames.windows import (
    gather_inputs,
    gather_targets,
    hindcast_windows,
    positions_at,
    shuffled,
    whole_windows,
)
from gridcast.timeaxis import TimeAxis

MASK = np.array([[True, True, False], [True, True, True]])


def months(first: str, count: int) -> np.ndarray:
    return (np.datetime64(first, "M") + np.arange(count)).astype("datetime64[ns]")


def fields(columns: list[np.ndarray], seed: int = 0) -> np.ndarray:
    """A random combination of the columns in each cell, float64, NaN off the mask."""
    weights = np.random.default_rng(seed).standard_normal((len(columns), *MASK.shape))
    values = 20 + np.tensordot(np.stack(columns, axis=1), weights, axes=1)
    return np.where(MASK, values, np.nan)


def waves(turn: np.ndarray, harmonics: int) -> list[np.ndarray]:
    """Sines and cosines with 1, 2, ... turns; `turn` counts whole years."""
    angles = [2 * np.pi * k * turn for k in range(1, harmonics + 1)]
    return [f(angle) for angle in angles for f in (np.sin, np.cos)]


# ---------------------------------------------------------------- climatology


def test_climatology_finds_harmonics_and_trend_exactly_and_continues_them():
    count, known = np.arange(180), 96
    values = fields([*waves(count / 12, 3), count / 120])
    times = months("1990-01", 180)
    fit = Climatology.fit(values[:known], times[:known], MASK, unit="month", trend=True)
    np.testing.assert_allclose(fit.at(times)[:, MASK], values[:, MASK], atol=1e-9)
    # The control: what is not asked for is not fitted.
    for other in ({"trend": False}, {"trend": True, "harmonics": 2}):
        poor = Climatology.fit(values[:known], times[:known], MASK, unit="month", **other)
        assert np.abs(poor.at(times) - values)[:, MASK].max() > 0.1


@pytest.mark.parametrize(("calendar", "days"), [("noleap", 365), ("360_day", 360)])
def test_daily_climatology_is_exact_in_calendars_of_models(calendar, days):
    start = cftime.datetime(2001, 1, 1, calendar=calendar)
    units = "days since 2001-01-01"
    count = np.arange(5 * days)
    times = cftime.num2date(count, units, calendar=calendar)
    assert times[0] == start
    values = fields(waves((count % days) / days, 2))
    fit = Climatology.fit(
        values[: 3 * days], times[: 3 * days], MASK, unit=TimeAxis.of(times).unit, harmonics=2
    )
    np.testing.assert_allclose(fit.at(times)[:, MASK], values[:, MASK], atol=1e-9)


def test_monthly_climatology_is_the_mean_of_each_calendar_month(ocean):
    inside = slice(5, 5 + 100)  # not whole years
    series = ocean[inside]
    mask = np.isfinite(series.values[0])
    fit = Climatology.fit(series.values, series["time"].values, mask, unit="month", kind="monthly")
    expected = series.astype(np.float64).groupby("time.month").mean().values
    twelve = fit.at(months("1960-01", 12))
    np.testing.assert_allclose(twelve[:, mask], expected[:, mask], atol=1e-9)


def test_mean_climatology_and_yearly_series_have_no_season():
    values, times = fields(waves(np.arange(36) / 7, 3)), months("1990-01", 36)
    mean = Climatology.fit(values, times, MASK, unit="month", kind="mean").at(times)
    np.testing.assert_allclose(mean[:, MASK], np.tile(values[:, MASK].mean(0), (36, 1)))
    years = np.array([f"{y}-07-01" for y in range(1950, 1986)], "datetime64[ns]")
    yearly = Climatology.fit(values, years, MASK, unit="year", kind="harmonics").at(years)
    np.testing.assert_allclose(yearly[:, MASK], mean[:, MASK])


def test_climatology_of_too_few_dates_is_refused():
    values = fields(waves(np.arange(12) / 12, 1))
    fit = {"mask": MASK, "unit": "month"}
    with pytest.raises(DataError, match=r"a climatology of 7 coefficients .* found 6"):
        Climatology.fit(values[:6], months("1990-01", 6), **fit)
    Climatology.fit(values[:7], months("1990-01", 7), **fit)
    with pytest.raises(DataError, match=r"hold no month \[12\]"):
        Climatology.fit(values[:11], months("1990-01", 11), **fit, kind="monthly")
    Climatology.fit(values, months("1990-01", 12), **fit, kind="monthly")


# ---------------------------------------------------------------- scaling


def test_scaler_by_hand():
    anomaly = np.array([[[3.0, 1.0, np.nan]], [[-3.0, 1.0, np.nan]]])
    weight = np.array([[0.75, 0.25, 0.0]])
    one = Scaler.fit(anomaly, weight)
    np.testing.assert_allclose(one.deviation, [[np.sqrt(0.75 * 9 + 0.25)]])
    each = Scaler.fit(anomaly, weight, scaling="cell")
    np.testing.assert_array_equal(each.deviation, [[3.0, 1.0, 1.0]])
    for scaler in (one, each):
        np.testing.assert_allclose(scaler.unscale(scaler.scale(anomaly)), anomaly)


def test_scaler_of_what_never_varies_is_one():
    still = np.zeros((4, 1, 2))
    for scaling in ("variable", "cell"):
        deviation = Scaler.fit(still, np.full((1, 2), 0.5), scaling=scaling).deviation
        assert (deviation == 1.0).all()


def with_values(series: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    return series.copy(data=values)


def fitted(series: xr.DataArray, **frames) -> FrameTransform:
    axis = TimeAxis.of(series["time"].values)
    inside = axis.inside((1950, 1, 1), (1958, 12, 31))
    config = FramesConfig.model_validate({"climatology": {"harmonics": 2}} | frames)
    return FrameTransform.fit(series, axis, inside, config)


@pytest.mark.parametrize("trend", [True, False])
@pytest.mark.parametrize("value", [-1.8, 27.3, 300.1])  # sea ice, or any number with rounding
def test_a_cell_that_never_varies_stays_still_after_scaling_by_cell(ocean, value, trend):
    values = ocean.values.copy()
    row, column = (index[0] for index in np.nonzero(np.isfinite(values[0])))
    values[:, row, column] = value
    series = with_values(ocean, values)
    transform = fitted(series, scaling="cell", climatology={"harmonics": 3, "trend": trend})
    assert transform.scaler.deviation[row, column] == 1.0
    frames = transform.frames(series)
    assert np.abs(frames[:, row, column]).max() < 1e-6 * value**2
    assert np.abs(frames).max() > 1.0


# ---------------------------------------------------------------- transform


@pytest.mark.parametrize("scaling", ["variable", "cell"])
def test_frames_come_back_as_the_series(ocean, scaling):
    transform = fitted(ocean, scaling=scaling)
    frames, times = transform.frames(ocean), ocean["time"].values
    mask = transform.grid.mask
    assert frames.dtype == np.float32
    assert not frames[:, ~mask].any()
    # As forecasts: [batch, lead, lat, lon] with a date for each field, in any order.
    order = np.random.default_rng(0).permutation(times.size).reshape(2, -1)
    back = transform.physical(frames[order][..., 0], times[order])
    np.testing.assert_allclose(back[:, :, mask], ocean.values[order][:, :, mask], atol=2e-5)
    assert np.isnan(back[:, :, ~mask]).all()


def test_scaled_training_frames_have_unit_variance_and_no_season(ocean):
    transform = fitted(ocean)
    training = transform.frames(ocean)[:108, ..., 0].astype(np.float64)
    square = ((training**2).mean(axis=0) * transform.grid.weight).sum()
    np.testing.assert_allclose(square, 1.0, rtol=1e-5)
    np.testing.assert_allclose(training.mean(axis=0), 0.0, atol=1e-5)


def test_values_off_the_mask_cannot_reach_the_frames(ocean):
    transform = fitted(ocean)
    clean = transform.frames(ocean)
    for junk in (1e30, np.inf, -np.inf, 7.0):
        values = np.where(transform.grid.mask, ocean.values, np.float32(junk))
        with np.errstate(invalid="ignore"):
            found = transform.frames(with_values(ocean, values))
        assert found.tobytes() == clean.tobytes()


def test_transform_survives_the_way_through_arrays_and_json(ocean):
    transform = fitted(ocean, climatology={"kind": "monthly", "trend": True})
    about = json.loads(json.dumps(transform.about()))
    again = FrameTransform.restore(transform.arrays(), about)
    assert again.frames(ocean).tobytes() == transform.frames(ocean).tobytes()
    assert (again.step, again.units, again.variable) == ("month", "degC", "sst")


def test_a_value_missing_inside_the_mask_is_named(ocean):
    grid_of(ocean)
    values = ocean.values.copy()
    row, column = (index[-1] for index in np.nonzero(np.isfinite(values[0])))
    values[17, row, column] = np.nan
    lat, lon = float(ocean["lat"][row]), float(ocean["lon"][column])
    with pytest.raises(DataError, match=f"at 1951-06-01, lat {lat:g}, lon {lon:g}"):
        grid_of(with_values(ocean, values))


def test_season_is_the_place_in_the_year(ocean):
    season = fitted(ocean).season(ocean["time"].values)
    np.testing.assert_allclose((season**2).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(season[:12], season[12:24])
    np.testing.assert_allclose(season[0], [np.cos(np.pi / 12), np.sin(np.pi / 12)], rtol=1e-6)


def test_splits_hold_their_first_and_last_dates_and_nothing_else(ocean):
    axis = TimeAxis.of(ocean["time"].values)
    config = {"train": ["1950-03", "1955-05"], "validation": [1956, 1957], "test": [1960, 1962]}
    splits = Splits.by_date(axis, SplitsConfig.model_validate(config))
    found = [
        axis.times[s][[0, -1]].astype("datetime64[M]").astype(str).tolist()
        for s in vars(splits).values()
    ]
    assert found == [["1950-03", "1955-05"], ["1956-01", "1957-12"], ["1960-01", "1962-12"]]
    config["test"] = [2001, 2002]
    with pytest.raises(DataError, match=r"no date of splits\.test") as error:
        Splits.by_date(axis, SplitsConfig.model_validate(config))
    assert "1950-01-01 to 1963-12-01" in str(error.value)


# ---------------------------------------------------------------- windows


def gappy(seed: int) -> tuple[TimeAxis, list[int], np.ndarray]:
    """A monthly axis with months taken out, its months by number, and a split with islands."""
    generator = np.random.default_rng(seed)
    kept = np.flatnonzero(generator.random(60) > 0.12)
    axis = TimeAxis.of(months("2000-01", 60)[kept])
    inside = np.repeat(generator.random(12) > 0.3, 5)[kept]
    return axis, kept.tolist(), inside


@pytest.mark.parametrize("seed", range(8))
def test_windows_never_reach_across_a_gap_or_out_of_their_split(seed):
    axis, kept, inside = gappy(seed)
    inputs, leads = 1 + seed % 3, 1 + seed % 2
    allowed = {month for month, belongs in zip(kept, inside, strict=True) if belongs}
    expected = [
        i
        for i, month in enumerate(kept)
        if set(range(month - inputs + 1, month + leads + 1)) <= allowed
    ]
    found = whole_windows(axis, inside, inputs, leads)
    assert found.tolist() == expected
    assert 0 < len(expected) < len(kept)


@pytest.mark.parametrize("seed", range(8))
def test_hindcast_windows_need_their_inputs_and_a_date_to_verify(seed):
    axis, kept, inside = gappy(seed)
    inputs, leads = 1 + seed % 3, 1 + seed % 4
    asked = {month for month, belongs in zip(kept, inside, strict=True) if belongs}
    expected = [
        i
        for i, month in enumerate(kept)
        if set(range(month - inputs + 1, month + 1)) <= set(kept)
        and set(range(month + 1, month + leads + 1)) & asked
    ]
    assert hindcast_windows(axis, inside, inputs, leads).tolist() == expected


def test_without_gaps_every_lead_verifies_on_every_date_of_the_split():
    axis = TimeAxis.of(months("2000-01", 60))
    inside = axis.inside((2003, 1, 1), (2003, 12, 31))
    initial = hindcast_windows(axis, inside, 3, 5)
    targets = positions_at(axis, initial, np.arange(1, 6))
    for lead in range(5):
        assert set(np.flatnonzero(inside)) <= set(targets[:, lead])


def test_positions_are_counted_on_the_calendar():
    axis = TimeAxis.of(np.delete(months("2000-01", 12), 5))
    found = positions_at(axis, np.array([0, 4, 10]), np.array([-1, 0, 1, 2]))
    np.testing.assert_array_equal(found, [[-1, 0, 1, 2], [3, 4, -1, 5], [9, 10, -1, -1]])


def test_an_epoch_is_a_permutation_and_a_pure_function_of_seed_and_epoch():
    windows = np.arange(100, 123)
    first = shuffled(windows, 5, 0, 0)
    assert first.shape == (4, 5)
    assert len(set(first.ravel())) == 20
    assert set(first.ravel()) <= set(windows)
    np.random.default_rng(0).random(10)
    np.testing.assert_array_equal(shuffled(windows, 5, 0, 0), first)
    for other in ((0, 1), (1, 0)):
        assert (shuffled(windows, 5, *other) != first).any()
    # What one epoch leaves out is not left out for ever.
    assert {w for e in range(10) for w in shuffled(windows, 5, 0, e).ravel()} == set(windows)
    small = shuffled(windows, 64, 0, 0)
    assert small.shape == (1, 23)
    np.testing.assert_array_equal(np.sort(small[0]), windows)


def test_gathered_frames_are_those_of_numpy_indexing():
    values = np.random.default_rng(0).standard_normal((20, 2, 3, 1)).astype(np.float32)
    initial = np.array([4, 2, 15])
    device = jnp.asarray(values), jnp.asarray(initial)
    inputs = np.stack([values[i - 2 : i + 1] for i in initial])
    targets = np.stack([values[i + 1 : i + 5] for i in initial])
    np.testing.assert_array_equal(gather_inputs(*device, 3), inputs)
    np.testing.assert_array_equal(gather_targets(*device, 4), targets)
