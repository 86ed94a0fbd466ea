"""Confidence intervals and field significance: by hand, by other packages, and by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import false_discovery_control, norm, t, ttest_1samp
from scores.stats.statistical_tests import diebold_mariano as oracle

from gridcast.errors import DataError
from gridcast.verification.field_significance import (
    diebold_mariano,
    false_discovery,
    field_test,
)
from gridcast.verification.metrics import Pairs, acc, rmse
from gridcast.verification.significance import (
    DateSums,
    block_length,
    compare,
    draw_dates,
    few_blocks,
    in_order,
)

LEADS, DATES = 3, 40


def hindcast(seed: int = 0, gaps: bool = False) -> tuple[Pairs, Pairs, np.ndarray]:
    """Model and reference, windows a step apart, 40 dates verified at each of three leads."""
    rng = np.random.default_rng(seed)
    windows = DATES + LEADS - 1
    dates = np.arange(windows)[:, None] + np.arange(1, LEADS + 1)
    truth = rng.normal(size=(dates.max() + 1, 3, 4))
    observed = truth[dates]
    ours, theirs = (observed + s * rng.normal(size=observed.shape) for s in (0.8, 1.0))
    verified = (dates >= LEADS) & (dates < LEADS + DATES)
    weight = rng.uniform(0.2, 1.0, (3, 4))
    weight[0, :2] = 0.0
    if gaps:
        hole = rng.random(truth.shape) < 0.2
        observed = np.where(hole[dates], np.nan, observed)
    model, reference = (Pairs(f, observed, verified, weight, gaps) for f in (ours, theirs))
    return model, reference, dates


def persistent(rng: np.random.Generator, rho: float, shape: tuple[int, ...]) -> np.ndarray:
    """First-order autoregressive series of unit variance along the first axis."""
    shocks = rng.normal(size=shape)
    series = np.empty(shape)
    series[0] = shocks[0]
    for k in range(1, shape[0]):
        series[k] = rho * series[k - 1] + np.sqrt(1 - rho**2) * shocks[k]
    return series


@pytest.mark.parametrize("gaps", [False, True])
def test_sums_over_dates_are_the_pooled_scores(gaps):
    model, _, dates = hindcast(gaps=gaps)
    sums = DateSums.of(model, dates)
    once = np.ones((1, DATES))
    for lead in range(LEADS):
        whole = sums.resampled(once, lead)
        assert np.sqrt(whole.mean_square) == pytest.approx(rmse(model)[lead])
        if not gaps:
            assert whole.acc == pytest.approx(acc(model)[lead])


def test_each_date_stands_in_its_row_at_every_lead():
    model, _, dates = hindcast()
    order = in_order(model.verified, dates)
    expected = np.arange(LEADS, LEADS + DATES)
    for lead in range(LEADS):
        np.testing.assert_array_equal(dates[order[:, lead], lead], expected)
        error = (model.forecast - model.observed)[order[7, lead], lead]
        square = DateSums.of(model, dates).square[7, lead]
        assert square == pytest.approx((error**2 * model.weight).sum())


def test_the_order_of_windows_does_not_matter():
    model, reference, dates = hindcast()
    mix = np.random.default_rng(1).permutation(len(dates))

    def mixed(pairs: Pairs) -> Pairs:
        parts = {n: getattr(pairs, n)[mix] for n in ("forecast", "observed", "verified")}
        return replace(pairs, **parts)

    ours, theirs = (DateSums.of(p, dates) for p in (model, reference))
    other = compare(*(DateSums.of(mixed(p), dates[mix]) for p in (model, reference)))
    np.testing.assert_array_equal(compare(ours, theirs).skill, other.skill)
    plain, shuffled = (
        field_test(model, reference, dates),
        field_test(mixed(model), mixed(reference), dates[mix]),
    )
    np.testing.assert_array_equal(plain.p_value, shuffled.p_value)


def test_leads_with_other_dates_or_a_date_twice_are_refused():
    model, _, dates = hindcast()
    in_order(model.verified, dates)
    fewer = model.verified.copy()
    fewer[10, 1] = False
    with pytest.raises(DataError, match="lead 2 is verified on 39 dates"):
        in_order(fewer, dates)
    twice = dates.copy()
    twice[10] = dates[11]
    with pytest.raises(DataError, match="lead 1 is verified"):
        in_order(model.verified, twice)


def test_resamples_are_blocks_on_a_circle_of_as_many_dates():
    counts = draw_dates(12, 4, 300, seed=0)
    assert (counts.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(counts, draw_dates(12, 4, 300, seed=0))
    assert not np.array_equal(counts, draw_dates(12, 4, 300, seed=1))
    # A block of all dates is the whole circle from anywhere: each date once.
    np.testing.assert_array_equal(draw_dates(12, 12, 5, seed=0), 1)
    # Each count is a sum over blocks of four in a row: blocks that begin at k or up to 3 before.
    begins = np.stack([np.roll(np.eye(12)[:4].sum(axis=0), k) for k in range(12)])
    found = np.linalg.lstsq(begins.T, counts.T, rcond=None)[0]
    np.testing.assert_allclose(begins.T @ found, counts.T, atol=1e-12)
    loose = np.random.default_rng(0).multinomial(12, np.ones(12) / 12, size=300).T
    assert np.abs(begins.T @ np.linalg.lstsq(begins.T, loose, rcond=None)[0] - loose).max() > 0.5
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.25)  # the first and last like others


def test_the_variance_of_a_resampled_mean_is_that_of_bartletts_window_on_the_circle():
    series = persistent(np.random.default_rng(0), 0.7, (60,))
    away = series - series.mean()
    block = 6
    window = 1 - np.abs(np.arange(1 - block, block)) / block
    lags = [(away * np.roll(away, k)).mean() for k in range(1 - block, block)]
    means = draw_dates(60, block, 40000, seed=0) @ series / 60
    assert means.var() == pytest.approx(np.dot(window, lags) / 60, rel=0.03)


def test_intervals_of_single_dates_are_those_of_the_expanded_bootstrap():
    model, reference, dates = hindcast()
    ours, theirs = (DateSums.of(p, dates) for p in (model, reference))
    found = compare(ours, theirs, block=1, resamples=500, level=0.9, seed=4)
    counts = draw_dates(DATES, 1, 500, seed=4)
    # Hesterberg (2015): percentiles at Phi(-sqrt(n / (n - 1)) t).
    tail = norm.cdf(t.ppf(0.05, DATES - 1) * np.sqrt(DATES / (DATES - 1)))
    mine, other = (counts @ s.square / (counts @ s.area) for s in (ours, theirs))
    root = np.sqrt((counts @ ours.forecast) * (counts @ ours.observed))
    statistics = (np.sqrt(mine) - np.sqrt(other), 1 - mine / other, counts @ ours.product / root)
    for interval, statistic in zip(found[:3], statistics, strict=True):
        np.testing.assert_allclose(interval, np.quantile(statistic, [tail, 1 - tail], axis=0))
    np.testing.assert_array_equal(found.block, 1)


def test_both_forecasts_are_resampled_on_the_same_dates():
    model, _, dates = hindcast()
    sums = DateSums.of(model, dates)
    same = compare(sums, sums)
    for interval in (same.rmse_difference, same.skill):
        np.testing.assert_allclose(interval, 0, atol=1e-12)
    half = replace(sums, square=sums.square / 4)
    np.testing.assert_allclose(compare(half, sums).skill, 0.75)


def test_intervals_are_reproducible_and_widen_with_their_level():
    model, reference, dates = hindcast()
    sums = [DateSums.of(p, dates) for p in (model, reference)]
    first, again = compare(*sums, seed=1), compare(*sums, seed=1)
    other, wide = compare(*sums, seed=2), compare(*sums, seed=1, level=0.99)
    for a, b, c, d in zip(first[:3], again[:3], other[:3], wide[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert (np.array(a) != np.array(c)).any()
        assert (d.low < a.low).all()
        assert (d.high > a.high).all()
    skill = 1 - rmse(model) ** 2 / rmse(reference) ** 2
    assert ((first.skill.low < skill) & (skill < first.skill.high)).all()
    assert ((first.acc.low < acc(model)) & (acc(model) < first.acc.high)).all()


def test_blocks_are_as_long_as_the_lead_and_few_dates_have_no_interval():
    assert [block_length(100, lead) for lead in (1, 13, 14, 30)] == [13, 13, 14, 30]
    model, reference, dates = hindcast()
    sums = [DateSums.of(p, dates) for p in (model, reference)]
    np.testing.assert_array_equal(compare(*sums).block, [9, 9, 9])
    short = [
        DateSums(
            *(getattr(s, f)[:9] for f in ("square", "product", "forecast", "observed", "area"))
        )
        for s in sums
    ]
    assert np.isfinite(compare(*short)[:3]).all()  # 9 dates, blocks of 4
    assert np.isnan(compare(*short, block=5)[:3]).all()


def test_a_forecast_of_no_anomaly_has_no_correlation_and_no_warning():
    model, reference, dates = hindcast()
    none = replace(model, forecast=np.zeros_like(model.forecast))
    found = compare(DateSums.of(none, dates), DateSums.of(reference, dates))
    assert np.isnan(found.acc).all()
    assert np.isfinite(found.skill).all()


def test_95_percent_of_intervals_hold_the_truth_though_errors_persist():
    # One cell; each of 400 "leads" is another draw. The mean squares are 0.9 and 1.
    dates, draws = 100, 400
    rng = np.random.default_rng(0)
    shared, own = (persistent(rng, 0.7, (dates, draws, 1, 1)) for _ in range(2))
    when = np.repeat(np.arange(dates)[:, None], draws, axis=1)
    model, reference = (
        DateSums.of(
            Pairs(error, np.zeros_like(error), when >= 0, np.ones((1, 1))),
            when,
        )
        for error in (np.sqrt(0.9) * shared, np.sqrt(0.5) * (shared + own))
    )

    def coverage(block: int) -> tuple[float, float]:
        found = compare(model, reference, block=block)
        return tuple(
            float(((interval.low <= truth) & (interval.high >= truth)).mean())
            for interval, truth in ((found.skill, 0.1), (found.rmse_difference, np.sqrt(0.9) - 1))
        )

    assert all(0.91 <= share <= 0.985 for share in coverage(block_length(dates, 1)))
    # The control: dates drawn one by one are too sure.
    assert max(coverage(1)) < 0.85


def test_a_block_of_one_is_students_t_test_and_the_package_scores():
    series = np.random.default_rng(0).normal(0.2, 1, (30, 50))
    mean, p = diebold_mariano(series, 1)
    np.testing.assert_allclose(mean, series.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(p, ttest_1samp(series, 0).pvalue, rtol=1e-10)
    cells = xr.DataArray(series.T, dims=("cell", "date"), coords={"h": ("cell", np.ones(50, int))})
    cells = cells.assign_coords(cell=np.arange(50))
    theirs = oracle(cells, "cell", "h", method="HLN", statistic_distribution="t")
    above = theirs["confidence_gt_0"].values
    np.testing.assert_allclose(p, 2 * np.minimum(above, 1 - above), rtol=1e-8)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_factor_for_few_blocks_is_that_of_the_package_scores(horizon):
    series = persistent(np.random.default_rng(1), 0.5, (40, 1))[:, 0] + 0.3
    away = series - series.mean()
    lags = [(away[k:] * away[: 40 - k]).sum() / 40 for k in range(horizon)]
    plain = series.mean() / np.sqrt((lags[0] + 2 * sum(lags[1:])) / 40)
    one = xr.DataArray(
        series[None], dims=("cell", "date"), coords={"cell": [0], "h": ("cell", [horizon])}
    )
    theirs = oracle(one, "cell", "h", method="HLN")["dm_test_stat"].item()
    assert few_blocks(np.array([40]), horizon)[1] * plain == pytest.approx(theirs, rel=1e-10)


def test_p_values_with_gaps_by_hand():
    series = np.random.default_rng(2).normal(0.4, 1, (20, 2))
    series[[3, 4, 9], 1] = np.nan
    mean, p = diebold_mariano(series, 3)
    for cell in range(2):
        seen = np.flatnonzero(np.isfinite(series[:, cell]))
        n, average = seen.size, series[seen, cell].mean()
        total = 0.0
        for a in seen:
            for b in seen:
                window = max(0, 1 - abs(a - b) / 3)
                total += window * (series[a, cell] - average) * (series[b, cell] - average)
        factor = np.sqrt((n + 1 - 2 * 3 + 3 * 2 / n) / n)
        size = factor * average / np.sqrt(total / n**2)
        assert mean[cell] == pytest.approx(average)
        assert p[cell] == pytest.approx(2 * t.sf(abs(size), 1.5 * n / 3), rel=1e-10)


def test_cells_that_cannot_be_tested_are_not():
    series = np.random.default_rng(3).normal(size=(20, 5))
    series[:, 1] = np.nan
    series[5:, 2] = np.nan  # five dates, blocks of three
    series[:, 3] = 0.0
    series[:, 4] = 1.0
    mean, p = diebold_mariano(series, 3)
    np.testing.assert_array_equal(np.isnan(mean), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(p), [0, 1, 1, 0, 0])
    assert p[3:].tolist() == [1.0, 0.0]  # the same forecast; always worse by the same


def test_false_discovery_agrees_with_scipy():
    rng = np.random.default_rng(4)
    for effect in (0.0, 0.3, 1.0):
        p = rng.random(200) ** (1 + 4 * effect)
        for level in (0.05, 0.1, 0.5):
            np.testing.assert_array_equal(
                false_discovery(p, level), false_discovery_control(p) <= level
            )
    holes = np.append(p, np.nan)
    np.testing.assert_array_equal(false_discovery(holes, 0.1)[:-1], false_discovery(p, 0.1))
    assert not false_discovery(holes, 0.1)[-1]
    assert not false_discovery(np.full(3, np.nan), 0.1).any()
    # By hand: 0.03 is above 0.1 * 1/4, but 0.04 is below 0.1 * 2/4 and takes it along.
    found = false_discovery(np.array([0.9, 0.04, 0.03, 0.2]), 0.1)
    np.testing.assert_array_equal(found, [False, True, True, False])


def test_the_share_of_false_discoveries_is_held_though_errors_persist():
    # 200 fields of 60 cells; a difference in none or in 20 of them.
    rng = np.random.default_rng(5)
    noise = persistent(rng, 0.4, (120, 200, 60))
    effect = np.zeros(60)
    shares = []
    for size in (0.0, 0.8):
        effect[:20] = size
        series = (noise + effect).reshape(120, -1)
        _, p = diebold_mariano(series, block_length(120, 1))
        found = np.stack([false_discovery(part, 0.1) for part in p.reshape(200, 60)])
        false = found & (effect == 0)
        shares.append((false.sum(axis=1) / np.maximum(found.sum(axis=1), 1)).mean())
    assert found[:, :20].mean() > 0.9
    assert max(shares) < 0.13
    # The control: each date taken for itself finds far more than there is.
    _, p = diebold_mariano(noise.reshape(120, -1), 1)
    loose = [false_discovery(part, 0.1).any() for part in p.reshape(200, 60)]
    assert np.mean(loose) > 0.5


@pytest.mark.parametrize("gaps", [False, True])
def test_a_field_test_finds_the_half_that_is_better(gaps):
    model, reference, dates = hindcast(gaps=gaps)
    factor = np.ones((3, 4))
    factor[:, 2:] = 0.1
    truth = np.nan_to_num(model.observed)
    noise = reference.forecast - truth
    rng = np.random.default_rng(6)
    other = np.where(factor < 1, factor * noise, rng.normal(size=noise.shape))
    better = replace(model, forecast=truth + other)
    found = field_test(better, reference, dates)
    land = model.weight == 0
    right = np.broadcast_to(factor < 1, found.significant.shape)
    assert found.significant[right].all()
    assert (found.difference[right] < 0).all()
    assert np.isnan(found.difference[:, land]).all()
    assert np.isnan(found.p_value[:, land]).all()
    assert not found.significant[:, land].any()
    area = model.weight.sum()
    np.testing.assert_allclose(
        found.better, [(model.weight * (d < 0)).sum() / area for d in found.difference]
    )
    sure = [
        (model.weight * s * (d < 0)).sum() / area
        for s, d in zip(found.significant, found.difference, strict=True)
    ]
    np.testing.assert_allclose(found.surely_better, sure)
    assert (found.surely_better >= model.weight[:, 2:].sum() / area).all()
    turned = field_test(reference, better, dates)
    np.testing.assert_allclose(turned.surely_worse, found.surely_better)
    np.testing.assert_allclose(turned.p_value, found.p_value)
    pooled = np.nansum(found.difference * model.weight, axis=(1, 2)) / area
    if not gaps:
        np.testing.assert_allclose(pooled, rmse(better) ** 2 - rmse(reference) ** 2)


def test_each_cell_of_a_field_is_tested_with_blocks_of_dates():
    model, reference, dates = hindcast()
    order = in_order(model.verified, dates)
    loss = (model.forecast - model.observed) ** 2 - (reference.forecast - model.observed) ** 2
    land = model.weight == 0
    for given, block in ((None, block_length(DATES, 1)), (2, 2)):
        found = field_test(model, reference, dates, block=given)
        for lead, windows in enumerate(order.T):
            _, p = diebold_mariano(loss[windows, lead][:, ~land], block)
            np.testing.assert_allclose(found.p_value[lead, ~land], p, rtol=1e-12)


def test_a_forecast_is_no_better_than_itself():
    model, _, dates = hindcast()
    found = field_test(model, model, dates)
    assert not found.significant.any()
    assert not found.better.any()
    assert (found.p_value[:, model.weight > 0] == 1).all()
