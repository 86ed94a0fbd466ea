"""The loss, the loop and the checkpoints: what is kept, when it stops, what a fault cannot do."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STEPS, Bench, same_bits, small_config
from flax import nnx
from scipy import stats

from gridcast.errors import CheckpointError, TrainingError
from gridcast.fitting import compile_setup, fit_setup
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.run import Run
from gridcast.training import checkpoints, loop, losses
from gridcast.training.checkpoints import (
    KEEP,
    Checkpoint,
    fill,
    load,
    load_newest,
    named_leaves,
    save,
)
from gridcast.training.losses import (
    LOSSES,
    absolute,
    balanced,
    bernoulli_gamma,
    cross_entropy,
    huber,
    masked_mean,
    squared,
)
from gridcast.training.step import LOGGED, Stepper, Weights

# ---------------------------------------------------------------- the losses

WEIGHT = jnp.array([[[3.0], [1.0], [0.0]]])
ONES = jnp.ones((2, 1))


def fields(*rows: list[float]) -> jax.Array:
    """One window: [batch=1, lead, lat=1, lon=3, channel=1]."""
    return jnp.array(rows)[None, :, None, :, None]


def masked_mse(outputs, targets, weight=WEIGHT[None], scale=ONES, **gaps) -> jax.Array:
    return masked_mean(squared, outputs, targets, weight, scale, **gaps)


def test_masked_mse_by_hand_ignores_land_and_divides_by_the_scale_of_each_lead():
    prediction = fields([1.0, 2.0, 100.0], [0.0, 0.0, 0.0])
    target = fields([0.0, 0.0, 0.0], [2.0, 1.0, -7.0])
    # Lead 1: (3 * 1 + 1 * 4) / 4; lead 2: (3 * 4 + 1 * 1) / 4.
    found = masked_mse(prediction, target)
    np.testing.assert_allclose(found, [(7 / 4 + 13 / 4) / 2])
    found = masked_mse(prediction, target, scale=jnp.array([[7.0], [0.5]]))
    np.testing.assert_allclose(found, [(0.25 + 6.5) / 2])
    found = masked_mse(prediction, target, 10 * WEIGHT[None])
    np.testing.assert_allclose(found, [2.5], rtol=1e-6)


def test_masked_mse_has_finite_gradients_with_nan_on_land_and_is_nan_with_nan_at_sea():
    gradient = jax.grad(lambda p, t: masked_mse(p, t).sum())
    prediction = fields([1.0, 2.0, 5.0], [0.0, 0.0, 0.0])
    land = fields([0.0, 0.0, np.nan], [0.0, 1.0, np.nan])
    found = gradient(prediction, land)[0, 0, 0, :, 0]
    np.testing.assert_allclose(found, [3 / 4, 2 * 2 / 4 / 2, 0.0])
    assert np.isfinite(gradient(prediction, land)).all()
    assert np.isfinite(masked_mse(prediction, land)).all()
    sea = fields([0.0, np.nan, 0.0], [0.0, 0.0, 0.0])
    assert np.isnan(masked_mse(prediction, sea)).all()


def test_with_gaps_each_observation_weighs_the_same_and_gradients_are_finite():
    prediction = fields([1.0, 2.0, 100.0], [0.0, 0.0, 0.0])
    target = fields([0.0, np.nan, np.nan], [2.0, 1.0, -7.0])
    # Seen are 3 at lead 1, and 3 and 1 at lead 2: (3 * 1 + 3 * 4 + 1 * 1) / 7.
    np.testing.assert_allclose(masked_mse(prediction, target, gaps=True), [16 / 7], rtol=1e-6)
    gradient = jax.grad(lambda p: masked_mse(p, target, gaps=True).sum())(prediction)
    np.testing.assert_allclose(gradient[0, 0, 0, :, 0], [2 * 3 / 7, 0.0, 0.0], rtol=1e-6)
    assert np.isfinite(gradient).all()
    whole = fields([0.0, 0.0, np.nan], [2.0, 1.0, -7.0])
    found, expected = (masked_mse(prediction, whole, gaps=gaps) for gaps in (True, False))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert masked_mse(prediction, jnp.full_like(target, jnp.nan), gaps=True) == 0.0


def test_the_mean_keeps_windows_apart_and_each_target_has_its_weight_and_scale():
    outputs = jnp.stack([jnp.zeros((2, 1, 3, 2)), jnp.full((2, 1, 3, 2), 3.0)])
    weight = jnp.concatenate([WEIGHT, 3 * WEIGHT], axis=-1)[None]
    found = masked_mse(outputs, jnp.zeros((2, 2, 1, 3, 2)), weight, jnp.ones((2, 2)))
    np.testing.assert_allclose(found, [0.0, 9.0], rtol=1e-6)
    # The second target counts three times, and at lead 2 half, against its scale of 2.
    outputs = jnp.stack([jnp.full((2, 1, 3), 1.0), jnp.full((2, 1, 3), 2.0)], axis=-1)[None]
    scale = jnp.array([[1.0, 1.0], [1.0, 2.0]])
    found = masked_mse(outputs, jnp.zeros((1, 2, 1, 3, 2)), weight, scale)
    np.testing.assert_allclose(found, [((1 + 3 * 4) + (1 + 3 * 2)) / 8], rtol=1e-6)
    # A weight for each window: what is taken from different places of a grid.
    places = jnp.concatenate([weight, jnp.flip(weight, axis=2)])
    ramp = jnp.broadcast_to(jnp.array([0.0, 1.0, 2.0])[:, None], (2, 2, 1, 3, 2))
    found = masked_mse(ramp, jnp.zeros_like(ramp), places, jnp.ones((2, 2)))
    np.testing.assert_allclose(found, [1 / 4, (3 * 4 + 1) / 4], rtol=1e-6)


def one_by_one(loss, outputs: list, targets: list) -> np.ndarray:
    """Losses of single values: [pair, numbers] and [pair]."""
    wide = jnp.array(outputs, jnp.float32).reshape(len(targets), 1, 1, 1, -1)
    return np.asarray(loss(wide, jnp.array(targets, jnp.float32).reshape(-1, 1, 1, 1, 1))).ravel()


def test_losses_of_errors_by_hand():
    outputs, targets = [1.0, 0.5, -2.0, 3.5], [0.0, 0.0, 1.0, 3.0]
    np.testing.assert_allclose(one_by_one(squared, outputs, targets), [1, 0.25, 9, 0.25])
    np.testing.assert_allclose(one_by_one(absolute, outputs, targets), [1, 0.5, 3, 0.5])
    # Squared below one, and from there on a line with the same value and slope.
    np.testing.assert_allclose(one_by_one(huber, outputs, targets), [1, 0.25, 5, 0.25])
    slope = jax.grad(lambda x: huber(x.reshape(1, 1, 1, 1, 1), jnp.zeros((1,) * 5)).sum())
    for error, expected in ((0.999, 1.998), (1.001, 2.0), (50.0, 2.0), (-50.0, -2.0)):
        assert slope(jnp.array(error)) == pytest.approx(expected, rel=1e-4)
    # From one deviation above normal an error counts twice, from two 5, from three 10 times.
    targets = [0.99, 1.0, 2.0, 2.99, 3.0, -3.0]
    found = one_by_one(balanced, [t + 1 for t in targets], targets)
    np.testing.assert_allclose(found, [1, 2, 5, 5, 10, 1], rtol=1e-5)


def test_cross_entropy_is_minus_the_log_of_the_probability_of_what_came():
    logits = np.random.default_rng(0).standard_normal((2, 1, 1, 3, 6)).astype(np.float32)
    came = np.random.default_rng(1).integers(0, 3, (2, 1, 1, 3, 2))
    found = cross_entropy(jnp.asarray(logits), jnp.asarray(came, jnp.float32))
    for window, column, target in np.ndindex(2, 3, 2):
        mine = logits[window, 0, 0, column, 3 * target : 3 * target + 3].astype(float)
        share = np.exp(mine[came[window, 0, 0, column, target]]) / np.exp(mine).sum()
        assert found[window, 0, 0, column, target] == pytest.approx(-np.log(share), rel=1e-5)
    # Any number added to all classes of a target changes nothing.
    moved = cross_entropy(jnp.asarray(logits + 7.0), jnp.asarray(came, jnp.float32))
    np.testing.assert_allclose(moved, found, rtol=1e-4)


def test_bernoulli_gamma_is_the_log_likelihood_of_scipy():
    generator = np.random.default_rng(0)
    numbers = generator.standard_normal((40, 3))
    amounts = generator.gamma(0.7, 4.0, 40) * (generator.random(40) < 0.6)
    wet = 1 / (1 + np.exp(-numbers[:, 0]))
    shape, mean = np.exp(numbers[:, 1]), np.exp(numbers[:, 2])
    rainy = amounts > 0
    density = stats.gamma.logpdf(np.where(rainy, amounts, 1.0), shape, scale=mean / shape)
    expected = -np.where(rainy, np.log(wet) + density, np.log(1 - wet))
    found = one_by_one(bernoulli_gamma, numbers.tolist(), amounts.tolist())
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4)
    assert 5 < rainy.sum() < 35


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_has_finite_gradients_off_the_mask_and_in_gaps(name):
    widths = {"cross_entropy": 3, "bernoulli_gamma": 3, "crps": 2, "mse_crps": 2}
    width = widths.get(name, 1)
    targets = fields([0.0, np.nan, np.nan], [2.0, 1.0, -np.inf])
    outputs = jnp.ones((1, 2, 1, 3, width)).at[:, :, :, 2].set(jnp.nan)

    def loss(outputs: jax.Array) -> jax.Array:
        return masked_mean(LOSSES[name], outputs, targets, WEIGHT[None], ONES, gaps=True).sum()

    value, gradient = jax.value_and_grad(loss)(outputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert not gradient[:, :, :, 2].any()
    assert not gradient[:, 0, :, 1].any()
    assert gradient[:, 0, :, 0].any()


# ---------------------------------------------------------------- the loop


def records(path: Path) -> tuple[list[dict], list[dict]]:
    """The lines of metrics.jsonl: of steps, of epochs."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [r for r in lines if "loss" in r], [r for r in lines if "loss" not in r]


@pytest.fixture(scope="module")
def trained(bench: Bench, tmp_path_factory) -> tuple[loop.Fit, list[loop.Fit], Path]:
    """Three epochs: how they end, what was saved, and the metrics."""
    metrics, saved = tmp_path_factory.mktemp("trained") / "metrics.jsonl", []
    end = bench.fit(metrics, save=lambda now: saved.append(copied(now)))
    return end, saved, metrics


def copied(now: loop.Fit) -> loop.Fit:
    """Its arrays outlive the next step, which takes the originals."""
    return replace(now, state=jax.tree.map(jnp.copy, now.state))


def test_training_lowers_the_loss_and_beats_the_untrained_model(bench, trained):
    end, _, metrics = trained
    _, epochs = records(metrics)
    losses = [e["training_loss"] for e in epochs]
    assert losses[2] < losses[1] < losses[0]
    untrained = bench.validate(bench.weights)
    assert end.progress.best_loss < untrained
    # Untrained, the model is the reference, and the loss counts in its errors.
    assert 0.7 < untrained < 1.3


def test_metrics_hold_finite_norms_of_every_step(trained):
    end, _, metrics = trained
    steps, epochs = records(metrics)
    assert [s["step"] for s in steps] == list(range(1, 3 * STEPS + 1))
    assert [s["epoch"] for s in steps] == [e for e in (1, 2, 3) for _ in range(STEPS)]
    for name in ("loss", "gradient_norm", "parameter_norm", "update_norm"):
        values = np.array([s[name] for s in steps])
        assert np.isfinite(values).all()
        assert (values[1:] > 0).all()  # the rate of the first step is zero
    assert [e["step"] for e in epochs] == [STEPS, 2 * STEPS, 3 * STEPS]
    first = np.mean([s["loss"] for s in steps[:STEPS]])
    np.testing.assert_allclose(epochs[0]["training_loss"], first)
    assert int(end.state.step) == 3 * STEPS


def test_one_compiled_program_serves_all_epochs_and_stretches(bench, trained):
    assert bench.stepper.run._cache_size() == 1
    assert bench.stepper.losses._cache_size() == 1


def test_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(
    bench, trained, tmp_path
):
    end, *_ = trained
    again = bench.fit(tmp_path / "again")
    assert same_bits(again.state, end.state)
    assert same_bits(again.best, end.best)
    other = bench.fit(tmp_path / "other", seed=1)
    assert not same_bits(other.state.params, end.state.params)


def test_another_seed_starts_from_other_weights(bench, ocean):
    same, other = (Bench.of(ocean, small_config(train={"seed": seed})) for seed in (0, 1))
    assert same_bits(same.weights, bench.weights)
    assert not same_bits(other.weights, bench.weights)


def scripted(losses: list[float]):
    """A validation that says these values, one after another."""
    values = iter(losses)
    return lambda _weights: next(values)


def test_early_stopping_waits_for_its_patience_and_keeps_the_best(bench, tmp_path):
    saved = []
    losses = [1.0, 1.1, 0.8, 0.85, 0.8, 0.99]  # equal is no better
    end = bench.fit(
        tmp_path / "metrics",
        validate=scripted(losses),
        save=lambda now: saved.append(copied(now)),
        epochs=20,
        patience=3,
    )
    assert [s.progress.stale for s in saved] == [1, 0, 1, 2, 3]
    assert [s.progress.finished for s in saved] == [False] * 4 + [True]
    assert end.progress == loop.Progress(0.8, 2, 3, True)
    assert same_bits(end.best, saved[1].state.weights)
    assert not same_bits(end.best, end.state.weights)


def test_best_weights_are_those_of_the_best_validation(bench, trained):
    end, saved, metrics = trained
    _, epochs = records(metrics)
    losses = [e["validation_loss"] for e in epochs]
    best = int(np.argmin(losses))
    assert end.progress.best_epoch == best + 1
    assert end.progress.best_loss == losses[best] == bench.validate(end.best)
    assert same_bits(end.best, saved[best].state.weights)


def test_untrained_weights_are_kept_where_training_makes_it_worse(bench, tmp_path):
    worse = [1.0, 1.1, 1.2]
    end = bench.fit(tmp_path / "metrics", validate=scripted(worse), patience=2)
    assert end.progress == loop.Progress(1.0, 0, 2, True)
    assert same_bits(end.best, bench.weights)
    assert not same_bits(end.state.weights, bench.weights)


def test_a_huge_learning_rate_leaves_the_reference(ocean, tmp_path):
    wild = Bench.of(ocean, small_config(train={"learning_rate": 30.0, "patience": 1}))
    end = wild.fit(tmp_path / "metrics")
    assert end.progress.best_epoch == 0
    assert same_bits(end.best, wild.weights)


def packed(now: loop.Fit) -> Checkpoint:
    groups = {"weights": now.state.weights, "optimizer": now.state.optimizer, "best": now.best}
    arrays = {name: named_leaves(tree) for name, tree in groups.items()}
    return Checkpoint(int(now.state.step), {"position": vars(now.progress)}, arrays)


def test_a_loss_that_is_not_finite_ends_training_and_the_last_checkpoint_is_good(
    bench, trained, tmp_path
):
    # The fault: after the first epoch, one value inside the mask is NaN.
    row, column = (index[0] for index in np.nonzero(bench.setup.fields.target_mask[..., 0]))
    broken = bench.series.frames.values.at[50, row, column].set(jnp.nan)
    calls = []

    def run(state, series, *stretch):
        calls.append(stretch)
        values = broken if len(calls) > 2 else series.frames.values
        frames = series.frames._replace(values=values)
        return bench.stepper.run(state, series._replace(frames=frames), *stretch)

    with pytest.raises(TrainingError, match="no longer finite, in epoch 2"):
        bench.fit(
            tmp_path / "metrics",
            stepper=bench.with_run(run),
            save=lambda now: save(tmp_path, packed(now)),
        )
    found = load_newest(tmp_path)
    assert found.step == STEPS
    _, saved, _ = trained
    assert same_bits(fill(bench.weights, found.arrays["weights"]), saved[0].state.weights)
    assert all(np.isfinite(a).all() for group in found.arrays.values() for a in group.values())


@pytest.mark.parametrize("stretch", [1, 2], ids=["mid-epoch", "end of epoch"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_everything_and_training_goes_on_to_the_same_bits(
    bench, trained, tmp_path, signum, stretch
):
    end, _, uninterrupted = trained
    saved, calls = [], []

    def run(*arguments):
        calls.append(arguments)
        if len(calls) == 2 + stretch:
            os.kill(os.getpid(), signum)
        return bench.stepper.run(*arguments)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    metrics = tmp_path / "metrics"
    with pytest.raises(KeyboardInterrupt if signum == signal.SIGINT else SystemExit) as stopped:
        bench.fit(metrics, stepper=bench.with_run(run), save=lambda n: saved.append(packed(n)))
    if signum == signal.SIGTERM:
        assert stopped.value.code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    last = saved[-1]
    assert last.step == STEPS + loop.STEPS_PER_CALL if stretch == 1 else 2 * STEPS
    state = bench.stepper.start(bench.weights)
    weights = fill(bench.weights, last.arrays["weights"])
    begin = loop.Fit(
        state._replace(
            params=weights.params,
            statistics=weights.statistics,
            optimizer=fill(state.optimizer, last.arrays["optimizer"]),
            step=jnp.asarray(last.step, jnp.int32),
        ),
        fill(bench.weights, last.arrays["best"]),
        loop.Progress(**last.about["position"]),
    )
    with metrics.open("a") as file:  # what a run killed later would have left
        file.write(json.dumps({"step": last.step + 1, "epoch": 2, "loss": 9.9}) + '\n{"step": 2')
    resumed = bench.fit(metrics, begin=begin)
    assert same_bits(resumed.state, end.state)
    assert same_bits(resumed.best, end.best)
    assert resumed.progress == end.progress
    assert records(metrics)[0] == records(uninterrupted)[0]


def test_a_finished_training_does_not_go_on(bench, trained, tmp_path):
    end, *_ = trained
    again = bench.fit(tmp_path / "metrics", begin=end, epochs=9)
    assert again is end


def test_validation_is_the_mean_over_all_windows_whatever_the_batch(bench):
    windows = bench.setup.validation_windows
    assert windows.size % 8
    losses = bench.stepper.losses(bench.weights, bench.series, jnp.asarray(windows)[None])
    np.testing.assert_allclose(bench.validate(bench.weights), np.mean(losses), rtol=1e-5)


# ---------------------------------------------------------------- what a step is given


def batch(stepper: Stepper, bench: Bench, initial: np.ndarray, key: jax.Array | None = None):
    """(what the model is given, targets, weight) of some windows."""
    return stepper._batch(bench.series, jnp.asarray(initial), key, 0.5)


def test_a_batch_is_what_numpy_finds_at_the_positions(bench):
    initial, arrays = np.array([4, 2, 15]), bench.setup.arrays
    for first in (0, 1):
        stepper = replace(bench.stepper, first=first)
        inputs, targets, weight = batch(stepper, bench, initial)
        past = [np.arange(i - 2, i + 1) for i in initial]
        ahead = [np.arange(i + first, i + first + 2) for i in initial]
        np.testing.assert_array_equal(inputs.frames, arrays.values[np.stack(past)])
        np.testing.assert_array_equal(targets, arrays.values[np.stack(ahead)])
        np.testing.assert_array_equal(inputs.last, arrays.values[initial])
        both = np.concatenate([np.stack(past), np.stack(ahead)], axis=1)
        np.testing.assert_array_equal(inputs.known, arrays.known[both])
        np.testing.assert_array_equal(inputs.month, (np.stack(ahead) % 12) + 1)
        np.testing.assert_allclose(weight[0], bench.setup.fields.weight, rtol=1e-6)
        assert inputs.place is inputs.truth is inputs.key is None


def test_noise_is_added_to_the_inputs_in_training_only_and_not_to_land(bench):
    windows, key = bench.setup.train_windows[:64], jax.random.key(3)
    plain, targets, _ = batch(bench.stepper, bench, windows)
    noisy = replace(bench.stepper, noise=0.5)
    assert same_bits(batch(noisy, bench, windows), batch(bench.stepper, bench, windows))
    inputs, same_targets, _ = batch(noisy, bench, windows, key)
    added = np.asarray(inputs.frames - plain.frames)
    mask = bench.setup.fields.target_mask[..., 0]
    assert not added[:, :, ~mask].any()
    assert added[:, :, mask].std() == pytest.approx(0.5, rel=0.03)
    assert added[:, :, mask].mean() == pytest.approx(0.0, abs=0.02)
    np.testing.assert_array_equal(inputs.last, plain.last)
    np.testing.assert_array_equal(same_targets, targets)
    again, *_ = batch(noisy, bench, windows, jax.random.key(4))
    assert (np.asarray(again.frames) != np.asarray(inputs.frames)).any()


def test_the_penalty_counts_weights_and_neither_biases_nor_norms():
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([50.0, -3.0])}
    for (l1, l2), expected in (((0.1, 0.0), 0.3), ((0.0, 0.01), 0.05), ((0.1, 0.01), 0.35)):
        assert float(losses.penalty(params, l1, l2)) == pytest.approx(expected)
    assert losses.penalty(params, 0.0, 0.0) == 0.0


def one_step(stepper: Stepper, bench: Bench, weights: Weights, step: int = 0) -> dict[str, float]:
    """What the log says of the first step of an epoch."""
    state = stepper.start(jax.tree.map(jnp.copy, weights))
    state = state._replace(step=jnp.asarray(step, jnp.int32))
    order = jnp.asarray(bench.setup.epoch(0))
    _, log = stepper.run(state, bench.series, order, 0, 1)
    return dict(zip(LOGGED, np.asarray(log)[0].tolist(), strict=True))


def test_the_penalty_pulls_in_training_and_counts_not_in_validation(bench):
    plain = one_step(bench.stepper, bench, bench.weights)
    strong = one_step(replace(bench.stepper, penalty=(0.0, 1e3)), bench, bench.weights)
    leaves = [np.asarray(p) for p in jax.tree.leaves(bench.weights.params)]
    square = sum((p**2).sum() for p in leaves if p.ndim > 1)
    assert strong["loss"] == pytest.approx(plain["loss"] + 1e3 * square, rel=1e-5)
    pull = 2e3 * np.sqrt(square)
    assert strong["gradient_norm"] == pytest.approx(pull, rel=0.01)
    assert plain["gradient_norm"] < 0.01 * pull
    windows = jnp.asarray(bench.setup.validation_windows)[None]
    found, expected = (
        replace(bench.stepper, penalty=penalty).losses(bench.weights, bench.series, windows)
        for penalty in ((0.0, 1e3), (0.0, 0.0))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.family
def test_the_truth_is_shown_less_and_less_and_never_in_validation(ocean):
    model = {"name": "conv_seq2seq", "sampling": "scheduled", "base": "climatology"}
    shown = Bench.of(ocean, small_config(model=model))
    assert shown.stepper.teach_until == 3 * STEPS // 2
    windows = shown.setup.train_windows[:8]
    inputs, targets, _ = batch(shown.stepper, shown, windows, jax.random.key(0))
    np.testing.assert_array_equal(inputs.truth, targets)
    assert batch(shown.stepper, shown, windows)[0].truth is None
    assert (
        batch(replace(shown.stepper, teach_until=0), shown, windows, jax.random.key(0))[0].truth
        is None
    )
    # Untrained, what the decoder is shown changes nothing.
    generator = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(shown.weights)
    leaves = [p + 0.3 * generator.standard_normal(p.shape).astype(np.float32) for p in leaves]
    weights = jax.tree.unflatten(tree, leaves)
    blind = replace(shown.stepper, teach_until=0)
    gap = [
        abs(
            one_step(shown.stepper, shown, weights, k)["loss"]
            - one_step(blind, shown, weights, k)["loss"]
        )
        for k in (0, shown.stepper.teach_until - 1, shown.stepper.teach_until, 3 * STEPS)
    ]
    assert gap[0] > 1e-3
    assert gap[1] < gap[0]
    assert max(gap[2:]) < 1e-5


# ---------------------------------------------------------------- statistics, and frozen encoders

CNN = {"name": "cnn_lstm", "channels": [4, 4], "latent": 4, "hidden": [4], "norm": "batch"}


@pytest.fixture(scope="module")
def with_statistics(ocean, tmp_path_factory) -> tuple[Setup, Path, Checkpoint]:
    """One epoch of a network with batch norms."""
    directory = tmp_path_factory.mktemp("statistics")
    config = small_config(model=CNN, train={"epochs": 1})
    setup = prepare(config, open_source(config, ocean))
    return setup, directory, fit_setup(setup, directory, resume=False)


def encoder_of(run: Run) -> dict[str, np.ndarray]:
    """Weights and statistics of the encoder by name."""
    state = nnx.state(run.model.network.encoder)
    return {k: np.asarray(v) for k, v in named_leaves(state).items()}


def test_statistics_move_in_training_and_come_back_from_the_checkpoint(with_statistics):
    setup, directory, last = with_statistics
    weights = last.arrays["weights"]
    means = {k: v for k, v in weights.items() if k.startswith(".statistics") and "mean" in k}
    assert len(means) == 2
    assert all(np.abs(mean).max() > 1e-3 for mean in means.values())  # 0 before the first step
    run = Run.load(directory)
    found = encoder_of(run)
    for name, array in last.arrays["best"].items():
        if "encoder" in name:
            place = name.split("['encoder']")[1]
            assert found[place].tobytes() == array.tobytes(), name
    assert sum("mean" in name for name in found) == 2
    # Validation with these statistics gives the loss that training wrote down.
    stepper, series, *_ = compile_setup(setup, run.model)
    _, params, statistics, _ = nnx.split(run.model, nnx.Param, nnx.BatchStat, ...)
    validate = loop.validator(stepper, series, setup.validation_windows, 8)
    best = last.about["position"]["best_loss"]
    assert validate(Weights(params, statistics)) == pytest.approx(best, rel=1e-5)
    still = jax.tree.map(jnp.zeros_like, statistics)
    assert validate(Weights(params, still)) != pytest.approx(best, rel=1e-3)


@pytest.mark.family
def test_a_frozen_encoder_is_not_trained_and_survives_saving(with_statistics, ocean, tmp_path):
    _, first, _ = with_statistics
    frozen = {"encoder_from": str(first), "freeze_encoder": True}
    config = small_config(model=CNN | frozen, train={"epochs": 1})
    setup = prepare(config, open_source(config, ocean))
    last = fit_setup(setup, tmp_path, resume=False)
    for group in ("weights", "best", "optimizer"):
        assert not [name for name in last.arrays[group] if "encoder" in name], group
    before, after = encoder_of(Run.load(first)), encoder_of(Run.load(tmp_path))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    # The control: the rest was trained, from the first weights of its own seed.
    trained = {k: v for k, v in last.arrays["weights"].items() if k.startswith(".params")}
    start = named_leaves(Weights(nnx.state(setup.model(), nnx.Param), {}))
    assert trained.keys() == start.keys()
    assert all((trained[name] != start[name]).any() for name in trained)


# ---------------------------------------------------------------- checkpoints


def example(step: int) -> Checkpoint:
    generator = np.random.default_rng(step)
    arrays = {
        "weights": {"['a'].b[0]": generator.random((3, 4)).astype(np.float32)},
        "optimizer": {".count": np.asarray(step, np.int32), ".mu": generator.random(3)},
    }
    return Checkpoint(step, {"step": step, "best": 0.1 + 0.2}, arrays)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    names = [{g: sorted(n) for g, n in c.arrays.items()} for c in (a, b)]
    types = [[x.dtype for x in jax.tree.leaves(c.arrays)] for c in (a, b)]
    return (
        (a.step, a.about) == (b.step, b.about)
        and names[0] == names[1]
        and types[0] == types[1]
        and same_bits(a.arrays, b.arrays)
    )


def test_a_checkpoint_comes_back_bit_for_bit_and_the_newest_are_kept(tmp_path):
    for step in (1, 2, 13, 100):
        path = save(tmp_path / "new", example(step))
        assert same(load(path), example(step))
    assert same(load_newest(tmp_path / "new"), example(100))
    kept = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert kept == ["step-00000013", "step-00000100"]
    assert len(kept) == KEEP


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, example(3))
    other = replace(example(4), step=3)
    save(tmp_path, other)
    assert same(load_newest(tmp_path), other)


FILES = ["about.json", "optimizer.npz", "sha256.json", "weights.npz"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FAULTS = {
    "flipped bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_noticed_named_and_passed_over(tmp_path, caplog, name, fault):
    older, newer = (save(tmp_path, example(step)) for step in (1, 2))
    assert sorted(p.name for p in newer.iterdir()) == FILES
    assert same(load_newest(tmp_path), example(2))  # the control
    assert not caplog.records
    FAULTS[fault](newer / name)
    assert same(load_newest(tmp_path), example(1))
    assert newer.name in caplog.text
    FAULTS[fault](older / name)
    with pytest.raises(CheckpointError, match="no intact checkpoint") as error:
        load_newest(tmp_path)
    assert newer.name in str(error.value)
    assert older.name in str(error.value)


def test_every_flipped_bit_of_a_small_checkpoint_is_noticed(tmp_path):
    path = save(tmp_path, example(1))
    generator = np.random.default_rng(0)
    for name in FILES:
        whole = (path / name).read_bytes()
        for bit in generator.integers(0, 8 * len(whole), 60).tolist():
            data = bytearray(whole)
            data[bit // 8] ^= 1 << (bit % 8)
            (path / name).write_bytes(data)
            with pytest.raises(CheckpointError):
                load(path)
        (path / name).write_bytes(whole)
    assert same(load(path), example(1))


def test_leftovers_of_a_killed_save_are_never_read_and_are_swept_by_the_next(tmp_path):
    save(tmp_path, example(1))
    leftover = tmp_path / ".step-00000002.123.tmp"
    shutil.copytree(tmp_path / "step-00000001", leftover)
    assert same(load_newest(tmp_path), example(1))
    save(tmp_path, example(3))
    assert not leftover.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_a_copy_under_another_name_is_neither_read_nor_counted(tmp_path):
    save(tmp_path, example(1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000001.copy")
    save(tmp_path, example(2))
    (tmp_path / "step-00000002" / "strange.npz").write_bytes(b"not of this checkpoint")
    assert same(load_newest(tmp_path), example(2))
    assert same(load(tmp_path / "step-00000001"), example(1))


def test_a_directory_that_cannot_be_written_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        save(tmp_path / "file", example(1))
    with pytest.raises(CheckpointError, match="cannot write"):
        save(tmp_path / "file" / "below", example(1))
    save(tmp_path / "free", example(1))


def test_no_checkpoint_at_all_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*\n  fix: train first"):
        load_newest(tmp_path)


def test_weights_of_another_model_are_refused(bench):
    named = named_leaves(bench.weights)
    assert same_bits(fill(bench.weights, named), bench.weights)
    name = next(iter(named))
    with pytest.raises(CheckpointError, match="has shape"):
        fill(bench.weights, named | {name: np.zeros((1, 2, 3), np.float32)})
    del named[name]
    with pytest.raises(CheckpointError, match="does not fit this model"):
        fill(bench.weights, named)


def test_a_checkpoint_of_another_format_is_refused_by_name(tmp_path):
    for number in (checkpoints.FORMAT, checkpoints.FORMAT - 1):
        checkpoint = checkpoints.Checkpoint(number, {"format": number}, {})
        path = checkpoints.save(tmp_path, checkpoint)
        if number == checkpoints.FORMAT:
            assert checkpoints.load(path).about["format"] == number
            continue
        with pytest.raises(CheckpointError, match="format 2, expected 3"):
            checkpoints.load(path)
