"""From a setup to trained weights: compile the step, begin or resume, save after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gridcast import hosts
from gridcast.assembly import coarsening, places_of
from gridcast.config import Config
from gridcast.config.models import ReferenceModelConfig
from gridcast.errors import ConfigError
from gridcast.frames.fields import AMOUNTS, variables
from gridcast.frames.streamed import StreamedFrames
from gridcast.models import ForecastModel
from gridcast.models.members import stacked
from gridcast.models.window import Frozen
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.resuming import checkpoint_of, require_same_start, resumed
from gridcast.training import checkpoints, loop
from gridcast.training.batches import member_seed
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.events import require_writer
from gridcast.training.fine_tuning import weights_of
from gridcast.training.parallel import ONE_DEVICE, layout_of
from gridcast.training.patch_rows import PatchRows
from gridcast.training.series import DeviceSeries
from gridcast.training.state import Weights, make_optimizer
from gridcast.training.step import Stepper
from gridcast.training.streaming import StreamedSeries


def compile_setup(
    setup: Setup, model: ForecastModel | None = None, *, first: int = 1
) -> tuple[Stepper, loop.Series, Weights, Any]:
    """The compiled step, the data, on the device or on their way, the first and frozen weights.

    Args:
      model: in place of the configured one, and of all members.
      first: steps from the initial date to the first lead.
    """
    config = setup.config
    require_writer(config.train)
    require_same_start(setup)
    models = _members(setup) if model is None else [model] * config.train.members
    graph, _, _, frozen, rest = nnx.split(models[0], nnx.Param, nnx.BatchStat, Frozen, ...)
    weights = stacked([Weights(*nnx.state(one, nnx.Param, nnx.BatchStat)) for one in models])
    if config.train.start_from is not None:
        grid = setup.fields.inputs[0].grid.shape
        weights = weights_of(config.train.start_from, config, setup.layer_names, grid, weights)
    steps = config.train.epochs * setup.epoch(0).shape[-2]
    windows, parts = setup.epoch(0).shape[-1], config.train.accumulate
    if windows % parts:
        raise ConfigError(
            f"train.accumulate: {parts} parts of a batch, found {windows} windows to train on, "
            f"less than a batch\n  fix: a train.accumulate that divides {windows}"
        )
    shape, whole = setup.fields.inputs[0].grid.shape, setup.fields.whole
    layout = layout_of(config, shape, coarsening(config), windows // parts, whole=whole)
    stepper = Stepper(
        graph,
        nnx.merge_state(frozen, rest),
        make_optimizer(config.train, steps),
        loss_name(setup),
        config.frames.inputs,
        config.frames.leads,
        config.train.seed,
        first=first,
        gaps=config.frames.missing == "mask",
        whole=setup.fields.whole,
        teach_until=steps // 2 if getattr(config.model, "sampling", "none") == "scheduled" else 0,
        penalty=(config.train.l1, config.train.l2),
        noise=config.frames.augment.noise,
        places=places_of(config, setup.fields.inputs[0].grid),
        everywhere=config.frames.patches is not None,
        members=config.train.members,
        average=config.train.average,
        parts=parts,
        layout=layout,
    )
    factors = [variable.weight for variable in variables(config)[: len(setup.fields.targets)]]
    weight = jnp.asarray(setup.fields.weight * np.array(factors), jnp.float32)
    unit = jnp.ones((config.frames.leads, weight.shape[-1]), jnp.float32)
    if isinstance(setup.arrays.values, StreamedFrames):
        reach = config.frames.inputs - 1, first + config.frames.leads - 1
        patches = None
        # Where batches are filled up for several devices, what fills them up has places of its own.
        if stepper.places is not None and stepper.everywhere and layout == ONE_DEVICE:
            patches = PatchRows(stepper.places, stepper.seeds, parts)
        series = StreamedSeries(setup.arrays, weight, unit, *reach, layout, parts, patches)
    else:
        series = layout.put(DeviceSeries(setup.arrays, weight, unit), "series")
    if loss_name(setup) != AMOUNTS:  # a log likelihood has no zero to be relative to
        scale = layout.put(_reference_loss(stepper, series, weights, setup), "same")
        series = series._replace(scale=scale)
    return stepper, series, weights, frozen


def _members(setup: Setup) -> list[ForecastModel]:
    """The untrained members, each from a seed of its own."""
    models = []
    for member in range(setup.config.train.members):
        seed = member_seed(setup.config.train.seed, member)
        train = setup.config.train.model_copy(update={"seed": seed})
        models.append(
            replace(setup, config=setup.config.model_copy(update={"train": train})).model()
        )
    return models


def loss_name(setup: Setup) -> str:
    if setup.fields.classes is not None:
        return "cross_entropy"
    return setup.config.train.loss or "mse"


def _reference_loss(stepper: Stepper, series: loop.Series, weights: Weights, setup: Setup) -> Any:
    """The mean loss of the reference over training windows, at each lead; 1 where it has none."""
    found = [
        [sums[: part.last] for sums in stepper.reference_losses(weights, part.series, part.batches)]
        for part in series.stretches(setup.train_windows[:, None], 0)
    ]
    together = (np.concatenate(parts) for parts in zip(*found, strict=True))
    loss, area = (part.astype(np.float64).sum(axis=0) for part in together)
    mean = loss / np.where(area > 0, area, 1.0)
    return jnp.asarray(np.where(mean > 0, mean, 1.0), jnp.float32)


def fit_setup(
    setup: Setup,
    directory: Path,
    *,
    resume: bool,
    model: ForecastModel | None = None,
    first: int = 1,
) -> checkpoints.Checkpoint:
    """Train, or go on training; a checkpoint in `directory` after each epoch.

    Args:
      model, first: as `compile_setup`.

    Returns:
      The last checkpoint, which holds the weights that were best on validation.

    Raises:
      ConfigError, DataError: on `resume`, settings or training data that differ from before.
      TrainingError: the loss is no longer finite.
      CheckpointError: a checkpoint cannot be written.
    """
    stepper, series, weights, frozen = compile_setup(setup, model, first=first)
    if isinstance(setup.config.model, ReferenceModelConfig):
        return _untrained(setup, directory, weights)
    last = _fit(setup, directory, stepper, series, weights, frozen, resume=resume)
    return last()


def take_part(config: Config, *, resume: bool) -> None:
    """The training of a config in a process that does not write: its part of the steps.

    Raises:
      As `fit_setup`; LostProcessError: another process was lost.
    """
    setup = prepare(config, open_source(config))
    _fit(setup, Path(str(config.output.directory)), *compile_setup(setup), resume=resume)


def _fit(
    setup: Setup,
    directory: Path,
    stepper: Stepper,
    series: loop.Series,
    weights: Weights,
    frozen: Any,
    *,
    resume: bool,
) -> Callable[[], checkpoints.Checkpoint]:
    """Train; returns what makes the last checkpoint."""
    config = setup.config.train
    validate = loop.validator(stepper, series, setup.validation_windows, config.batch_size)
    if resume:
        begin = resumed(setup, stepper, weights, directory)
    else:
        begin = loop.start(stepper, weights, validate)
    hosts.require_same(
        "an output.directory on a disk that all hosts share",
        checkpoint=f"{begin.state.step} {begin.progress}",
    )

    def packed(now: loop.Fit) -> Callable[[], checkpoints.Checkpoint]:
        groups = {
            "weights": now.state.weights,
            "optimizer": now.state.optimizer,
            "best": now.best,
            "frozen": frozen,
        }
        if now.state.average is not None:
            groups["average"] = now.state.average
        groups = stepper.layout.fetch(groups)
        return lambda: checkpoint_of(setup, int(now.state.step), groups, vars(now.progress))

    def save(now: loop.Fit) -> None:
        checkpoint = packed(now)
        if hosts.writes():
            checkpoints.save(directory / CHECKPOINTS, checkpoint())

    if not resume:  # before an epoch is spent it shows that checkpoints can be written
        save(begin)
    last = loop.fit(
        stepper,
        series,
        setup.member_windows,
        validate,
        begin,
        config,
        save=save,
        metrics=directory / "metrics.jsonl" if hosts.writes() else None,
    )
    checkpoint = packed(last)
    hosts.leave()
    return checkpoint


def _untrained(setup: Setup, directory: Path, weights: Weights) -> checkpoints.Checkpoint:
    """The checkpoint of a reference that is the model itself: fitted, with nothing to train."""
    groups = {"weights": weights, "best": weights, "optimizer": (), "frozen": ()}
    position = vars(loop.Progress(0.0, finished=True))
    checkpoint = checkpoint_of(setup, 0, groups, position)
    checkpoints.save(directory / CHECKPOINTS, checkpoint)
    return checkpoint
