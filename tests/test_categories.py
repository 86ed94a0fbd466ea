"""Scores of probabilities: hand computation, the package `scores`, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scores.probability as oracle
import xarray as xr

from gridcast.errors import DataError
from gridcast.verification.categories import (
    CategoryPairs,
    brier,
    hit_rate,
    log_score,
    reliability,
    rps,
    rps_map,
)

THIRD = 1 / 3
MEMBERS = 8


def hand_pairs() -> CategoryPairs:
    """Two dates, one lead, cells A B / C and one off, areas 2 2 / 1; A is unknown at the second."""
    off = [np.nan, np.nan, np.nan]
    probability = np.array(
        [
            [[[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], [[THIRD, THIRD, THIRD], off]],
            [[[0.6, 0.2, 0.2], [0.8, 0.1, 0.1]], [[0.1, 0.1, 0.8], off]],
        ]
    )
    observed = np.array([[[0.0, 0.0], [1.0, np.nan]], [[np.nan, 2.0], [1.0, np.nan]]])
    weight = np.array([[2.0, 2.0], [1.0, 0.0]])
    return CategoryPairs(
        probability[:, None], observed[:, None], np.ones((2, 1), dtype=bool), weight
    )


def random_pairs(classes: int = 3, seed: int = 0, gaps: bool = True) -> CategoryPairs:
    """Six windows, three leads; probabilities are shares of eight members, so that some tie."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(MEMBERS - classes, np.full(classes, 1 / classes), (6, 3, 4, 5)) + 1
    observed = rng.integers(0, classes, (6, 3, 4, 5)).astype(float)
    if gaps:
        observed[rng.random(observed.shape) < 0.2] = np.nan
    verified = np.stack([np.roll([1, 1, 1, 1, 0, 0], k) for k in range(3)], axis=1).astype(bool)
    weight = rng.uniform(0.1, 1.0, (4, 5))
    weight[0, :3] = 0.0
    return CategoryPairs(counts / MEMBERS, observed, verified, weight)


def counted(pairs: CategoryPairs):
    """Lead, area, probabilities and class of each pair that counts, one by one."""
    for index in np.ndindex(pairs.observed.shape):
        window, lead, row, column = index
        area, seen = pairs.weight[row, column], pairs.observed[index]
        if pairs.verified[window, lead] and area > 0 and not np.isnan(seen):
            yield lead, area, pairs.probability[index], int(seen)


def all_scores(pairs: CategoryPairs) -> dict[str, np.ndarray]:
    functions = {f.__name__: f for f in (rps, rps_map, brier, log_score, hit_rate)}
    return {name: f(pairs) for name, f in functions.items()} | reliability(pairs, 4)._asdict()


def assert_same_scores(ours: CategoryPairs, theirs: CategoryPairs, rtol: float = 1e-12) -> None:
    for name, values in all_scores(ours).items():
        np.testing.assert_allclose(values, all_scores(theirs)[name], rtol=rtol, err_msg=name)


def as_xarray(pairs: CategoryPairs, lead: int, fields: np.ndarray) -> xr.DataArray:
    """Fields of the verified dates of a lead, without those whose class is unknown."""
    chosen = pairs.verified[:, lead]
    known = ~np.isnan(pairs.observed[chosen, lead])
    dims = ("window", "lat", "lon")
    return xr.DataArray(fields[chosen, lead], dims=dims).where(xr.DataArray(known, dims=dims))


# ---------------------------------------------------------------- numbers


def test_scores_of_five_pairs_are_what_one_computes_by_hand():
    pairs = hand_pairs()
    # In the order A B C B C; squares at the first boundary plus at the second.
    a, b, c = 0.8**2 + 0.3**2, 0.0, THIRD**2 + THIRD**2
    b2, c2 = 0.8**2 + 0.9**2, 0.1**2 + 0.8**2
    assert rps(pairs) == pytest.approx((2 * a + 2 * b + c + 2 * b2 + c2) / 8)
    np.testing.assert_allclose(rps_map(pairs), [[[a, (b + b2) / 2], [(c + c2) / 2, np.nan]]])
    lowest = 2 * 0.8**2 + 0 + THIRD**2 + 2 * 0.8**2 + 0.1**2
    middle = 2 * 0.5**2 + 0 + (2 * THIRD) ** 2 + 2 * 0.1**2 + 0.9**2
    highest = 2 * 0.3**2 + 0 + THIRD**2 + 2 * 0.9**2 + 0.8**2
    np.testing.assert_allclose(brier(pairs), [np.array([lowest, middle, highest]) / 8])
    ignorance = -2 * np.log(0.2) + 0 + np.log(3) - 2 * np.log(0.1) - np.log(0.1)
    assert log_score(pairs) == pytest.approx(ignorance / 8)
    assert hit_rate(pairs) == pytest.approx((0 + 2 + THIRD + 0 + 0) / 8)


def test_a_reliability_diagram_of_five_pairs_is_what_one_computes_by_hand():
    forecast, observed, share = reliability(hand_pairs(), bins=3)
    # The lowest class: A 0.2 came, B 1 came, C 1/3 not, B 0.8 not, C 0.1 not; thirds of [0, 1].
    np.testing.assert_allclose(forecast[0, 0], [(2 * 0.2 + 0.1) / 3, THIRD, (2 + 2 * 0.8) / 4])
    np.testing.assert_allclose(observed[0, 0], [2 / 3, 0, 2 / 4])
    np.testing.assert_allclose(share[0, 0], [3 / 8, 1 / 8, 4 / 8])
    # The highest: A 0.3 not, B 0 not, C 1/3 not, B 0.1 came, C 0.8 not.
    np.testing.assert_allclose(forecast[0, 2], [(2 * 0.3 + 2 * 0.1) / 6, THIRD, 0.8])
    np.testing.assert_allclose(observed[0, 2], [2 / 6, 0, 0])
    np.testing.assert_allclose(share[0, 2], [6 / 8, 1 / 8, 1 / 8])


def test_a_bin_without_forecasts_has_no_frequency_and_no_share():
    forecast, observed, share = reliability(hand_pairs(), bins=20)
    empty = share == 0
    assert empty.any()
    assert not empty.all()
    np.testing.assert_array_equal(np.isnan(forecast), empty)
    np.testing.assert_array_equal(np.isnan(observed), empty)
    np.testing.assert_allclose(share.sum(axis=-1), 1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_rps_is_the_crps_of_an_ensemble_of_class_numbers_in_the_package_scores(classes):
    pairs = random_pairs(classes)
    counts = np.round(pairs.probability * MEMBERS).astype(int)
    members = np.stack([np.repeat(np.arange(classes), c) for c in counts.reshape(-1, classes)])
    members = members.reshape(*counts.shape[:-1], MEMBERS).astype(float)
    for lead in range(3):
        ensemble = xr.concat(
            [as_xarray(pairs, lead, members[..., m]) for m in range(MEMBERS)], "member"
        )
        observed = as_xarray(pairs, lead, pairs.observed)
        area = xr.DataArray(pairs.weight, dims=("lat", "lon"))
        pooled = oracle.crps_for_ensemble(ensemble, observed, "member", weights=area)
        assert rps(pairs)[lead] == pytest.approx(float(pooled), rel=1e-12)
        by_cell = oracle.crps_for_ensemble(
            ensemble, observed, "member", preserve_dims=["lat", "lon"]
        )
        expected = by_cell.where(area > 0).values
        np.testing.assert_allclose(rps_map(pairs)[lead], expected, rtol=1e-12)


def test_brier_scores_agree_with_the_package_scores():
    pairs = random_pairs()
    area = xr.DataArray(pairs.weight, dims=("lat", "lon"))
    for lead in range(3):
        seen = as_xarray(pairs, lead, pairs.observed)
        for index in range(3):
            forecast = as_xarray(pairs, lead, pairs.probability[..., index])
            came = (seen == index).astype(float).where(seen.notnull())
            expected = float(oracle.brier_score(forecast, came, weights=area))
            assert brier(pairs)[lead, index] == pytest.approx(expected, rel=1e-12)


def test_log_score_and_hit_rate_agree_with_a_loop_over_pairs():
    pairs = random_pairs()
    sums = np.zeros((3, 3))
    for lead, area, probability, seen in counted(pairs):
        best = [k for k in range(3) if probability[k] == max(probability)]
        hit = 1 / len(best) if seen in best else 0
        sums[lead] += area * np.array([1, -np.log(probability[seen]), hit])
    np.testing.assert_allclose(log_score(pairs), sums[:, 1] / sums[:, 0], rtol=1e-12)
    np.testing.assert_allclose(hit_rate(pairs), sums[:, 2] / sums[:, 0], rtol=1e-12)


def test_reliability_minus_resolution_plus_uncertainty_is_the_brier_score():
    # Exact where a bin holds one probability only: here shares of eight (Murphy 1973).
    pairs = random_pairs()
    forecast, observed, share = reliability(pairs, MEMBERS)
    frequency = np.nansum(share * observed, axis=-1)
    unreliable = np.nansum(share * (forecast - observed) ** 2, axis=-1)
    resolved = np.nansum(share * (observed - frequency[..., None]) ** 2, axis=-1)
    decomposed = unreliable - resolved + frequency * (1 - frequency)
    np.testing.assert_allclose(decomposed, brier(pairs), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_on_the_edge_of_a_bin_belongs_to_the_bin_above(dtype):
    for bins in range(2, 21):
        edges = (np.arange(bins + 1) / bins).astype(dtype)
        probability = np.stack([edges, 1 - edges], axis=-1)[None, None, None]
        pairs = CategoryPairs(
            probability,
            np.zeros((1, 1, 1, bins + 1)),
            np.ones((1, 1), dtype=bool),
            np.ones((1, bins + 1)),
        )
        expected = np.append(np.ones(bins - 1), 2) / (bins + 1)
        np.testing.assert_allclose(reliability(pairs, bins).share[0, 0], expected, err_msg=bins)


# ---------------------------------------------------------------- properties


def test_a_perfect_forecast_scores_best():
    pairs = random_pairs()
    sure = np.arange(3) == np.nan_to_num(pairs.observed)[..., None]
    perfect = replace(pairs, probability=sure.astype(float))
    for score in (rps, brier, log_score):
        assert not score(perfect).any(), score.__name__
    np.testing.assert_array_equal(hit_rate(perfect), 1)


def test_equal_probabilities_hit_one_time_in_three():
    pairs = random_pairs()
    uniform = replace(pairs, probability=np.full_like(pairs.probability, THIRD))
    np.testing.assert_allclose(hit_rate(uniform), THIRD)
    np.testing.assert_allclose(log_score(uniform), np.log(3))


def test_a_class_that_was_called_impossible_costs_infinitely_much_and_warns_of_nothing():
    pairs = random_pairs(gaps=False)
    probability = pairs.probability.copy()
    probability[1, 1, 2, 2] = np.eye(3)[(int(pairs.observed[1, 1, 2, 2]) + 1) % 3]
    assert pairs.verified[1, 1]
    infinite = np.isinf(log_score(replace(pairs, probability=probability)))
    np.testing.assert_array_equal(infinite, [False, True, False])


@pytest.mark.parametrize("score", [rps, brier, log_score])
def test_no_forecast_scores_better_than_the_true_frequencies(score):
    # One cell for each class, as large as the class is frequent: the mean is an expectation.
    rng = np.random.default_rng(0)
    frequency = np.array([0.5, 0.1, 0.25, 0.15])

    def expected(probability: np.ndarray) -> float:
        everywhere = np.broadcast_to(probability, (1, 1, 1, 4, 4))
        observed = np.arange(4.0).reshape(1, 1, 1, 4)
        verified = np.ones((1, 1), dtype=bool)
        return score(CategoryPairs(everywhere, observed, verified, frequency[None])).sum()

    best = expected(frequency)
    for other in rng.dirichlet(np.ones(4), 30):
        assert expected(other) > best
        assert expected(0.99 * frequency + 0.01 * other) > best


def test_rps_of_two_classes_is_the_brier_score_of_either():
    pairs = random_pairs(classes=2)
    np.testing.assert_allclose(brier(pairs), np.stack([rps(pairs)] * 2, axis=1), rtol=1e-12)


def test_rps_knows_the_order_of_classes_and_the_others_do_not():
    pairs = random_pairs()
    backwards = replace(
        pairs, probability=pairs.probability[..., ::-1].copy(), observed=2 - pairs.observed
    )
    turned = replace(
        pairs, probability=np.roll(pairs.probability, 1, axis=-1), observed=(pairs.observed + 1) % 3
    )
    for score in (rps, log_score, hit_rate):
        np.testing.assert_allclose(score(backwards), score(pairs), err_msg=score.__name__)
    for score in (log_score, hit_rate):
        np.testing.assert_allclose(score(turned), score(pairs), err_msg=score.__name__)
    assert (np.abs(rps(turned) - rps(pairs)) > 1e-3).all()
    np.testing.assert_allclose(brier(backwards), brier(pairs)[:, ::-1])


def test_the_area_mean_of_the_map_is_rps_where_every_date_is_known():
    pairs = random_pairs(gaps=False)
    cells = pairs.weight > 0
    mean = (rps_map(pairs) * pairs.weight)[:, cells].sum(axis=1) / pairs.weight.sum()
    np.testing.assert_allclose(mean, rps(pairs))
    assert np.isnan(rps_map(pairs)[:, ~cells]).all()


def test_a_cell_without_any_known_date_has_no_value_in_the_map():
    pairs = random_pairs()
    observed = pairs.observed.copy()
    observed[:, 0, 2, 1] = np.nan
    expected = rps_map(pairs)
    expected[0, 2, 1] = np.nan
    np.testing.assert_array_equal(rps_map(replace(pairs, observed=observed)), expected)


def test_pairs_that_do_not_count_change_nothing():
    pairs = random_pairs()
    off = np.broadcast_to(pairs.weight == 0, pairs.observed.shape)
    unverified = np.broadcast_to(~pairs.verified[:, :, None, None], pairs.observed.shape)
    for where in (off, unverified):
        for value in (np.nan, 1e30, -7.5):
            probability = np.where(where[..., None], value, pairs.probability)
            assert_same_scores(replace(pairs, probability=probability), pairs)
            observed = np.where(where, value, pairs.observed)
            assert_same_scores(replace(pairs, observed=observed), pairs)
    unknown = np.isnan(pairs.observed)[..., None]
    assert unknown.any()
    other = np.where(unknown, np.array([1.0, 0.0, 0.0]), pairs.probability)
    assert_same_scores(replace(pairs, probability=other), pairs)


def test_a_window_whose_classes_are_all_unknown_is_as_one_left_out():
    pairs = random_pairs()
    observed = pairs.observed.copy()
    observed[3] = np.nan
    verified = pairs.verified.copy()
    verified[3] = False
    assert_same_scores(replace(pairs, observed=observed), replace(pairs, verified=verified))


def test_scores_do_not_depend_on_the_scale_of_areas_or_the_order_of_dates():
    pairs = random_pairs()
    assert_same_scores(replace(pairs, weight=1e4 * pairs.weight), pairs)
    order = np.random.default_rng(1).permutation(6)
    shuffled = CategoryPairs(
        pairs.probability[order], pairs.observed[order], pairs.verified[order], pairs.weight
    )
    assert_same_scores(shuffled, pairs)


def test_a_cell_twice_as_large_counts_as_two_cells():
    pairs = random_pairs()
    weight = pairs.weight.copy()
    weight[:, 4] *= 2
    twice = CategoryPairs(
        np.concatenate([pairs.probability, pairs.probability[..., 4:, :]], axis=3),
        np.concatenate([pairs.observed, pairs.observed[..., 4:]], axis=3),
        pairs.verified,
        np.concatenate([pairs.weight, pairs.weight[:, 4:]], axis=1),
    )
    large = replace(pairs, weight=weight)
    for score in (rps, brier, log_score, hit_rate, lambda p: reliability(p, 4)):
        np.testing.assert_allclose(score(twice), score(large), rtol=1e-12)


def test_single_precision_gives_the_same_scores():
    pairs = random_pairs()
    single = replace(pairs, probability=pairs.probability.astype(np.float32))
    assert_same_scores(single, pairs, rtol=1e-6)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("probability", "word"),
    [
        ([np.nan, 0.5, 0.5], "not finite"),
        ([np.inf, 0.5, 0.5], "not finite"),
        ([-0.1, 0.6, 0.5], "below 0"),
        ([0.3, 0.3, 0.3], "sum to 1"),
        ([0.3, 0.3, 0.4003], "sum to 1"),
        ([0.3, 0.3, 0.40005], None),
    ],
)
def test_probabilities_that_are_none_are_an_error_where_they_count(probability, word):
    pairs = random_pairs()
    values = pairs.probability.copy()
    values[2, 1, 3, 3] = probability
    if word is None:
        replace(pairs, probability=values)
        return
    with pytest.raises(DataError, match=word):
        replace(pairs, probability=values)
    # The control: the same on a date that is not judged.
    verified = pairs.verified.copy()
    verified[2, 1] = False
    replace(pairs, probability=values, verified=verified)


@pytest.mark.parametrize("value", [-1.0, 3.0, 0.5, np.inf])
def test_an_observation_that_is_no_class_is_an_error(value):
    pairs = random_pairs()
    observed = pairs.observed.copy()
    observed[2, 1, 3, 3] = value
    with pytest.raises(DataError, match="from 0 to 2, or NaN"):
        replace(pairs, observed=observed)


def test_a_lead_without_verified_dates_or_known_classes_is_an_error():
    pairs = random_pairs()
    verified = pairs.verified.copy()
    verified[:, 1] = False
    observed = pairs.observed.copy()
    observed[:, 1] = np.nan
    for change in ({"verified": verified}, {"observed": observed}):
        with pytest.raises(DataError, match="there is a lead without"):
            replace(pairs, **change)
