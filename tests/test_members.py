"""Ensembles: several networks trained in one step, on years of their own, forecasting together."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from conftest import STEPS, Bench, same_bits, small_config
from flax import nnx

from gridcast.accelerator import each_member
from gridcast.config.training import TrainConfig
from gridcast.errors import ConfigError
from gridcast.fitting import fit_setup
from gridcast.frames.windows import shuffled
from gridcast.labelling import label_forecast
from gridcast.models.heads import ClassHead, NormalHead, RainHead
from gridcast.models.members import member_of, stacked
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.pretraining import pretrain
from gridcast.report.member_indices import member_indices
from gridcast.resuming import checkpoint_of
from gridcast.run import Run
from gridcast.training import checkpoints, loop
from gridcast.training.batches import epoch_batches, member_seed, member_windows
from gridcast.training.checkpoints import Checkpoint, load_newest, named_leaves
from gridcast.training.encoders import CHECKPOINTS, load_encoder, put_encoder
from gridcast.training.journal import Journal
from gridcast.training.state import Weights

MEMBERS, SEED = 3, 2**32 - 2  # the last member's seed begins again at 0
THREE = {"members": MEMBERS, "seed": SEED, "epochs": 2}


def setup_of(ocean: xr.DataArray, **sections: Any) -> Setup:
    config = small_config(**sections)
    return prepare(config, open_source(config, ocean))


@pytest.fixture(scope="module")
def three(ocean) -> Bench:
    """Three members, with dropout: their draws have to differ."""
    return Bench.of(ocean, small_config(train=THREE, model={"dropout": 0.1}))


@pytest.fixture(scope="module")
def trained(three, tmp_path_factory) -> loop.Fit:
    return three.fit(tmp_path_factory.mktemp("three") / "metrics")


# ---------------------------------------------------------------- training


@pytest.mark.family
def test_one_network_is_trained_as_a_plain_loop_over_batches_trains_it(bench):
    """Without a member axis anywhere: what a run of one network keeps on disk has not changed."""
    stepper, weights = bench.stepper, bench.weights
    order = jnp.asarray(bench.setup.epoch(0))
    assert order.shape == (STEPS, 8)
    state, log = stepper.run(
        stepper.start(jax.tree.map(jnp.copy, weights)), bench.series, order, 0, 3
    )

    def loss(params: Any, initial: Any, key: Any) -> Any:
        return stepper._loss(weights._replace(params=params), bench.series, initial, key)[0].mean()

    value_and_gradient = jax.jit(jax.value_and_grad(loss))
    params, memory = weights.params, stepper.optimizer.init(weights.params)
    for step in range(3):
        key = jax.random.fold_in(jax.random.key(0), step)
        value, gradient = value_and_gradient(params, order[step], key)
        assert float(value) == pytest.approx(float(log[step, 0]), rel=1e-5)
        updates, memory = stepper.optimizer.update(gradient, memory, params)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.family
def test_each_member_is_the_run_that_its_seed_gives_alone(ocean, three, trained):
    found = []
    for member, seed in enumerate((SEED, SEED + 1, 0)):
        setup = setup_of(ocean, train=THREE | {"members": 1, "seed": seed})
        weights = member_of(three.weights, member)
        first = nnx.state(setup.model(), nnx.Param)
        assert same_bits(weights.params, first)
        stepper = replace(three.stepper, members=1, seed=seed)
        state = stepper.start(weights)
        for epoch in range(2):
            state, _ = stepper.run(state, three.series, jnp.asarray(setup.epoch(epoch)), 0, STEPS)
        mine = member_of(trained.state.weights, member)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(state.weights), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        found.append(state.params)
    # The control: the seeds lead to networks that differ by far more.
    for one, other in ((0, 1), (1, 2)):
        pairs = zip(jax.tree.leaves(found[one]), jax.tree.leaves(found[other]), strict=True)
        assert max(float(jnp.abs(a - b).max()) for a, b in pairs) > 0.1
    assert int(trained.state.step) == 2 * STEPS


def test_all_members_take_their_steps_in_one_compiled_program(three, trained):
    assert three.stepper.run._cache_size() == 1
    assert three.setup.epoch(0).shape == (MEMBERS, STEPS, 8)


def test_one_after_the_other_and_all_at_once_are_the_same(three, trained, monkeypatch):
    """How a CPU and how an accelerator computes members."""
    order = jnp.asarray(three.setup.epoch(0))
    monkeypatch.setattr("gridcast.training.parallel.each_member", jax.vmap)
    results = []
    for stepper in (three.stepper, replace(three.stepper)):
        state = stepper.start(jax.tree.map(jnp.copy, trained.best))
        state, log = stepper.run(state, three.series, order, 0, 2)
        results.append((state.params, log[:2]))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4)


def test_members_run_in_turn_on_a_cpu_and_at_once_elsewhere(monkeypatch):
    numbers = jnp.arange(3.0)
    for backend, primitive in (("cpu", "scan"), ("gpu", "mul"), ("tpu", "mul")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        jaxpr = jax.make_jaxpr(lambda x: each_member(lambda one: 2 * one)(x))(numbers)
        assert [str(equation.primitive) for equation in jaxpr.eqns] == [primitive], backend


# ---------------------------------------------------------------- the joint forecast


ONES = np.ones((12, 3, 1, 1, 2), np.float32)


def test_values_and_the_numbers_of_rain_are_averaged(bench):
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 1, 1, 1, 6)), jnp.float32)
    for head in (bench.setup.model().head, RainHead(ONES)):
        found = head.combine(outputs)
        np.testing.assert_allclose(found, np.asarray(outputs).mean(axis=0), rtol=1e-5, atol=1e-6)


def test_normal_distributions_are_combined_to_the_mean_and_variance_of_their_mixture(bench):
    """Means 0 and 2, variances 1 and 4: the mixture's variance is 5 / 2 + 1."""
    head = NormalHead(bench.setup.head, np.ones((2, 9, 18, 1)))
    outputs = jnp.asarray([[0.0, 0.0], [2.0, np.log(2.0)]]).reshape(2, 1, 1, 1, 1, 2)
    expected = [1.0, 0.5 * np.log(3.5)]
    np.testing.assert_allclose(head.combine(outputs).ravel(), expected, rtol=1e-6)
    same = jnp.stack([outputs[1]] * 3)
    np.testing.assert_allclose(head.combine(same), outputs[1], rtol=1e-6)


def test_classes_are_combined_by_the_mean_of_their_probabilities():
    """Two targets of three classes, by hand: 2/3 and 1/3 of the first class make 1/2."""
    head = ClassHead(None, None, ONES[:, :2], ONES / 3)
    sure, unsure = np.log([4, 1, 1, 1, 1, 1]), np.log([1, 1, 1, 1, 4, 1])
    outputs = jnp.asarray(np.stack([sure + 7.0, unsure])[:, None, None, None, None], jnp.float32)
    found = head.combine(outputs)
    half, quarter = (2 / 3 + 1 / 3) / 2, (1 / 6 + 1 / 3) / 2
    expected = [half, quarter, quarter, quarter, half, quarter]
    np.testing.assert_allclose(np.exp(found).ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(head.forecast(found).ravel(), expected, rtol=1e-5)
    # Members that agree are as sure together as alone; no class is ever impossible.
    same = head.combine(jnp.stack([outputs[0]] * 3))
    np.testing.assert_allclose(head.forecast(same), head.forecast(outputs[0]), rtol=1e-5)
    far = head.combine(jnp.asarray([[0.0] * 6, [500.0, 0, 0, 0, 0, 0]]).reshape(2, 1, 1, 1, 1, 6))
    assert np.isfinite(far).all()


@pytest.mark.family
def test_validation_is_of_the_joint_forecast_and_decides_the_best(three, trained):
    windows = three.setup.validation_windows[:5]
    initial = jnp.asarray(windows)
    inputs, targets, _ = three.stepper._batch(three.series, initial, None, 0.0)
    weights = trained.best

    def outputs(member: int) -> np.ndarray:
        states = member_of(weights, member)
        model = nnx.merge(three.stepper.graph, *states, three.stepper.fixed)
        return np.asarray(model(inputs), np.float64)

    area = three.setup.fields.weight
    scale = np.asarray(three.series.scale, np.float64)

    def loss(forecast: np.ndarray) -> np.ndarray:
        cells = (forecast - np.asarray(targets)) ** 2 * area
        return (cells.sum(axis=(2, 3)) / scale).mean(axis=(1, 2))

    each = [outputs(member) for member in range(MEMBERS)]
    found = three.stepper.losses(weights, three.series, initial[None])[0]
    np.testing.assert_allclose(found, loss(np.mean(each, axis=0)), rtol=1e-4)
    # The mean of networks that differ errs less than they do.
    assert (np.asarray(found) < np.mean([loss(one) for one in each], axis=0) - 1e-4).all()
    assert trained.progress.best_loss == three.validate(trained.best)


def run_of(bench: Bench, weights: Any) -> Run:
    """A run with these members."""
    setup = bench.setup
    states = member_of(weights, 0)
    model = nnx.merge(bench.stepper.graph, *states, bench.stepper.fixed)
    return Run(Path(), setup.config, setup.fields, model, "", 108, weights)


def alone(run: Run, weights: Any, member: int) -> Run:
    """A run with one of the members as its only network."""
    model = nnx.merge(nnx.split(run.model)[0], nnx.state(run.model))
    nnx.update(model, *member_of(weights, member))
    train = run.config.train.model_copy(update={"members": 1})
    return replace(
        run, config=run.config.model_copy(update={"train": train}), model=model, members=None
    )


def test_the_forecast_is_the_mean_of_what_the_members_forecast_alone(three, trained):
    initial, arrays = np.arange(100, 120), three.setup.arrays
    run = run_of(three, trained.best)
    each = run.predictor.members(arrays, initial)
    assert each.shape[:3] == (MEMBERS, 20, 2)
    for member in range(MEMBERS):
        expected = alone(run, trained.best, member).predictor(arrays, initial)
        np.testing.assert_allclose(each[member], expected, atol=1e-6)
    np.testing.assert_allclose(run.predictor(arrays, initial), each.mean(axis=0), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_indices_of_members_are_those_of_their_fields_and_their_mean_is_the_forecasts(
    three, trained, ocean
):
    run = run_of(three, trained.best)
    axis, initial = three.setup.axis, np.arange(130, 150)
    forecast = run.predictor(three.setup.arrays, initial)
    hindcast = label_forecast(run.fields, forecast, axis, initial, run.attributes)
    found = member_indices(run, ocean, hindcast)
    assert found is not None
    assert found["sst"].dims[:2] == ("index", "realization")
    ours = found["sst"].sel(index="nino34")
    grid, lon = run.transform.grid, hindcast["lon"]
    box = (abs(hindcast["lat"]) <= 5) & (lon >= 190) & (lon <= 240)
    weight = xr.DataArray(grid.weight, dims=("lat", "lon")).where(box, 0)

    def index(labelled: xr.Dataset) -> np.ndarray:
        normal = run.transform.climatology.at(labelled["time"].values.ravel())
        anomaly = labelled["sst"] - normal.reshape(labelled["sst"].shape)
        return (anomaly * weight).sum(("lat", "lon")).values / float(weight.sum())

    for member, other in enumerate(run.predictor.members(three.setup.arrays, initial)):
        labelled = label_forecast(run.fields, other, axis, initial, run.attributes)
        np.testing.assert_allclose(ours[member], index(labelled), atol=2e-5)
    np.testing.assert_allclose(ours.mean("realization"), index(hindcast), atol=2e-5)
    assert float(ours.std("realization").min()) > 1e-4
    assert member_indices(alone(run, trained.best, 0), ocean, hindcast) is None


def test_rolled_out_the_joint_forecast_is_fed_back_and_each_member_its_own(three, trained):
    initial, arrays = np.array([100]), three.setup.arrays
    predictor = run_of(three, trained.best).predictor
    joint, each = predictor(arrays, initial, 4), predictor.members(arrays, initial, 4)
    own = alone(run_of(three, trained.best), trained.best, 1).predictor(arrays, initial, 4)
    np.testing.assert_allclose(each[1], own, atol=1e-5)
    # The leads 3 and 4 are the mean of what the members make of the joint forecast of 1 and 2.
    values = arrays.values.copy()
    values[101:103] = joint[0, :2]
    later = predictor.members(arrays._replace(values=values), np.array([102]))
    np.testing.assert_allclose(joint[0, 2:], later.mean(axis=0)[0], atol=1e-5)
    assert np.abs(joint[0, 2:] - each.mean(axis=0)[0, 2:]).max() > 1e-4


def test_one_network_is_the_only_member_of_its_forecast(bench):
    setup, initial = bench.setup, np.array([50, 60])
    predictor = Run(Path(), setup.config, setup.fields, setup.model(), "", 108).predictor
    found = predictor.members(setup.arrays, initial)
    np.testing.assert_array_equal(found, predictor(setup.arrays, initial)[None])


# ---------------------------------------------------------------- years drawn by lot

YEARS = np.repeat(np.arange(1990, 2000), [3, 12, 12, 12, 11, 12, 12, 12, 12, 9])
WINDOWS = np.random.default_rng(0).permutation(1000)[: YEARS.size]


def drawn(**settings: Any) -> list[np.ndarray]:
    return member_windows(WINDOWS, YEARS, TrainConfig(**settings))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_members_draw_whole_blocks_of_years_and_as_many_as_there_are(length):
    blocks = [set(WINDOWS[(YEARS - 1990) // length == b].tolist()) for b in range(-(-10 // length))]
    seen = set()
    for windows in drawn(members=8, bootstrap=length):
        counts = Counter(windows.tolist())
        times = [{counts[window] for window in block} for block in blocks]
        assert all(len(one) == 1 for one in times)  # all windows of a block as often
        assert sum(one.pop() for one in times) == len(blocks)
        seen.add(tuple(sorted(counts.items())))
    assert len(seen) == 8


def test_the_draw_follows_from_seed_and_member_alone():
    ours = drawn(members=4, bootstrap=1, seed=5)
    for member in range(4):
        (alone,) = drawn(members=1, bootstrap=1, seed=5 + member)
        np.testing.assert_array_equal(ours[member], alone)
    same, other = drawn(members=4, bootstrap=1, seed=5), drawn(members=4, bootstrap=1, seed=9)
    assert same_bits(ours, same)
    assert all(set(a.tolist()) != set(b.tolist()) for a, b in zip(ours, other, strict=True))


def test_over_many_members_every_year_is_drawn_as_often():
    counts = Counter(np.concatenate(drawn(members=500, bootstrap=1)).tolist())
    times = [counts[window] for window in WINDOWS]
    assert 400 < min(times) < 500 < max(times) < 600  # 500, with a deviation of 21


def test_without_a_draw_every_member_has_all_windows():
    assert all(one is WINDOWS for one in drawn(members=3))


def test_years_that_make_one_block_cannot_be_drawn():
    with pytest.raises(ConfigError, match="10 years make one block of the training years 1990 to"):
        drawn(bootstrap=10)
    assert len(drawn(bootstrap=9)) == 1


def test_an_epoch_has_each_members_own_order_and_as_many_steps():
    windows = drawn(members=5, bootstrap=1, seed=7)
    fewest = min(one.size for one in windows)
    assert fewest < max(one.size for one in windows)
    batches = epoch_batches(windows, 4, 7, 2)
    assert batches.shape == (5, fewest // 4, 4)
    for member in range(5):
        expected = shuffled(windows[member], 4, member_seed(7, member), 2)
        np.testing.assert_array_equal(batches[member], expected[: fewest // 4])
    np.testing.assert_array_equal(epoch_batches([WINDOWS], 4, 7, 2), shuffled(WINDOWS, 4, 7, 2))
    # Fewer windows than a batch: all have batches of the fewest.
    assert epoch_batches([WINDOWS[:3], WINDOWS[:5]], 16, 0, 0).shape == (2, 1, 3)


def test_a_setup_draws_training_windows_by_the_year_of_their_initial_date(ocean):
    setup = setup_of(ocean, train={"members": 2, "bootstrap": 3})
    year = ocean["time"].dt.year.values
    for windows in setup.member_windows:
        assert set(windows.tolist()) <= set(setup.train_windows.tolist())
        counts = Counter(((year[windows] - 1950) // 3).tolist())
        whole = Counter(((year[setup.train_windows] - 1950) // 3).tolist())
        assert all(counts[block] % whole[block] == 0 for block in counts)


# ---------------------------------------------------------------- on disk

RUN = {"members": 2, "bootstrap": 1, "average": 0.9, "epochs": 2, "seed": 4}


@pytest.fixture(scope="module")
def uninterrupted(ocean, tmp_path_factory) -> tuple[Setup, Path, Checkpoint]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    setup = setup_of(ocean, train=RUN, model={"dropout": 0.1})
    return setup, directory, fit_setup(setup, directory, resume=False)


def test_an_ensemble_comes_back_from_its_checkpoint(uninterrupted):
    setup, directory, last = uninterrupted
    run = Run.load(directory)
    shapes = named_leaves(nnx.state(setup.model(), nnx.Param))
    for name, array in last.arrays["best"].items():
        assert array.shape == (2, *shapes[name.removeprefix(".params")].shape), name
    first = named_leaves(nnx.state(run.model, nnx.Param))
    for name, array in first.items():
        assert array.tobytes() == last.arrays["best"][f".params{name}"][0].tobytes()
    made = run.predictor(setup.arrays, np.array([130]))
    same = Run.restore(directory, last).predictor(setup.arrays, np.array([130]))
    assert same_bits(made, same)
    each = run.predictor.members(setup.arrays, np.array([130]))
    np.testing.assert_allclose(made, each.mean(axis=0), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 1e-3


@pytest.mark.family
def test_a_stopped_ensemble_goes_on_to_the_same_bits(uninterrupted, tmp_path, monkeypatch):
    """Stopped within the first epoch, and at its end."""
    setup, whole, last = uninterrupted
    steps = Journal.steps

    def stop(self: Any, *arguments: Any) -> None:
        steps(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "steps", stop)
        for resume, expected in ((False, loop.STEPS_PER_CALL), (True, last.step // 2)):
            with pytest.raises(SystemExit):
                fit_setup(setup, tmp_path, resume=resume)
            assert load_newest(tmp_path / "checkpoints").step == expected
    resumed = fit_setup(setup, tmp_path, resume=True)
    assert resumed.about["position"] == last.about["position"]
    assert resumed.arrays.keys() == last.arrays.keys() >= {"average"}
    for group, named in last.arrays.items():
        assert same_bits(resumed.arrays[group], named), group
    journals = [(path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path, whole)]
    ours, theirs = ([line for line in lines if "gradient" in line] for lines in journals)
    assert ours == theirs


def shaken(setup: Setup, members: int) -> Weights:
    """Stacked weights that are all at work, as if trained."""
    generator = np.random.default_rng(0)
    first = Weights(*nnx.state(setup.model(), nnx.Param, nnx.BatchStat))

    def noise(leaf: Any) -> Any:
        return leaf + 0.3 * generator.standard_normal(leaf.shape).astype(np.float32)

    return stacked([jax.tree.map(noise, first) for _ in range(members)])


def test_classes_of_an_ensemble_are_forecast_by_their_mean_probability(ocean):
    setup = setup_of(ocean, target={"classes": {}}, train={"members": 2})
    weights = shaken(setup, 2)
    run = Run(Path(), setup.config, setup.fields, setup.model(), "", 108, weights)
    initial = np.arange(110, 116)
    each = run.predictor.members(setup.arrays, initial)
    made = run.predictor(setup.arrays, initial)
    np.testing.assert_allclose(made, each.mean(axis=0), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 0.1


CNN = {"name": "cnn_lstm", "channels": [4, 4], "latent": 4, "hidden": [4], "norm": "batch"}


def test_an_encoder_is_pretrained_once_for_all_members(ocean, tmp_path, monkeypatch):
    asked = []

    def fit(setup: Setup, *_: Any, **__: Any) -> Checkpoint:
        asked.append(setup.config.train)
        return Checkpoint(1, {"position": {"best_loss": 0.5}}, {})

    monkeypatch.setattr("gridcast.pretraining.fit_setup", fit)
    train = {"members": 4, "start_from": "elsewhere", "seed": 3}
    pretrain(small_config(model=CNN, train=train, output={"directory": str(tmp_path)}), ocean)
    (found,) = asked
    assert (found.members, found.start_from, found.seed) == (1, None, 3)


def test_an_encoder_is_read_from_the_first_member(ocean, tmp_path):
    setup = setup_of(ocean, model=CNN, train={"members": 2})
    weights = shaken(setup, 2)
    saved = checkpoint_of(setup, 1, {"best": weights, "frozen": {}}, {})
    checkpoints.save(tmp_path / CHECKPOINTS, saved)
    found = load_encoder(tmp_path)
    model = setup.model()
    nnx.update(model, *member_of(weights, 0))
    network: Any = model.network
    expected = named_leaves(nnx.state(network.encoder))
    assert {name.removesuffix(".value"): leaf.tobytes() for name, leaf in expected.items()} == {
        name: leaf.tobytes() for name, leaf in found.items()
    }
    put_encoder(setup.model(), found)
