"""The noise of a LIM: the covariances that theory asks for, its seasons, its memory and its end."""

from __future__ import annotations

from dataclasses import replace

import cftime
import numpy as np
import pytest

from gridcast.errors import DataError
from gridcast.references import TrainingSeries, linear_inverse_model
from gridcast.references.lim import fit_operators
from gridcast.references.noise import Noise, ensemble, fit_noise, simulate
from gridcast.timeaxis import TimeAxis

SHAPE = (3, 4, 1)
LAND = (0, 1)
LEADS = 4


def months_from_year_one(years: int) -> TimeAxis:
    dates = [cftime.DatetimeNoLeap(1 + k // 12, 1 + k % 12, 1) for k in range(12 * years)]
    return TimeAxis.of(np.array(dates, dtype=object))


def sea(years: int = 60, seed: int = 0, louder_in_summer: float = 1.0) -> np.ndarray:
    """Monthly red noise that neighbours share, a swinging mode over it, and one cell of land.

    Args:
      louder_in_summer: amplitude of the noise of May to August, relative to other months.
    """
    rng = np.random.default_rng(seed)
    mode = rng.standard_normal((2, 12))
    memory = np.linspace(0.3, 0.9, 12)
    swing = 0.9 * np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    near = np.exp(-np.abs(np.subtract.outer(np.arange(12), np.arange(12))) / 2.0)
    root = np.linalg.cholesky(near)
    state, rest = np.zeros(2), np.zeros(12)
    values = np.empty((12 * years, 12))
    for t in range(12 * years):
        loud = louder_in_summer if 4 <= t % 12 <= 7 else 1.0
        state = state @ swing + loud * 0.5 * rng.standard_normal(2)
        rest = memory * rest + loud * 0.3 * root @ rng.standard_normal(12)
        values[t] = state @ mode + rest
    values = values.reshape(-1, *SHAPE)
    values[:, *LAND] = 0.0
    return values.astype(np.float32)


def series_of(values: np.ndarray, inside: np.ndarray | None = None) -> TrainingSeries:
    weight = np.ones(SHAPE)
    weight[LAND] = 0.0
    inside = np.ones(len(values), bool) if inside is None else inside
    axis = months_from_year_one(-(-len(values) // 12))
    return TrainingSeries(values, axis, inside, weight / weight.sum())


def noise_of(training: TrainingSeries, eofs: int = 3, **how) -> Noise:
    return fit_noise(linear_inverse_model(training, LEADS, eofs, **how), training)


def components_of(noise: Noise, fields: np.ndarray) -> np.ndarray:
    """Principal components of fields [... lat lon target]."""
    projection = noise.reference.projection
    assert projection is not None
    return np.tensordot(fields.astype(np.float64), projection, 3)


def second_moment(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1, x.shape[-1])
    return flat.T @ flat / len(flat)


@pytest.fixture(scope="module")
def training() -> TrainingSeries:
    return series_of(sea())


@pytest.fixture(scope="module", params=[False, True], ids=["one season", "seasonal"])
def noise(request, training) -> Noise:
    return noise_of(training, seasonal=request.param)


# ---------------------------------------------------------------- what is fitted


def test_the_covariance_of_one_season_is_that_of_the_one_step_errors(training):
    """C' - G^T C G and the errors of a regression are two ways to one matrix."""
    noise = noise_of(training)
    z = components_of(noise, training.values)
    operator = np.linalg.lstsq(z[:-1], z[1:], rcond=None)[0]
    np.testing.assert_allclose(
        noise.covariance[0], second_moment(z[1:] - z[:-1] @ operator), rtol=1e-3, atol=1e-5
    )


def test_a_month_has_the_errors_of_steps_into_it_and_its_neighbours(training):
    """Without shrinking every month is a weighted regression of its own."""
    noise = noise_of(training, seasonal=True, shrink=0.0)
    z = components_of(noise, training.values)
    operators = fit_operators(training, z, True, 0.0)
    into = np.arange(1, len(z)) % 12
    for month in range(12):
        weight = np.select([into == month, np.isin(into, [month - 1, month + 1])], [1.0, 0.7], 0.0)
        weight[np.abs(into - month) == 11] = 0.7
        error = z[1:] - z[:-1] @ operators[month]
        expected = (weight[:, None] * error).T @ error / weight.sum()
        np.testing.assert_allclose(noise.covariance[month], expected, rtol=1e-3, atol=1e-5)
    assert np.linalg.eigvalsh(noise.covariance).min() > 0


def test_shrunken_months_keep_the_variance_that_their_errors_would_lose(training):
    """One step of the covariance of training: G^T C G + Q has to give it back."""
    noise = noise_of(training, seasonal=True, shrink=2.0)
    z = components_of(noise, training.values)
    now, later = training.pairs(1)
    for month in range(12):
        share = noise.shares[month][:, None]
        before, after = ((z[k] * share).T @ z[k] for k in (now, later))
        operator = noise.operators[month]
        again = operator.T @ before @ operator + noise.covariance[month]
        assert np.trace(again) == pytest.approx(np.trace(after), rel=0.02)


def test_red_noise_has_the_lag_one_correlation_and_the_spread_of_what_the_eofs_leave(training):
    noise = noise_of(training)
    z = components_of(noise, training.values)
    rest = training.values[:, noise.mask] - z @ noise.patterns
    for cell, factor in enumerate(noise.damping):
        a, b = rest[:-1, cell].astype(float), rest[1:, cell].astype(float)
        assert factor == pytest.approx(2 * (a @ b) / (a @ a + b @ b), abs=1e-4)
        spread = np.mean(noise.maps[:, cell] ** 2) / (1 - factor**2)
        assert spread == pytest.approx(np.mean(b**2), rel=1e-3)


def test_what_was_not_observed_is_no_error_of_zero():
    values = sea(80)
    gaps = np.random.default_rng(1).random(values.shape) < 0.3
    seen = series_of(values)
    holed = TrainingSeries.of(np.where(gaps, np.nan, values), seen.axis, seen.inside, seen.weight)
    # The same EOFs for both: what differs is which values count.
    lim = linear_inverse_model(seen, LEADS, 1)
    assert lim.patterns is not None
    assert lim.projection is not None
    quiet = replace(lim, patterns=0 * lim.patterns, projection=0 * lim.projection)
    whole, part = (fit_noise(quiet, one) for one in (seen, holed))
    np.testing.assert_allclose(part.damping, whole.damping, atol=0.12)
    spread = [(one.maps**2).mean(axis=0) for one in (part, whole)]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.25)
    # Half of the pairs lack: counted as zeros they would halve it.
    assert np.mean(spread[0] / spread[1]) > 0.9


def test_dates_outside_training_change_no_bit():
    values = sea(30)
    inside = np.arange(len(values)) < 240
    axis = months_from_year_one(5)

    def series(changed: slice, value: float) -> bytes:
        altered = values.copy()
        altered[changed] = value
        return simulate(noise_of(series_of(altered, inside), seasonal=True), axis, seed=0).tobytes()

    true = series(slice(0, 0), 0.0)
    assert series(slice(240, None), 1e6) == true
    assert series(slice(239, 240), 1.0) != true  # the control


# ---------------------------------------------------------------- ensembles


def test_the_mean_of_an_ensemble_is_the_forecast_of_the_lim(noise, training):
    """Within five standard errors of the mean, everywhere; off the mask not at all."""
    frames, month = training.values[[30, 77]][:, None], np.array([8, 6])
    made = ensemble(noise, frames, month, members=4000, seed=1)
    assert made.shape == (4000, 2, LEADS, *SHAPE)
    expected = noise.reference(frames, month)
    error = np.abs(made.mean(axis=0) - expected)
    assert (error <= 5 * made.std(axis=0) / np.sqrt(4000) + 1e-6).all()
    assert not made[:, :, :, *LAND].any()


def test_the_covariance_at_each_lead_is_the_sum_of_what_entered_before(noise, training):
    frames, month = training.values[[30, 77]][:, None], np.array([8, 12])
    made = ensemble(noise, frames, month, members=6000, seed=2) - noise.reference(frames, month)
    # The patterns of unit components, so that fields give the components back. Red noise has a
    # small part in them: its own sum is added.
    inward = noise.reference.projection[noise.mask]
    count = len(noise.operators)
    for start in range(2):
        for lead in range(LEADS):
            total = np.zeros_like(noise.covariance[0])
            for entered in range(lead + 1):
                onward = np.eye(len(total))
                for step in range(entered + 1, lead + 1):
                    onward = onward @ noise.operators[(month[start] - 1 + step) % count]
                season = (month[start] - 1 + entered) % count
                total += onward.T @ noise.covariance[season] @ onward
                kept = noise.damping ** (lead - entered) * noise.maps
                share = noise.shares[season][:, None]
                total += inward.T @ ((share * kept).T @ kept) @ inward
            found = second_moment(components_of(noise, made[:, start, lead]))
            np.testing.assert_allclose(found, total, atol=0.08 * np.trace(total))
            assert np.trace(found) == pytest.approx(np.trace(total), rel=0.05)


def test_an_ensemble_knows_in_which_season_the_noise_is_loud():
    loud = series_of(sea(100, louder_in_summer=2.0))
    noise = noise_of(loud, seasonal=True)
    frames = loud.values[[11, 11]][:, None]
    spread = ensemble(noise, frames, np.array([1, 6]), members=500, seed=0)[:, :, 0].std(axis=0)
    ratio = spread[1][noise.mask[..., 0]] / spread[0][noise.mask[..., 0]]
    assert (ratio > 1.5).all()
    flat = ensemble(noise_of(loud), frames, np.array([1, 6]), members=500, seed=0)
    ratio = flat[:, 1, 0].std(axis=0)[noise.mask] / flat[:, 0, 0].std(axis=0)[noise.mask]
    assert np.abs(ratio - 1).max() < 0.2


def test_members_and_seeds_differ_and_one_seed_gives_one_ensemble(noise, training):
    frames, month = training.values[[30]][:, None], np.array([8])
    first, again, other = (ensemble(noise, frames, month, members=3, seed=s) for s in (4, 4, 5))
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1


# ---------------------------------------------------------------- long series


@pytest.fixture(scope="module")
def long(noise) -> np.ndarray:
    return simulate(noise, months_from_year_one(1500), seed=3)


def test_a_long_series_has_the_covariance_of_training(noise, long, training):
    """Of 1500 years sampling leaves less than a tenth."""
    ours, theirs = (second_moment(x.reshape(len(x), -1)) for x in (long, training.values))
    assert np.abs(ours - theirs).max() < 0.12 * np.diag(theirs).max()
    np.testing.assert_allclose(np.diag(ours), np.diag(theirs), rtol=0.1)
    assert not long[:, *LAND].any()
    assert np.abs(long.mean(axis=0)).max() < 0.15 * long.std()


def test_a_long_series_goes_on_as_the_lim_forecasts(noise, long):
    """The lag-1 regression of its components is the operator that drives them."""
    z = components_of(noise, long)
    into = np.arange(1, len(z)) % 12
    for season in range(len(noise.operators)):
        chosen = (
            np.flatnonzero(into == season) if len(noise.operators) > 1 else np.arange(len(into))
        )
        found = np.linalg.lstsq(z[chosen], z[chosen + 1], rcond=None)[0]
        np.testing.assert_allclose(found, noise.operators[season], atol=0.15)


def test_a_long_series_is_loud_in_the_months_of_training():
    values = sea(150, louder_in_summer=2.0)
    made = simulate(noise_of(series_of(values), seasonal=True), months_from_year_one(600), seed=0)
    ours, theirs = (np.square(x).mean(axis=(1, 2, 3)) for x in (made, values))
    ratio = [ours[m::12].mean() / theirs[m::12].mean() for m in range(12)]
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)
    quiet = [theirs[m::12].mean() for m in range(12)]
    assert max(quiet) > 1.8 * min(quiet)


def test_the_first_years_are_as_lively_as_the_last(noise):
    """There is no start from rest in the series."""
    axis = months_from_year_one(2)
    made = np.stack([simulate(noise, axis, seed=s) for s in range(25)])
    power = np.square(made).mean(axis=(0, 2, 3, 4))
    assert power[0] > 0.7 * power.mean()


def test_one_seed_gives_one_series_and_another_another(noise):
    axis = months_from_year_one(3)
    first, again, other = (simulate(noise, axis, seed=s) for s in (0, 0, 1))
    assert first.dtype == np.float32
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 0.1


def test_a_series_without_end_is_refused_with_what_to_do(noise):
    axis = months_from_year_one(2)
    grown = noise.reference.propagators.copy()
    # A month may grow, if the year as a whole does not.
    grown[0] *= 1.05
    lively = replace(noise, reference=replace(noise.reference, propagators=grown))
    if len(grown) > 1:
        assert np.isfinite(simulate(lively, axis, seed=0)).all()
    wild = replace(noise.reference, propagators=noise.reference.propagators * 1.5)
    with pytest.raises(DataError, match=r"anomalies that grow.*in a year(.|\n)*fix: .*eofs, 1 say"):
        simulate(replace(noise, reference=wild), axis, seed=0)


def test_training_dates_that_never_follow_each_other_are_refused():
    inside = np.arange(720) % 2 == 0
    training = series_of(sea(), inside)
    lim = linear_inverse_model(series_of(sea()), LEADS, 3)
    with pytest.raises(DataError, match="no training date follows another"):
        fit_noise(lim, training)
