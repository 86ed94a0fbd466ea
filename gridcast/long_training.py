"""Training on a simulated series before the data themselves: its experiment and its commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from gridcast.config import Config, config_from_dict, dump_config
from gridcast.config.models import ReferenceModelConfig
from gridcast.drafts import write_text
from gridcast.errors import ConfigError
from gridcast.frames.fields import variables
from gridcast.timeaxis import TimeAxis

_MARK = "# Written by gridcast simulate-from"


def experiment_on(config: Config, path: Path, names: Sequence[str], axis: TimeAxis) -> Config:
    """The config for the series that was simulated from its data.

    Of its years 90 % are for training, as many for validation as for the test.

    Args:
      names: of the variables in the file, in the order of `variables`.

    Raises:
      ConfigError: fewer years than the windows of three splits need.
    """
    years = int(axis.dates[-1, 0])
    window = config.frames.inputs + config.frames.leads
    shortest = -(-window * years // axis.times.size)
    held = max(years // 20, shortest)
    if years < 3 * held:
        raise ConfigError(
            f"--years {years}: training, validation and test need windows of {window} steps each\n"
            f"  expected: at least {3 * shortest} years"
        )
    ends = [0, years - 2 * held, years - held, years]
    periods = [(f"{a + 1:04d}", f"{b:04d}") for a, b in pairwise(ends)]
    settings = config.model_dump(mode="json")
    sources = [
        {**one.model_dump(mode="json"), "name": None, "path": str(path), "variable": name}
        for one, name in zip(variables(config), names, strict=True)
    ]
    # What was a mean over a box is the one cell of the file.
    box = config.data.mean_over is not None
    first = sources[0] | {"offline": "error", "region": None if box else sources[0]["region"]}
    more = [one | {"mean_over": None} for one in sources[1:]]
    settings["data"] = first | {"more": more}
    settings["splits"] = dict(zip(("train", "validation", "test"), periods, strict=True))
    settings["frames"]["climatology"]["period"] = None  # years that the series does not have
    settings["train"]["start_from"] = None
    settings["output"]["directory"] = None
    return config_from_dict(settings)


def next_commands(config: Config, file: str, overrides: Sequence[str], path: Path) -> list[str]:
    """What to run next: training on the simulated series, then fine-tuning on the data.

    Args:
      file, overrides: where `config` came from.
      path: as `simulate_from` returns it.
    """
    commands = [["gridcast", "train", str(experiment_file(path))]]
    if isinstance(config.model, ReferenceModelConfig):
        return [shlex.join(commands[0])]  # it has no weights to start from
    more = [f"train.start_from=runs/{path.stem}"]
    if getattr(config.model, "encoder_from", None) is not None:
        more += ["model.encoder_from=null", "model.freeze_encoder=false"]
    more.append(f"output.directory={config.output.directory}-fine-tuned")
    commands.append(["gridcast", "train", file, *overrides, *more])
    return [shlex.join(command) for command in commands]


def write_experiment(experiment: Config, path: Path) -> None:
    """Write the experiment on the series at `path`, marked as ours to replace."""
    write_text(experiment_file(path), f"{_MARK}, on {path.name}\n{dump_config(experiment)}")


def experiment_file(path: Path) -> Path:
    """Where the experiment on the series at `path` is: beside it."""
    return path.with_suffix(".yaml")


def require_free(path: Path) -> None:
    """Raise where something else lies in the place of the series or of its experiment.

    Raises:
      ConfigError: which file, or a name that is not NAME.nc.
    """
    if path.suffix != ".nc":
        raise ConfigError(f"--output {path}: expected the name of a NetCDF file, NAME.nc")
    beside = experiment_file(path)
    ours = beside.is_file() and beside.read_bytes().startswith(_MARK.encode())
    taken = [one for one in (path, beside) if one.exists()]
    if taken and not ours:
        raise ConfigError(
            f"{taken[0]} exists, and simulate-from did not write it\n  fix: another --output"
        )
