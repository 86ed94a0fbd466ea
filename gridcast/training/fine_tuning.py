"""Fine-tuning: training that starts from the weights of another run with the same network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gridcast.config import Config, config_from_dict
from gridcast.errors import ConfigError
from gridcast.frames.fields import AMOUNTS, NORMAL, variables
from gridcast.training.checkpoints import Checkpoint, fill, load_newest, named_leaves
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.state import Weights

# Settings of a model that leave its weights what they are.
_FREE = {"base", "reference", "size", "dropout", "recurrent_dropout", "sampling"}
_FREE |= {"encoder_from", "freeze_encoder"}
_GROUPS = (".params", ".statistics")


def weights_of(
    directory: str | Path,
    config: Config,
    layer_names: Sequence[str],
    grid: tuple[int, int],
    weights: Weights,
) -> Weights:
    """The best weights and statistics of another run, in place of the first ones of this run.

    Nothing else is taken over: climatology, scaler and reference are those of this run's data.

    Args:
      layer_names, grid: static layers and size of the grid, of this run.
      weights: with the names and shapes that are expected, of all members.

    Raises:
      CheckpointError: no checkpoint there.
      ConfigError: another network, or another number of members.
    """
    saved = load_newest(Path(directory) / CHECKPOINTS)
    there = config_from_dict(saved.about["config"])
    shape = saved.arrays["layers"]["layers"].shape
    _require_same(
        str(directory),
        _network(there, saved.about["layers"], (shape[0], shape[1])),
        _network(config, layer_names, grid),
    )
    found, wanted = there.train.members, config.train.members
    if found not in (1, wanted):
        raise ConfigError(
            f"train.start_from: {directory} has {found} members, train.members: {wanted}\n"
            f"  expected: as many, or one\n  fix: train.members: {found}"
        )
    names = named_leaves(weights)
    learned = _by_place(saved, members=wanted, copied=found == 1 < wanted)
    return fill(weights, {name: learned[_place(name)] for name in names})


def _network(config: Config, layer_names: Sequence[str], grid: tuple[int, int]) -> dict[str, Any]:
    """What decides the weights that a network has, and what they are for, by setting."""
    model = config.model.model_dump(mode="json")
    frames, target = config.frames, config.target
    numbers = 1
    if target.classes is not None:
        numbers = target.classes.count
    elif config.train.loss is not None:
        numbers = {AMOUNTS: 3, **dict.fromkeys(NORMAL, 2)}.get(config.train.loss, 1)
    settings = variables(config)
    return {
        "model.name": config.model.name,
        **{f"model.{key}": value for key, value in model.items() if key not in _FREE},
        "frames.inputs": frames.inputs,
        "frames.leads": frames.leads,
        "frames.known": frames.known,
        "frames.trailing": frames.trailing,
        "frames.missing: mask": frames.missing == "mask",
        "the static layers": list(layer_names),
        "the number of variables": len(settings),
        "the number of targets": 1 + sum(one.target for one in config.data.more),
        "the numbers of a target at each cell and lead": numbers,
        "target.mean_over": "a box" if target.mean_over is not None else None,
        "the grid of the network": list(grid if frames.patches is None else frames.patches.size),
    }


def _require_same(directory: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    for setting in [*here, *there]:
        found, expected = there.get(setting), here.get(setting)
        if found != expected:
            raise ConfigError(
                f"train.start_from: {directory} has another network, in {setting}\n"
                f"  found: {found} there, {expected} here\n"
                "  fix: the settings of that run, or no train.start_from"
            )


def _by_place(saved: Checkpoint, *, members: int, copied: bool) -> dict[str, np.ndarray]:
    """Weights and statistics, trained or frozen, by their place in the model.

    Args:
      copied: give each of the `members` what one has learned.
    """

    def for_each(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (members, *array.shape))

    found = {}
    # An encoder that was frozen there is the same for all members.
    for group, once in (("frozen", members > 1), ("best", copied)):
        for name, array in saved.arrays[group].items():
            found[_place(name)] = for_each(array) if once else array
    return found


def _place(name: str) -> str:
    for group in _GROUPS:
        name = name.removeprefix(group)
    return name.removesuffix(".value")
