"""Rain: a climatology of amounts, forecasts that are never negative, scores in millimetres."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from conftest import small_config
from flax import nnx
from scipy import stats

import gridcast
from gridcast.config import Config
from gridcast.errors import DataError
from gridcast.fitting import compile_setup
from gridcast.frames.rain import rain_climatology
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.run import Run

pytestmark = pytest.mark.usefixtures("no_pictures")

SPLITS = {"train": [1950, 1955], "validation": [1956, 1957], "test": [1958, 1960]}
BEFORE = slice("1950", "1955")
TESTED = slice("1958", "1960")
AMOUNTS = {
    "train": {"loss": "bernoulli_gamma"},
    "model": {"base": "climatology"},
}
MONTHLY = {"climatology": {"kind": "monthly"}}


@cache
def rain() -> xr.DataArray:
    """Eleven years of gamma distributed rain on 4 x 6 cells, often dry; two cells unknown."""
    time = xr.date_range("1950-01-01", periods=132, freq="MS")
    random = np.random.default_rng(0)
    season = 2 + np.cos(2 * np.pi * np.arange(132) / 12)[:, None, None]
    values = random.gamma(0.8, 1.5, (132, 4, 6)) * season
    # Wet and dry spells, so that persistence is worth something.
    values[1:] = 0.5 * values[1:] + 0.5 * values[:-1]
    values[random.random(values.shape) < 0.3] = 0.0
    values[:, 1, 2:4] = np.nan
    lat, lon = np.linspace(-45, 45, 4), np.arange(6) * 60.0
    return xr.DataArray(
        values.astype(np.float32),
        {"time": time, "lat": lat, "lon": lon},
        ("time", "lat", "lon"),
        "precip",
        {"units": "mm/day"},
    )


MASK = np.isfinite(rain().values[0])


def area() -> np.ndarray:
    """Relative cell areas of known cells, from the sines of their edges; they sum to 1."""
    edges = np.deg2rad([-60, -30, 0, 30, 60])
    cells = np.where(MASK, np.diff(np.sin(edges))[:, None], 0.0)
    return cells / cells.sum()


def config_of(**sections: Any) -> Config:
    data = {"lowest": 0.0} | sections.pop("data", {})
    return small_config(splits=SPLITS, frames=MONTHLY, data=data, **sections)


def untrained(**sections: Any) -> tuple[Setup, Run]:
    config = config_of(**sections)
    setup = prepare(config, open_source(config, rain()))
    return setup, Run(Path(), config, setup.fields, setup.model(), "", 72)


# ---------------------------------------------------------------- the climatology of amounts


def test_the_climatology_has_the_moments_of_the_wet_amounts():
    """What scipy says of the fitted gamma distribution is what numpy says of the sample."""
    amounts, months = rain().values[:72, :, :, None], np.tile(np.arange(1, 13), 6)
    logit, log_shape, log_mean = np.moveaxis(rain_climatology(amounts, months, MASK), 1, 0)
    checked = 0
    for month, i, j in np.ndindex(12, 4, 6):
        if not MASK[i, j]:
            continue
        sample = amounts[months == month + 1, i, j, 0].astype(np.float64)
        wet = sample[sample > 0]
        probability = 1 / (1 + np.exp(-logit[month, i, j, 0]))
        assert probability == pytest.approx((wet.size + 0.5) / 7, rel=1e-5)
        shape, mean = np.exp(log_shape[month, i, j, 0]), np.exp(log_mean[month, i, j, 0])
        gamma = stats.gamma(shape, scale=mean / shape)
        if wet.size:
            assert gamma.mean() == pytest.approx(wet.mean(), rel=1e-5)
        if wet.size > 2 and 0.21 < shape < 49:
            assert gamma.var() == pytest.approx(wet.var(ddof=1), rel=1e-4)
            checked += 1
        elif wet.size > 2:
            assert not 0.2 < wet.mean() ** 2 / wet.var(ddof=1) < 50
        else:
            assert shape == 1
    assert checked > 150


def test_a_month_that_was_never_wet_takes_the_smallest_amount_ever_seen():
    """Also where this amount is large in the units of the variable."""
    amounts = np.array([0.0, 3.0, 0.0, 7.0, 0.0, 5.0], np.float32)[:, None, None, None]
    months = np.array([1, 2, 1, 2, 1, 2])
    table = rain_climatology(amounts, months, np.ones((1, 1), bool))[..., 0, 0, 0]
    assert np.exp(table[0, 2]) == pytest.approx(3.0)
    assert np.exp(table[1, 2]) == pytest.approx(5.0)
    assert 1 / (1 + np.exp(-table[0, 0])) == pytest.approx(0.5 / 4)
    # In a tenth of the unit all amounts are ten times as large.
    tenth = rain_climatology(10 * amounts, months, np.ones((1, 1), bool))[..., 0, 0, 0]
    np.testing.assert_allclose(tenth - table, np.array([[0, 0, np.log(10)]] * 12), atol=1e-5)


def test_unobserved_dates_count_for_nothing():
    amounts, months = rain().values[:72, :, :, None].copy(), np.tile(np.arange(1, 13), 6)
    amounts[12:24] = np.nan
    with_gap = rain_climatology(amounts, months, MASK)
    kept = np.r_[0:12, 24:72]
    np.testing.assert_allclose(with_gap, rain_climatology(amounts[kept], months[kept], MASK))
    assert (with_gap[:, :, ~MASK] == 0).all()


def test_amounts_below_zero_are_refused():
    amounts = rain().values[:72, :, :, None].copy()
    amounts[3, 0, 0] = -0.5
    with pytest.raises(DataError, match=r"found -0\.5\n.*no value below 0"):
        rain_climatology(amounts, np.tile(np.arange(1, 13), 6), MASK)


@pytest.fixture(scope="module")
def amounts() -> tuple[Setup, Run]:
    return untrained(**AMOUNTS)


def by_month(series: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[12 lat lon] probability of rain, gamma shape and mean of wet training amounts."""
    training = series.sel(time=BEFORE)
    months = training["time"].dt.month.values
    table = rain_climatology(training.values[..., None], months, MASK)[..., 0].astype(np.float64)
    return 1 / (1 + np.exp(-table[:, 0])), np.exp(table[:, 1]), np.exp(table[:, 2])


def test_untrained_it_forecasts_the_mean_of_each_cell_and_month(amounts):
    setup, run = amounts
    probability, _, mean = by_month(rain())
    initial = np.arange(70, 90)
    made = run.predictor(setup.arrays, initial)[..., 0]
    for k, start in enumerate(initial):
        for lead in (1, 2):
            month = (start + lead) % 12
            expected = np.where(MASK, probability[month] * mean[month], 0.0)
            found = np.where(MASK, made[k, lead - 1], 0.0)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Jeffreys' prior aside this is the mean of all training dates of the month.
    plain = rain().sel(time=BEFORE).groupby("time.month").mean().values[..., MASK]
    ratio = (probability * mean)[:, MASK] / np.where(plain > 0, plain, np.nan)
    assert np.nanmax(np.abs(np.log(ratio))) < np.log(1.5 / 7 * 6)


def test_untrained_its_loss_is_the_negative_log_likelihood_of_scipy(amounts):
    setup, _ = amounts
    stepper, series, weights, _ = compile_setup(setup)
    initial = setup.validation_windows[:3]
    found = np.asarray(stepper.losses(weights, series, initial[None]))[0]
    probability, shape, mean = by_month(rain())
    for k, start in enumerate(initial):
        total = 0.0
        for lead in (1, 2):
            month = (start + lead) % 12
            came = rain().values[start + lead].astype(np.float64)
            density = stats.gamma.logpdf(came, shape[month], scale=mean[month] / shape[month])
            with np.errstate(divide="ignore", invalid="ignore"):
                wet = np.log(probability[month]) + density
                likelihood = np.where(came > 0, wet, np.log1p(-probability[month]))
            total -= (area() * np.where(MASK, likelihood, 0.0)).sum()
        assert found[k] == pytest.approx(total / 2, rel=1e-4)


# ---------------------------------------------------------------- never below the lowest


@pytest.mark.parametrize(
    "sections", [{}, {"data": {"transform": "cube_root"}}, AMOUNTS], ids=["mse", "cube", "amounts"]
)
def test_no_forecast_and_no_reference_falls_below_the_lowest(sections):
    setup, run = untrained(**sections)
    # A network that says a lot, unlike an untrained one.
    weights = nnx.state(run.model, nnx.Param)
    nnx.update(run.model, jax.tree.map(lambda p: p + 0.3, weights))
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    assert set(made.forecasts) > {"model", "climatology", "persistence", "lim"}
    touched = set()
    for name, anomaly in made.forecasts.items():
        values = (anomaly + made.normal)[..., MASK, :]
        assert values.min() >= -1e-5, name
        if np.isclose(values, 0.0, atol=1e-5).any():
            touched.add(name)
    # Anomaly persistence of a dry spell would be negative rain in a drier month.
    assert "persistence" in touched


def test_without_a_lowest_value_forecasts_may_fall_below_zero():
    setup, run = untrained(data={"lowest": None})
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    persistence = (made.forecasts["persistence"] + made.normal)[..., MASK, :]
    assert persistence.min() < -0.1


# ---------------------------------------------------------------- trained, with a transform


KINDS = ("log1p", "quantile")
THRESHOLDS = [1.0, 4.0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Run]:
    runs = {}
    for kind in KINDS:
        directory = tmp_path_factory.mktemp(kind)
        config = config_of(
            data={"transform": kind},
            train={"epochs": 1},
            verification={"thresholds": THRESHOLDS, "neighbourhood": [1, 3]},
            output={"directory": str(directory)},
        )
        runs[kind] = gridcast.train(config, rain())
    return runs


def file_of(run: Run, name: str) -> xr.Dataset:
    return xr.load_dataset(run.directory / f"{name}.nc")


def pairs(run: Run, lead: int) -> tuple[xr.DataArray, xr.DataArray]:
    """The model's forecasts and what came, over the test dates, by label."""
    one = file_of(run, "hindcast")["precip"].isel(forecast_period=lead - 1)
    one = one.swap_dims(forecast_reference_time="time").sel(time=TESTED)
    return one, rain().sel(time=TESTED)


def mean(field: xr.DataArray) -> float:
    return float((np.nan_to_num(field.values) * area()).sum(axis=(1, 2)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_references_are_fitted_and_scored_in_the_units_of_the_variable(kind, trained):
    """By hand from the observations: monthly means, and the anomaly that stays."""
    scores, series = file_of(trained[kind], "scores"), rain()
    normal = series.sel(time=BEFORE).groupby("time.month").mean()
    anomaly = series.groupby("time.month") - normal
    level = series - anomaly
    for lead in (1, 2):
        stays = np.maximum(anomaly.shift(time=lead) + level, 0.0)
        damping = damping_of(anomaly.sel(time=BEFORE), lead)
        damped = np.maximum(damping * anomaly.shift(time=lead) + level, 0.0)
        forecasts = {"climatology": level, "persistence": stays, "damped_persistence": damped}
        for name, forecast in forecasts.items():
            error = (forecast - series).sel(time=TESTED)
            found = scores.sel(forecast=name, lead=lead)
            assert float(found["rmse"]) == pytest.approx(np.sqrt(mean(error**2)), rel=1e-4), name
            assert float(found["mae"]) == pytest.approx(mean(abs(error)), rel=1e-4), name


def damping_of(anomaly: xr.DataArray, lead: int) -> np.ndarray:
    """Regression of the anomaly on the one `lead` months before, in each cell."""
    now, later = anomaly.values[:-lead].astype(np.float64), anomaly.values[lead:]
    return (now * later).sum(axis=0) / (now**2).sum(axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_the_model_are_of_physical_values(kind, trained):
    scores = file_of(trained[kind], "scores").sel(forecast="model")
    for lead in (1, 2):
        forecast, came = pairs(trained[kind], lead)
        error = forecast - came
        assert forecast.sizes["time"] == scores["dates"].sel(lead=lead) == 36
        rmse, bias = (scores[name].sel(lead=lead) for name in ("rmse", "bias"))
        assert float(rmse) == pytest.approx(np.sqrt(mean(error**2)), rel=1e-4)
        assert float(bias) == pytest.approx(mean(error), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_forecast_file_transformed_again_is_what_the_network_made(kind, trained):
    run = trained[kind]
    transform = run.transform
    forecast = file_of(run, "forecast")["precip"]
    series = open_source(run.config, rain()).series
    axis = prepare(run.config, open_source(run.config, rain())).axis
    month = axis.times_at(axis.steps[-1] + np.arange(1, 3))
    arrays = run.fields.arrays_of(series, axis, month)
    made = run.predictor(arrays, np.array([131]))[0, ..., 0]
    values = forecast.values[0]
    scaled = transform.skew.forward(values) - transform.climatology.at(month)
    scaled = scaled / transform.scaler.deviation
    inside = (values > 1e-3) & MASK
    assert inside.mean() > 0.5
    # Where a quantile is shared by many values, as 0 is, scores do not come back.
    np.testing.assert_allclose(scaled[inside], made[inside], atol=1e-3)
    assert (values[:, MASK] >= 0).all()
    assert np.isnan(values[:, ~MASK]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_event_scores_follow_from_the_hindcast_file_and_the_observations(kind, trained):
    scores = file_of(trained[kind], "scores").sel(forecast="model")
    for lead in (1, 2):
        forecast, came = (one.values for one in pairs(trained[kind], lead))
        for threshold in THRESHOLDS:
            here = scores.sel(lead=lead, threshold=threshold)
            ours, theirs = (MASK & (one > threshold) for one in (forecast, came))
            either = (ours | theirs).sum()
            assert either > 5
            assert float(here["csi"]) == pytest.approx((ours & theirs).sum() / either)
            for side in (1, 3):
                expected = fractions(ours, theirs, side)
                assert float(here["fss"].sel(side=side)) == pytest.approx(expected)


def fractions(ours: np.ndarray, theirs: np.ndarray, side: int) -> float:
    """Fractions skill score, square by square; they end at the edges of the grid."""
    reach, error, worst = side // 2, 0.0, 0.0
    for date in range(len(ours)):
        for i, j in np.argwhere(MASK):
            rows = slice(max(i - reach, 0), i + reach + 1)
            columns = slice(max(j - reach, 0), j + reach + 1)
            known = MASK[rows, columns]
            f, o = (one[date, rows, columns][known].mean() for one in (ours, theirs))
            error += (f - o) ** 2
            worst += f**2 + o**2
    return 1 - error / worst
