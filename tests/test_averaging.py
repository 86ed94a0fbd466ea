"""The moving average of the weights: against numpy, in validation, and on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Bench, same_bits, small_config
from flax import nnx

from gridcast.fitting import fit_setup
from gridcast.models.members import member_of, stacked
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.run import Run
from gridcast.training import loop
from gridcast.training.checkpoints import named_leaves
from gridcast.training.state import Weights, moved_average
from gridcast.training.step import Stepper

CNN = {"name": "cnn_lstm", "channels": [4, 4], "latent": 4, "hidden": [4], "norm": "batch"}


def step_by_step(bench: Bench, count: int) -> tuple[list[Weights], list[Any]]:
    """The weights before the first step and after each, and the averages."""
    stepper = bench.stepper
    order = jnp.asarray(bench.setup.epoch(0))
    state = stepper.start(jax.tree.map(jnp.copy, bench.weights))
    weights, averages = [bench.weights], [jax.tree.map(jnp.copy, state.average)]
    for step in range(count):
        state, _ = stepper.run(state, bench.series, order, step, step + 1)
        kept = jax.tree.map(jnp.copy, state)
        weights.append(kept.weights)
        averages.append(kept.average)
    return weights, averages


@pytest.mark.family
def test_the_average_is_that_of_numpy_over_the_weights_of_all_steps(ocean):
    """With statistics of batch norms, which are averaged as the weights are."""
    decay = 0.25
    bench = Bench.of(ocean, small_config(model=CNN, train={"average": decay, "learning_rate": 0.1}))
    weights, averages = step_by_step(bench, 6)
    assert same_bits(averages[0], bench.weights)
    expected = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(weights[0])]
    assert len(jax.tree.leaves(weights[0].statistics)) == 4
    # (1 + step) / (10 + step), until the decay is reached.
    for step, kept in enumerate([1 / 10, 2 / 11, 3 / 12, decay, decay, decay]):
        for i, leaf in enumerate(jax.tree.leaves(weights[step + 1])):
            expected[i] = kept * expected[i] + (1 - kept) * np.asarray(leaf, np.float64)
        for found, one in zip(jax.tree.leaves(averages[step + 1]), expected, strict=True):
            np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-6)
    # The control: it is not the weights.
    last = zip(jax.tree.leaves(averages[6]), jax.tree.leaves(weights[6]), strict=True)
    assert max(float(jnp.abs(a - w).max()) for a, w in last) > 1e-2


def test_a_slow_average_forgets_the_first_weights_at_once():
    """Of numbers 1, 1, 1, ... after a 0: not 1 - decay ** n, which is 0.01 after ten."""
    average = Weights(jnp.zeros(()), jnp.zeros(()))
    for step in range(10):
        average = moved_average(average, Weights(*jnp.ones(2)), 0.999, jnp.asarray(step))
    left = np.prod([(1 + step) / (10 + step) for step in range(10)])
    np.testing.assert_allclose(average.params, 1 - left, rtol=1e-6)
    assert left < 1e-4


@pytest.fixture(scope="module")
def averaged(bench) -> Stepper:
    """The training of the bench, with an average beside it."""
    return replace(bench.stepper, average=0.9)


def test_the_average_changes_nothing_in_the_training_of_the_weights(bench, averaged, tmp_path):
    begin = loop.start(averaged, bench.weights, bench.validate)
    ours = bench.fit(tmp_path / "ours", stepper=averaged, begin=begin, epochs=1)
    theirs = bench.fit(tmp_path / "theirs", epochs=1)
    pairs = (jax.tree.leaves(end.state.weights) for end in (ours, theirs))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert theirs.state.average is None
    assert same_bits(theirs.state.delivered, theirs.state.weights)


def test_validation_and_the_best_weights_are_the_average(bench, averaged, tmp_path):
    asked, averages = [], []

    def validate(weights: Weights) -> float:
        asked.append(jax.tree.map(jnp.copy, weights))
        return bench.validate(weights)

    last = bench.fit(
        tmp_path / "metrics",
        stepper=averaged,
        begin=loop.start(averaged, bench.weights, validate),
        validate=validate,
        save=lambda now: averages.append(jax.tree.map(jnp.copy, now.state.average)),
    )
    assert same_bits(asked, [bench.weights, *averages])
    best = last.progress.best_epoch
    assert best > 0
    assert same_bits(last.best, averages[best - 1])
    assert bench.validate(last.best) == last.progress.best_loss
    assert bench.validate(last.state.weights) != bench.validate(last.state.delivered)


def test_members_are_averaged_each_by_itself(bench, averaged):
    """Twice the same member, and one from weights of its own."""
    other = jax.tree.map(lambda leaf: leaf + 0.1, bench.weights)
    weights = stacked([bench.weights, other])
    order = jnp.asarray(bench.setup.epoch(0))
    two = replace(averaged, members=2)
    together, _ = two.run(two.start(weights), bench.series, jnp.stack([order, order]), 0, 5)
    for member, first in enumerate((bench.weights, other)):
        # The members draw from seeds of their own, but without dropout nothing is drawn.
        begin = averaged.start(jax.tree.map(jnp.copy, first))
        alone, _ = averaged.run(begin, bench.series, order, 0, 5)
        assert together.average is not None
        mine = jax.tree.leaves(member_of(together.average, member))
        for a, b in zip(mine, jax.tree.leaves(alone.average), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.family
def test_a_run_forecasts_with_the_average_and_keeps_it_on_disk(ocean, bench, tmp_path):
    config = small_config(train={"epochs": 1, "average": 0.9})
    setup = prepare(config, open_source(config, ocean))
    last = fit_setup(setup, tmp_path, resume=False)
    assert same_bits(last.arrays["best"], last.arrays["average"])
    assert not same_bits(last.arrays["weights"], last.arrays["average"])
    run = Run.load(tmp_path)
    found = named_leaves(Weights(*nnx.state(run.model, nnx.Param, nnx.BatchStat)))
    assert found.keys() == last.arrays["average"].keys()
    assert all(found[name].tobytes() == last.arrays["average"][name].tobytes() for name in found)
    # The control: without the setting there is none, in the state or on disk.
    assert bench.stepper.start(bench.weights).average is None
