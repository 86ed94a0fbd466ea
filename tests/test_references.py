"""Reference forecasts: against hand computation, independent algebra and a known linear system."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gridcast.references import (
    REFERENCES,
    LimByRows,
    TrainingSeries,
    climatology,
    damped_persistence,
    error_deviation,
    linear_inverse_model,
    persistence,
)
from gridcast.timeaxis import TimeAxis


def training_of(values, steps=None, inside=None, weight=None) -> TrainingSeries:
    """A daily series; `steps` says on which days it has values."""
    values = np.asarray(values, dtype=np.float32)
    values = values.reshape(len(values), *values.shape[1:], *(1,) * (4 - values.ndim))
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    first = np.datetime64("2001-01-01", "ns")
    axis = TimeAxis(first + steps.astype("timedelta64[D]"), "day", 1, steps)
    inside = np.ones(len(values), dtype=bool) if inside is None else np.asarray(inside, dtype=bool)
    shape = values.shape[1:3]
    weight = np.full(shape, 1 / np.prod(shape)) if weight is None else weight
    weight = np.broadcast_to(weight[..., None], values.shape[1:])
    return TrainingSeries(values, axis, inside, weight)


def noise(time=200, lat=4, lon=5, seed=0) -> np.ndarray:
    """Red noise whose memory differs from cell to cell, 0 in a corner off the mask."""
    rng = np.random.default_rng(seed)
    memory = rng.uniform(0.2, 0.95, (lat, lon))
    values = np.zeros((time, lat, lon))
    for t in range(1, time):
        values[t] = memory * values[t - 1] + rng.standard_normal((lat, lon))
    values[:, 0, :2] = 0.0
    return values.astype(np.float32)


def window_of(seed: int) -> np.ndarray:
    """One window of one frame."""
    return noise(9, seed=seed)[None, -1:, ..., None]


def weight_of(lat=4, lon=5) -> np.ndarray:
    weight = np.cos(np.deg2rad(np.linspace(-60, 50, lat)))[:, None] * np.ones(lon)
    weight[0, :2] = 0.0
    return weight / weight.sum()


def test_damped_persistence_of_four_numbers_is_what_one_computes_by_hand():
    factor = damped_persistence(training_of([2, 1, -1, 3]), 4).damping[0].squeeze()
    # lead 1: (2*1 + 1*-1 + -1*3) / (4 + 1 + 1); lead 2: (2*-1 + 1*3) / (4 + 1); lead 3: 2*3 / 4;
    # lead 4: no pair of dates.
    np.testing.assert_allclose(factor, [-1 / 3, 1 / 5, 3 / 2, 0], rtol=1e-6)


def test_damped_persistence_is_the_least_squares_slope_through_the_origin_of_each_cell():
    values = noise()
    forecast = damped_persistence(training_of(values), 3)
    for lead in (1, 2, 3):
        for row, column in np.ndindex(4, 5):
            now, later = values[:-lead, row, column, None], values[lead:, row, column]
            slope = np.linalg.lstsq(now, later, rcond=None)[0][0]
            assert forecast.damping[0, lead - 1, row, column, 0] == pytest.approx(slope, abs=1e-5)


def test_persistence_repeats_the_last_frame_and_climatology_forecasts_no_anomaly():
    values = noise()
    frames = values[:12].reshape(2, 6, 4, 5, 1)  # two windows of six frames
    training = training_of(values)
    repeated = persistence(training, 3)(frames)
    assert repeated.shape == (2, 3, 4, 5, 1)
    assert all(np.array_equal(repeated[:, k], frames[:, -1]) for k in range(3))
    assert not climatology(training, 3)(frames).any()


def test_a_gap_in_time_is_never_crossed():
    # Days 3 and 4 are missing: 5 is not the day after 2, but it is three days after it.
    factor = damped_persistence(
        training_of([1, 1, 1, 7, 7, 7], steps=[0, 1, 2, 5, 6, 7]), 3
    ).damping[0]
    pairs = {
        1: [(1, 1), (1, 1), (7, 7), (7, 7)],
        2: [(1, 1), (7, 7)],
        3: [(1, 7)],
    }
    for lead, found in pairs.items():
        by_hand = sum(a * b for a, b in found) / sum(a * a for a, _ in found)
        assert factor[lead - 1].item() == pytest.approx(by_hand)
    # The control: without the gap the step from 1 to 7 counts at lead 1.
    assert damped_persistence(training_of([1, 1, 1, 7, 7, 7]), 1).damping.item() != pytest.approx(1)


def test_pairs_have_both_dates_in_training():
    inside = [True, True, False, False, True, True]
    training = training_of([1, 2, 100, 100, 3, 6], inside=inside)
    for lead, expected in ((1, [(0, 1), (4, 5)]), (2, []), (3, [(1, 4)]), (4, [(0, 4), (1, 5)])):
        now, later = training.pairs(lead)
        assert list(zip(now.tolist(), later.tolist(), strict=True)) == expected
    assert damped_persistence(training, 1).damping.item() == pytest.approx((2 + 18) / (1 + 9))


@pytest.mark.parametrize("name", REFERENCES)
def test_dates_outside_training_change_no_bit_of_any_reference(name):
    values, weight = noise()[..., None], weight_of()
    inside = np.arange(len(values)) < 120
    window = values[5:8].reshape(1, 3, 4, 5, 1)

    def forecast(changed: slice, value: float) -> bytes:
        altered = values.copy()
        altered[changed] = value
        return REFERENCES[name](training_of(altered, inside=inside, weight=weight), 4)(
            window
        ).tobytes()

    true = forecast(slice(0, 0), 0.0)
    assert forecast(slice(120, None), 1e6) == true
    assert forecast(slice(120, None), np.nan) == true
    if name in ("damped_persistence", "lim"):  # the control: training dates do change them
        assert forecast(slice(119, 120), 9.0) != true


def lim_by_svd(values, weight, eofs: int, leads: int, start):
    """A LIM written with other means: SVD, pseudo-inverse, matrix powers, a loop over cells."""
    time, lat, lon = values.shape
    root = np.sqrt(weight).reshape(-1)
    flat = values.reshape(time, -1).astype(float)
    patterns = np.linalg.svd(flat * root, full_matrices=False)[2][:eofs].T
    components = (flat * root) @ patterns
    propagator = np.linalg.pinv(components[:-1]) @ components[1:]
    back = np.where(root > 0, 1 / np.where(root > 0, root, 1), 0)
    outside = flat - components @ patterns.T * back
    start = start.reshape(-1).astype(float)
    begin = (start * root) @ patterns
    rest = start - begin @ patterns.T * back
    forecasts = []
    for lead in range(1, leads + 1):
        now, later = outside[:-lead], outside[lead:]
        square = (now**2).sum(axis=0)
        slope = np.where(square > 0, (now * later).sum(axis=0) / np.where(square > 0, square, 1), 0)
        forward = begin @ np.linalg.matrix_power(propagator, lead) @ patterns.T * back
        forecasts.append((forward + slope * rest).reshape(lat, lon))
    return np.stack(forecasts)


@pytest.mark.parametrize(
    ("lat", "lon", "time", "eofs"), [(4, 5, 200, 6), (4, 5, 90, 20), (11, 13, 100, 5)]
)
def test_the_linear_inverse_model_equals_an_independent_computation(lat, lon, time, eofs):
    values, weight = noise(time, lat, lon), weight_of(lat, lon)
    model = linear_inverse_model(training_of(values, weight=weight), 5, eofs)
    start = noise(9, lat, lon, seed=5)[-1]
    used = min(eofs, time // 10)
    assert model.patterns.shape == (used, lat, lon, 1)
    expected = lim_by_svd(values, weight, used, 5, start)
    found = model(start[None, None, :, :, None])[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(start).max())
    assert not found[:, 0, :2].any()  # off the mask


def test_scaling_the_weights_does_not_change_the_linear_inverse_model():
    values, weight, window = noise(), weight_of(), window_of(2)
    one, thousand = (
        linear_inverse_model(training_of(values, weight=w), 3, 5)(window)
        for w in (weight, 1000 * weight)
    )
    np.testing.assert_allclose(one, thousand, atol=1e-5)


def test_the_linear_inverse_model_finds_the_system_that_made_the_data():
    rng = np.random.default_rng(7)
    # Three modes: an oscillation that decays, a slow mode fed by it; the rest of the grid follows.
    system = np.array([[0.85, 0.35, 0.0], [-0.3, 0.8, 0.0], [0.25, 0.0, 0.9]])
    patterns = np.linalg.qr(rng.standard_normal((20, 3)))[0].T
    state = np.zeros((40_000, 3))
    for t in range(1, len(state)):
        state[t] = state[t - 1] @ system + rng.standard_normal(3)
    fields = (state @ patterns).reshape(-1, 4, 5)
    start = 3 * rng.standard_normal((10, 3))
    window = (start @ patterns).reshape(10, 1, 4, 5, 1).astype(np.float32)
    truth = [(start @ np.linalg.matrix_power(system, k) @ patterns) for k in range(1, 7)]
    truth = np.stack(truth, axis=1)

    def relative_error(time: int) -> float:
        forecast = linear_inverse_model(training_of(fields[:time]), 6, 3)(window)
        difference = forecast.reshape(10, 6, 20) - truth
        return float(np.sqrt((difference**2).mean() / (truth**2).mean()))

    assert relative_error(40_000) < 0.03
    assert relative_error(40_000) < 0.4 * relative_error(1_000)


def test_short_and_single_date_series_give_finite_references():
    for time in (2, 12):
        training = training_of(noise(time), weight=weight_of())
        for name, fit in REFERENCES.items():
            forecast = fit(training, 3)(window_of(3))
            assert np.isfinite(forecast).all(), (name, time)
    # A lead longer than training has no pairs: forecast the climatology, which needs none.
    assert not damped_persistence(training_of([1.0, 2.0]), 3).damping[0, 1:].any()


def test_a_split_in_two_pieces_does_not_join_their_ends():
    values, weight = noise(), weight_of()
    training = training_of(values, weight=weight)
    holed = replace(training, inside=np.r_[np.ones(80), np.zeros(40), np.ones(80)].astype(bool))
    now, later = holed.pairs(1)
    assert len(now) == 158
    assert np.array_equal(later - now, np.ones(158))
    assert 79 not in now
    assert 120 not in later


# ---------------------------------------------------------------- gaps, and several variables


def gappy(time=60) -> tuple[np.ndarray, np.ndarray]:
    """Red noise with values missing here and there, one whole frame among them; training dates."""
    values = noise(time).astype(np.float32)
    rng = np.random.default_rng(9)
    holes = rng.random(values.shape) < 0.2
    holes[17], holes[:, 0, :2] = True, False
    return np.where(holes, np.nan, values), np.arange(time) < 50


def training_with_gaps(values: np.ndarray, inside: np.ndarray) -> TrainingSeries:
    whole = training_of(np.nan_to_num(values), inside=inside, weight=weight_of())
    return TrainingSeries.of(values[..., None], whole.axis, inside, whole.weight)


def test_a_slope_counts_the_pairs_of_which_both_were_observed():
    values, inside = gappy()
    factor = damped_persistence(training_with_gaps(values, inside), 3).damping[0, ..., 0]
    for lead, (row, column) in ((k, cell) for k in (1, 2, 3) for cell in np.ndindex(4, 5)):
        cell = values[:50, row, column].astype(float)
        pairs = [(a, b) for a, b in zip(cell, cell[lead:], strict=False) if np.isfinite(a + b)]
        square = sum(a * a for a, _ in pairs)
        by_hand = sum(a * b for a, b in pairs) / square if square else 0.0
        assert factor[lead - 1, row, column] == pytest.approx(by_hand, abs=1e-5)


def test_values_that_lack_are_not_zeros_to_any_reference():
    values, inside = gappy()
    training = training_with_gaps(values, inside)
    assert not training.inside[17]
    window = window_of(3)
    for name, fit in REFERENCES.items():
        assert np.isfinite(fit(training, 3)(window)).all(), name
    zeros = training_of(np.nan_to_num(values), inside=inside, weight=weight_of())
    for name in ("damped_persistence", "lim"):
        gapless = REFERENCES[name](zeros, 3)(window)
        assert np.abs(REFERENCES[name](training, 3)(window) - gapless).max() > 0.01, name


@pytest.mark.parametrize("gaps", [False, True])
def test_the_deviation_of_errors_is_their_root_mean_square_over_training(gaps):
    values, inside = gappy() if gaps else (noise(60), np.arange(60) < 50)
    training = training_with_gaps(values, inside)
    reference = damped_persistence(training, 2)
    found = error_deviation(reference, training, 2)[..., 0]
    for lead, (row, column) in ((k, cell) for k in (1, 2) for cell in np.ndindex(4, 5)):
        cell = values[:50, row, column].astype(float)
        factor = float(reference.damping[0, lead - 1, row, column, 0])
        errors = [factor * a - b for a, b in zip(cell, cell[lead:], strict=False)]
        square = [e * e for e in errors if np.isfinite(e)]
        by_hand = np.sqrt(np.mean(square)) if square else 0.0
        assert found[lead - 1, row, column] == pytest.approx(by_hand, abs=1e-5)


def two_variables() -> TrainingSeries:
    both = np.stack([noise(seed=1), noise(seed=2)], axis=-1)
    weight = np.stack([weight_of(), weight_of()], axis=-1)
    return replace(training_of(noise(), weight=weight_of()), values=both, weight=weight)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_order_of_variables_does_not_matter(name):
    training = two_variables()
    turned = replace(training, values=training.values[..., ::-1])
    window = np.concatenate([window_of(3), window_of(4)], axis=-1)
    found = REFERENCES[name](training, 3)(window)
    assert found.shape == (1, 3, 4, 5, 2)
    swapped = REFERENCES[name](turned, 3)(window[..., ::-1])
    np.testing.assert_allclose(swapped[..., ::-1], found, atol=1e-4)


def test_only_the_linear_inverse_model_learns_of_one_variable_from_the_other():
    training = two_variables()
    window = np.concatenate([window_of(3), window_of(4)], axis=-1)
    other = window * [1.0, 3.0]
    for name, fit in REFERENCES.items():
        reference = fit(training, 3)
        first, changed = (reference(w.astype(np.float32))[..., 0] for w in (window, other))
        assert bool(np.abs(changed - first).max() > 1e-3) is (name == "lim"), name


def by_rows(whole: TrainingSeries, rows: list[slice], leads: int, eofs: int):
    """A LIM that sees so many rows at a time, and the errors it had in training."""

    def bands():
        for cut in rows:
            weight = whole.weight[cut] / max(whole.weight[cut].sum(), 1e-9)
            yield replace(whole, values=whole.values[:, cut], weight=weight)

    lim = LimByRows.fit(bands, whole.weight, leads, eofs)
    fitted = [lim.of_rows(band, cut) for band, cut in zip(bands(), rows, strict=True)]
    damping = np.concatenate([reference.damping for reference, _ in fitted], axis=2)
    errors = [error_deviation(*one, leads) for one in fitted]
    return lim.whole(damping), np.concatenate(errors, axis=1)


@pytest.mark.parametrize(("lat", "lon", "time", "eofs"), [(4, 5, 200, 6), (11, 13, 100, 20)])
def test_a_linear_inverse_model_by_rows_is_the_same(lat, lon, time, eofs):
    inside = np.arange(time) < time - 30
    training = training_of(noise(time, lat, lon), inside=inside, weight=weight_of(lat, lon))
    expected = linear_inverse_model(training, 3, eofs)
    rows = [slice(0, 1), slice(1, lat - 1), slice(lat - 1, lat)]
    found, errors = by_rows(training, rows, 3, eofs)
    start = noise(9, lat, lon, seed=5)[None, -1:, ..., None]
    np.testing.assert_allclose(found(start), expected(start), atol=2e-4)
    np.testing.assert_allclose(errors, error_deviation(expected, training, 3), rtol=1e-4, atol=1e-6)
    # Test dates are states to forecast from, and change nothing that is fitted.
    spoiled = np.where(inside[:, None, None, None], training.values, 99 * training.values)
    again, same = by_rows(replace(training, values=spoiled), rows, 3, eofs)
    assert all(np.array_equal(array, vars(found)[name]) for name, array in vars(again).items())
    assert np.array_equal(errors, same)


def test_the_eofs_of_a_thousand_dates_serve_a_long_record():
    """What the same dates, used all, make of it: forecasts are hardly different, errors no more."""
    rng = np.random.default_rng(3)
    shapes = np.linalg.qr(rng.standard_normal((40, 40)))[0] * 0.7 ** np.arange(40)
    state = np.zeros((6000, 40))
    for t in range(1, len(state)):
        state[t] = 0.9 * np.roll(state[t - 1], 1) + rng.standard_normal(40)
    fields = (state @ shapes.T).reshape(-1, 5, 8)
    training = training_of(fields, inside=np.arange(6000) < 5500)
    few, _ = by_rows(training, [slice(0, 2), slice(2, 5)], 2, 6)
    every = linear_inverse_model(training, 2, 6)
    frames, came = training.values[5500:5990][:, None], training.values[5501:5991]
    wrong = [np.square(one(frames)[:, 0] - came).mean() for one in (few, every)]
    assert wrong[0] == pytest.approx(wrong[1], rel=0.02)
    assert wrong[0] < 0.9 * np.square(came).mean()
