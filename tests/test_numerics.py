"""Numbers that are not finite: a step is skipped and counted, and nothing of them is kept."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STEPS, Bench, same_bits

from gridcast.cf import of_file
from gridcast.errors import ConfigError, DataError, TrainingError
from gridcast.labelling import label_forecast
from gridcast.run import Run
from gridcast.sources.netcdf import open_frames
from gridcast.timeaxis import TimeAxis
from gridcast.training import loop
from gridcast.training.batches import epoch_batches
from gridcast.training.checkpoints import TRAINED, Checkpoint, load_newest, save
from gridcast.training.journal import Journal


def batches_of(bench: Bench) -> jax.Array:
    train = bench.setup.config.train
    return jnp.asarray(epoch_batches(bench.setup.member_windows, train.batch_size, train.seed, 0))


def broken(bench: Bench, value: float, frame: int):
    """The series with one value of one cell inside the mask replaced."""
    row, column = (index[0] for index in np.nonzero(bench.setup.fields.target_mask[..., 0]))
    values = bench.series.frames.values.at[frame, row, column].set(value)
    return bench.series._replace(frames=bench.series.frames._replace(values=values))


def begun(bench: Bench):
    """A state after steps 1 to 3; the rate of the first step is 0."""
    start = bench.stepper.start(jax.tree.map(jnp.copy, bench.weights))
    return bench.stepper.run(start, bench.series, batches_of(bench), 1, 4)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e25])
def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_is_as_if_it_had_not_been(
    bench, value
):
    batches = batches_of(bench)
    bad = broken(bench, value, int(batches[0, 0]))
    before = jax.tree.map(np.asarray, begun(bench))
    state, log = bench.stepper.run(begun(bench), bad, batches, 0, 1)
    assert not np.isfinite(np.asarray(log)[0]).all()
    assert int(state.step) == 4
    assert same_bits(state._replace(step=before.step), before)
    ours, _ = bench.stepper.run(state, bench.series, batches, 5, 6)
    counted = begun(bench)._replace(step=jnp.asarray(4, jnp.int32))
    theirs, _ = bench.stepper.run(counted, bench.series, batches, 5, 6)
    assert same_bits(ours, theirs)
    # The control: without the fault the step is taken.
    taken, log = bench.stepper.run(begun(bench), bench.series, batches, 0, 1)
    assert np.isfinite(np.asarray(log)[0]).all()
    assert not same_bits(taken.params, before.params)
    assert bench.stepper.run._cache_size() == 1


def test_skipped_steps_are_counted_logged_and_left_out_of_the_mean(bench, tmp_path, caplog):
    order = batches_of(bench)
    bad, saved = broken(bench, np.nan, int(order[2, 0])), []
    calls = []

    def run(state, series, batches, left, right):
        """One step of the first epoch has data that are not finite."""
        calls.append(left)
        if len(calls) > 1:
            return bench.stepper.run(state, series, batches, left, right)
        rows = []
        for i in range(left, right):
            data = bad if i == 2 else series
            state, log = bench.stepper.run(state, data, batches, i, i + 1)
            rows.append(log[i])
        return state, jnp.asarray(log).at[left:right].set(jnp.stack(rows))

    end = bench.fit(
        tmp_path / "metrics",
        stepper=bench.with_run(run),
        save=lambda now: saved.append(now.progress.skipped),
        epochs=2,
    )
    assert saved == [1, 1]
    assert end.progress.skipped == 1
    assert f"epoch 1: 1 of {STEPS} steps skipped" in caplog.text
    lines = (tmp_path / "metrics").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    steps, epochs = ([r for r in records if ("loss" in r) == kind] for kind in (True, False))
    assert [s["step"] for s in steps if s["update_norm"] is None] == [3]
    assert [e["skipped"] for e in epochs] == [1, 0]
    losses = [s["loss"] for s in steps[:STEPS] if s["step"] != 3]
    assert epochs[0]["training_loss"] == pytest.approx(np.mean(losses))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((end.state, end.best)))


def test_training_does_not_begin_from_a_loss_that_is_no_number(bench):
    loop.start(bench.stepper, bench.weights, lambda _: 1.0)
    with pytest.raises(TrainingError, match="before training, the validation loss is nan"):
        loop.start(bench.stepper, bench.weights, lambda _: float("nan"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("group", TRAINED)
def test_no_checkpoint_holds_what_is_not_finite(tmp_path, group, value):
    good = Checkpoint(1, {}, {name: {"w": np.ones(3)} for name in (*TRAINED, "fields")})
    bad = good.arrays | {group: {"w": np.array([1.0, value, 1.0])}}
    with pytest.raises(TrainingError, match=f"step 2 is not saved: w of its {group}"):
        save(tmp_path, replace(good, step=2, arrays=bad))
    assert list(tmp_path.iterdir()) == []
    # What was fitted may hold NaN where nothing is known.
    save(tmp_path, replace(good, arrays=good.arrays | {"fields": {"w": np.array([value])}}))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_forecast_that_is_not_finite_inside_the_mask_is_an_error(trained, value):
    run = Run.load(trained.directory)
    mask = run.transform.grid.mask
    assert not mask.all()
    series = run.observed()
    axis = TimeAxis.of(series["time"].values)
    made = np.zeros((2, 3, *mask.shape, 1), np.float32)
    made[:, :, ~mask] = value  # the control: off the mask anything may stand
    initial = np.array([50, 51])
    label_forecast(run.fields, made, axis, initial, {})
    row, column = np.argwhere(mask)[5]
    made[1, 2, row, column] = value
    with pytest.raises(
        DataError, match=r"forecast of sst is not finite in 1 places, .* 1954-07-01"
    ):
        label_forecast(run.fields, made, axis, initial, {})
    made[~np.isfinite(made)] = -1e30  # on the mask and off it
    with pytest.raises(
        DataError, match=r"sst is beyond a million standard deviations in 1 places, .* 1954-07-01"
    ):
        label_forecast(run.fields, made, axis, initial, {})
    made[1, 2, row, column] = 0.0
    label_forecast(run.fields, made, axis, initial, {})


def test_the_time_of_writing_can_be_given(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "946684800")
    assert of_file({})["history"] == "2000-01-01T00:00:00Z gridcast"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH: 'yesterday'"):
        of_file({})
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert of_file({})["history"] > "2026"


def test_a_run_says_what_it_was_made_with(trained):
    about = load_newest(trained.directory / "checkpoints").about
    series = open_frames(trained.data)
    digest = hashlib.sha256(" ".join(map(str, series["time"].values)).encode())
    digest.update(series.values.tobytes())
    assert about["data_sha256"] == {"sst": digest.hexdigest()}
    assert {"python", "gridcast", "jax", "numpy"} <= about["versions"].keys()
    checkout = Path(__file__).parents[1]
    if (checkout / ".git").exists():
        assert len(about["revision"].removesuffix("-dirty")) == 40
    assert about["config"]["train"]["seed"] == about["seed"]


def test_a_journal_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl", 0)
    journal.epoch(step=1, loss=float("nan"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None}
    os.remove(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written"):
        journal.epoch(step=2)
