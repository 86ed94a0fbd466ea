"""What is timed: networks of a given size on a sea that is made up, and two shipped configs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridcast.config import Config, config_from_dict, load_config
from gridcast.opening import IN_MEMORY

ROOT = Path(__file__).parents[2]
Settings = Mapping[str, Mapping[str, Any]]
FIRST_YEAR = 1800


@dataclass(frozen=True)
class Workload:
    """A run of gridcast.

    Attributes:
      grid, spacing: cells (lat, lon) of the made-up sea, and degrees between them; it is all
        ocean and does not go round the globe, so that convolutions pad with zeros on all sides.
      settings: sections of the config.
      cut: what `--quick` has in their place, and its grid.
      file: a shipped config with its own data, in place of all these.
    """

    title: str
    grid: tuple[int, int] = (1, 1)
    spacing: float = 1.0
    settings: Settings = field(default_factory=dict)
    cut: Settings = field(default_factory=dict)
    small: tuple[int, int] = (1, 1)
    file: str | None = None


WORKLOADS = {
    "W1": Workload(
        "ConvLSTM",
        (45, 90),
        2.0,
        {
            "frames": {"inputs": 12, "leads": 1},
            "model": {"name": "conv_lstm", "hidden": [32, 32], "kernel": 3, "downsample": 1},
            "train": {"batch_size": 4},
        },
        {"frames": {"inputs": 3}, "model": {"hidden": [4, 4]}, "train": {"batch_size": 2}},
        (6, 8),
    ),
    "W2": Workload(
        "CNN-LSTM",
        (64, 128),
        1.0,
        {
            "frames": {"inputs": 12, "leads": 1},
            "model": {
                "name": "cnn_lstm",
                "channels": [16, 32, 64],
                "convolutions": 1,
                "norm": "none",
                "latent": 256,
                "hidden": [256],
            },
            "train": {"batch_size": 16},
        },
        {
            "frames": {"inputs": 3},
            "model": {"channels": [4, 6, 8], "latent": 10, "hidden": [12]},
            "train": {"batch_size": 2},
        },
        (16, 24),
    ),
    "W3": Workload(
        "encoder-forecaster ConvLSTM",
        (64, 64),
        1.0,
        {
            "frames": {"inputs": 10, "leads": 10},
            "model": {
                "name": "conv_seq2seq",
                "hidden": [64, 64, 64],
                "kernel": 5,
                "downsample": 4,
                "sampling": "none",
            },
            "train": {"batch_size": 2},
        },
        {"frames": {"inputs": 3, "leads": 2}, "model": {"hidden": [4, 5, 6]}},
        (12, 16),
    ),
    "W4": Workload("configs/sst.yaml", file="sst"),
    "W5": Workload("configs/tasman.yaml", file="tasman"),
}


def config_of(
    workload: Workload, *, quick: bool = False, batch_times: int = 1, members: int = 1
) -> Config:
    """The config of a workload.

    Args:
      quick: cut to seconds; a shipped config stays as it is.
      batch_times: so many times its batch size, to fill an accelerator.
    """
    if workload.file is not None:
        # Simulated data never stand in.
        config = load_config(ROOT / "configs" / f"{workload.file}.yaml", ["data.offline=error"])
        size = config.train.batch_size * batch_times
        train = config.train.model_copy(update={"batch_size": size, "members": members})
        return config.model_copy(update={"train": train})
    sections = {name: dict(section) for name, section in workload.settings.items()}
    for name, section in workload.cut.items() if quick else ():
        sections[name] |= section
    train = sections["train"]
    train["batch_size"] *= batch_times
    train["members"] = members
    # Some stretches of the compiled loop in an epoch.
    years = max(12, math.ceil(train["batch_size"] * 16 / 12) + 2)
    last = FIRST_YEAR + years - 1
    return config_from_dict(
        {
            "data": {"path": IN_MEMORY},
            "static": {"layers": []},
            "splits": {
                "train": [FIRST_YEAR, last],
                "validation": [last + 1, last + 4],
                "test": [last + 5, last + 8],
            },
            **sections,
        }
    )


def series_of(workload: Workload, config: Config, *, quick: bool = False) -> xr.DataArray | None:
    """The made-up sea: months of red noise on a seasonal cycle; None: the config names its data."""
    if workload.file is not None:
        return None
    rows, columns = workload.small if quick else workload.grid
    lat = workload.spacing * (np.arange(rows) - (rows - 1) / 2)
    lon = 100.0 + workload.spacing * np.arange(columns)
    months = 12 * (int(config.splits.test.last[:4]) - FIRST_YEAR + 1)
    time = np.datetime64(f"{FIRST_YEAR}-01", "M") + np.arange(months)
    values = np.random.default_rng(0).standard_normal((months, rows, columns), np.float32)
    for month in range(1, months):
        values[month] += np.float32(0.8) * values[month - 1]
    values += (
        290.0
        + 5.0
        * np.cos(2 * np.pi * np.arange(months, dtype=np.float32) / 12)[:, None, None]
        * np.sin(np.deg2rad(lat, dtype=np.float32))[:, None]
    )
    return xr.DataArray(
        values.astype(np.float32),
        {"time": time.astype("datetime64[ns]"), "lat": lat, "lon": lon},
        ("time", "lat", "lon"),
        "sst",
        {"units": "K"},
    )
