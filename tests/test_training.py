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

from gridcast.errors import CheckpointError, TrainingError
from gridcast.training import loop
from gridcast.training.checkpoints import (
    KEEP,
    Checkpoint,
    fill,
    load,
    load_newest,
    named_leaves,
    save,
)
from gridcast.training.losses import masked_mse

# ---------------------------------------------------------------- the loss

WEIGHT = jnp.array([[3.0, 1.0, 0.0]])
ONES = jnp.ones(2)


def fields(*rows: list[float]) -> jax.Array:
    """One window: [batch=1, lead, lat=1, lon=3, channel=1]."""
    return jnp.array(rows)[None, :, None, :, None]


def test_masked_mse_by_hand_ignores_land_and_divides_by_the_scale_of_each_lead():
    prediction = fields([1.0, 2.0, 100.0], [0.0, 0.0, 0.0])
    target = fields([0.0, 0.0, 0.0], [2.0, 1.0, -7.0])
    # Lead 1: (3 * 1 + 1 * 4) / 4; lead 2: (3 * 4 + 1 * 1) / 4.
    found = masked_mse(prediction, target, WEIGHT, ONES)
    np.testing.assert_allclose(found, [(7 / 4 + 13 / 4) / 2])
    found = masked_mse(prediction, target, WEIGHT, jnp.array([7.0, 0.5]))
    np.testing.assert_allclose(found, [(0.25 + 6.5) / 2])
    found = masked_mse(prediction, target, 10 * WEIGHT, ONES)
    np.testing.assert_allclose(found, [2.5], rtol=1e-6)


def test_masked_mse_has_finite_gradients_with_nan_on_land_and_is_nan_with_nan_at_sea():
    gradient = jax.grad(lambda p, t: masked_mse(p, t, WEIGHT, ONES).sum())
    prediction = fields([1.0, 2.0, 5.0], [0.0, 0.0, 0.0])
    land = fields([0.0, 0.0, np.nan], [0.0, 1.0, np.nan])
    found = gradient(prediction, land)[0, 0, 0, :, 0]
    np.testing.assert_allclose(found, [3 / 4, 2 * 2 / 4 / 2, 0.0])
    assert np.isfinite(gradient(prediction, land)).all()
    assert np.isfinite(masked_mse(prediction, land, WEIGHT, ONES)).all()
    sea = fields([0.0, np.nan, 0.0], [0.0, 0.0, 0.0])
    assert np.isnan(masked_mse(prediction, sea, WEIGHT, ONES)).all()


def test_masked_mse_keeps_windows_apart_and_averages_channels():
    prediction = jnp.stack([jnp.zeros((2, 1, 3, 4)), jnp.full((2, 1, 3, 4), 3.0)])
    found = masked_mse(prediction, jnp.zeros((2, 2, 1, 3, 4)), WEIGHT, ONES)
    np.testing.assert_allclose(found, [0.0, 9.0], rtol=1e-6)


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
    untrained = bench.validate(bench.params)
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
    assert same_bits(same.params, bench.params)
    assert not same_bits(other.params, bench.params)


def scripted(losses: list[float]):
    """A validation that says these values, one after another."""
    values = iter(losses)
    return lambda _params: next(values)


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
    assert same_bits(end.best, saved[1].state.params)
    assert not same_bits(end.best, end.state.params)


def test_best_weights_are_those_of_the_best_validation(bench, trained):
    end, saved, metrics = trained
    _, epochs = records(metrics)
    losses = [e["validation_loss"] for e in epochs]
    best = int(np.argmin(losses))
    assert end.progress.best_epoch == best + 1
    assert end.progress.best_loss == losses[best] == bench.validate(end.best)
    assert same_bits(end.best, saved[best].state.params)


def test_untrained_weights_are_kept_where_training_makes_it_worse(bench, tmp_path):
    worse = [1.0, 1.1, 1.2]
    end = bench.fit(tmp_path / "metrics", validate=scripted(worse), patience=2)
    assert end.progress == loop.Progress(1.0, 0, 2, True)
    assert same_bits(end.best, bench.params)
    assert not same_bits(end.state.params, bench.params)


def test_a_huge_learning_rate_leaves_the_reference(ocean, tmp_path):
    wild = Bench.of(ocean, small_config(train={"learning_rate": 30.0, "patience": 1}))
    end = wild.fit(tmp_path / "metrics")
    assert end.progress.best_epoch == 0
    assert same_bits(end.best, wild.params)


def packed(now: loop.Fit) -> Checkpoint:
    groups = {"weights": now.state.params, "optimizer": now.state.optimizer, "best": now.best}
    arrays = {name: named_leaves(tree) for name, tree in groups.items()}
    return Checkpoint(int(now.state.step), {"position": vars(now.progress)}, arrays)


def test_a_loss_that_is_not_finite_ends_training_and_the_last_checkpoint_is_good(
    bench, trained, tmp_path
):
    # The fault: after the first epoch, one value inside the mask is NaN.
    row, column = (index[0] for index in np.nonzero(bench.setup.transform.grid.mask))
    broken = bench.series.values.at[50, row, column].set(jnp.nan)
    calls = []

    def run(state, series, *stretch):
        calls.append(stretch)
        values = broken if len(calls) > 2 else series.values
        return bench.stepper.run(state, series._replace(values=values), *stretch)

    with pytest.raises(TrainingError, match="no longer finite, in epoch 2"):
        bench.fit(
            tmp_path / "metrics",
            stepper=bench.with_run(run),
            save=lambda now: save(tmp_path, packed(now)),
        )
    found = load_newest(tmp_path)
    assert found.step == STEPS
    _, saved, _ = trained
    assert same_bits(fill(bench.params, found.arrays["weights"]), saved[0].state.params)
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
    state = bench.stepper.start(bench.params)
    begin = loop.Fit(
        state._replace(
            params=fill(bench.params, last.arrays["weights"]),
            optimizer=fill(state.optimizer, last.arrays["optimizer"]),
            step=jnp.asarray(last.step, jnp.int32),
        ),
        fill(bench.params, last.arrays["best"]),
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
    losses = bench.stepper.losses(bench.params, bench.series, jnp.asarray(windows)[None])
    np.testing.assert_allclose(bench.validate(bench.params), np.mean(losses), rtol=1e-5)


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
    named = named_leaves(bench.params)
    assert same_bits(fill(bench.params, named), bench.params)
    name = next(iter(named))
    with pytest.raises(CheckpointError, match="has shape"):
        fill(bench.params, named | {name: np.zeros((1, 2, 3), np.float32)})
    del named[name]
    with pytest.raises(CheckpointError, match="does not fit this model"):
        fill(bench.params, named)
