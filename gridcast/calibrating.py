"""From a setup to a run: train, and make what the forecasts say of their own error true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gridcast.fitting import fit_setup
from gridcast.frames.fields import target_series
from gridcast.models.heads import NormalHead
from gridcast.preparation import Setup
from gridcast.run import Run
from gridcast.training import checkpoints
from gridcast.training.encoders import CHECKPOINTS


def fit_run(setup: Setup, directory: Path, *, resume: bool) -> Run:
    """Train, or go on training; the run with the weights that were best on validation.

    A standard deviation is calibrated on the validation windows: multiplied, for each lead and
    target, by what makes its mean square there that of the errors of the mean.

    Raises:
      As `fit_setup`.
    """
    checkpoint = fit_setup(setup, directory, resume=resume)
    run = Run.restore(directory, checkpoint)
    if not isinstance(run.model.head, NormalHead):
        return run
    # The head is the setup's, not that of a checkpoint gone on from: nothing is calibrated twice.
    head = checkpoint.arrays["head"] | {"calibration": calibration(run, setup)}
    checkpoint = replace(checkpoint, arrays=checkpoint.arrays | {"head": head})
    checkpoints.save(directory / CHECKPOINTS, checkpoint)
    return Run.restore(directory, checkpoint)


def calibration(run: Run, setup: Setup) -> Float[np.ndarray, "lead target"]:
    """Root of mean square error over mean variance, on the validation windows; 1 without error."""
    initial = setup.validation_windows
    made = run.predictor(setup.arrays, initial)
    truth = setup.fields.scaled(target_series(setup.config, setup.series))
    later = truth[initial[:, None] + np.arange(1, setup.config.frames.leads + 1)]
    weight = setup.fields.weight
    counted = np.isfinite(later) & (weight > 0)
    area = np.where(counted, weight, 0.0)
    square = (area * np.where(counted, made[..., ::2] - later, 0.0) ** 2).sum(axis=(0, 2, 3))
    variance = (area * made[..., 1::2].astype(np.float64) ** 2).sum(axis=(0, 2, 3))
    both = (square > 0) & (variance > 0)
    ratio = np.divide(square, variance, out=np.ones_like(variance), where=both)
    return np.sqrt(ratio).astype(np.float32)
