"""Options of the references: by month, seasonal operators, chosen EOFs, analogues, other states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gridcast.config.models import ReferenceConfig
from gridcast.frames.trailing import steps_of, trailing_mean
from gridcast.references import (
    LinearReference,
    Reference,
    TrainingSeries,
    analogues,
    damped_persistence,
    error_deviation,
    fit_base,
    linear_inverse_model,
)
from gridcast.references.lim import NEIGHBOUR, choose_eofs, components_of
from gridcast.timeaxis import TimeAxis

LAT, LON = 3, 4


def monthly(values, inside=None, weight=None, steps=None, first="1950-01") -> TrainingSeries:
    """Months from January 1950; `steps` says which of them there are."""
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    axis = TimeAxis.of((np.datetime64(first) + steps).astype("datetime64[ns]"))
    inside = np.ones(len(values), bool) if inside is None else inside
    if weight is None:
        weight = np.full(values.shape[1:], 1 / np.prod(values.shape[1:3]))
    return TrainingSeries(np.asarray(values, np.float32), axis, inside, weight)


def area() -> np.ndarray:
    """Unequal, and one cell off the mask."""
    weight = np.linspace(1.0, 2.0, LAT * LON).reshape(LAT, LON, 1)
    weight[0, 0] = 0.0
    return weight / weight.sum()


def red(time: int, seed: int = 0, memory: float = 0.8) -> np.ndarray:
    """[time lat lon 1] of two waves that feed each other in half of the year, and noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((2, LAT, LON))
    state, values = np.zeros(2), np.zeros((time, LAT, LON))
    for t in range(time):
        turn = 0.4 * np.cos(2 * np.pi * t / 12)
        state = np.array([[memory, turn], [-turn, memory]]) @ state + rng.standard_normal(2)
        values[t] = np.tensordot(state, patterns, 1) + 0.5 * rng.standard_normal((LAT, LON))
    values[:, 0, 0] = 0.0
    return values[..., None].astype(np.float32)


def month_after(step: int) -> int:
    """Calendar month of the first lead of a forecast from this step of `monthly`."""
    return (step + 1) % 12 + 1


def near(a: int, b: int) -> bool:
    """Whether two calendar months are the same or neighbours: December and January are."""
    return (a - b) % 12 in (0, 1, 11)


# ---------------------------------------------------------------- damped persistence by month


def test_damped_persistence_by_month_is_a_regression_over_the_month_and_its_neighbours():
    steps = np.setdiff1d(np.arange(150), [40, 41, 77])  # a gap in time is not crossed
    values = red(150)[steps]
    inside = steps < 130
    found = damped_persistence(monthly(values, inside, steps=steps), 3, by_month=True)
    assert found.damping.shape == (12, 3, LAT, LON, 1)
    at = {int(step): i for i, step in enumerate(steps) if step < 130}
    for month, lead in ((m, k) for m in range(1, 13) for k in (1, 2, 3)):
        product, square = np.zeros((2, LAT, LON, 1))
        for step, i in at.items():
            if step + lead in at and near(month_after(step), month):
                product += values[i].astype(float) * values[at[step + lead]]
                square += values[i].astype(float) ** 2
        slope = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        np.testing.assert_allclose(found.damping[month - 1, lead - 1], slope, atol=1e-5)
    # Each forecast takes the factors of the month of its first lead.
    frames = red(5, seed=3)[:, None]
    month = np.array([1, 12, 7, 7, 2])
    expected = frames * found.damping[month - 1]
    np.testing.assert_array_equal(found(frames, month), expected)
    assert np.ptp(found.damping, axis=0).max() > 0.2


def test_a_month_without_forecasts_is_damped_as_the_whole_year():
    values = red(120)
    # Only initial dates from January to June: first leads from February to July.
    inside = np.arange(120) % 12 < 6
    training = monthly(values, inside)
    whole = damped_persistence(training, 2).damping[0]
    found = damped_persistence(training, 2, by_month=True).damping
    for month in range(1, 13):
        # A pair one step apart begins in January to May; one two apart in January to April.
        for lead, starts in ((1, range(2, 7)), (2, range(2, 6))):
            alone = not any(near(month, start) for start in starts)
            same = np.array_equal(found[month - 1, lead - 1], whole[lead - 1])
            assert same is alone, (month, lead)


# ---------------------------------------------------------------- seasonal LIM


def seasonal_by_hand(values, weight, eofs, shrink, leads):
    """EOFs by SVD; each month's departure from the year by augmented least squares; a loop."""
    time = len(values)
    root = np.sqrt(weight).reshape(-1)
    flat = values.reshape(time, -1).astype(float)
    vectors = np.linalg.svd(flat * root, full_matrices=False)[2][:eofs].T
    z = (flat * root) @ vectors
    whole = np.linalg.pinv(z[:-1]) @ z[1:]
    operators = {}
    for month in range(1, 13):
        rows, answers, total = [], [], 0.0
        for t in range(time - 1):
            into = month_after(t)
            if near(into, month):
                share = 1.0 if into == month else 0.7
                rows.append(np.sqrt(share) * z[t])
                answers.append(np.sqrt(share) * (z[t + 1] - z[t] @ whole))
                total += share
        ridge = np.sqrt(shrink * total * (z[:-1] ** 2).mean(axis=0))
        rows, answers = [*rows, *np.diag(ridge)], [*answers, *np.zeros((eofs, eofs))]
        departure = np.linalg.lstsq(np.array(rows), np.array(answers), rcond=None)[0]
        operators[month] = whole + departure
    back = np.divide(vectors.T, root, out=np.zeros_like(vectors.T), where=root > 0)
    outside = flat - z @ back
    slopes = []
    for lead in range(1, leads + 1):
        square = (outside[:-lead] ** 2).sum(axis=0)
        product = (outside[:-lead] * outside[lead:]).sum(axis=0)
        slopes.append(np.divide(product, square, out=np.zeros_like(square), where=square > 1e-9))

    def forecast(start: np.ndarray, month: int) -> np.ndarray:
        start = start.reshape(-1).astype(float)
        ahead = begin = (start * root) @ vectors
        found = []
        for lead in range(leads):
            ahead = ahead @ operators[(month - 1 + lead) % 12 + 1]
            found.append(ahead @ back + slopes[lead] * (start - begin @ back))
        return np.stack(found).reshape(leads, *values.shape[1:])

    return forecast


@pytest.mark.parametrize("shrink", [0.0, 0.3])
def test_the_seasonal_lim_equals_an_independent_computation(shrink):
    values, weight = red(260), area()
    model = linear_inverse_model(monthly(values, weight=weight), 5, 4, seasonal=True, shrink=shrink)
    assert NEIGHBOUR == 0.7
    assert model.propagators.shape == (12, 5, 4, 4)
    forecast = seasonal_by_hand(values, weight, 4, shrink, 5)
    start, month = red(12, seed=8), np.arange(1, 13)
    found = model(start[:, None], month)
    for b in range(12):
        expected = forecast(start[b], month[b])
        np.testing.assert_allclose(found[b], expected, atol=2e-4 * np.abs(start).max())
    # The month matters, and neither one month earlier nor later is meant.
    shifted = model(start[:, None], month % 12 + 1)
    assert np.abs(shifted - found).max() > 0.1


def cyclic(time: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A system whose operator goes round with the year: the operators, patterns and its series.

    operators[m] makes the state of calendar month m + 1.
    """
    rng = np.random.default_rng(seed)
    turn = 0.5 * np.cos(2 * np.pi * np.arange(12) / 12)
    operators = np.array([[[0.8, a], [-0.6 * a, 0.75]] for a in turn])
    patterns = np.linalg.qr(rng.standard_normal((LAT * LON, 2)))[0].T
    state, noise = np.zeros((time, 2)), rng.standard_normal((time, 2))
    for t in range(1, time):
        state[t] = state[t - 1] @ operators[t % 12] + noise[t]
    return operators, patterns, (state @ patterns).reshape(time, LAT, LON, 1)


def test_the_seasonal_lim_finds_the_cyclo_stationary_system_that_made_the_data():
    operators, patterns, values = cyclic(6600)
    training = monthly(values, first="1700-01")
    seasonal = linear_inverse_model(training, 6, 2, seasonal=True, shrink=0.0)
    plain = linear_inverse_model(training, 6, 2)
    start = 3 * np.random.default_rng(2).standard_normal((12, 2))
    month = np.arange(1, 13)
    truth = np.zeros((12, 6, 2))
    for b, lead in np.ndindex(12, 6):
        before = start[b] if lead == 0 else truth[b, lead - 1]
        truth[b, lead] = before @ operators[(month[b] - 1 + lead) % 12]
    fields = (start @ patterns).reshape(12, 1, LAT, LON, 1).astype(np.float32)

    def error(model: LinearReference) -> float:
        """Relative to the size of what is to be forecast."""
        difference = model(fields, month).reshape(12, 6, -1) - truth @ patterns
        return float(np.sqrt((difference**2).sum() / (truth**2).sum()))

    # A month's neighbours share in its operator, which flattens the cycle by 8 %.
    assert error(seasonal) < 0.08
    assert error(seasonal) < 0.2 * error(plain)


def test_held_firmly_the_seasonal_lim_is_that_of_the_whole_year():
    training, start, month = monthly(red(240)), red(12, seed=8)[:, None], np.arange(1, 13)
    plain = linear_inverse_model(training, 4, 5)
    held, loose = (
        linear_inverse_model(training, 4, 5, seasonal=True, shrink=shrink)(start, month)
        for shrink in (1e9, 0.1)
    )
    np.testing.assert_allclose(held, plain(start), atol=1e-5)
    assert np.abs(loose - plain(start)).max() > 0.1


def test_months_that_training_lacks_go_on_as_the_whole_year():
    """A step is fitted where both of its dates are there: here those into February to May."""
    values = red(240)
    training = monthly(values, np.arange(240) % 12 < 5)
    operators = linear_inverse_model(training, 1, 4, seasonal=True).propagators[:, 0]
    whole = linear_inverse_model(training, 1, 4).propagators[0, 0]
    for month in range(1, 13):
        alone = not any(near(month, into) for into in (2, 3, 4, 5))
        same = np.allclose(operators[month - 1], whole, atol=1e-6)
        assert same is alone, month


# ---------------------------------------------------------------- how many EOFs


def planted(time: int, seed: int = 4) -> np.ndarray:
    """Three modes that turn into each other over much noise: one is too few, ten too many."""
    rng = np.random.default_rng(seed)
    patterns = np.linalg.qr(rng.standard_normal((LAT * LON, 3)))[0].T
    system = 0.93 * np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    state, values = np.zeros(3), np.zeros((time, LAT * LON))
    for t in range(time):
        state = state @ system + rng.standard_normal(3)
        values[t] = 2 * state @ patterns + rng.standard_normal(LAT * LON)
    return values.reshape(time, LAT, LON, 1)


CANDIDATES = [1, 2, 3, 10]


def error_by_hand(training: TrainingSeries, validation: np.ndarray, model: Reference) -> float:
    """Over dates of validation, from dates of training or validation; of the climatology's."""
    ratios = []
    for lead in (1, 2, 3):
        ours = theirs = 0.0
        for later in np.flatnonzero(validation):
            now = later - lead
            if now < 0 or not (training.inside[now] or validation[now]):
                continue
            made = model(training.values[now][None, None], training.season[[now]])[0, lead - 1]
            ours += (training.weight * (made - training.values[later]) ** 2).sum()
            theirs += (training.weight * training.values[later] ** 2).sum()
        ratios.append(ours / theirs)
    return float(np.mean(ratios))


def test_validation_chooses_the_number_of_modes_that_there_are():
    values, time = planted(220), np.arange(220)
    training, validation = monthly(values, time < 130, area()), (time >= 140) & (time < 180)
    made = [linear_inverse_model(training, 3, eofs) for eofs in CANDIDATES]
    errors = [error_by_hand(training, validation, one) for one in made]
    assert int(np.argmin(errors)) == CANDIDATES.index(3)
    assert choose_eofs(training, validation, 3, CANDIDATES) == 3
    # And the base is fitted with it.
    chosen = fit_base("lim", training, 3, ReferenceConfig(eofs=CANDIDATES), validation)
    three = linear_inverse_model(training, 3, 3)
    np.testing.assert_array_equal(chosen.propagators, three.propagators)
    # The control: other dates may choose otherwise.
    noise = replace(training, values=training.values[np.random.default_rng(0).permutation(220)])
    assert choose_eofs(noise, validation, 3, CANDIDATES) != 3


@pytest.mark.parametrize("order", ["at the end", "before validation"])
def test_no_value_outside_training_and_validation_has_a_say_in_the_choice(order):
    """In cross-validation the dates just before validation may be those of the test."""
    values, time = planted(220), np.arange(220)
    inside, validation = time < 130, (time >= 170) & (time < 185)
    if order == "at the end":
        validation = (time >= 130) & (time < 145)
    other = ~(inside | validation)
    options = ReferenceConfig(eofs=CANDIDATES, seasonal=True)
    expected = fit_base("lim", monthly(values, inside), 12, options, validation)
    for junk in (np.nan, 1e4, np.random.default_rng(1).normal(0, 1e3, values[other].shape)):
        changed = values.copy()
        changed[other] = junk
        found = fit_base("lim", monthly(changed, inside), 12, options, validation)
        for name, array in vars(expected).items():
            np.testing.assert_array_equal(vars(found)[name], array, err_msg=name)


def test_what_was_not_observed_in_validation_is_not_judged():
    """A bold forecast of what lacks would look wrong if zeros were taken for what came."""
    values, time = planted(220), np.arange(220)
    late, odd = time >= 140, time % 2 == 1
    inside, validation = (time < 130) | (late & ~odd), late & odd
    lacking = np.random.default_rng(3).random(values.shape) < 0.5
    lacking[~validation] = False
    holed = np.where(lacking, np.nan, values).astype(np.float32)
    plain = monthly(np.nan_to_num(holed), inside)
    training = TrainingSeries.of(holed, plain.axis, inside, plain.weight)
    assert choose_eofs(training, validation, 1, [1, 3]) == 3
    assert choose_eofs(plain, validation, 1, [1, 3]) == 1  # the control


# ---------------------------------------------------------------- analogues


def analogues_by_hand(values, weight, inside, eofs, leads, count):
    """A loop over all dates of the library, for each forecast."""
    time = len(values)
    root = np.sqrt(weight).reshape(-1)
    flat = values.reshape(time, -1).astype(float) * root
    vectors = np.linalg.svd(flat[inside], full_matrices=False)[2][:eofs].T
    library = [i for i in range(time - leads) if inside[i : i + leads + 1].all()]

    def mean(start: np.ndarray, month: int, own: int | None) -> np.ndarray:
        z = (start.reshape(-1) * root) @ vectors
        candidates = [
            (float(((z - flat[i] @ vectors) ** 2).sum()), i)
            for i in library
            if near(month_after(i), month) and (own is None or abs(i - own) >= 12)
        ]
        chosen = [i for _, i in sorted(candidates)[:count]]
        if not chosen:
            return np.zeros((leads, *values.shape[1:]))
        return np.mean([values[i + 1 : i + leads + 1] for i in chosen], axis=0, dtype=np.float64)

    product, square = np.zeros((2, leads, *values.shape[1:]))
    for i in library:
        made = mean(values[i], month_after(i), i)
        product += made * values[i + 1 : i + leads + 1]
        square += made**2
    damping = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
    return lambda start, month, own=None: damping * mean(start, month, own)


@pytest.mark.parametrize(("time", "count"), [(200, 4), (70, 30)])
def test_analogues_equal_a_loop_over_all_dates(time, count):
    """Few years have fewer dates of a season than are asked for: then those there are."""
    values, weight, leads = red(time + 30), area(), 3
    inside = np.arange(time + 30) < time
    training = monthly(values, inside, weight)
    model = analogues(training, leads, 3, count)
    expected = analogues_by_hand(values, weight, inside, 3, leads, count)
    # From other dates, whatever the month; and from those of the library, which do not find
    # themselves or what came within a year of them.
    start, month = red(24, seed=9), np.arange(24) % 12 + 1
    found = model(start[:, None], month)
    for b in range(24):
        np.testing.assert_allclose(found[b], expected(start[b], month[b]), atol=1e-4)
    dates = np.arange(0, time - leads, 7)
    found = model(values[dates][:, None], training.season[dates])
    for b, i in enumerate(dates):
        np.testing.assert_allclose(found[b], expected(values[i], month_after(i), i), atol=1e-4)


def test_analogues_are_as_good_on_the_dates_they_were_fitted_on_as_on_others():
    """Where a date found itself, or the month after it, its error would be far too small."""
    values, first = red(900, seed=2), np.arange(900) < 450
    training = monthly(values, first)
    model = analogues(training, 2, 4, 5)
    inner, outer = (
        (error_deviation(model, replace(training, inside=half), 2) ** 2).mean()
        / (values[half] ** 2).mean()
        for half in (first, ~first)
    )
    assert 0.9 < np.sqrt(inner / outer) < 1.1
    # It is itself however its components are rounded, and no more if it differs by a hundredth.
    start = values[100:101] * np.float32(1 + 1e-6)
    own, exact = (model(x[:, None], training.season[[100]]) for x in (start, values[100:101]))
    np.testing.assert_allclose(own, exact, atol=1e-4)
    other = model(values[100:101, None] * np.float32(1.01), training.season[[100]])
    assert np.abs(other - exact).max() > 0.01


def test_what_was_not_observed_is_no_part_of_a_mean_of_analogues():
    values, inside = red(240), np.arange(240) < 200
    holed = values.copy()
    lacking = np.flatnonzero(np.random.default_rng(5).random(200) < 0.5)
    holed[lacking, 1, 1] = np.nan
    whole = monthly(values, inside, area())
    weight = whole.weight.copy()
    weight[1, 1] = 0.0  # so that the cell has no say in which dates are found
    training = TrainingSeries.of(holed, whole.axis, inside, weight)
    model = analogues(training, 2, 3, 6)
    assert np.isfinite(model.damping).all()
    start, month = red(12, seed=9)[:, None], np.arange(1, 13)
    components = np.tensordot(start[:, 0], model.projection, 3)
    found = model.mean(components, month)
    for b in range(12):
        usable = [i for i in range(198) if near(month_after(i), month[b])]
        order = sorted(usable, key=lambda i: ((components[b] - model.library[i]) ** 2).sum())[:6]
        for lead in (1, 2):
            seen = [holed[i + lead, 1, 1, 0] for i in order]
            expected = np.nanmean(seen) if np.isfinite(seen).any() else 0.0
            assert found[b, lead - 1, 1, 1, 0] == pytest.approx(expected, abs=1e-5)
    # Nor of the regression on what came.
    made = model.mean(model.library, model.season)[:, :, 1, 1, 0].astype(float)
    for lead in (1, 2):
        came = holed[lead : 198 + lead, 1, 1, 0]
        seen = np.isfinite(came)
        slope = (made[seen, lead - 1] * came[seen]).sum() / (made[seen, lead - 1] ** 2).sum()
        assert model.damping[lead - 1, 1, 1, 0] == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(("neighbours", "best"), [(5, 3), (10, 10)])
def test_the_eofs_of_analogues_are_those_of_their_own_smallest_error(neighbours, best):
    """With ten neighbours other ones than those of the LIM."""
    values, time = planted(400), np.arange(400)
    training, validation = monthly(values, time < 240, area()), (time >= 260) & (time < 300)
    made = [analogues(training, 3, eofs, neighbours) for eofs in CANDIDATES]
    errors = [error_by_hand(training, validation, one) for one in made]
    assert int(np.argmin(errors)) == CANDIDATES.index(best)
    options = ReferenceConfig(eofs=CANDIDATES, neighbours=neighbours)
    chosen = fit_base("analogues", training, 3, options, validation)
    for name, array in vars(made[CANDIDATES.index(best)]).items():
        np.testing.assert_array_equal(vars(chosen)[name], array, err_msg=name)
    assert choose_eofs(training, validation, 3, CANDIDATES) == 3


def test_without_a_date_that_has_all_leads_analogues_forecast_no_anomaly():
    training = monthly(red(30), np.arange(30) < 8)
    found = analogues(training, 12, 2, 5)(red(3, seed=1)[:, None], np.array([1, 5, 12]))
    assert found.shape == (3, 12, LAT, LON, 1)
    assert not found.any()


# ---------------------------------------------------------------- states that are more than targets


def further(time: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A target, what drives it a month later, and the weights of both."""
    driver = red(time, seed=5)
    target = np.roll(driver, 1, axis=0) * 0.8 + 0.3 * red(time, seed=6)
    both = np.concatenate([target, driver], axis=-1).astype(np.float32)
    return both[..., :1], both, np.concatenate([area(), area()[::-1, ::-1]], axis=-1)


def eofs_by_svd(values: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """[cell eof] what a field times the root of its weight is multiplied with."""
    root = np.sqrt(weight).reshape(-1)
    flat = values.reshape(len(values), -1).astype(float) * root
    return root[:, None] * np.linalg.svd(flat, full_matrices=False)[2][:count].T


def test_a_lim_with_another_variable_equals_an_independent_computation():
    """Each has its own EOFs; the answer is made of those of the target alone."""
    target, state, weights = further(200)
    training = replace(monthly(target, weight=weights[..., :1]), state=state, state_weight=weights)
    model = linear_inverse_model(training, 3, 4, more_eofs=2)
    flat = [state[..., k].reshape(200, -1).astype(float) for k in (0, 1)]
    projections = [eofs_by_svd(state[..., k], weights[..., k], n) for k, n in ((0, 4), (1, 2))]
    z = np.concatenate([f @ p for f, p in zip(flat, projections, strict=True)], axis=1)
    step = np.linalg.pinv(z[:-1]) @ z[1:]
    root = np.sqrt(weights[..., 0]).reshape(-1)
    back = np.divide(projections[0].T, root**2, out=np.zeros((4, 12)), where=root > 0)
    outside = flat[0] - z[:, :4] @ back
    # From the state at some dates, of which the target is the first variable.
    dates = np.array([3, 77, 150])
    found = model(target[dates][:, None], None, state[dates])
    for lead in (1, 2, 3):
        ahead = z[dates] @ np.linalg.matrix_power(step, lead)
        square = (outside[:-lead] ** 2).sum(axis=0)
        product = (outside[:-lead] * outside[lead:]).sum(axis=0)
        slope = np.divide(product, square, out=np.zeros(12), where=square > 1e-9)
        expected = ahead[:, :4] @ back + slope * outside[dates]
        np.testing.assert_allclose(found[:, lead - 1].reshape(3, -1), expected, atol=1e-3)
    # What drives the target helps: the error without it is larger.
    alone = linear_inverse_model(replace(training, state=None, state_weight=None), 3, 4)
    without = replace(training, state=None, state_weight=None)
    ours, theirs = (
        error_deviation(fitted, one, 3)[0, 1:].mean()
        for fitted, one in ((model, training), (alone, without))
    )
    assert ours < 0.8 * theirs


def test_an_index_is_the_regression_of_the_lim_of_its_basin():
    values, weight = red(240), area()
    index = (values * weight).sum(axis=(1, 2), keepdims=True).astype(np.float32)
    index += 0.2 * np.random.default_rng(1).standard_normal(index.shape).astype(np.float32)
    one = monthly(index, np.arange(240) < 200, np.ones((1, 1, 1)))
    training = replace(one, state=values, state_weight=weight)
    model = linear_inverse_model(training, 3, 4, seasonal=True, shrink=1e9)
    projection = eofs_by_svd(values[:200], weight, 4)
    z = values[:200].reshape(200, -1).astype(float) @ projection
    y = index[:200].reshape(-1).astype(float)
    step, pattern = np.linalg.pinv(z[:-1]) @ z[1:], np.linalg.pinv(z) @ y
    rest = y - z @ pattern
    dates, month = np.array([5, 90, 210, 239]), np.array([1, 4, 12, 8])
    found = model(index[dates][:, None], month, values[dates])
    start = values[dates].reshape(4, -1).astype(float) @ projection
    now = index[dates].reshape(-1) - start @ pattern
    for lead in (1, 2, 3):
        slope = (rest[:-lead] * rest[lead:]).sum() / (rest[:-lead] ** 2).sum()
        expected = start @ np.linalg.matrix_power(step, lead) @ pattern + slope * now
        np.testing.assert_allclose(found[:, lead - 1].reshape(-1), expected, atol=1e-4)


def test_a_variable_that_training_lacks_at_times_is_estimated_from_the_targets():
    """Its gaps are no zeros: fitted with half of it the LIM is nearly that fitted with all."""
    target, state, weights = further(600)
    training = replace(monthly(target, weight=weights[..., :1]), state=state, state_weight=weights)
    seen = np.stack([np.ones(600, bool), np.arange(600) >= 250], axis=-1)
    holed = np.where(seen[:, None, None], state, 0.0).astype(np.float32)
    partly = replace(training, state=holed, state_seen=seen)
    zeros = replace(training, state=holed)
    dates = np.arange(300, 590, 10)
    whole, estimated, filled = (
        linear_inverse_model(one, 2, 4, more_eofs=2)(target[dates][:, None], None, state[dates])
        for one in (training, partly, zeros)
    )
    difference = [float(np.sqrt(((x - whole) ** 2).mean())) for x in (estimated, filled)]
    assert difference[0] < 0.5 * difference[1]


def test_what_came_before_is_looked_up_on_the_calendar():
    """Two months that lack shift no other date: the last one before stands in for them alone."""
    target, state, weights = further(200)
    steps = np.arange(200)
    seen = np.stack([np.ones(200, bool), (steps >= 20) & (steps < 90)], axis=-1)
    there = np.setdiff1d(steps, [100, 101])

    def components(state: np.ndarray, steps: np.ndarray) -> np.ndarray:
        training = monthly(target[steps], steps < 90, weights[..., :1], steps)
        training = replace(
            training, state=state[steps], state_weight=weights, state_seen=seen[steps]
        )
        projection = linear_inverse_model(training, 1, 4, more_eofs=2).projection
        return components_of(training, projection)

    filled = state.copy()
    filled[100:102] = filled[99]
    found, expected = components(state, there), components(filled, steps)[there]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # The control: what stands in is seen 3, 6 and 9 months later, in what is estimated.
    other = np.abs(components(state, steps)[there] - found).max(axis=1)
    assert there[other > 1e-3].tolist() == [103, 104, 106, 107, 109, 110]


# ---------------------------------------------------------------- the mean of the years before


def trailing_by_hand(frames: np.ndarray, steps: np.ndarray, length: int) -> np.ndarray:
    found = np.zeros(frames.shape)
    for i, now in enumerate(steps):
        for j, then in enumerate(steps):
            if now - length < then <= now:
                found[i] += np.where(np.isfinite(frames[j]), frames[j], 0.0)
    return found / length


@pytest.mark.parametrize("gaps", [False, True])
def test_the_trailing_mean_is_a_plain_loop_over_the_years_before(gaps):
    """Before the record, in its gaps and where nothing was seen, the anomaly counts as 0."""
    steps = np.arange(90)
    frames = red(90) + 1.0
    if gaps:
        steps = np.setdiff1d(steps, [5, 6, 7, 40, 66])
        frames = frames[steps].copy()
        frames[np.random.default_rng(0).random(frames.shape) < 0.2] = np.nan
    axis = monthly(frames, steps=steps).axis
    found = trailing_mean(frames, axis, 2)
    np.testing.assert_allclose(found, trailing_by_hand(frames, steps, 24), atol=1e-6)
    np.testing.assert_allclose(found[0], np.nan_to_num(frames[0]) / 24, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "years", "expected"),
    [("D", 30, 10957), ("M", 30, 360), ("Y", 30, 30), ("h", 1, 8766)],
)
def test_years_are_as_many_steps_as_the_calendar_has(step, years, expected):
    times = (np.datetime64("2001", step) + np.arange(40)).astype("datetime64[ns]")
    assert steps_of(years, TimeAxis.of(times)) == expected
    if step == "h":
        every = TimeAxis.of(times[::6])
        assert steps_of(years, every) == round(expected / 6)


@pytest.mark.parametrize("junk", [1e6, np.nan, -3.0])
def test_nothing_after_a_date_is_in_its_mean(junk):
    frames = red(80)
    axis = monthly(frames).axis
    changed = frames.copy()
    changed[50:] = junk
    found, expected = trailing_mean(changed, axis, 2), trailing_mean(frames, axis, 2)
    np.testing.assert_array_equal(found[:50], expected[:50])
    assert (found[50:] != expected[50:]).any()
    # After two years a value is forgotten without a trace.
    if junk == 1e6:
        once = frames.copy()
        once[20] = junk
        later = trailing_mean(once, axis, 2)[44:]
        np.testing.assert_allclose(later, expected[44:], atol=1e-6)
