"""Terciles are thirds of each cell and month, odds are counts, probabilities those of scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gridcast.config.frames import ClassesConfig
from gridcast.errors import DataError
from gridcast.frames.classes import Classes
from gridcast.models.heads import LEAST_PROBABILITY, class_probabilities

TERCILES = ClassesConfig()
MASK = np.array([[True, False, True]])
MONTHS = np.tile(np.arange(1, 13), 30)


def anomalies(seed: int = 0) -> np.ndarray:
    """30 years [time 1 3 2]: each month, cell and channel with a mean of its own, some missing."""
    random = np.random.default_rng(seed)
    scaled = random.normal(size=(360, 1, 3, 2)) + np.tile(
        random.normal(size=(12, 1, 3, 2)), (30, 1, 1, 1)
    )
    scaled[random.random(scaled.shape) < 0.05] = np.nan
    scaled[:, ~MASK] = 0.0
    return scaled.astype(np.float32)


def thresholds(*numbers: float) -> np.ndarray:
    """The same in all months, cells and channels."""
    return np.broadcast_to(np.reshape(numbers, (-1, 1, 1, 1)), (12, len(numbers), 1, 3, 2)).astype(
        float
    )


def test_terciles_are_the_quantiles_of_numpy_in_each_cell_and_month():
    scaled = anomalies()
    classes = Classes.fit(TERCILES, scaled, MONTHS, MASK, None)
    assert classes.labels == ["below", "near", "above"]
    for month in (1, 7, 12):
        part = scaled[month == MONTHS][:, MASK].astype(np.float64)
        expected = np.nanquantile(part, [1 / 3, 2 / 3], axis=0)
        np.testing.assert_allclose(classes.edges[month - 1][:, MASK], expected, rtol=1e-5)
    assert (classes.edges[:, :, ~MASK] == 0).all()


def test_each_tercile_holds_a_third_of_training():
    scaled = anomalies()
    classes = Classes.fit(TERCILES, scaled, MONTHS, MASK, None)
    number = classes.classify(scaled, MONTHS)
    np.testing.assert_array_equal(np.isnan(number), np.isnan(scaled))
    assert number.dtype == np.float32
    for month in (2, 8):
        part = number[month == MONTHS][:, MASK]
        counts = np.stack([(part == k).sum(axis=0) for k in range(3)])
        assert (np.ptp(counts, axis=0) <= 1).all()
    np.testing.assert_allclose(classes.odds[:, :, MASK], 1 / 3, atol=0.03)


def test_odds_by_hand():
    # January of one cell: 4 dates below the threshold, 1 above, 1 missing; no other month.
    scaled = np.full((6, 1, 3, 2), -1.0, np.float32)
    scaled[4, 0, 0, 0], scaled[5, 0, 0, 0] = 2.0, np.nan
    config = ClassesConfig(kind="thresholds", thresholds=[0.5])
    classes = Classes.fit(config, scaled, np.ones(6, int), MASK, thresholds(0.5))
    assert classes.labels == ["below 0.5", "above 0.5"]
    np.testing.assert_allclose(classes.odds[0, :, 0, 0, 0], [4.5 / 6, 1.5 / 6])
    np.testing.assert_allclose(classes.odds[0, :, 0, 2, 1], [6.5 / 7, 0.5 / 7])
    np.testing.assert_allclose(classes.odds[1:], 0.5)
    # Off the mask nothing is known.
    np.testing.assert_allclose(classes.odds[:, :, 0, 1], 0.5)
    np.testing.assert_array_equal(classes.edges[:, 0, 0, :, 0], [[0.5, 0, 0.5]] * 12)


@pytest.mark.parametrize("numbers", [None, (-1.0, 0.0, 1.0, 2.5)])
def test_odds_sum_to_one_and_training_frequency_decides(numbers):
    config = ClassesConfig(kind="thresholds", thresholds=list(numbers)) if numbers else TERCILES
    scaled = anomalies()
    edges = thresholds(*numbers) if numbers else None
    classes = Classes.fit(config, scaled, MONTHS, MASK, edges)
    assert classes.odds.shape == (12, config.count, 1, 3, 2)
    np.testing.assert_allclose(classes.odds.sum(axis=1), 1, rtol=1e-6)
    edge = classes.edges[4, :, 0, 2, 1]
    seen = scaled[MONTHS == 5, 0, 2, 1]
    counts = np.histogram(seen[~np.isnan(seen)], [-np.inf, *edge, np.inf])[0]
    expected = (counts + 0.5) / (counts.sum() + 0.5 * config.count)
    np.testing.assert_allclose(classes.odds[4, :, 0, 2, 1], expected, rtol=1e-6)


def test_the_class_is_that_of_the_month_of_the_date():
    edges = thresholds(0.0, 1.0).copy()
    edges[6] += 10
    config = ClassesConfig(kind="thresholds", thresholds=[0, 1])
    classes = Classes.fit(config, anomalies(), MONTHS, MASK, edges)
    scaled = np.full((4, 1, 3, 2), 5.0, np.float32)
    number = classes.classify(scaled, np.array([1, 7, 8, 7]))[:, 0, 0, 0]
    np.testing.assert_array_equal(number, [2, 0, 2, 0])
    np.testing.assert_array_equal(
        classes.edges_at(np.array([[7, 1]]))[0, :, :, 0, 0, 0], [[10, 11], [0, 1]]
    )


@pytest.mark.parametrize("edge", [1 / 3, 0.7])  # one is rounded up in float32, one down
def test_a_value_on_an_edge_lies_below_it_in_float32(edge):
    config = ClassesConfig(kind="thresholds", thresholds=[edge])
    classes = Classes.fit(config, anomalies(), MONTHS, MASK, thresholds(edge))
    for dtype in (np.float32, np.float64):
        on_edge = np.full((1, 1, 3, 2), edge, dtype)
        assert (classes.classify(on_edge, np.array([3]))[:, MASK] == 0).all()
    above = np.nextafter(on_edge.astype(np.float32), np.float32(1))
    assert (classes.classify(above, np.array([3]))[:, MASK] == 1).all()


def test_terciles_of_a_month_never_trained_on_are_refused_and_no_other():
    summer = np.isin(MONTHS, [6, 7, 8])
    classes = Classes.fit(TERCILES, anomalies()[summer], MONTHS[summer], MASK, None)
    classes.classify(anomalies()[summer], MONTHS[summer])
    np.testing.assert_allclose(classes.odds[0], 1 / 3)
    with pytest.raises(DataError, match=r"the training dates hold no month \[1, 9\]\n  expected"):
        classes.classify(anomalies()[:3], np.array([9, 7, 1]))


def test_a_cell_never_observed_in_a_month_knows_nothing_of_it():
    scaled = anomalies()
    scaled[MONTHS == 3, 0, 0] = np.nan
    classes = Classes.fit(TERCILES, scaled, MONTHS, MASK, None)
    assert (classes.edges[2, :, 0, 0] == 0).all()
    np.testing.assert_allclose(classes.odds[2, :, 0, 0], 1 / 3)
    assert (classes.edges[3, :, 0, 0] != 0).all()


def test_a_copy_from_a_checkpoint_is_the_same():
    classes = Classes.fit(TERCILES, anomalies(), MONTHS, MASK, None)
    again = Classes.restore(TERCILES, classes.arrays())
    scaled = anomalies(1)
    np.testing.assert_array_equal(again.classify(scaled, MONTHS), classes.classify(scaled, MONTHS))
    np.testing.assert_array_equal(again.odds, classes.odds)
    assert again.labels == classes.labels


def probabilities(mean: np.ndarray, deviation: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """As heads and references have them, the classes at the end."""
    spread = np.broadcast_to(deviation, mean.shape).astype(np.float32)
    parts = (jnp.asarray(a, jnp.float32) for a in (mean, spread, edges))
    return np.moveaxis(np.asarray(class_probabilities(*parts)), 2, -1)


def test_probabilities_of_classes_are_those_of_the_normal_distribution():
    random = np.random.default_rng(2)
    mean = random.normal(size=(4, 3, 2, 1, 2))
    deviation = random.uniform(0.1, 2, (3, 2, 1, 2))
    edges = np.sort(random.normal(size=(4, 3, 2, 2, 1, 2)), axis=2)
    out = probabilities(mean, deviation, edges)
    assert out.shape == (4, 3, 2, 1, 2, 3)
    np.testing.assert_allclose(out.sum(axis=-1), 1, rtol=1e-6)
    least = LEAST_PROBABILITY
    for w, h, i, c in ((0, 0, 0, 0), (3, 1, 1, 1), (2, 2, 0, 1)):
        below = stats.norm(mean[w, h, i, 0, c], deviation[h, i, 0, c]).cdf(edges[w, h, :, i, 0, c])
        exact = np.array([below[0], below[1] - below[0], 1 - below[1]])
        np.testing.assert_allclose(out[w, h, i, 0, c], least + (1 - 3 * least) * exact, atol=1e-6)


def test_without_an_error_the_class_is_certain_and_agrees_with_classify():
    classes = Classes.fit(TERCILES, anomalies(), MONTHS, MASK, None)
    scaled = anomalies(3)[:12]
    edges = classes.edges_at(MONTHS[:12])
    out = probabilities(scaled[:, None], np.zeros((1, 1, 3, 2)), edges[:, None])[:, 0]
    number = classes.classify(scaled, MONTHS[:12])
    seen = np.isfinite(number) & MASK[..., None]
    assert seen.any()
    assert not seen.all()
    # A forecast within a thousandth of an edge may lie on either side of it.
    clear = seen & (np.abs(scaled[:, None] - edges).min(axis=1) > 5e-3)
    certain = np.where(
        number[..., None] == np.arange(3), 1 - 2 * LEAST_PROBABILITY, LEAST_PROBABILITY
    )
    np.testing.assert_allclose(out[clear], certain[clear], atol=1e-5)
