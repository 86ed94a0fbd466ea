"""Transforms come back, do not know units, and make rain look normal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gridcast.errors import DataError
from gridcast.frames.skew import Skew, sample_quantiles

KINDS = ["none", "log1p", "cube_root", "quantile"]
MASK = np.array([[True, True, False], [True, True, True]])


def rain(dates: int = 240, seed: int = 0, dry: float = 0.4) -> np.ndarray:
    """mm per day, many zeros, NaN off the mask and at a few dates."""
    random = np.random.default_rng(seed)
    values = random.gamma(0.6, 5.0, (dates, 2, 3)) * (random.random((dates, 2, 3)) > dry)
    values[random.random(values.shape) < 0.02] = np.nan
    values[:, ~MASK] = np.nan
    return values.astype(np.float32)


def one_cell(values) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


def fit_one(kind, values) -> Skew:
    return Skew.fit(kind, one_cell(values), np.ones((1, 1), bool))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_transformed_comes_back_in_float32(kind):
    values = rain()
    skew = Skew.fit(kind, values, MASK)
    moved = skew.forward(values)
    back = skew.inverse(moved)
    assert moved.dtype == back.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(values))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=1e-5 * np.nanmax(values))
    assert (back[values == 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_double_comes_back_to_its_last_digits_also_in_batches_of_leads(kind):
    values = rain().astype(np.float64)
    skew = Skew.fit(kind, values, MASK)
    inside = values[:, None].repeat(2, axis=1)
    back = skew.inverse(skew.forward(inside))
    assert back.shape == inside.shape
    np.testing.assert_allclose(back, inside, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_order_is_kept_and_nothing_unseen_in_training_matters(kind):
    values = rain()
    skew = Skew.fit(kind, values, MASK)
    moved = skew.forward(values)
    order = np.argsort(np.where(np.isnan(values), np.inf, values), axis=0)
    ordered = np.take_along_axis(moved, order, axis=0)
    assert not (np.diff(ordered, axis=0) < 0).any()
    alone = skew.forward(values[17])
    np.testing.assert_array_equal(alone, moved[17])
    again = Skew.restore(kind, {name: array.copy() for name, array in skew.arrays().items()})
    np.testing.assert_array_equal(again.forward(values), moved)
    np.testing.assert_array_equal(again.inverse(moved), skew.inverse(moved))


def test_log1p_by_hand():
    # Positive values 1, 2, 9: their mean is 4; land and zeros do not count.
    values = np.array([[[0, 100]], [[1, 100]], [[2, 100]], [[9, 100]]], np.float32)
    skew = Skew.fit("log1p", values, np.array([[True, False]]))
    assert skew.arrays()["scale"] == 4
    np.testing.assert_allclose(skew.forward(values)[:, 0, 0], np.log([1, 1.25, 1.5, 3.25]), 1e-6)


@pytest.mark.parametrize("kind", ["log1p", "quantile"])
def test_units_do_not_matter(kind):
    values = rain()
    metres = values * np.float32(1 / 1024)  # a power of two: no rounding
    skew, other = (Skew.fit(kind, v, MASK) for v in (values, metres))
    np.testing.assert_allclose(other.forward(metres), skew.forward(values), rtol=1e-6, atol=1e-6)


def test_a_box_without_any_rain_stays_without():
    none = np.zeros((4, 2, 3), np.float32)
    for kind in KINDS:
        skew = Skew.fit(kind, none, np.ones((2, 3), bool))
        assert (skew.forward(none) == 0).all()
        assert (skew.inverse(skew.forward(none)) == 0).all()


def test_log1p_refuses_negative_values_and_counts_them():
    values = rain()
    skew = Skew.fit("log1p", values, MASK)
    values[3, 0, 0], values[9, 1, 2] = -2.5, -0.5
    for act in (lambda: Skew.fit("log1p", values, MASK), lambda: skew.forward(values)):
        with pytest.raises(
            DataError, match=r"^2 values are below 0, the lowest is -2.5\n  expected"
        ):
            act()
    for kind in ("none", "cube_root", "quantile"):
        Skew.fit(kind, values, MASK).forward(values)


def test_the_cube_root_keeps_the_sign():
    values = one_cell([-27, -1e-3, 0, 8])
    np.testing.assert_allclose(
        fit_one("cube_root", [0, 1]).forward(values)[:, 0, 0], [-3, -0.1, 0, 2]
    )


def test_normal_scores_of_101_values_are_those_of_their_ranks():
    # With as many values as quantiles every value is a quantile.
    values = np.random.default_rng(1).permutation(np.exp(np.linspace(-3, 3, 101)))
    scores = fit_one("quantile", values).forward(one_cell(values))[:, 0, 0]
    expected = stats.norm.ppf((stats.rankdata(values) - 0.5) / 101)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_dry_dates_get_the_middle_of_their_range_and_all_of_it_comes_back_dry():
    values = np.append(np.zeros(60), np.linspace(1, 5, 41))
    skew = fit_one("quantile", values)
    middle = stats.norm.ppf(30 / 101)
    assert skew.forward(one_cell([0.0]))[0, 0, 0] == pytest.approx(middle, abs=1e-5)
    low, high = stats.norm.ppf([0.5 / 101, 59.5 / 101])
    dry = one_cell([low - 50, low, middle, high - 1e-4])
    assert (skew.inverse(dry) == 0).all()
    assert skew.inverse(one_cell([high + 1e-2]))[0, 0, 0] > 0
    # Nothing lies below no rain: numerical noise is no rain either.
    assert skew.forward(one_cell([-1e-9]))[0, 0, 0] == skew.forward(one_cell([0.0]))[0, 0, 0]


def test_beyond_training_the_outermost_segment_goes_on_but_not_for_ever():
    skew = fit_one("quantile", np.arange(101.0))
    z = stats.norm.ppf((np.arange(101) + 0.5) / 101)
    step = z[-1] - z[-2]
    for sign, end in ((1.0, 100.0), (-1.0, 0.0)):
        out = skew.forward(one_cell(end + sign * np.array([0.5, 1.0, 1e30])))[:, 0, 0]
        np.testing.assert_allclose(
            out, sign * (z[-1] + np.array([0.5 * step, step, 3.0])), atol=1e-5
        )
        back = skew.inverse(one_cell(sign * (z[-1] + np.array([step, 3.0, 1e30]))))[:, 0, 0]
        np.testing.assert_allclose(back, end + sign * np.array([1, 3 / step, 3 / step]), rtol=1e-4)


@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.5, 40.0, -2.0]), min_size=2, max_size=12))
@settings(deadline=None, max_examples=40)
def test_few_and_tied_values_stay_finite_and_come_back(values):
    skew = fit_one("quantile", values)
    scores = skew.forward(one_cell(values))
    np.testing.assert_allclose(skew.inverse(scores)[:, 0, 0], values, rtol=1e-5, atol=1e-4)
    extreme = one_cell([-np.inf, -1e3, -1.0, 0.0, 1.0, 1e3, np.inf])
    out = skew.inverse(extreme)
    assert np.isfinite(out).all()
    assert np.isfinite(skew.forward(out)).all()
    assert np.isfinite(skew.forward(extreme)).all()
    assert (np.diff(out[:, 0, 0]) >= 0).all()


def test_scores_of_rain_are_normal_where_it_rains():
    values = rain(dates=2000, dry=0.0)
    scores = Skew.fit("quantile", values, MASK).forward(values)[:, MASK]
    assert stats.skew(values[:, MASK], nan_policy="omit").min() > 2
    assert np.abs(stats.skew(scores, nan_policy="omit")).max() < 0.2
    np.testing.assert_allclose(np.nanstd(scores, axis=0), 1, atol=0.03)


def test_a_cell_that_never_varies_has_score_0_and_comes_back():
    skew = fit_one("quantile", [7, 7, 7])
    np.testing.assert_array_equal(skew.forward(one_cell([7, 6, 9]))[:, 0, 0], 0)
    np.testing.assert_array_equal(skew.inverse(one_cell([-3, 0, 3]))[:, 0, 0], 7)


def test_quantiles_need_values_in_every_cell_of_the_mask():
    values = rain()
    values[1:, 1, 0] = np.nan
    with pytest.raises(DataError, match=r"1 of 5 cells have fewer than two values"):
        Skew.fit("quantile", values, MASK)


def test_quantiles_are_those_of_numpy_also_with_gaps():
    values = rain(60).reshape(60, -1)
    levels = np.array([0.0, 1 / 3, 0.5, 0.99, 1.0])
    ours = sample_quantiles(values, levels)
    seen = ~np.isnan(values).all(axis=0)
    expected = np.nanquantile(values[:, seen].astype(np.float64), levels, axis=0)
    np.testing.assert_allclose(ours[:, seen], expected, rtol=1e-12)
    assert np.isnan(ours[:, ~seen]).all()
