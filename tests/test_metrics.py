"""Scores of arrays: hand computation, the package `scores`, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scores.continuous as oracle
import xarray as xr

from gridcast.errors import DataError
from gridcast.verification.hindcast import same_dates
from gridcast.verification.metrics import METRICS, Pairs, acc, bias, mae, rmse, squared_error


def hand_pairs() -> Pairs:
    """Two dates, one lead, 2 x 2 cells: weights 2 and 1 by row, one cell of the second off."""
    forecast = np.array([[[1.0, 2.0], [3.0, 0.0]], [[-1.0, 0.0], [2.0, 0.0]]])
    observed = np.array([[[0.0, 2.0], [1.0, 0.0]], [[1.0, 1.0], [2.0, 0.0]]])
    weight = np.array([[2.0, 2.0], [1.0, 0.0]])
    return Pairs(forecast[:, None], observed[:, None], np.ones((2, 1), dtype=bool), weight)


def random_pairs(seed: int = 0) -> Pairs:
    """Six windows, three leads; each lead verifies four windows, another four each."""
    rng = np.random.default_rng(seed)
    forecast, observed = rng.normal(0.3, 1.0, (2, 6, 3, 4, 5))
    verified = np.stack([np.roll([1, 1, 1, 1, 0, 0], k) for k in range(3)], axis=1).astype(bool)
    weight = rng.uniform(0.1, 1.0, (4, 5))
    weight[0, :3] = 0.0
    return Pairs(forecast, observed, verified, weight)


def all_scores(pairs: Pairs) -> dict[str, np.ndarray]:
    return {name: metric(pairs) for name, metric in METRICS.items()}


def assert_same_scores(ours: Pairs, theirs: Pairs, rtol: float = 1e-12) -> None:
    for name, values in all_scores(ours).items():
        np.testing.assert_allclose(values, all_scores(theirs)[name], rtol=rtol, err_msg=name)


def test_scores_of_two_dates_and_four_cells_are_what_one_computes_by_hand():
    pairs = hand_pairs()
    # errors: date 1: 1 0 / 2 (off), date 2: -2 -1 / 0 (off); weights 2 2 / 1 0, sum 5
    mean_square = (2 * 1 + 2 * 0 + 1 * 4 + 2 * 4 + 2 * 1 + 1 * 0) / (2 * 5)
    assert rmse(pairs) == pytest.approx(np.sqrt(mean_square))
    assert mae(pairs) == pytest.approx((2 * 1 + 1 * 2 + 2 * 2 + 2 * 1) / 10)
    assert bias(pairs) == pytest.approx((2 * 1 + 1 * 2 - 2 * 2 - 2 * 1) / 10)
    product = 2 * (0 + 4) + 1 * 3 + 2 * (-1 + 0) + 1 * 4
    ours = 2 * (1 + 4) + 1 * 9 + 2 * (1 + 0) + 1 * 4
    theirs = 2 * (0 + 4) + 1 * 1 + 2 * (1 + 1) + 1 * 4
    assert acc(pairs) == pytest.approx(product / np.sqrt(ours * theirs))
    expected = [[(1 + 4) / 2, (0 + 1) / 2], [(4 + 0) / 2, 0]]
    np.testing.assert_allclose(squared_error(pairs)[0], expected)


def test_rmse_mae_and_bias_agree_with_the_package_scores():
    pairs = random_pairs()
    dims = ("window", "lat", "lon")
    weights = xr.DataArray(pairs.weight, dims=("lat", "lon"))
    for name, function in (("rmse", "rmse"), ("mae", "mae"), ("bias", "additive_bias")):
        for lead in range(3):
            chosen = pairs.verified[:, lead]
            ours, theirs = (
                xr.DataArray(fields[chosen, lead], dims=dims)
                for fields in (pairs.forecast, pairs.observed)
            )
            expected = float(getattr(oracle, function)(ours, theirs, weights=weights))
            assert METRICS[name](pairs)[lead] == pytest.approx(expected, rel=1e-12), name


def test_acc_agrees_with_a_weighted_uncentred_pooled_correlation_by_xarray():
    pairs = random_pairs()
    dims = ("window", "lead", "lat", "lon")
    forecast, observed = (xr.DataArray(f, dims=dims) for f in (pairs.forecast, pairs.observed))
    verified = xr.DataArray(pairs.verified, dims=dims[:2])
    weights = xr.DataArray(pairs.weight, dims=dims[2:])

    def pooled(fields: xr.DataArray) -> xr.DataArray:
        return fields.where(verified).weighted(weights).sum(("window", "lat", "lon"))

    expected = pooled(forecast * observed) / np.sqrt(pooled(forecast**2) * pooled(observed**2))
    np.testing.assert_allclose(acc(pairs), expected, rtol=1e-12)


def test_a_perfect_forecast_has_no_error_and_correlation_one():
    pairs = random_pairs()
    perfect = replace(pairs, forecast=pairs.observed)
    assert not rmse(perfect).any()
    assert not mae(perfect).any()
    assert not bias(perfect).any()
    np.testing.assert_allclose(acc(perfect), 1.0)
    np.testing.assert_allclose(acc(replace(pairs, forecast=-pairs.observed)), -1.0)
    np.testing.assert_allclose(bias(replace(pairs, forecast=pairs.observed + 0.25)), 0.25)


def test_a_forecast_of_no_anomaly_has_no_correlation_and_no_warning():
    pairs = random_pairs()
    assert np.isnan(acc(replace(pairs, forecast=np.zeros_like(pairs.forecast)))).all()


def test_values_off_the_mask_or_off_the_verified_dates_do_not_count():
    pairs = random_pairs()
    off = np.broadcast_to(pairs.weight == 0, pairs.forecast.shape)
    unverified = np.broadcast_to(~pairs.verified[:, :, None, None], pairs.forecast.shape)
    for value in (np.nan, 1e30):
        for where in (off, unverified):
            for field in ("forecast", "observed"):
                values = np.where(where, value, getattr(pairs, field))
                assert_same_scores(replace(pairs, **{field: values}), pairs)


@pytest.mark.parametrize(("field", "word"), [("forecast", "forecast"), ("observed", "observation")])
def test_a_missing_value_inside_the_mask_is_an_error(field, word):
    pairs = random_pairs()
    values = getattr(pairs, field).copy()
    values[2, 1, 3, 3] = np.nan
    with pytest.raises(DataError, match=word):
        replace(pairs, **{field: values})
    values[2, 1, 3, 3] = 0.0
    replace(pairs, **{field: values})  # the control


def test_a_lead_without_verification_dates_is_an_error():
    pairs = random_pairs()
    verified = pairs.verified.copy()
    verified[:, 1] = False
    with pytest.raises(DataError, match="lead"):
        replace(pairs, verified=verified)


def test_scores_do_not_depend_on_the_scale_of_weights_or_the_order_of_dates():
    pairs = random_pairs()
    assert_same_scores(replace(pairs, weight=1e4 * pairs.weight), pairs)
    order = np.random.default_rng(1).permutation(6)
    shuffled = Pairs(
        pairs.forecast[order], pairs.observed[order], pairs.verified[order], pairs.weight
    )
    assert_same_scores(shuffled, pairs)


def test_a_further_cell_off_the_mask_changes_nothing():
    pairs = random_pairs()
    wider = Pairs(
        np.pad(pairs.forecast, ((0, 0),) * 3 + ((0, 1),), constant_values=np.nan),
        np.pad(pairs.observed, ((0, 0),) * 3 + ((0, 1),), constant_values=np.nan),
        pairs.verified,
        np.pad(pairs.weight, ((0, 0), (0, 1))),
    )
    assert_same_scores(wider, pairs)


def test_units_scale_errors_and_leave_the_correlation():
    pairs = random_pairs()
    bigger = replace(pairs, forecast=10 * pairs.forecast, observed=10 * pairs.observed)
    for name in ("rmse", "mae", "bias"):
        np.testing.assert_allclose(METRICS[name](bigger), 10 * METRICS[name](pairs), rtol=1e-12)
    np.testing.assert_allclose(acc(bigger), acc(pairs), rtol=1e-12)


def test_same_dates_keeps_the_dates_that_every_lead_has_a_forecast_for():
    # Initial dates 3, 4, 5 and 8 (a gap between), leads 1 to 3, test dates 5 to 10.
    verifying = np.array([[4, 5, 6], [5, 6, 7], [6, 7, -1], [9, 10, 11]])
    inside = np.zeros(12, dtype=bool)
    inside[5:11] = True
    # Lead 1 has 5 6 9, lead 2 has 5 6 7 10, lead 3 has 6 7 (11 is no test date): 6 is common.
    expected = verifying == 6
    assert np.array_equal(same_dates(verifying, inside), expected)
    assert not same_dates(verifying, np.zeros(12, dtype=bool)).any()


def with_gaps(pairs: Pairs) -> Pairs:
    """A tenth of the observations are missing, and one cell throughout."""
    missing = np.random.default_rng(2).random(pairs.observed.shape) < 0.1
    missing[:, :, 3, 4] = True
    return replace(pairs, observed=np.where(missing, np.nan, pairs.observed), gaps=True)


def test_with_gaps_every_observation_counts_by_its_area_and_nothing_else():
    pairs = with_gaps(random_pairs())
    for lead in range(3):
        chosen = pairs.verified[:, lead]
        ours, theirs = (f[chosen, lead].ravel() for f in (pairs.forecast, pairs.observed))
        area = np.broadcast_to(pairs.weight, (4, 4, 5)).ravel() * np.isfinite(theirs)
        error = np.where(np.isfinite(theirs), ours - theirs, 0.0)
        seen = np.nan_to_num(theirs)
        assert rmse(pairs)[lead] == pytest.approx(np.sqrt(np.average(error**2, weights=area)))
        assert mae(pairs)[lead] == pytest.approx(np.average(np.abs(error), weights=area))
        assert bias(pairs)[lead] == pytest.approx(np.average(error, weights=area))
        product, square, other = (
            (a * b * area).sum() for a, b in ((ours, seen), (ours, ours), (seen, seen))
        )
        assert acc(pairs)[lead] == pytest.approx(product / np.sqrt(square * other))


def test_without_a_missing_value_gaps_change_nothing():
    pairs = random_pairs()
    assert_same_scores(replace(pairs, gaps=True), pairs)


def test_gaps_are_for_observations_a_forecast_is_always_there():
    pairs = with_gaps(random_pairs())
    with pytest.raises(DataError, match="observation"):
        replace(pairs, gaps=False)
    forecast = pairs.forecast.copy()
    forecast[2, 1, 3, 3] = np.nan
    with pytest.raises(DataError, match="forecast is not finite"):
        replace(pairs, forecast=forecast)
