"""Epochs: training, validation, early stopping, progress, and an end that loses nothing."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from gridcast.config.training import TrainConfig
from gridcast.errors import TrainingError
from gridcast.training.batches import epoch_batches
from gridcast.training.series import DeviceSeries
from gridcast.training.state import TrainState, Weights
from gridcast.training.step import LOGGED, Stepper

# Steps in one compiled call: enough to hide the call, few enough that Ctrl-C is heard.
STEPS_PER_CALL = 8
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Progress:
    """Where training stands; with the state and the seed it decides all that follows.

    Attributes:
      best_loss, best_epoch: of the best validation so far; epoch 0 is the untrained model.
      stale: epochs since then.
      finished: training ended by itself.
    """

    best_loss: float
    best_epoch: int = 0
    stale: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Fit:
    """A state of training that can be saved and gone on from."""

    state: TrainState
    best: Weights
    progress: Progress


def start(stepper: Stepper, weights: Weights, validate: Callable[[Weights], float]) -> Fit:
    """Before the first step: the best weights so far are the untrained ones."""
    weights = _copy(weights)
    return Fit(stepper.start(weights), _copy(weights), Progress(validate(weights)))


def validator(
    stepper: Stepper, series: DeviceSeries, windows: np.ndarray, batch_size: int
) -> Callable[[Weights], float]:
    """The mean loss over all `windows`, as a function of the weights."""
    batch_size = min(batch_size, windows.size)
    filler = np.repeat(windows[:1], -windows.size % batch_size)
    batches = jnp.asarray(np.concatenate([windows, filler]).reshape(-1, batch_size))

    def validate(weights: Weights) -> float:
        losses = np.asarray(stepper.losses(weights, series, batches))
        return float(losses.reshape(-1)[: windows.size].mean(dtype=np.float64))

    return validate


def fit(
    stepper: Stepper,
    series: DeviceSeries,
    windows: Sequence[np.ndarray],
    validate: Callable[[Weights], float],
    begin: Fit,
    config: TrainConfig,
    *,
    save: Callable[[Fit], None],
    metrics: Path,
) -> Fit:
    """Train until the epochs are over or validation has not improved for `patience` epochs.

    Args:
      windows: initial positions of the training windows of each member.
      begin: from `start`, or a checkpoint.
      save: called after each epoch, and once if a signal ends training early.
      metrics: JSON lines, one for each step and each epoch.

    Raises:
      TrainingError: the loss is no longer finite. The last checkpoint is the last good one.
      KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, when all has been saved.
    """
    now = begin
    steps = epoch_batches(windows, config.batch_size, config.seed, 0).shape[-2]
    journal = _Journal(metrics, int(now.state.step))
    with _signals() as heard, _bar(config.epochs * steps, int(now.state.step)) as bar:
        while not now.progress.finished:
            epoch, first = divmod(int(now.state.step), steps)
            began = time.perf_counter()
            batches = jnp.asarray(epoch_batches(windows, config.batch_size, config.seed, epoch))
            state, losses = now.state, []
            for left in range(first, steps, STEPS_PER_CALL):
                right = min(left + STEPS_PER_CALL, steps)
                state, log = stepper.run(state, series, batches, left, right)
                rows = np.asarray(log)[left:right]
                journal.steps(epoch, epoch * steps + left, rows)
                losses += rows[:, 0].tolist()
                bar.update(right - left)
                if not np.isfinite(rows).all():
                    raise TrainingError(
                        f"the loss is no longer finite, in epoch {epoch + 1}\n"
                        "  fix: a smaller train.learning_rate or train.clip, then --resume"
                    )
                if heard and right < steps:
                    save(replace(now, state=state))
                    _end(heard[0])
            training_loss, validation_loss = float(np.mean(losses)), validate(state.delivered)
            now = _after_epoch(now, state, validation_loss, epoch + 1, config)
            journal.epoch(
                step=int(now.state.step),
                epoch=epoch + 1,
                training_loss=training_loss,
                validation_loss=validation_loss,
                seconds=round(time.perf_counter() - began, 3),
            )
            bar.epoch(epoch + 1, config.epochs, training_loss, validation_loss, now.progress)
            save(now)
            if heard:
                _end(heard[0])
    return now


def _after_epoch(now: Fit, state: TrainState, loss: float, epoch: int, config: TrainConfig) -> Fit:
    progress, best = now.progress, now.best
    if loss < progress.best_loss:
        # A copy: the state's own arrays are given away to the next step.
        progress, best = Progress(loss, epoch), _copy(state.delivered)
    else:
        progress = replace(progress, stale=progress.stale + 1)
    over = epoch >= config.epochs or progress.stale >= config.patience
    return Fit(state, best, replace(progress, finished=over))


def _copy(weights: Weights) -> Weights:
    return jax.tree.map(jnp.copy, weights)


def _end(signum: int) -> None:
    _log.warning("stopped by %s; all is saved, go on with --resume", signal.Signals(signum).name)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Hear SIGINT and SIGTERM without breaking off a step; a second one is not held back."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {}

    def hear(signum: int, _frame: Any) -> None:
        heard.append(signum)
        signal.signal(signum, before[signum])

    for signum in (signal.SIGINT, signal.SIGTERM):
        before[signum] = signal.signal(signum, hear)
    try:
        yield heard
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class _Journal:
    """metrics.jsonl: what was written after the checkpoint of a resumed run is dropped."""

    def __init__(self, path: Path, step: int):
        kept = []
        if step and path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if _readable(line).get("step", step + 1) <= step]
        self.path = path
        path.write_text("".join(f"{line}\n" for line in kept))

    def steps(self, epoch: int, first: int, rows: np.ndarray) -> None:
        self._write(
            {"step": first + i + 1, "epoch": epoch + 1}
            | dict(zip(LOGGED, map(float, row), strict=True))
            for i, row in enumerate(rows)
        )

    def epoch(self, **record: int | float) -> None:
        self._write([record])

    def _write(self, records: Any) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def _readable(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # half a line, written while the run was killed
        return {}


@contextmanager
def _bar(total: int, done: int) -> Iterator[_Bar]:
    bar = _Bar(total, done)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """A progress bar on a terminal, one plain line for each epoch elsewhere."""

    def __init__(self, total: int, done: int):
        self.inner = tqdm(total=total, initial=done, unit="step", disable=not sys.stderr.isatty())
        self.update = self.inner.update
        self.close = self.inner.close

    def epoch(
        self, epoch: int, epochs: int, loss: float, validation: float, progress: Progress
    ) -> None:
        text = (
            f"loss {loss:.4f}, validation {validation:.4f}, "
            f"best {progress.best_loss:.4f} (epoch {progress.best_epoch})"
        )
        if self.inner.disable:
            _log.info("epoch %d of %d: %s", epoch, epochs, text)
        else:
            self.inner.set_description(f"epoch {epoch}/{epochs}")
            self.inner.set_postfix_str(text)
