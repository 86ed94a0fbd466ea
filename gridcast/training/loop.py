"""Epochs: training, validation, early stopping, progress, and an end that loses nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gridcast import hosts
from gridcast.config.training import TrainConfig
from gridcast.errors import TrainingError
from gridcast.training.batches import epoch_batches
from gridcast.training.journal import Journal
from gridcast.training.memory import tell_memory
from gridcast.training.progress import Progress, first_told, progress_bar
from gridcast.training.series import DeviceSeries
from gridcast.training.state import TrainState, Weights
from gridcast.training.step import Stepper
from gridcast.training.stopping import end, signals
from gridcast.training.streaming import StreamedSeries

# Steps in one compiled call: enough to hide the call, few enough that Ctrl-C is heard.
STEPS_PER_CALL = 8
# Of the steps of an epoch, the share that may be skipped; a few steps always may.
MOST_SKIPPED, SKIPPED_ALWAYS = 0.1, 2
Series = DeviceSeries | StreamedSeries
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Fit:
    """A state of training that can be saved and gone on from."""

    state: TrainState
    best: Weights
    progress: Progress


def start(stepper: Stepper, weights: Weights, validate: Callable[[Weights], float]) -> Fit:
    """Before the first step: the best weights so far are the untrained ones.

    Raises:
      TrainingError: their validation loss is not finite.
    """
    weights = _copy(weights)
    loss = validate(weights)
    if not np.isfinite(loss):
        raise TrainingError(
            f"before training, the validation loss is {loss}\n"
            "  expected: a finite one; later epochs could not be compared with it\n"
            "  fix: look for extreme values in the dates of splits.validation"
        )
    return Fit(stepper.start(weights), _copy(weights), Progress(loss))


def validator(
    stepper: Stepper, series: Series, windows: np.ndarray, batch_size: int
) -> Callable[[Weights], float]:
    """The mean loss over all `windows`, as a function of the weights."""
    batch_size = min(batch_size, windows.size)
    filler = np.repeat(windows[:1], -windows.size % batch_size)
    batches = np.concatenate([windows, filler]).reshape(-1, batch_size)

    def validate(weights: Weights) -> float:
        losses = np.concatenate(
            [
                np.asarray(stepper.losses(weights, part.series, part.batches))[: part.last]
                for part in series.stretches(batches, 0)
            ]
        )
        return float(losses.reshape(-1)[: windows.size].mean(dtype=np.float64))

    return validate


def fit(
    stepper: Stepper,
    series: Series,
    windows: Sequence[np.ndarray],
    validate: Callable[[Weights], float],
    begin: Fit,
    config: TrainConfig,
    *,
    save: Callable[[Fit], None],
    metrics: Path | None,
) -> Fit:
    """Train until the epochs are over or validation has not improved for `patience` epochs.

    Args:
      windows: initial positions of the training windows of each member.
      begin: from `start`, or a checkpoint.
      save: called after each epoch, and once if a signal ends training early.
      metrics: JSON lines, one for each step and each epoch; None: of a process that writes none.

    Raises:
      TrainingError: too many steps of an epoch were skipped, as their loss, gradients or weights
        were not finite. The last checkpoint is good.
      KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, when all has been saved.
    """
    now = begin
    steps = epoch_batches(windows, config.batch_size, config.seed, 0).shape[-2]
    began_at = int(now.state.step)
    journal = Journal(metrics, began_at, events=config.tensorboard)
    with signals() as heard, progress_bar(config.epochs * steps, began_at) as bar, closing(journal):
        while not now.progress.finished:
            epoch, first = divmod(int(now.state.step), steps)
            began = time.perf_counter()
            batches = epoch_batches(windows, config.batch_size, config.seed, epoch)
            state, losses, skipped, waited, right = now.state, [], 0, 0.0, first
            for part in series.stretches(batches, first, STEPS_PER_CALL, epoch * steps):
                left, right = right, right + part.last - part.first
                waited += part.waited
                begins = epoch * steps + left == began_at
                arguments = state, part.series, part.batches, part.first, part.last
                with first_told(begins):
                    if begins:
                        tell_memory(stepper.run, *arguments)
                    state, log = stepper.run(*arguments)
                rows = np.asarray(log)[part.first : part.last]
                journal.steps(epoch, epoch * steps + left, rows)
                losses += rows[:, 0].tolist()
                bar.update(right - left)
                skipped += int((~np.isfinite(rows).all(axis=1)).sum())
                _require_few(skipped, steps, epoch + 1)
                if right < steps and (signum := _asked(heard)):
                    save(replace(_counted(now, skipped), state=state))
                    hosts.leave()
                    end(signum)
            now = _counted(now, skipped)
            training_loss, validation_loss = _mean(losses), validate(state.delivered)
            now = _after_epoch(now, state, validation_loss, epoch + 1, config)
            journal.epoch(
                step=int(now.state.step),
                epoch=epoch + 1,
                training_loss=training_loss,
                validation_loss=validation_loss,
                skipped=skipped,
                seconds=round(time.perf_counter() - began, 3),
                **({"waited": round(waited, 3)} if isinstance(series, StreamedSeries) else {}),
            )
            if skipped:
                _log.warning(
                    "epoch %d: %d of %d steps skipped, not finite", epoch + 1, skipped, steps
                )
            bar.epoch(epoch + 1, config.epochs, training_loss, validation_loss, now.progress)
            save(now)
            if signum := _asked(heard):
                hosts.leave()
                end(signum)
    return now


def _after_epoch(now: Fit, state: TrainState, loss: float, epoch: int, config: TrainConfig) -> Fit:
    progress, best = now.progress, now.best
    if loss < progress.best_loss:
        # A copy: the state's own arrays are given away to the next step.
        progress = replace(progress, best_loss=loss, best_epoch=epoch, stale=0)
        best = _copy(state.delivered)
    else:
        progress = replace(progress, stale=progress.stale + 1)
    over = epoch >= config.epochs or progress.stale >= config.patience
    return Fit(state, best, replace(progress, finished=over))


def _asked(heard: Sequence[int]) -> int:
    """The signal that this process or another one has heard; 0: none."""
    return hosts.agreed(heard[0] if heard else 0)


def _counted(now: Fit, skipped: int) -> Fit:
    return replace(now, progress=replace(now.progress, skipped=now.progress.skipped + skipped))


def _require_few(skipped: int, steps: int, epoch: int) -> None:
    """Raise where skipping steps would hide that training fails."""
    if skipped > max(SKIPPED_ALWAYS, MOST_SKIPPED * steps):
        raise TrainingError(
            f"the loss is no longer finite, in epoch {epoch}: {skipped} steps were skipped\n"
            f"  expected: at most a tenth of the {steps} steps of an epoch, or {SKIPPED_ALWAYS}\n"
            "  fix: a smaller train.learning_rate or train.clip\n"
            "  the checkpoints of this run hold the last good weights"
        )


def _mean(losses: Sequence[float]) -> float:
    """Of the steps that were taken."""
    known = [loss for loss in losses if np.isfinite(loss)]
    return float(np.mean(known)) if known else float("nan")


def _copy(weights: Weights) -> Weights:
    return jax.tree.map(jnp.copy, weights)
