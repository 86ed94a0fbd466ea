"""From a setup to trained weights: compile the step, begin or resume, save after each epoch."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gridcast.errors import ConfigError, DataError
from gridcast.preparation import Setup
from gridcast.training import checkpoints, loop
from gridcast.training.step import DeviceSeries, Stepper, TrainState, make_optimizer

CHECKPOINTS = "checkpoints"
_log = logging.getLogger("gridcast")


def compile_setup(setup: Setup) -> tuple[Stepper, DeviceSeries, Any]:
    """The compiled step, the data on the device, and the first weights."""
    config = setup.config
    graph, params, fixed = nnx.split(setup.model(), nnx.Param, ...)
    stepper = Stepper(
        graph,
        fixed,
        make_optimizer(config.train, config.train.epochs * len(setup.epoch(0))),
        config.frames.inputs,
        config.frames.leads,
        config.train.seed,
    )
    series = DeviceSeries(
        jnp.asarray(setup.frames),
        jnp.asarray(setup.season),
        jnp.asarray(setup.transform.grid.weight, jnp.float32),
        jnp.asarray(setup.scale, jnp.float32),
    )
    return stepper, series, params


def fit_setup(setup: Setup, directory: Path, *, resume: bool) -> checkpoints.Checkpoint:
    """Train, or go on training; a checkpoint in `directory` after each epoch.

    Returns:
      The last checkpoint, which holds the weights that were best on validation.

    Raises:
      ConfigError, DataError: on `resume`, settings or training data that differ from before.
      TrainingError: the loss is no longer finite.
    """
    stepper, series, params = compile_setup(setup)
    config = setup.config.train
    validate = loop.validator(stepper, series, setup.validation_windows, config.batch_size)
    if resume:
        begin = _resumed(setup, stepper, params, directory)
    else:
        begin = loop.start(stepper, params, validate)

    def save(now: loop.Fit) -> None:
        checkpoints.save(directory / CHECKPOINTS, pack(now))

    def pack(now: loop.Fit) -> checkpoints.Checkpoint:
        groups = {"weights": now.state.params, "optimizer": now.state.optimizer, "best": now.best}
        return _checkpoint_of(setup, int(now.state.step), groups, vars(now.progress))

    last = loop.fit(
        stepper,
        series,
        setup.train_windows,
        validate,
        begin,
        config,
        save=save,
        metrics=directory / "metrics.jsonl",
    )
    return pack(last)


def _resumed(setup: Setup, stepper: Stepper, params: Any, directory: Path) -> loop.Fit:
    saved = checkpoints.load_newest(directory / CHECKPOINTS)
    same = json.loads(setup.config.model_dump_json())
    was = saved.about["config"]
    changed = [key for key in same if key != "output" and same[key] != was.get(key)]
    if changed:
        raise ConfigError(
            f"{directory} was trained with other settings in: {', '.join(changed)}\n"
            f"  fix: resume with {directory / 'config.yaml'}, or train without --resume"
        )
    fixed = saved.arrays["setup"]
    if not np.array_equal(fixed["climatology"], setup.transform.climatology.coefficients):
        raise DataError(
            f"the training data are not those that {directory} was trained on\n"
            "  fix: train without --resume"
        )
    empty = stepper.start(params)
    state = TrainState(
        checkpoints.fill(params, saved.arrays["weights"]),
        checkpoints.fill(empty.optimizer, saved.arrays["optimizer"]),
        jnp.asarray(saved.step, jnp.int32),
    )
    _log.info("resumed at step %d", saved.step)
    best = checkpoints.fill(params, saved.arrays["best"])
    return loop.Fit(state, best, loop.Progress(**saved.about["position"]))


def _checkpoint_of(
    setup: Setup, step: int, groups: dict[str, Any], position: dict
) -> checkpoints.Checkpoint:
    """All that `Run.load` and a resumed training need.

    Args:
      groups: trees of arrays by name: weights, best, optimizer.
      position: where training stands.
    """
    fixed = setup.transform.arrays() | {"damping": setup.damping.factor, "layers": setup.layers}
    about = {
        "format": 1,
        "config": json.loads(setup.config.model_dump_json()),
        "transform": setup.transform.about(),
        "layers": setup.layer_names,
        "origin": setup.source.origin,
        "training_dates": int(setup.splits.train.sum()),
        "grid_digest": setup.transform.grid.digest,
        "position": position,
        "seed": setup.config.train.seed,
        "versions": _versions(),
    }
    arrays = {name: checkpoints.named_leaves(tree) for name, tree in groups.items()}
    return checkpoints.Checkpoint(step, about, {"setup": fixed, **arrays})


def _versions() -> dict[str, str]:
    """Of the packages that decide the numbers."""
    return {name: version(name) for name in ("gridcast", "jax", "jaxlib", "flax", "optax", "numpy")}
