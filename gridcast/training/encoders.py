"""Encoders that were trained before: read from a checkpoint, put into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gridcast.errors import CheckpointError, ConfigError
from gridcast.training.checkpoints import CHECKPOINTS as CHECKPOINTS
from gridcast.training.checkpoints import load_newest

_PLACE = "['network']['encoder']"


def load_encoder(directory: str | Path) -> dict[str, np.ndarray]:
    """The weights and statistics of the encoder of a run, by their place in it.

    Args:
      directory: of a run with a CNN-LSTM, or of what `gridcast pretrain` wrote; of an ensemble,
        its first member is read.

    Raises:
      CheckpointError: no checkpoint there.
      ConfigError: its model has no encoder.
    """
    saved = load_newest(Path(directory) / CHECKPOINTS)
    several = saved.about["config"]["train"].get("members", 1) > 1
    found = {
        name.split(_PLACE, 1)[1].removesuffix(".value"): (
            array[0] if several and group == "best" else array
        )
        for group in ("best", "frozen")
        for name, array in saved.arrays.get(group, {}).items()
        if _PLACE in name
    }
    if not found:
        raise ConfigError(
            f"model.encoder_from: {directory} holds no encoder, its model is "
            f"{saved.about['config']['model']['name']}\n"
            "  fix: a run with model.name: cnn_lstm, or gridcast pretrain"
        )
    return found


def put_encoder(model: nnx.Module, arrays: dict[str, np.ndarray]) -> None:
    """Replace the weights and statistics of the model's encoder, whether they are frozen or not.

    Raises:
      CheckpointError: names or shapes differ.
    """
    variables = _by_place(model)
    if odd := sorted(set(variables) ^ set(arrays)):
        raise CheckpointError(
            f"model.encoder_from: the encoder is another one: {', '.join(odd[:4])}\n"
            "  fix: the same channels, convolutions, norm, pooling and latent as there"
        )
    for name, variable in variables.items():
        found, expected = arrays[name].shape, variable[...].shape
        if found != expected:
            raise CheckpointError(
                f"model.encoder_from: {name} has shape {found}, expected {expected}\n"
                "  fix: the same model settings, variables, static layers and grid as there"
            )
        variable[...] = jnp.asarray(arrays[name])


def _by_place(model: nnx.Module) -> dict[str, Any]:
    network: Any = model.network  # type: ignore[attr-defined]
    state = nnx.state(network.encoder)
    leaves = nnx.to_flat_state(state)
    return {"".join(f"[{part!r}]" for part in path): variable for path, variable in leaves}
