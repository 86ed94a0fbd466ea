"""Scores of ensembles and distributions: by hand, by other packages, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scores.probability as oracle
import xarray as xr
from scipy.integrate import quad
from scipy.stats import norm

from gridcast.errors import DataError
from gridcast.verification.calibration import (
    between,
    exceedance,
    pit_histogram,
    rank_histogram,
)
from gridcast.verification.categories import brier, reliability
from gridcast.verification.ensembles import (
    EnsemblePairs,
    NormalPairs,
    crps,
    crps_map,
    spread,
    spread_error_ratio,
)
from gridcast.verification.metrics import Pairs, mae, rmse

LEADS, COUNT = 3, 5


def judged(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, verified dates (four of six at each lead) and weights with some land."""
    rng = np.random.default_rng(seed)
    observed = rng.normal(0.2, 1.0, (6, LEADS, 4, 5))
    verified = np.stack([np.roll([1, 1, 1, 1, 0, 0], k) for k in range(LEADS)], axis=1) > 0
    weight = rng.uniform(0.1, 1.0, (4, 5))
    weight[0, :3] = 0.0
    return observed, verified, weight


def ensemble(seed: int = 0) -> EnsemblePairs:
    members = np.random.default_rng(seed + 100).normal(0.0, 0.8, (COUNT, 6, LEADS, 4, 5))
    return EnsemblePairs(members, *judged(seed))


def normal(seed: int = 0) -> NormalPairs:
    rng = np.random.default_rng(seed + 200)
    mean, deviation = rng.normal(0, 0.8, (6, LEADS, 4, 5)), rng.uniform(0.3, 2, (6, LEADS, 4, 5))
    return NormalPairs(mean, deviation, *judged(seed))


def one_case(members: list[float], observed: float) -> EnsemblePairs:
    values = np.array(members, np.float64)[:, None, None, None, None]
    one = np.ones((1, 1))
    return EnsemblePairs(values, np.full((1, 1, 1, 1), observed), one > 0, one)


def with_gaps(pairs):
    missing = np.random.default_rng(2).random(pairs.observed.shape) < 0.1
    missing[:, :, 3, 4] = True
    return replace(pairs, observed=np.where(missing, np.nan, pairs.observed), gaps=True)


def all_scores(pairs) -> dict[str, np.ndarray]:
    found = {
        "crps": crps(pairs),
        "fair": crps(pairs, fair=True),
        "map": np.where(pairs.weight > 0, crps_map(pairs), 0.0),
        "spread": spread(pairs),
        "ratio": spread_error_ratio(pairs),
        "brier": brier(exceedance(pairs, 0.3)),
    }
    if isinstance(pairs, EnsemblePairs):
        return found | {"ranks": rank_histogram(pairs)}
    return found | {"pit": pit_histogram(pairs)}


def assert_same_scores(ours, theirs) -> None:
    expected = all_scores(theirs)
    for name, values in all_scores(ours).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, atol=1e-13, err_msg=name)


def test_crps_of_few_members_is_what_one_computes_by_hand():
    # Members 0 and 2, observed 1: mean error 1; distances 0 2 2 0, a mean of 1, a fair one of 2.
    assert crps(one_case([0, 2], 1.0)) == pytest.approx(1 - 1 / 2)
    assert crps(one_case([0, 2], 1.0), fair=True) == pytest.approx(1 - 2 / 2)
    # Members 3 0 1, observed 2: mean error 4/3; each distance twice: 3 1 2, over 9 or 6.
    assert crps(one_case([3, 0, 1], 2.0)) == pytest.approx(4 / 3 - 12 / 9 / 2)
    assert crps(one_case([3, 0, 1], 2.0), fair=True) == pytest.approx(4 / 3 - 12 / 6 / 2)


@pytest.mark.parametrize("gaps", [False, True])
def test_crps_of_an_ensemble_agrees_with_the_package_scores(gaps):
    pairs = with_gaps(ensemble()) if gaps else ensemble()
    weights = xr.DataArray(pairs.weight, dims=("lat", "lon"))
    for fair, method in ((False, "ecdf"), (True, "fair")):
        for lead in range(LEADS):
            chosen = pairs.verified[:, lead]
            members = xr.DataArray(pairs.members[:, chosen, lead], dims=("m", "date", "lat", "lon"))
            observed = xr.DataArray(pairs.observed[chosen, lead], dims=("date", "lat", "lon"))
            cases = oracle.crps_for_ensemble(
                members, observed, "m", method=method, preserve_dims="all"
            )
            by_cell = cases.mean("date").where(weights > 0)
            np.testing.assert_allclose(crps_map(pairs, fair)[lead], by_cell, rtol=1e-12)
            pooled = float(cases.weighted(weights).mean())
            assert crps(pairs, fair)[lead] == pytest.approx(pooled, rel=1e-12)


def test_crps_of_a_normal_distribution_is_the_integral_that_defines_it():
    pairs = normal()
    score = crps_map(pairs)
    for lead, row, column in ((0, 1, 2), (2, 3, 4)):
        values = []
        for window in np.flatnonzero(pairs.verified[:, lead]):
            at = window, lead, row, column
            came, law = pairs.observed[at], norm(pairs.mean[at], pairs.deviation[at])
            below = quad(lambda x, law=law: law.cdf(x) ** 2, -20, came, epsabs=1e-10)[0]
            above = quad(lambda x, law=law: law.sf(x) ** 2, came, 20, epsabs=1e-10)[0]
            values.append(below + above)
        assert score[lead, row, column] == pytest.approx(np.mean(values), abs=1e-8)


def test_crps_of_many_quantiles_nears_that_of_their_distribution():
    pairs = normal()
    level = (np.arange(2000) + 0.5) / 2000
    members = norm.ppf(level)[:, None, None, None, None] * pairs.deviation + pairs.mean
    many = EnsemblePairs(members, pairs.observed, pairs.verified, pairs.weight)
    np.testing.assert_allclose(crps(many), crps(pairs), rtol=1e-3)


def test_a_forecast_without_uncertainty_scores_its_mean_absolute_error():
    pairs = normal()
    expected = mae(pairs.centre)
    sure = replace(pairs, deviation=np.zeros_like(pairs.deviation))
    np.testing.assert_allclose(crps(sure), expected, rtol=1e-12)
    one = EnsemblePairs(pairs.mean[None], pairs.observed, pairs.verified, pairs.weight)
    np.testing.assert_allclose(crps(one), expected, rtol=1e-12)
    assert not spread(sure).any()
    perfect = replace(sure, mean=sure.observed)
    assert not crps(perfect).any()
    assert np.isnan(spread_error_ratio(perfect)).all()


def test_a_fair_score_expects_the_same_of_a_smaller_ensemble():
    pairs = ensemble()
    fewer = [replace(pairs, members=np.delete(pairs.members, k, axis=0)) for k in range(COUNT)]
    fair = np.mean([crps(some, fair=True) for some in fewer], axis=0)
    np.testing.assert_allclose(fair, crps(pairs, fair=True), rtol=1e-12)
    plain = np.mean([crps(some) for some in fewer], axis=0)
    assert (plain > crps(pairs)).all()
    np.testing.assert_array_equal(crps(normal(), fair=True), crps(normal()))


@pytest.mark.parametrize("of", ["a fair score", "a spread"])
def test_one_member_has_no_spread(of):
    pairs = ensemble()
    score = spread if of == "a spread" else lambda p: crps(p, fair=True)
    score(replace(pairs, members=pairs.members[:2]))
    with pytest.raises(DataError, match=rf"{of} of an ensemble of 1 member"):
        score(replace(pairs, members=pairs.members[:1]))


def test_climatology_is_a_distribution_without_anomaly():
    pairs = normal()
    deviation = np.random.default_rng(3).uniform(0.5, 1.5, (4, 5))
    expected = replace(
        pairs,
        mean=np.zeros_like(pairs.mean),
        deviation=np.broadcast_to(deviation, pairs.mean.shape),
    )
    reference = NormalPairs.of_climatology(pairs.centre, deviation)
    assert_same_scores(reference, expected)
    by_date = NormalPairs.of_climatology(pairs.centre, expected.deviation)
    assert_same_scores(by_date, expected)
    # Where observations are drawn from it: deviation / sqrt(pi), and only the truth scores that.
    observed = np.random.default_rng(4).normal(0, 2, (4000, 1, 1, 1))
    one = np.ones((1, 1))
    drawn = Pairs(np.zeros_like(observed), observed, np.ones((4000, 1)) > 0, one)
    honest, wide, narrow = (
        crps(NormalPairs.of_climatology(drawn, scale * one))[0] for scale in (2.0, 4.0, 1.0)
    )
    assert honest == pytest.approx(2 / np.sqrt(np.pi), rel=0.02)
    assert honest < min(wide, narrow)


def test_spread_by_hand():
    # Members 0 2 4: variance 4, times 4/3; the mean 2 misses 5 by 3.
    pairs = one_case([0, 2, 4], 5.0)
    assert spread(pairs) == pytest.approx(np.sqrt(16 / 3))
    assert spread_error_ratio(pairs) == pytest.approx(np.sqrt(16 / 3) / 3)
    distribution = normal()
    for lead in range(LEADS):
        variance = distribution.deviation[distribution.verified[:, lead], lead] ** 2
        expected = np.average(variance.mean(axis=0), weights=distribution.weight)
        assert spread(distribution)[lead] == pytest.approx(np.sqrt(expected))


def exchangeable(count: int, scale: float = 1.0) -> EnsemblePairs:
    """Members and observations of one distribution, members `scale` times as wide."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(4000, 1, 1, 5))
    members = truth + scale * rng.normal(size=(count, 4000, 1, 1, 5))
    observed = truth + rng.normal(size=truth.shape)
    return EnsemblePairs(members, observed, np.ones((4000, 1)) > 0, np.ones((1, 5)))


def test_a_reliable_ensemble_has_as_much_spread_as_error_and_flat_histograms():
    # Of three members, without the factor (m + 1) / m the ratio would be 0.87.
    pairs = exchangeable(3)
    assert spread_error_ratio(pairs) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(rank_histogram(pairs), 1 / 4, atol=0.01)
    sure = exchangeable(3, scale=0.3)
    assert spread_error_ratio(sure) < 0.5
    outer = rank_histogram(sure)[0, [0, -1]]
    assert (outer > 0.35).all()


@pytest.mark.parametrize("ties", [False, True])
def test_rank_histogram_agrees_with_the_package_scores(ties):
    pairs = ensemble()
    if ties:  # also of all members, and of members among themselves
        pairs = replace(pairs, members=np.rint(pairs.members), observed=np.rint(pairs.observed))
        assert (pairs.members == pairs.observed).all(axis=0).any()
    dims = ("date", "lat", "lon")
    weights = xr.DataArray(pairs.weight, dims=dims[1:])
    for lead in range(LEADS):
        chosen = pairs.verified[:, lead]
        expected = oracle.rank_histogram(
            xr.DataArray(pairs.members[:, chosen, lead], dims=("m", *dims)),
            xr.DataArray(pairs.observed[chosen, lead], dims=dims),
            "m",
            weights=weights,
        )
        np.testing.assert_allclose(rank_histogram(pairs)[lead], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(rank_histogram(pairs).sum(axis=1), 1)
    np.testing.assert_allclose(rank_histogram(with_gaps(pairs)).sum(axis=1), 1)


def test_pit_histogram_counts_areas_in_bins_of_the_distribution_function():
    pairs = with_gaps(normal())
    shares = pit_histogram(pairs, bins=4)
    for lead in range(LEADS):
        chosen = pairs.verified[:, lead]
        came, mean, deviation = (
            f[chosen, lead] for f in (pairs.observed, pairs.mean, pairs.deviation)
        )
        area = np.broadcast_to(pairs.weight, came.shape)
        seen = np.isfinite(came) & (area > 0)
        value = norm.cdf(came[seen], mean[seen], deviation[seen])
        expected, _ = np.histogram(value, np.linspace(0, 1, 5), weights=area[seen])
        np.testing.assert_allclose(shares[lead], expected / area[seen].sum(), rtol=1e-12)


def test_pit_of_a_sure_forecast_is_at_an_end_or_everywhere():
    pairs = normal()
    sure = replace(pairs, deviation=np.zeros_like(pairs.deviation))
    below, above = (replace(sure, mean=sure.observed + shift) for shift in (-1, 1))
    np.testing.assert_allclose(pit_histogram(below), np.eye(10)[[9] * LEADS])
    np.testing.assert_allclose(pit_histogram(above), np.eye(10)[[0] * LEADS])
    np.testing.assert_allclose(pit_histogram(replace(sure, mean=sure.observed)), 0.1)


def test_reliability_of_exceeding_a_threshold_is_that_of_two_classes():
    members, distribution = ensemble(), normal()
    limit = np.random.default_rng(6).normal(0, 0.3, (4, 5))
    chance = {
        "members": (members.members > limit).mean(axis=0),
        "normal": norm.sf(limit, distribution.mean, distribution.deviation),
    }
    for pairs, expected in zip((members, distribution), chance.values(), strict=True):
        classes = exceedance(pairs, limit)
        np.testing.assert_allclose(classes.probability[..., 1], expected, rtol=1e-12)
        came = pairs.observed > limit
        for lead in range(LEADS):
            chosen = pairs.verified[:, lead]
            square = (expected - came)[chosen, lead] ** 2
            by_hand = np.average(square.mean(axis=0), weights=pairs.weight)
            np.testing.assert_allclose(brier(classes)[lead], by_hand)
        np.testing.assert_allclose(reliability(classes).share.sum(axis=-1), 1)
    sure = replace(distribution, deviation=np.zeros_like(distribution.deviation))
    above = exceedance(sure, limit).probability[..., 1]
    np.testing.assert_array_equal(above, (sure.mean > limit).astype(float))
    at = exceedance(replace(sure, mean=np.full_like(sure.mean, 0.3)), 0.3).probability[..., 1]
    assert not at.any()  # on a threshold is not above it
    on = replace(members, members=np.full_like(members.members, 0.3), observed=sure.observed * 0)
    assert not exceedance(on, 0.3).probability[..., 1].any()
    assert not exceedance(on, 0.0).observed.any()
    gaps = with_gaps(members)
    unseen = np.isnan(exceedance(gaps, limit).observed)
    np.testing.assert_array_equal(unseen, np.isnan(gaps.observed))
    hole = np.where(np.arange(20).reshape(4, 5) == 0, np.nan, limit)  # land
    exceedance(members, hole)
    hole[3, 3] = np.nan
    with pytest.raises(DataError, match="threshold is not finite"):
        exceedance(members, hole)


def test_classes_between_edges_have_what_lies_between_them():
    members, distribution = ensemble(), normal()
    rng = np.random.default_rng(8)
    low = rng.normal(-0.4, 0.2, members.observed.shape)
    edges = np.stack([low, low + rng.uniform(0, 1, low.shape)], axis=2)
    law = norm(distribution.mean, distribution.deviation)
    below, up_to = law.cdf(edges[:, :, 0]), law.cdf(edges[:, :, 1])
    found = between(distribution, edges).probability
    np.testing.assert_allclose(found, np.stack([below, up_to - below, 1 - up_to], -1), atol=1e-12)

    def number(values: np.ndarray) -> np.ndarray:
        return (values > edges[:, :, 0]).astype(int) + (values > edges[:, :, 1])

    for pairs in (members, with_gaps(members)):
        classes = between(pairs, edges)
        shares = [(number(pairs.members) == k).mean(axis=0) for k in range(3)]
        np.testing.assert_allclose(classes.probability, np.stack(shares, -1))
        seen = np.isfinite(pairs.observed)
        came = np.where(seen, number(pairs.observed), np.nan)
        np.testing.assert_array_equal(classes.observed, came)
    # A class of no width has no probability, and what lies on an edge is below it.
    same = np.stack([low, low], axis=2)
    assert not between(distribution, same).probability[..., 1].any()
    on = replace(members, members=np.stack([low] * COUNT), observed=low)
    certain = between(on, same)
    np.testing.assert_array_equal(certain.probability[..., 0], 1.0)
    assert not certain.observed.any()


@pytest.mark.parametrize("made", [ensemble, normal])
def test_values_off_the_mask_or_off_the_verified_dates_do_not_count(made):
    pairs = made()
    off = np.broadcast_to(pairs.weight == 0, pairs.observed.shape)
    unverified = np.broadcast_to(~pairs.verified[:, :, None, None], pairs.observed.shape)
    names = {"members", "mean", "deviation", "observed"} & set(vars(pairs))
    for value in (np.nan, 1e30):
        for where in (off, unverified):
            for name in names:
                values = np.where(where, value, getattr(pairs, name))
                assert_same_scores(replace(pairs, **{name: values}), pairs)


@pytest.mark.parametrize("made", [ensemble, normal])
def test_neither_order_nor_scale_nor_a_common_shift_matters(made):
    pairs = made()
    again = replace(pairs, weight=pairs.weight * 7.0)
    assert_same_scores(again, pairs)
    assert_same_scores(replace(pairs, gaps=True), pairs)
    order = np.random.default_rng(7).permutation(6)
    mixed = {
        name: getattr(pairs, name)[order]
        for name in {"mean", "deviation", "observed", "verified"} & set(vars(pairs))
    }
    if isinstance(pairs, EnsemblePairs):
        members = pairs.members[::-1, order]
        assert_same_scores(replace(pairs, members=members, **mixed), pairs)
        moved = replace(pairs, members=2 * pairs.members + 3, observed=2 * pairs.observed + 3)
    else:
        assert_same_scores(replace(pairs, **mixed), pairs)
        moved = replace(
            pairs,
            mean=2 * pairs.mean + 3,
            deviation=2 * pairs.deviation,
            observed=2 * pairs.observed + 3,
        )
    np.testing.assert_allclose(crps(moved), 2 * crps(pairs), rtol=1e-9)
    np.testing.assert_allclose(spread(moved), 2 * spread(pairs), rtol=1e-9)
    np.testing.assert_allclose(rmse(moved.centre), 2 * rmse(pairs.centre), rtol=1e-9)


@pytest.mark.parametrize("made", [ensemble, normal])
def test_single_precision_is_scored_in_double(made):
    pairs = made()
    names = {"members", "mean", "deviation", "observed"} & set(vars(pairs))
    single = {name: getattr(pairs, name).astype(np.float32) for name in names}
    double = {name: values.astype(np.float64) for name, values in single.items()}
    ours, theirs = (replace(pairs, **of) for of in (single, double))
    for score in (crps, spread):
        np.testing.assert_allclose(score(ours), score(theirs), rtol=1e-13)


def test_a_lead_without_any_observation_has_no_score():
    for pairs in (ensemble(), normal()):
        observed = pairs.observed.copy()
        observed[:, 1] = np.nan
        blank = replace(pairs, observed=observed, gaps=True)
        histogram = rank_histogram if isinstance(blank, EnsemblePairs) else pit_histogram
        for values in (crps(blank), spread(blank), histogram(blank)[:, 0]):
            np.testing.assert_array_equal(np.isnan(values), [False, True, False])
        assert np.isnan(crps_map(blank)[1]).all()


def test_a_forecast_that_is_missing_inside_the_mask_is_an_error():
    pairs, distribution = ensemble(), normal()
    members = pairs.members.copy()
    members[4, 2, 1, 3, 3] = np.nan
    with pytest.raises(DataError, match="forecast is not finite"):
        replace(pairs, members=members)
    for wrong in (np.nan, np.inf, -1e-3):
        deviation = distribution.deviation.copy()
        deviation[2, 1, 0, 0] = wrong  # land
        replace(distribution, deviation=deviation)
        deviation[2, 1, 3, 3] = wrong
        with pytest.raises(DataError, match="deviation inside the mask"):
            replace(distribution, deviation=deviation)
