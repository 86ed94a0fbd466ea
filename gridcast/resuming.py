"""Where a training starts: alike in all processes, and where a checkpoint says it stood."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gridcast import hosts
from gridcast.config import config_from_dict
from gridcast.config.models import ReferenceModelConfig
from gridcast.errors import ConfigError, DataError
from gridcast.preparation import Setup
from gridcast.provenance import revision, versions
from gridcast.training import checkpoints, loop
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.state import TrainState, Weights
from gridcast.training.step import Stepper

_log = logging.getLogger("gridcast")


def resumed(setup: Setup, stepper: Stepper, weights: Weights, directory: Path) -> loop.Fit:
    """Where the newest checkpoint in `directory` stands.

    Args:
      weights: with the names and shapes that are expected.

    Raises:
      ConfigError, DataError: settings or training data that differ from before.
    """
    saved = checkpoints.load_newest(directory / CHECKPOINTS)
    same = json.loads(setup.config.model_dump_json())
    # As this version reads them: settings that came later had their defaults.
    was = json.loads(config_from_dict(saved.about["config"]).model_dump_json())
    # Neither the folder nor the devices decide what is learned.
    compared = [key for key in same if key not in ("output", "parallel")]
    changed = [key for key in compared if same[key] != was[key]]
    if changed:
        raise ConfigError(
            f"{directory} was trained with other settings in: {', '.join(changed)}\n"
            f"  fix: resume with {directory / 'config.yaml'}, or train without --resume"
        )
    fixed, fields = saved.arrays["fields"], setup.fields.arrays()
    if not all(np.array_equal(fixed[name], fields[name]) for name in fields):
        raise DataError(
            f"the training data are not those that {directory} was trained on\n"
            "  fix: train without --resume"
        )
    empty = stepper.start(weights)
    average = empty.average
    if average is not None:
        average = checkpoints.fill(average, saved.arrays["average"])
    now = checkpoints.fill(weights, saved.arrays["weights"])
    state = TrainState(
        now.params,
        now.statistics,
        checkpoints.fill(empty.optimizer, saved.arrays["optimizer"]),
        jnp.asarray(saved.step, jnp.int32),
        average,
    )
    _log.info("resumed at step %d", saved.step)
    best = checkpoints.fill(weights, saved.arrays["best"])
    return loop.Fit(
        stepper.layout.put(state, "state"), best, loop.Progress(**saved.about["position"])
    )


def require_same_start(setup: Setup) -> None:
    """Raise where this process and another one could not train together.

    Raises:
      ConfigError: there is nothing to train, or settings, data or versions differ.
    """
    if not hosts.several():
        return
    if isinstance(setup.config.model, ReferenceModelConfig):
        raise ConfigError(
            f"--distributed: model.name: {setup.config.model.name} is fitted, and has no training "
            "to share\n  fix: train without --distributed"
        )
    dates, grid = " ".join(map(str, setup.axis.times)), setup.fields.inputs[0].grid
    hosts.require_same(
        "the same config, overrides, data and packages on all hosts",
        config=setup.config.model_dump_json(exclude={"output"}),
        data=f"{setup.source.origin} {grid.digest} {dates}",
        packages=str(versions()),
    )


def checkpoint_of(
    setup: Setup, step: int, groups: dict[str, Any], position: dict
) -> checkpoints.Checkpoint:
    """All that `Run.load` and a resumed training need.

    Args:
      groups: trees of arrays by name: weights, best, optimizer, frozen, average.
      position: where training stands.
    """
    about = {
        "format": checkpoints.FORMAT,
        "config": json.loads(setup.config.model_dump_json()),
        "fields": setup.fields.about(),
        "layers": setup.layer_names,
        "origin": setup.source.origin,
        "training_dates": int(setup.splits.train.sum()),
        "clock": setup.axis.clock,
        "grid_digest": setup.fields.inputs[0].grid.digest,
        "position": position,
        "seed": setup.config.train.seed,
        "versions": versions(),
        "revision": revision(),
        "data_sha256": setup.checksums,
    }
    arrays = {name: checkpoints.named_leaves(tree) for name, tree in groups.items()}
    fixed = {
        "fields": setup.fields.arrays(),
        "head": setup.head,
        "layers": {"layers": setup.layers},
    }
    return checkpoints.Checkpoint(step, about, {**fixed, **arrays})
