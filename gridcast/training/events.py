"""The numbers of metrics.jsonl as TensorBoard events, for `train.tensorboard`."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from gridcast.config.training import TrainConfig
from gridcast.errors import ConfigError

# The folder of a run that holds them.
EVENTS = "tensorboard"


def require_writer(config: TrainConfig) -> None:
    """Raise before anything is computed where events are asked for and cannot be written.

    Raises:
      ConfigError: tensorboardX is not installed.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError(
            "train.tensorboard: true needs the package tensorboardX, which is not installed\n"
            '  fix: pip install "gridcast[tensorboard]", or train.tensorboard: false'
        )


class Events:
    """Scalars by step: each number of a record under its name, `epoch/` before those of an epoch.

    Args:
      directory: of the run.
      step: of a resumed training; TensorBoard forgets what was written of later ones.
    """

    def __init__(self, directory: Path, step: int):
        from tensorboardX import SummaryWriter

        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(directory / EVENTS), purge_step=purge)

    def write(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl; a number that is not finite has no point."""
        of_epoch = "validation_loss" in record
        for name, value in record.items():
            if name not in ("step", "epoch") and math.isfinite(value):
                tag = f"epoch/{name}" if of_epoch else name
                self._writer.add_scalar(tag, value, record["step"])
        if of_epoch:
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()
