"""The standard deviation of a trained run: right on validation, however often training went on."""

from __future__ import annotations

import numpy as np
from conftest import same_bits, small_config

from gridcast.calibrating import fit_run
from gridcast.fitting import compile_setup
from gridcast.frames.fields import target_series
from gridcast.models.heads import NormalHead
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.resuming import checkpoint_of
from gridcast.run import Run
from gridcast.training import checkpoints, loop
from gridcast.training.encoders import CHECKPOINTS


def calibration(run: Run) -> np.ndarray:
    assert isinstance(run.model.head, NormalHead)
    return np.asarray(run.model.head.calibration[...])


def test_the_spread_is_that_of_the_errors_and_a_resumed_run_is_not_calibrated_twice(
    ocean, tmp_path
):
    config = small_config(model={"hidden": [2], "downsample": 4}, train={"loss": "crps"})
    setup = prepare(config, open_source(config, ocean))
    # Training that had ended: nothing is left to do but to calibrate.
    stepper, _, weights, frozen = compile_setup(setup)
    groups = {"weights": weights, "best": weights, "frozen": frozen}
    groups["optimizer"] = stepper.start(weights).optimizer
    position = vars(loop.Progress(0.0, finished=True))
    checkpoints.save(tmp_path / CHECKPOINTS, checkpoint_of(setup, 1, groups, position))
    run = fit_run(setup, tmp_path, resume=True)
    truth = setup.fields.scaled(target_series(config, setup.series))[..., 0]
    made = run.predictor(setup.arrays, setup.validation_windows)
    area = setup.fields.weight[..., 0]
    for lead in (1, 2):
        came = truth[setup.validation_windows + lead]
        square = (made[:, lead - 1, ..., 0] - came) ** 2
        variance = made[:, lead - 1, ..., 1].astype(np.float64) ** 2
        np.testing.assert_allclose((square * area).sum() / (variance * area).sum(), 1, rtol=1e-4)
    assert np.abs(calibration(run) - 1).min() > 0.01  # the control: it was not right before
    again = fit_run(setup, tmp_path, resume=True)
    for other in (again, Run.load(tmp_path)):
        assert same_bits(calibration(other), calibration(run))
