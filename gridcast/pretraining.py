"""An encoder trained by itself, as one half of an autoencoder of single frames."""

from __future__ import annotations

import logging
from pathlib import Path

import xarray as xr

from gridcast.config import Config
from gridcast.config.models import CnnLstmConfig
from gridcast.errors import ConfigError
from gridcast.fitting import fit_setup
from gridcast.models.autoencoder import Autoencoder
from gridcast.opening import open_source
from gridcast.output import clear, writing_to
from gridcast.preparation import prepare

_log = logging.getLogger("gridcast")


def pretrain(config: Config, dataset: xr.Dataset | xr.DataArray | None = None) -> Path:
    """Train the encoder of a CNN-LSTM to keep what a decoder needs to draw the frame again.

    Frames, splits, encoder and training are those of the config; the frame's own values are the
    target. Hinton & Salakhutdinov 2006, Science 313, 504-507.

    Args:
      dataset: a series in memory to use in place of `data`.

    Returns:
      A directory for `model.encoder_from`: `encoder` in the config's output directory.

    Raises:
      ConfigError: a model without an encoder.
    """
    if not isinstance(config.model, CnnLstmConfig):
        raise ConfigError(
            f"model.name: {config.model.name} has no encoder to pretrain\n  fix: cnn_lstm"
        )
    config = config.with_directory("runs/pretrained")
    directory = Path(str(config.output.directory)) / "encoder"
    model = config.model.model_copy(
        update={"encoder_from": None, "freeze_encoder": False, "base": "climatology"}
    )
    frames = config.frames.model_copy(update={"inputs": 1, "least": 1, "leads": 1, "patches": None})
    target = config.target.model_copy(update={"mean_over": None, "classes": None})
    # One encoder for all members, from data alone.
    train = config.train.model_copy(update={"loss": None, "members": 1, "start_from": None})
    alone = config.model_copy(
        update={"model": model, "frames": frames, "target": target, "train": train}
    )
    with writing_to(directory):
        setup = prepare(alone, open_source(alone, dataset))
        clear(directory)
        best = fit_setup(setup, directory, resume=False, model=setup.model(Autoencoder), first=0)
    _log.info(
        "the encoder is in %s: best reconstruction error %.3f of the variance",
        directory,
        best.about["position"]["best_loss"],
    )
    return directory
