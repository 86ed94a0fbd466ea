"""References inside a model: untrained it forecasts as the reference fitted on the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from conftest import SMALL, small_config
from flax import nnx
from scipy import stats

from gridcast.crossval import require_apart
from gridcast.errors import ConfigError, DataError
from gridcast.frames.fields import target_series
from gridcast.frames.places import random_place
from gridcast.frames.splits import Splits
from gridcast.matching import require_history
from gridcast.models import NoCorrection
from gridcast.models.base import Base
from gridcast.models.heads import LEAST_PROBABILITY
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.references import (
    Reference,
    TrainingSeries,
    damped_persistence,
    error_deviation,
    fit_base,
    restore,
)
from gridcast.run import Run
from gridcast.timeaxis import TimeAxis

LEADS, TRAINING = 2, 108
YEARS = 2
BASES = {
    "climatology": {},
    "persistence": {},
    "damped_persistence": {"by_month": True},
    "lim": {"eofs": [3, 5], "seasonal": True, "shrink": 0.1},
    "analogues": {"eofs": 3, "neighbours": 4},
}
HEADS = {
    "values": {},
    "classes": {"target": {"classes": {"kind": "thresholds", "thresholds": [0.0, 0.3]}}},
    "normal": {"train": {"loss": "crps"}},
}
BOX = {"lat": [-45, 45], "lon": [100, 260]}


def prepared(series: xr.DataArray | xr.Dataset, base: str, **sections: Any) -> Setup:
    model = {"base": base, "reference": BASES[base]} | sections.pop("model", {})
    config = small_config(model=model, **sections)
    return prepare(config, open_source(config, series))


def untrained(setup: Setup) -> Run:
    """Without a network, which would add nothing and take long to compile."""
    model = setup.model(lambda config, sizes, rngs: NoCorrection())
    return Run(Path(), setup.config, setup.fields, model, "", TRAINING)


def trailing(values: np.ndarray, years: int | None) -> np.ndarray:
    """The mean of the years up to each month; before the record there is no anomaly."""
    padded = np.concatenate([np.zeros((12 * (years or 1), *values.shape[1:])), values])
    length = 12 * (years or 0)
    means = [padded[i + 1 : i + 1 + length].sum(axis=0) / 24 for i in range(len(values))]
    return np.stack(means) if years else np.zeros_like(values)


def on_the_host(setup: Setup) -> tuple[Reference, TrainingSeries, np.ndarray, np.ndarray | None]:
    """The reference fitted by itself: with what it was fitted on, the means, and the state."""
    fields, config = setup.fields, setup.config
    values = fields.scaled(target_series(config, setup.series))
    means = trailing(values, config.frames.trailing)
    fitted, inside = (values - means).astype(np.float32), setup.splits.train
    training = TrainingSeries(fitted, setup.axis, inside, fields.weight)
    if fields.whole or len(fields.inputs) > len(fields.targets):
        state = setup.arrays.values
        state = (state - trailing(state, config.frames.trailing)).astype(np.float32)
        weight = np.stack([one.grid.weight for one in fields.inputs], axis=-1)
        training = replace(training, state=state, state_weight=weight)
    model = config.model
    reference = fit_base(model.base, training, LEADS, model.reference, setup.splits.validation)
    return reference, training, means, training.state


INITIAL = np.array([40, 77, 106, 107, 120, 133, 160])


def expected_of(setup: Setup) -> np.ndarray:
    """Values, a mean and a deviation, or probabilities, with scipy."""
    reference, training, means, state = on_the_host(setup)
    frames, month = training.values[INITIAL][:, None], training.season[INITIAL]
    mean = means[INITIAL][:, None] + reference(
        frames, month, None if state is None else state[INITIAL]
    )
    mask = setup.fields.target_mask
    classes = setup.fields.classes
    if setup.config.train.loss is None and classes is None:
        return np.where(mask, mean, 0.0)
    error = np.broadcast_to(error_deviation(reference, training, LEADS), mean.shape)
    error = np.maximum(error, 1e-3)
    if classes is None:
        both = np.stack([mean, error], axis=-1).reshape(*mean.shape[:-1], -1)
        return np.where(np.repeat(mask, 2, axis=-1), both, np.tile([0.0, 1.0], mask.shape[-1]))
    months = (month[:, None] + np.arange(LEADS) - 1) % 12
    below = stats.norm.cdf(classes.edges[months], mean[:, :, None], error[:, :, None])
    ends = np.ones_like(below[:, :, :1])
    share = np.diff(np.concatenate([0 * ends, below, ends], axis=2), axis=2)
    odds = LEAST_PROBABILITY + (1 - 3 * LEAST_PROBABILITY) * share
    odds = np.moveaxis(odds, 2, -1).reshape(*mean.shape[:-1], -1)
    return np.where(np.repeat(mask, 3, axis=-1), odds, 1 / 3)


def climatological(setup: Setup, expected: np.ndarray) -> np.ndarray:
    """Classes over climatology are the odds of training, where it does not drift."""
    classes = setup.fields.classes
    assert classes is not None
    months = (INITIAL[:, None] + np.arange(1, LEADS + 1)) % 12
    odds = np.moveaxis(classes.odds[months], 2, -1).reshape(expected.shape)
    return np.where(np.repeat(setup.fields.target_mask, 3, axis=-1), odds, 1 / 3)


CASES = [
    *((base, "values", YEARS) for base in BASES),
    *((base, "values", None) for base in ("damped_persistence", "lim")),
    *((base, "classes", YEARS) for base in ("climatology", "damped_persistence", "analogues")),
    ("climatology", "classes", None),
    ("lim", "normal", YEARS),
    ("analogues", "normal", None),
]


@pytest.mark.parametrize(("base", "head", "years"), CASES)
def test_an_untrained_model_is_the_reference_fitted_on_the_host(base, head, years, ocean):
    setup = prepared(ocean, base, frames={"trailing": years}, **HEADS[head])
    found = untrained(setup).predictor(setup.arrays, INITIAL)
    expected = expected_of(setup)
    if base == "climatology" and head == "classes" and years is None:
        expected = climatological(setup, expected)
    # Probabilities are those of single precision.
    np.testing.assert_allclose(found, expected, atol=1e-3 if head == "classes" else 3e-5)
    if base != "climatology":
        assert np.abs(np.diff(found, axis=0)).max() > 0.1


def sea_and_height(ocean: xr.DataArray) -> xr.Dataset:
    """A second variable that is another sea, a season ahead."""
    other = (0.1 * np.roll(ocean.values, -3, axis=0) + 1.0).astype(np.float32)
    height = ocean.copy(data=other).rename("ssh").assign_attrs(units="m", long_name="height")
    return xr.Dataset({"sst": ocean, "ssh": height})


@pytest.mark.parametrize(
    ("base", "answer", "years"),
    [
        ("lim", "a further input", None),
        ("lim", "two targets", YEARS),
        ("lim", "the mean of a box", YEARS),
        ("analogues", "the mean of a box", YEARS),
    ],
)
def test_a_base_that_starts_from_more_than_the_targets_is_that_of_the_host(
    base, answer, years, ocean
):
    data = {"path": "(in memory)", "variable": "sst"}
    ssh = {"path": "(in memory)", "variable": "ssh", "target": answer == "two targets"}
    target = {"mean_over": BOX} if answer == "the mean of a box" else {}
    sections = {"data": data | {"more": [ssh]}, "target": target, "frames": {"trailing": years}}
    setup = prepared(sea_and_height(ocean), base, **sections)
    found = untrained(setup).predictor(setup.arrays, INITIAL)
    np.testing.assert_allclose(found, expected_of(setup), atol=5e-5)
    # The second variable has a say.
    changed = setup.arrays.values.copy()
    changed[..., 1] *= 1.3
    other = untrained(setup).predictor(setup.arrays._replace(values=changed), INITIAL)
    assert np.abs(other - found)[..., 0].max() > 1e-3


# ---------------------------------------------------------------- a climate that drifts


@pytest.mark.parametrize(("base", "years"), [("lim", None), ("lim", YEARS)])
def test_what_has_been_warmer_for_longer_than_the_window_is_forecast_so_much_warmer(
    base, years, ocean
):
    """Also by a network: it is given departures from the mean, and corrects them."""
    setup = prepared(ocean, base, frames={"trailing": years})
    model = setup.model()
    rng = np.random.default_rng(0)
    params = nnx.state(model, nnx.Param)
    awake = jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape).astype("f4"), params)
    nnx.update(model, awake)
    run = Run(Path(), setup.config, setup.fields, model, "", TRAINING)
    constant = 1.5
    warmer = setup.series[0] + constant * setup.fields.inputs[0].scaler.deviation.item()
    shifted = setup.fields.arrays_of([warmer.assign_attrs(ocean.attrs)], setup.axis)
    later = INITIAL[INITIAL > 12 * YEARS + 3]
    sea = setup.fields.target_mask[..., 0]
    before, after = (run.predictor(one, later)[:, :, sea] for one in (setup.arrays, shifted))
    reference = untrained(setup).predictor(setup.arrays, later)[:, :, sea]
    assert np.abs(before - reference).max() > 0.05  # the network does say something
    if years is None:
        assert np.abs(after - before - constant).max() > 0.1
    else:
        np.testing.assert_allclose(after - before, constant, atol=2e-3)


# ---------------------------------------------------------------- places


@pytest.mark.parametrize(("by_month", "size"), [(True, None), (True, (4, 6)), (False, (4, 6))])
def test_factors_of_a_month_are_those_of_the_place_of_each_sample(by_month, size):
    """Rolled, mirrored and cut out."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 6, 8, 2)).astype(np.float32)
    axis = TimeAxis.of((np.datetime64("1950-01") + np.arange(60)).astype("datetime64[ns]"))
    training = TrainingSeries(values, axis, np.ones(60, bool), np.ones((6, 8, 2)))
    reference = damped_persistence(training, 3, by_month=by_month)
    place = jax.jit(
        lambda key: random_place(
            key,
            5,
            grid=(6, 8),
            size=size,
            step=1,
            wraps=True,
            roll=True,
            flip=("lat", "lon"),
            vectors=(None, None),
        )
    )(jax.random.key(1))
    month = np.array([1, 12, 3, 3, 8])
    rows, columns = np.asarray(place.rows), np.asarray(place.columns)
    assert len({tuple(r) for r in rows.tolist()}) > 1
    whole = values[20:25]
    cut = np.stack([one[np.ix_(r, c)] for one, r, c in zip(whole, rows, columns, strict=True)])
    base = Base({"damping": reference.damping})
    months = month[:, None] + np.arange(3)
    found = jax.jit(lambda last, month: base(last, month, place, None))(cut, months)
    expected = reference(whole[:, None], month)
    for b in range(5):
        here = expected[b][:, rows[b][:, None], columns[b]]
        np.testing.assert_allclose(found[b], here, rtol=1e-6)


# ---------------------------------------------------------------- settings


def test_settings_that_no_reference_reads_and_bases_that_do_not_fit_are_refused_by_name():
    memory = {"path": "(in memory)"}
    patches = {"size": [4, 4], "overlap": 2}
    seq2seq = {"name": "conv_seq2seq"}
    lim, alone = {"base": "lim"}, {"name": "lim"}
    amounts = {"loss": "bernoulli_gamma"}
    for sections, words in (
        ({"model": {"reference": {"eofs": 5}}}, "reference.eofs means nothing to damped"),
        ({"model": lim | {"reference": {"by_month": True}}}, "reference.by_month .* lim"),
        ({"model": lim | {"reference": {"neighbours": 5}}}, "reference.neighbours .* lim"),
        (
            {"model": {"base": "analogues", "reference": {"seasonal": True}}},
            "reference.seasonal means nothing to analogues",
        ),
        ({"model": alone | {"reference": {"by_month": True}}}, "reference.by_month .* lim"),
        ({"model": lim | {"reference": {"eofs": []}}}, "reference.eofs"),
        ({"model": lim | {"reference": {"shrink": -1.0}}}, "reference.shrink"),
        ({"model": lim, "frames": {"patches": patches}}, "base: lim needs the whole grid"),
        ({"model": lim, "frames": {"augment": {"roll": True}}}, "base: lim needs the whole grid"),
        (
            {"model": {"base": "analogues"}, "frames": {"augment": {"flip": ["lon"]}}},
            "base: analogues needs the whole grid",
        ),
        (
            {"data": memory | {"transform": "log1p"}, "train": {"loss": "crps"}},
            "loss: crps .*\n.*data.transform: none",
        ),
        ({"target": {"classes": {}}, "train": {"loss": "mse_crps"}}, "train.loss: mse_crps"),
        ({"model": seq2seq, "train": {"loss": "crps"}}, "conv_seq2seq"),
        ({"model": seq2seq, "frames": {"trailing": 10}}, "frames.trailing"),
        (
            {"model": {"base": "climatology"}, "train": amounts, "frames": {"trailing": 10}},
            "bernoulli_gamma .*\n.*frames.trailing",
        ),
        ({"frames": {"trailing": 0}}, "frames.trailing"),
        ({"model": alone, "train": {"members": 3}}, "model.name: lim .*\n.*train.members"),
        ({"model": alone, "train": amounts}, "model.name: lim|model.base: lim"),
    ):
        with pytest.raises(ConfigError, match=words):
            small_config(**sections)
    # The controls.
    small_config(model=lim | {"reference": {"eofs": [5, 10], "seasonal": True}})
    small_config(model={"reference": {"by_month": True}}, frames={"patches": patches})
    small_config(model=alone, frames={"trailing": 10}, train={"loss": "crps"})


@pytest.mark.parametrize("base", ["damped_persistence", "lim"])
def test_where_the_last_value_lacks_the_forecast_starts_from_the_years_before(base, ocean):
    sea = np.isfinite(ocean.values[0])
    holes = (np.random.default_rng(0).random(ocean.shape) < 0.1) & sea
    holed = ocean.copy(data=np.where(holes, np.nan, ocean.values))
    setup = prepared(holed, base, frames={"trailing": YEARS, "missing": "mask"})
    values, means = setup.arrays.values, setup.arrays.trailing
    assert means is not None
    initial = INITIAL[1:]
    start = np.nan_to_num((values - means)[initial])
    month = setup.arrays.month[initial + 1]
    expected = means[initial][:, None] + restore(setup.head)(start[:, None], month)
    found = untrained(setup).predictor(setup.arrays, initial)
    np.testing.assert_allclose(found[..., sea, :], expected[..., sea, :], atol=3e-5)


def test_a_mean_of_years_may_not_reach_from_training_into_the_block_left_out(ocean):
    def setup(years: int) -> Setup:
        count = ocean["time"].size
        later = Splits(*(np.zeros(count, bool) for _ in range(3)))
        later.test[60:72], later.validation[72:84], later.train[100:150] = True, True, True
        config = small_config(frames=SMALL["frames"] | {"trailing": years})
        return prepare(config, open_source(config, ocean), later)

    require_apart(setup(2))  # 24 months: from 100 back to 77, after the block
    with pytest.raises(ConfigError, match="reaches 36 steps back"):
        require_apart(setup(3))


def test_a_forecast_needs_the_years_whose_mean_it_starts_from(ocean):
    config = small_config(frames=SMALL["frames"] | {"trailing": 5})
    axis = TimeAxis.of(ocean["time"].values)
    require_history(config, axis, 59)
    with pytest.raises(DataError, match="60 dates\n  found: 59"):
        require_history(config, axis, 58)
