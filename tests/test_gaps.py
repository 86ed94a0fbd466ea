"""Broken sequences: refused, left out or masked, and never taken for numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import Bench, same_bits, small_config
from flax import nnx

import gridcast
from gridcast.errors import DataError
from gridcast.frames.climatology import Climatology
from gridcast.frames.fields import months_of, target_series
from gridcast.frames.windows import hindcast_windows
from gridcast.labelling import valid_times
from gridcast.models import ForecastModel, Inputs
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.references import TrainingSeries, linear_inverse_model
from gridcast.run import Run
from gridcast.sources.netcdf import open_frames
from gridcast.verification.by_name import fit_odds, reference_odds

pytestmark = pytest.mark.usefixtures("no_pictures")

MASK = {"missing": "mask"}
DROP = {"missing": "drop"}
ABSENT = [20, 21, 108, 150]  # no such date; 108 is the first of validation
EMPTY = [40, 140]  # a date without any value
INPUTS, LEADS = 3, 2
TRAINING = 108  # steps


def prepared(series: xr.DataArray, **sections: Any) -> Setup:
    config = small_config(**sections)
    return prepare(config, open_source(config, series))


def sea_of(ocean: xr.DataArray) -> np.ndarray:
    return np.isfinite(ocean.values[0])


@pytest.fixture(scope="module")
def holes(ocean) -> np.ndarray:
    """[time lat lon] where values were taken out: a tenth here and there, and whole dates."""
    found = np.random.default_rng(5).random(ocean.shape) < 0.1
    found[ABSENT + EMPTY] = True
    return found & sea_of(ocean)


@pytest.fixture(scope="module")
def broken(ocean, holes) -> xr.DataArray:
    """The ocean with holes, its absent dates absent."""
    series = ocean.copy(data=np.where(holes, np.nan, ocean.values))
    return series.isel(time=np.setdiff1d(np.arange(series.sizes["time"]), ABSENT))


@pytest.fixture(scope="module")
def masked(broken) -> Bench:
    return Bench.of(broken, small_config(frames=MASK))


@pytest.fixture(scope="module")
def run(broken, tmp_path_factory) -> Run:
    """Trained under a mask; at least two of three frames have to be there."""
    directory = tmp_path_factory.mktemp("masked")
    return gridcast.train(
        small_config(
            frames=MASK | {"least": 2},
            train={"epochs": 1},
            output={"directory": str(directory)},
        ),
        broken,
    )


# ---------------------------------------------------------------- refused


def test_a_gap_is_refused_with_its_place_and_what_to_do_unless_there_is_none(ocean):
    prepared(ocean)
    with pytest.raises(DataError) as error:
        prepared(ocean.isel(time=np.r_[0:17, 19:40, 41:168]))
    assert "2 step(s) missing between 1951-05-01 and 1951-08-01" in str(error.value).splitlines()[0]
    assert "fix: frames.missing: drop" in str(error.value)
    row, column = (int(index[7]) for index in np.nonzero(sea_of(ocean)))
    hole = ocean.copy(deep=True)
    hole[[30, 50], row, column] = np.nan
    where = f"1952-07-01, lat {float(ocean.lat[row]):g}, lon {float(ocean.lon[column]):g}"
    with pytest.raises(DataError) as error:
        prepared(hole)
    assert "2 in all, at 2 of 168 dates and 1 of" in str(error.value)
    assert where in str(error.value)
    assert "fix: frames.missing: drop or mask" in str(error.value)


# ---------------------------------------------------------------- left out


def test_dropping_equals_a_series_in_which_incomplete_dates_are_absent(ocean):
    lacking = [17, 60, 61, 110, 140]
    series = ocean.copy(deep=True)
    for date, (row, column) in zip(lacking, np.argwhere(sea_of(ocean))[::9], strict=False):
        series[date, row, column] = np.nan
    ours = prepared(series, frames=DROP)
    kept = np.setdiff1d(np.arange(168), lacking)
    theirs = prepared(ocean.isel(time=kept), frames=DROP)
    assert same_bits(ours.fields.arrays() | ours.head, theirs.fields.arrays() | theirs.head)
    assert same_bits(ours.arrays, theirs.arrays)
    np.testing.assert_array_equal(ours.axis.steps, kept)
    for name in ("train_windows", "validation_windows"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    # Windows by their steps on the calendar: those that need no date that lacks, and all of them.
    for name, first, last in (("train", 0, 108), ("validation", 108, 132)):
        expected = [
            i
            for i in range(first + INPUTS - 1, last - LEADS)
            if not set(range(i - INPUTS + 1, i + LEADS + 1)) & set(lacking)
        ]
        assert kept[getattr(ours, f"{name}_windows")].tolist() == expected
    judged = kept[hindcast_windows(ours.axis, ours.splits.test, INPUTS, LEADS)]
    assert not {140, 141, 142} & set(judged)
    assert {139, 143} <= set(judged)


# ---------------------------------------------------------------- masked: what is fitted


def test_a_mask_on_a_complete_series_only_adds_windows_that_begin_before_it(ocean):
    plain, under_mask = prepared(ocean), prepared(ocean, frames=MASK)
    before = INPUTS - 1
    assert same_bits(
        plain.fields.arrays() | plain.head, under_mask.fields.arrays() | under_mask.head
    )
    assert same_bits(under_mask.arrays.values[before:], plain.arrays.values)
    assert same_bits(under_mask.arrays.month[before:], plain.arrays.month)
    added = [0, 1]  # initial dates with one or two frames before the first date missing
    np.testing.assert_array_equal(
        under_mask.train_windows - before, [*added, *plain.train_windows.tolist()]
    )
    np.testing.assert_array_equal(under_mask.validation_windows - before, plain.validation_windows)
    # With as many frames asked for as there are inputs the two are the same.
    strict = prepared(ocean, frames=MASK | {"least": INPUTS})
    np.testing.assert_array_equal(strict.train_windows - before, plain.train_windows)


def by_hand(ocean: xr.DataArray, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Climatology and anomalies [time lat lon], one least squares for each cell; and deviation."""
    values = np.where(holes, np.nan, ocean.values).astype(np.float64)
    phase = (np.arange(168) % 12 + 0.5) / 12
    waves = [f(2 * np.pi * k * phase) for k in (1, 2) for f in (np.cos, np.sin)]
    terms = np.stack([np.ones(168), *waves], axis=1)
    normal = np.full(values.shape, np.nan)
    for row, column in np.argwhere(sea_of(ocean)):
        cell = values[:TRAINING, row, column]
        seen = np.flatnonzero(np.isfinite(cell))
        solution = np.linalg.lstsq(terms[seen], cell[seen], rcond=None)[0]
        normal[:, row, column] = terms @ solution
    anomaly = values - normal
    sea = sea_of(ocean)
    edges = np.clip(np.arange(-90, 91, 20), -90, 90)  # of nine rows
    area = np.repeat(np.diff(np.sin(np.deg2rad(edges)))[:, None], 18, axis=1)[sea]
    square = np.nanmean(anomaly[:TRAINING][:, sea] ** 2, axis=0)
    return normal, anomaly, np.sqrt((square * area).sum() / area.sum())


def test_climatology_and_deviation_are_those_of_each_cell_over_the_dates_it_was_observed_on(
    masked, ocean, holes
):
    normal, anomaly, deviation = by_hand(ocean, holes)
    sea, transform = sea_of(ocean), masked.setup.fields.targets[0]
    found = transform.climatology.at(ocean["time"].values)
    np.testing.assert_allclose(found[:, sea], normal[:, sea], atol=1e-9)
    assert transform.scaler.deviation.item() == pytest.approx(deviation, rel=1e-9)
    frames = masked.setup.arrays.values[INPUTS - 1 :, ..., 0]
    np.testing.assert_allclose(frames[:, sea], anomaly[:, sea] / deviation, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(frames), holes)


def test_damping_counts_pairs_of_which_both_were_observed(masked, ocean, holes):
    _, anomaly, _ = by_hand(ocean, holes)
    damping = masked.setup.head["damping"][0]
    for lead in (1, 2):
        for row, column in np.argwhere(sea_of(ocean)):
            cell = anomaly[:TRAINING, row, column]
            pairs = [(a, b) for a, b in zip(cell, cell[lead:], strict=False) if np.isfinite(a + b)]
            slope = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
            assert damping[lead - 1, row, column, 0] == pytest.approx(slope, abs=1e-5)


def test_the_linear_inverse_model_counts_pairs_of_which_both_were_observed(masked, ocean):
    """Of dates for its propagator, of values for what lies outside of its patterns."""
    setup, eofs = masked.setup, 3
    scaled = setup.fields.scaled(target_series(setup.config, setup.series))
    training = TrainingSeries.of(scaled, setup.axis, setup.splits.train, setup.fields.weight)
    found = linear_inverse_model(training, LEADS, eofs)

    sea = sea_of(ocean)
    values = scaled[INPUTS - 1 :][:TRAINING, sea, 0].astype(np.float64)
    seen = np.isfinite(values)
    root = np.sqrt(setup.fields.weight[sea, 0])
    filled = np.where(seen, values, 0.0)
    dates = np.flatnonzero(seen.any(axis=1)).tolist()
    patterns = np.linalg.svd((filled * root)[dates], full_matrices=False)[2][:eofs]
    components = filled * root @ patterns.T
    now = [t for t in dates if t + 1 in dates]
    propagator = np.linalg.pinv(components[now]) @ components[[t + 1 for t in now]]
    outside = filled - components @ patterns / root
    residual = np.zeros((LEADS, sea.sum()))
    for lead in range(1, LEADS + 1):
        for cell in range(int(sea.sum())):
            both = [t for t in range(TRAINING - lead) if seen[t, cell] and seen[t + lead, cell]]
            product = sum(outside[t, cell] * outside[t + lead, cell] for t in both)
            residual[lead - 1, cell] = product / sum(outside[t, cell] ** 2 for t in both)
    np.testing.assert_allclose(found.damping[0][:, sea, 0], residual, atol=1e-4)
    last = filled[100]
    inside = (last * root) @ patterns.T
    expected = [
        inside @ np.linalg.matrix_power(propagator, k) @ patterns / root
        + residual[k - 1] * (last - inside @ patterns / root)
        for k in (1, 2)
    ]
    window = np.zeros((1, 1, *sea.shape, 1), np.float32)
    window[0, 0, sea, 0] = last
    np.testing.assert_allclose(found(window)[0][:, sea, 0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["harmonics", "monthly"])
@pytest.mark.parametrize("whole_dates", [True, False])
def test_seasons_that_were_never_observed_are_near_the_mean_of_the_others(kind, whole_dates):
    """And not near 0 degrees; what was observed is fitted all the same."""
    month = np.arange(360) % 12
    times = (np.datetime64("1980-01") + np.arange(360)).astype("datetime64[ns]")
    season = 25 + np.cos(2 * np.pi * (month + 0.5) / 12)
    values = np.where(month < 3, season, np.nan)[:, None, None]
    mask = np.ones((1, 1), bool)
    if whole_dates and kind == "harmonics":
        values, observed = values[month < 3], times[month < 3]
    else:
        observed = times
    found = Climatology.fit(values, observed, mask, unit="month", kind=kind).at(times)[:, 0, 0]
    np.testing.assert_allclose(found[month < 3], season[month < 3], atol=1e-9)
    assert np.abs(found - 25.5).max() < 2.0


# ---------------------------------------------------------------- masked: what cannot matter


def test_what_lies_behind_a_missing_value_cannot_matter(ocean, holes, masked, tmp_path):
    """Files that mark what lacks in other ways, over other numbers, are the same series."""
    random = np.random.default_rng(1)
    packed = {
        "fill": (np.full(ocean.shape, -9999.0), {"_FillValue": np.float32(-9999.0)}),
        "range": (random.uniform(60, 1e4, ocean.shape), {"valid_max": np.float32(59.0)}),
    }
    sea = sea_of(ocean)
    for name, (junk, mark) in packed.items():
        values = np.where(holes | ~sea, junk, ocean.values).astype(np.float32)
        file = ocean.copy(data=values)
        file.attrs |= {k: v for k, v in mark.items() if k != "_FillValue"}
        encoding = {"sst": {k: v for k, v in mark.items() if k == "_FillValue"}}
        file.to_netcdf(tmp_path / f"{name}.nc", encoding=encoding)
        ours = prepared(open_frames(tmp_path / f"{name}.nc"), frames=MASK)
        theirs = masked.setup  # in which some of these dates are absent
        for attribute in ("arrays", "train_windows", "validation_windows", "head", "observed"):
            found, expected = (getattr(one, attribute) for one in (ours, theirs))
            if attribute == "observed":
                found, expected = (vars(one) for one in (found, expected))
            assert same_bits(found, expected), (name, attribute)
        assert same_bits(ours.fields.arrays(), theirs.fields.arrays())
    # The control: where nothing lacks a value does matter.
    other = np.where(holes, np.nan, ocean.values)
    other[60, sea] += 0.1
    assert not same_bits(prepared(ocean.copy(data=other), frames=MASK).head, masked.setup.head)


def model_of(bench: Bench, params: Any) -> ForecastModel:
    stepper = bench.stepper
    return nnx.merge(stepper.graph, params, bench.weights.statistics, stepper.fixed)


def shaken(params: Any, size: float = 0.1) -> Any:
    """Weights that are all at work: an untrained model is its reference."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [p + size * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.mark.family
def test_loss_and_gradient_are_those_of_the_observed_targets(masked):
    """Against numpy over the list of what was observed, and the gradient of that list's mean."""
    bench, windows = masked, masked.setup.train_windows[[0, 12, 35, 36, 50]]
    params = shaken(bench.weights.params)
    inputs, targets, _ = bench.stepper._batch(bench.series, jnp.asarray(windows), None, 0.0)
    weight, scale = bench.setup.fields.weight, np.asarray(bench.series.scale, np.float64)
    truth = np.asarray(targets)
    seen = np.argwhere(np.isfinite(truth) & (weight > 0))
    assert {tuple(i) for i in seen[:, :2]} < set(np.ndindex(5, LEADS))  # some leads lack altogether
    share = np.array([weight[r, c, k] for _, _, r, c, k in seen])
    total = np.array([share[seen[:, 0] == w].sum() for w in range(5)])
    factor = share / total[seen[:, 0]] / np.array([scale[i, k] for _, i, _, _, k in seen])
    place = tuple(seen.T)

    def mean(params: Any) -> jax.Array:
        error = model_of(bench, params)(inputs)[place] - truth[place]
        return (factor * error**2).sum() / 5

    weights = bench.weights._replace(params=params)
    found = bench.stepper.losses(weights, bench.series, jnp.asarray(windows)[None])
    outputs = np.asarray(jax.jit(lambda p: model_of(bench, p)(inputs))(params), np.float64)
    square = factor * (outputs[place] - truth[place].astype(np.float64)) ** 2
    expected = [square[seen[:, 0] == w].sum() for w in range(5)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)

    def loss(params: Any) -> jax.Array:
        weights = bench.weights._replace(params=params)
        return bench.stepper._loss(weights, bench.series, jnp.asarray(windows), None)[0].mean()

    ours, theirs = jax.jit(jax.grad(loss))(params), jax.jit(jax.grad(mean))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    assert largest > 1e-3
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * largest)


def test_a_window_with_frames_that_lack_forecasts_as_the_shorter_window(run, broken):
    """In depth for all networks in tests/test_models.py; here with frames as a run makes them."""
    setup = prepared(broken, frames=MASK)
    graph, state = nnx.split(run.model)

    @jax.jit
    def forecast(inputs: Inputs) -> jax.Array:
        return nnx.merge(graph, state)(inputs)

    def of(initial: int, inputs: int, frames: np.ndarray | None = None) -> np.ndarray:
        past, ahead = initial + np.arange(1 - inputs, 1), initial + np.arange(1, LEADS + 1)
        arrays = setup.arrays
        frames = arrays.values[past] if frames is None else frames
        known = arrays.known[np.concatenate([past, ahead])]
        parts = (frames, known, arrays.month[ahead], arrays.values[initial])
        first, dates, month, last = (jnp.asarray(part)[None] for part in parts)
        return np.asarray(forecast(Inputs(first, dates, month, last)))[0]

    # The first date of the record, and the first after two that are absent.
    for initial in (INPUTS - 1, INPUTS - 1 + 22):
        assert initial in setup.train_windows
        absent, shorter = of(initial, INPUTS), of(initial, 1)
        assert np.isfinite(absent).all()
        np.testing.assert_allclose(absent, shorter, atol=1e-6)
        # The control: frames that are there do matter.
        near = np.repeat(setup.arrays.values[[initial]], INPUTS, axis=0)
        assert np.abs(of(initial, INPUTS, near) - absent).max() > 1e-3


# ---------------------------------------------------------------- masked: scores


def observed_anomalies(run: Run, ocean: xr.DataArray, holes: np.ndarray) -> np.ndarray:
    values = np.where(holes, np.nan, ocean.values)
    return values - run.transform.climatology.at(ocean["time"].values)


def test_scores_count_what_was_observed_and_nothing_else(run, ocean, holes):
    anomaly = observed_anomalies(run, ocean, holes)
    normal = run.transform.climatology.at(ocean["time"].values)
    hindcast = xr.load_dataset(run.directory / "hindcast.nc")
    scores = xr.load_dataset(run.directory / "scores.nc")
    months = ocean["time"].values.astype("datetime64[M]").astype(int)
    initial = hindcast["forecast_reference_time"].values.astype("datetime64[M]").astype(int)
    initial = (initial - months[0]).tolist()
    sea, weight = sea_of(ocean), run.transform.grid.weight
    whole = set(ABSENT + EMPTY)
    # Two of three frames and the last; a date to verify, at both leads from a forecast.
    expected = [
        i
        for i in range(132 - LEADS, 168)
        if i not in whole
        and sum(t not in whole for t in (i - 2, i - 1, i)) >= 2
        and any(132 <= t < 168 and t not in whole for t in (i + 1, i + 2))
    ]
    assert initial == expected
    dates = [t for t in range(132, 168) if t not in whole and {t - 1, t - 2} <= set(initial)]
    assert scores["dates"].values.tolist() == [len(dates)] * LEADS
    assert 25 < len(dates) < 34
    made = hindcast["sst"].values
    for lead in (1, 2):
        errors = {"model": [], "persistence": [], "climatology": []}
        weights, maps = [], np.zeros((2, *sea.shape))
        for t in dates:
            for row, column in np.argwhere(sea & ~holes[t]):
                truth, last = anomaly[t, row, column], anomaly[t - lead, row, column]
                field = made[initial.index(t - lead), lead - 1, row, column]
                error = float(field) - normal[t, row, column] - truth
                errors["model"].append(error)
                errors["persistence"].append((last if np.isfinite(last) else 0.0) - truth)
                errors["climatology"].append(-truth)
                weights.append(weight[row, column])
                maps[:, row, column] += error**2, 1
        for name, found in errors.items():
            score = scores.sel(forecast=name, lead=lead)
            square = np.average(np.square(found), weights=weights)
            assert float(score["rmse"]) == pytest.approx(np.sqrt(square), rel=1e-4), name
            mean = np.average(found, weights=weights)
            assert float(score["bias"]) == pytest.approx(mean, abs=1e-4), name
            mean = np.average(np.abs(found), weights=weights)
            assert float(score["mae"]) == pytest.approx(mean, rel=1e-4), name
        np.testing.assert_allclose(
            scores["rmse_map"].sel(forecast="model", lead=lead).values[sea],
            np.sqrt(maps[0][sea] / maps[1][sea]),
            rtol=1e-3,
        )


def test_a_cell_that_was_not_observed_in_the_test_has_no_score(run, broken):
    row, column = np.argwhere(run.transform.grid.mask)[30]
    silent = broken.copy(deep=True)
    silent[silent["time"].dt.year.values >= 1961, row, column] = np.nan
    scores, before = run.evaluate(silent), run.evaluate(broken)
    for name in ("rmse_map", "skill_map"):
        lacking = np.isnan(scores[name].isel(lead=0)[0].values)
        assert lacking[row, column]
        lacking[row, column] = False
        np.testing.assert_array_equal(lacking, np.isnan(before[name].isel(lead=0)[0].values))
    assert np.isfinite(scores["rmse"]).all()


def test_a_class_that_was_not_observed_does_not_stay(broken):
    setup = prepared(broken, frames=MASK, target={"classes": {}})
    answers = target_series(setup.config, setup.series)
    initial = np.array([137, 143])
    fields, axis = setup.fields, setup.axis
    now = fields.observed_classes(answers, axis)[initial]
    training = TrainingSeries.of(fields.scaled(answers), axis, setup.splits.train, fields.weight)
    times = valid_times(axis, initial, LEADS)
    months = months_of(times.reshape(-1)).reshape(times.shape)
    odds = reference_odds(fields, fit_odds(training, LEADS), now, months, initial)
    assert setup.fields.classes is not None
    sea = setup.fields.target_mask[..., 0]
    for k, position in enumerate(initial):
        climate = setup.fields.classes.odds[setup.arrays.month[position + 1] - 1]
        for row, column in np.argwhere(sea):
            found, number = odds["persistence"][k, 0, row, column, 0], now[k, row, column, 0]
            if np.isnan(number):
                np.testing.assert_allclose(found, climate[:, row, column, 0])
            else:
                assert found[int(number)] == found.max() > 0.9
    assert 0 < np.isnan(now[:, sea]).sum() < now[:, sea].size / 2


# ---------------------------------------------------------------- masked: forecasts


def test_a_forecast_soon_after_a_gap_needs_as_many_frames_as_were_asked_for(run, ocean):
    gap = ocean.isel(time=np.r_[0:150, 152:168])
    with pytest.raises(DataError, match="from 1962-09-01 needs the 2 of the 3 dates") as error:
        run.forecast(gap, start="1962-09")
    assert "found 1" in str(error.value)
    with pytest.raises(DataError, match="itself among them; found 2"):
        run.forecast(gap, start="1962-07")  # the first that lacks
    soon = run.forecast(gap, start="1962-10")
    sea = run.transform.grid.mask
    np.testing.assert_array_equal(np.isfinite(soon["sst"].values[0]), np.stack([sea, sea]))
    # As if the record had begun there; and the frames before the gap do matter when they are near.
    begun = run.forecast(ocean.isel(time=slice(152, 154)))
    np.testing.assert_allclose(soon["sst"], begun["sst"], atol=1e-6)
    whole = run.forecast(ocean, start="1962-10")
    assert np.nanmax(np.abs(whole["sst"].values - soon["sst"].values)) > 1e-4


def test_a_short_record_may_lack_a_cell_under_a_mask(run, ocean):
    row, column = np.argwhere(run.transform.grid.mask)[30]
    short = ocean.isel(time=slice(150, 156)).copy(deep=True)
    whole = run.forecast(short)["sst"].values
    short[:, row, column] = np.nan
    found = run.forecast(short)["sst"].values
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(whole))
    assert (found[..., row, column] != whole[..., row, column]).all()


# ---------------------------------------------------------------- nine months without data


SEASON = {"splits": {"train": [1950, 1957], "validation": [1958, 1959], "test": [1960, 1963]}}


def winter(ocean: xr.DataArray) -> xr.DataArray:
    return ocean.isel(time=ocean["time"].dt.month.values <= 3)


def seasonal(ocean: xr.DataArray, directory: Path, **frames: Any) -> Run:
    return gridcast.train(
        small_config(
            frames={"inputs": 2, "leads": 1, "climatology": {"harmonics": 1}} | frames,
            train={"epochs": 1},
            output={"directory": str(directory)},
            **SEASON,
        ),
        winter(ocean),
    )


def initial_months(run: Run) -> set[int]:
    hindcast = xr.load_dataset(run.directory / "hindcast.nc")
    return set(hindcast["forecast_reference_time"].dt.month.values.tolist())


@pytest.fixture(scope="module")
def dropped(ocean, tmp_path_factory) -> Run:
    return seasonal(ocean, tmp_path_factory.mktemp("dropped"), missing="drop")


def test_nine_months_without_data_leave_one_complete_window_a_year(dropped, ocean):
    assert initial_months(dropped) == {2}
    scores = xr.load_dataset(dropped.directory / "scores.nc")
    assert scores["dates"].values.tolist() == [4]
    assert np.isfinite(scores["rmse"]).all()
    # By hand: persistence from February to March.
    anomaly = ocean.values - dropped.transform.climatology.at(ocean["time"].values)
    error = [anomaly[t - 1] - anomaly[t] for t in range(122, 168, 12)]
    weight = dropped.transform.grid.weight
    square = np.nansum(np.mean(np.square(error), axis=0) * weight)
    found = scores["rmse"].sel(forecast="persistence").item()
    assert found == pytest.approx(np.sqrt(square), rel=1e-4)


def test_without_mask_a_forecast_needs_all_its_frames_and_cells(dropped, ocean):
    sea = dropped.transform.grid.mask
    forecast = dropped.forecast(winter(ocean), start="1962-02")["sst"]
    np.testing.assert_array_equal(np.isfinite(forecast.values[0, 0]), sea)
    # The mean of March is that of March, not that of a month without data.
    assert np.nanmax(np.abs(forecast.values[0, 0] - ocean.values[146])) < 6.0
    with pytest.raises(DataError, match=r"from 1962-01-01 needs the 2 dates .* found 1"):
        dropped.forecast(winter(ocean), start="1962-01")
    lacking = winter(ocean).isel(time=slice(-6, None)).copy(deep=True)
    lacking[:, *np.argwhere(sea)[30]] = np.nan
    with pytest.raises(DataError, match="differs from training in 1 of"):
        dropped.forecast(lacking)


@pytest.mark.family
def test_nine_months_without_data_are_masked(ocean, tmp_path):
    run = seasonal(ocean, tmp_path, missing="mask", leads=2)
    # Two leads from March, and any lead to January, meet no date with data.
    assert initial_months(run) == {1, 2}
    scores = xr.load_dataset(tmp_path / "scores.nc")
    assert scores["dates"].values.tolist() == [4, 4]  # March, from both
    assert np.isfinite(scores["rmse"]).all()
    forecast = xr.load_dataset(tmp_path / "forecast.nc")["sst"]
    assert forecast["time"].dt.month.values.tolist() == [[4, 5]]
    sea = run.transform.grid.mask
    np.testing.assert_array_equal(np.isfinite(forecast.values[0]), np.stack([sea, sea]))


# ---------------------------------------------------------------- leakage


@pytest.mark.parametrize("missing", ["mask", "drop"])
def test_values_after_training_cannot_change_what_is_fitted_beside_gaps(ocean, missing):
    hole = np.zeros(ocean.shape, bool)
    hole[[20, 21, 107, 108, 140]] = True
    if missing == "mask":
        hole |= np.random.default_rng(8).random(ocean.shape) < 0.1
    clean = ocean.copy(data=np.where(hole, np.nan, ocean.values))
    junk = clean.copy(deep=True)
    junk[TRAINING:] = junk[TRAINING:] * 3.0 - 7.0
    ours, theirs = (prepared(one, frames={"missing": missing}) for one in (junk, clean))
    assert same_bits(ours.fields.arrays() | ours.head, theirs.fields.arrays() | theirs.head)
    np.testing.assert_array_equal(ours.train_windows, theirs.train_windows)
    last = int(np.searchsorted(ours.axis.times, np.datetime64("1959-01-01")))
    assert same_bits(ours.arrays.values[:last], theirs.arrays.values[:last])
    assert not same_bits(ours.arrays.values[last:], theirs.arrays.values[last:])
    # The control: values of training do change what is fitted.
    junk[100:104] += 1.0
    changed = prepared(junk, frames={"missing": missing})
    assert not same_bits(changed.head, theirs.head)


def test_values_after_training_cannot_change_the_weights_beside_gaps(masked, broken, tmp_path):
    """Windows of the end of training reach over a gap, beyond which validation begins."""
    after = broken["time"].dt.year.values >= 1959
    junk = broken.copy(deep=True)
    junk[after] = junk[after] * 3.0 - 7.0
    arrays = prepared(junk, frames=MASK).arrays
    assert int(masked.setup.train_windows.max()) + LEADS == INPUTS - 1 + TRAINING
    ours = masked.series._replace(
        frames=masked.series.frames._replace(values=jnp.asarray(arrays.values))
    )
    found = masked.fit(tmp_path / "junk", series=ours, epochs=1)
    expected = masked.fit(tmp_path / "clean", epochs=1)
    assert same_bits(found.state, expected.state)
    assert not same_bits(found.state.params, masked.weights.params)
