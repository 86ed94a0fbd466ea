"""What is fitted on training dates is exact where it can be, invertible, and blind to gaps."""

from __future__ import annotations

import json

import cftime
import numpy as np
import pytest
import xarray as xr
from conftest import small_config

from gridcast.config.data import VariableConfig
from gridcast.config.frames import FramesConfig
from gridcast.config.schema import SplitsConfig
from gridcast.errors import DataError
from gridcast.frames.climatology import Climatology
from gridcast.frames.gaps import require_complete, treat_gaps
from gridcast.frames.scaling import Scaler
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform
from gridcast.frames.windows import (
    Observed,
    hindcast_windows,
    positions_at,
    shuffled,
    whole_windows,
)
from gridcast.opening import open_source
from gridcast.preparation import prepare
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


def fitted(series: xr.DataArray, transform: str = "none", **frames) -> FrameTransform:
    axis = TimeAxis.of(series["time"].values)
    inside = axis.inside((1950, 1, 1), (1958, 12, 31))
    config = FramesConfig.model_validate({"climatology": {"harmonics": 2}} | frames)
    variable = VariableConfig.model_validate({"name": "ersst-v5", "transform": transform})
    return FrameTransform.fit(series, axis, inside, config, variable)


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


def holed(ocean: xr.DataArray) -> tuple[xr.DataArray, int, int]:
    """The ocean without one value, of June 1951, in a cell that otherwise has them all."""
    values = ocean.values.copy()
    row, column = (int(index[-1]) for index in np.nonzero(np.isfinite(values[0])))
    values[17, row, column] = np.nan
    return with_values(ocean, values), row, column


def treated(series: xr.DataArray, **frames) -> tuple[xr.DataArray, TimeAxis]:
    axis = TimeAxis.of(series["time"].values)
    found, treated_axis = treat_gaps([series], axis, FramesConfig.model_validate(frames))
    return found[0], treated_axis


def test_a_value_missing_inside_the_mask_is_refused_and_named(ocean):
    require_complete(ocean)
    series, row, column = holed(ocean)
    lat, lon = float(ocean["lat"][row]), float(ocean["lon"][column])
    with pytest.raises(DataError, match=f"at 1951-06-01, lat {lat:g}, lon {lon:g}"):
        require_complete(series)
    with pytest.raises(DataError, match="1 of 168 dates and 1 of") as error:
        treated(series)
    assert "fix: frames.missing: drop or mask" in str(error.value)


def test_a_missing_date_is_refused_and_named_unless_it_is_asked_to_be_left_out(ocean):
    complete, axis = treated(ocean)
    assert complete is ocean
    assert axis.times.size == 168
    gap = ocean.isel(time=np.r_[0:17, 19:168])
    with pytest.raises(DataError, match=r"dates are missing: 2 step.s. missing between") as error:
        treated(gap)
    assert "1951-05-01 and 1951-08-01" in str(error.value)
    assert "fix: frames.missing: drop" in str(error.value)
    series, axis = treated(gap, missing="drop")
    assert series is gap
    assert axis.steps[[16, 17]].tolist() == [16, 19]


def test_dropping_leaves_out_each_date_that_lacks_a_value_as_if_it_were_not_in_the_file(ocean):
    series, *_ = holed(ocean)
    dropped, axis = treated(series, missing="drop")
    same, expected = treated(ocean.isel(time=np.r_[0:17, 18:168]), missing="drop")
    assert dropped.values.tobytes() == same.values.tobytes()
    np.testing.assert_array_equal(dropped["time"], same["time"])
    np.testing.assert_array_equal(axis.steps, expected.steps)
    assert (axis.unit, axis.every) == ("month", 1)
    for leads in (1, 3):
        windows = whole_windows(axis, np.ones(167, bool), 2, leads)
        assert not {15, 16, 17} & set(windows[np.isin(windows, [16 - leads + 1, 16, 17])])


def test_dropping_needs_dates_that_are_whole(ocean):
    values = ocean.values.copy()
    row, column = (int(index[-1]) for index in np.nonzero(np.isfinite(values[0])))
    values[1:, row, column] = np.nan
    with pytest.raises(DataError, match="drop leaves 1 dates") as error:
        treated(with_values(ocean, values), missing="drop")
    assert "fix: frames.missing: mask" in str(error.value)


def test_masking_gives_a_frame_to_every_step_and_empty_ones_before_the_first(ocean):
    series, row, column = holed(ocean.isel(time=np.r_[0:100, 103:168]))
    full, axis = treated(series, missing="mask", inputs=4)
    assert axis.gaps == []
    assert axis.steps.tolist() == list(range(3 + 168))
    assert str(axis.times[0])[:10] == "1949-10-01"
    np.testing.assert_array_equal(axis.times[3:], ocean["time"].values)
    assert np.isnan(full.values[:3]).all()
    assert np.isnan(full.values[3 + 100 : 3 + 103]).all()
    np.testing.assert_array_equal(full.values[3:103], series.values[:100])
    np.testing.assert_array_equal(full.values[106:], series.values[100:])
    assert np.isnan(full.values[3 + 17, row, column])


def test_frames_are_nan_exactly_where_nothing_was_observed_and_fitted_without_it(ocean):
    series, row, column = holed(ocean)
    frames = fitted(series).frames(series)[..., 0]
    assert np.argwhere(np.isnan(frames)).tolist() == [[17, row, column]]
    # In that cell the climatology is the one of all other dates.
    times, others = ocean["time"].values[:108], np.arange(108) != 17
    one = np.zeros(ocean.shape[1:], bool)
    one[row, column] = True
    alone = np.where(one, ocean.values[:108][others], np.nan)
    expected = Climatology.fit(alone, times[others], one, unit="month", harmonics=2)
    found = fitted(series).climatology.coefficients[:, row, column]
    np.testing.assert_allclose(found, expected.coefficients[:, row, column], atol=1e-8)


def test_a_cell_with_fewer_observations_than_coefficients_is_refused(ocean):
    values = ocean.values.copy()
    row, column = (int(index[-1]) for index in np.nonzero(np.isfinite(values[0])))
    values[4:108, row, column] = np.nan
    with pytest.raises(DataError, match=r"5 coefficients needs as many observations .* one has 4"):
        fitted(with_values(ocean, values))


# ---------------------------------------------------------------- splits


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


@pytest.mark.parametrize("seed", range(6))
def test_masked_windows_are_those_of_a_plain_loop(seed):
    generator = np.random.default_rng(seed)
    axis = TimeAxis.of(months("2000-01", 1200))
    seen, verified = generator.random((2, 1200)) < 0.4
    inside = np.repeat(generator.random(240) > 0.3, 5)
    inputs, leads, least = 4, 2, 1 + seed % 3
    observed = Observed(seen, verified, least)
    whole, judged = [], []
    for i in range(inputs - 1, 1200):
        history = range(i - inputs + 1, i + 1)
        ahead = [t for t in range(i + 1, i + leads + 1) if t < 1200]
        enough = seen[i] and sum(seen[t] for t in history) >= least
        # A frame without any observation belongs to no split.
        own = all(inside[t] or not (seen[t] or verified[t]) for t in [*history, *ahead])
        if enough and len(ahead) == leads and own and any(verified[t] for t in ahead):
            whole.append(i)
        if enough and any(inside[t] and verified[t] for t in ahead):
            judged.append(i)
    assert whole_windows(axis, inside, inputs, leads, observed).tolist() == whole
    assert hindcast_windows(axis, inside, inputs, leads, observed).tolist() == judged
    assert judged
    assert any(not inside[i - inputs + 1 : i + leads + 1].all() for i in whole)


# ---------------------------------------------------------------- a whole experiment


def test_an_experiment_refuses_gaps_unless_told_what_to_do_with_them(ocean):
    gap = ocean.isel(time=np.r_[0:17, 18:168])
    config = small_config()
    with pytest.raises(DataError, match="dates are missing: 1 step"):
        prepare(config, open_source(config, gap))
    whole = prepare(config, open_source(config, ocean))
    assert whole.observed is None
    dropped, masked = (
        prepare(one, open_source(one, gap))
        for one in (
            small_config(frames={"missing": "drop"}),
            small_config(frames={"missing": "mask", "least": 2}),
        )
    )
    # Windows by their initial step: those of 3 inputs and 2 leads that hold step 17 are left out.
    every = set(range(2, 106))
    assert set(whole.train_windows.tolist()) == every
    assert set(dropped.axis.steps[dropped.train_windows].tolist()) == every - set(range(15, 20))
    # Masked, step 17 cannot be the last input, but may lack otherwise; two more begin the record.
    assert masked.observed is not None
    expected = ({1} | every) - {17}
    assert {i - 2 for i in masked.train_windows.tolist()} == expected
    sea = masked.fields.target_mask[..., 0]
    assert np.isnan(masked.arrays.values[:2, sea]).all()
