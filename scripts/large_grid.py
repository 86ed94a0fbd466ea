"""What a training step of a large grid takes: time, memory and operations.

    python scripts/large_grid.py            # a table, in some minutes on 2 cores
    python scripts/large_grid.py --readme   # the table into README.md as well

Each network takes steps of one window on grids up to 0.25 degrees (721 x 1440 cells), each in a
process of its own, so that its peak of resident memory is its own. The sea is made up of noise:
what is learned does not matter to what a step takes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from benchmarks import machine
from benchmarks.flops import network_flops
from readme_tables import tell

from gridcast.config import config_from_dict
from gridcast.fitting import compile_setup
from gridcast.opening import IN_MEMORY, open_source
from gridcast.preparation import prepare

GRIDS = [(181, 360), (361, 720), (721, 1440)]
MODELS = {
    "ConvLSTM": {"name": "conv_lstm"},
    "ConvLSTM, not coarsened": {"name": "conv_lstm", "downsample": 1},
    "CNN-LSTM": {"name": "cnn_lstm"},
}
STEPS = 3


class Cost(NamedTuple):
    """Of one step: GFLOP, seconds, bytes XLA holds between, the most the process ever held."""

    flops: int
    seconds: float
    busy: float
    temporary: int
    weights: int
    peak: int


def table() -> Iterator[str]:
    yield (
        "| | grid | GFLOP a step | s a step | s per million cells | temporaries, GiB | "
        "weights, MiB | whole process, GiB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, model in MODELS.items():
        for lat, lon in GRIDS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                cost = alone.submit(step_of, model, lat, lon).result()
            yield (
                f"| {name} | {lat} x {lon} | {cost.flops / 1e9:.0f} | "
                f"{cost.seconds:.2f} ({cost.busy:.2f}) | {cost.seconds / (lat * lon / 1e6):.1f} | "
                f"{cost.temporary / 2**30:.2f} | {cost.weights / 2**20:.1f} | "
                f"{cost.peak / 2**30:.2f} |"
            )
            name = ""
    about = machine.description()
    yield ""
    yield (
        "One window of 6 frames and 6 leads a step, default sizes, float32, the fastest of "
        f"{STEPS} steps, in parentheses CPU time over wall time; weights without the optimizer's "
        "two copies; "
        f"{about['cores']} cores of {about['processor']}, jax {jax.__version__}; "
        "`scripts/large_grid.py`."
    )


def step_of(model: dict[str, Any], lat: int, lon: int) -> Cost:
    """Some steps on a grid, in this process."""
    config = config_from_dict(
        {
            "data": {"path": IN_MEMORY},
            "static": {"layers": []},
            "splits": {"train": [1990, 1991], "validation": [1992, 1992], "test": [1993, 1993]},
            "frames": {"leads": 6},
            "model": model,
            "train": {"batch_size": 1},
        }
    )
    setup = prepare(config, open_source(config, _sea(lat, lon)))
    stepper, series, weights, _ = compile_setup(setup)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    order, state = jnp.asarray(setup.epoch(0)), stepper.start(weights)
    program = stepper.run.lower(state, series, order, 0, 1).compile()
    taken = []
    for step in range(STEPS + 1):
        began, cpu = time.perf_counter(), machine.cpu_seconds()
        state, log = stepper.run(state, series, order, step, step + 1)
        np.asarray(log)
        wall = time.perf_counter() - began
        taken.append((wall, (machine.cpu_seconds() - cpu) / wall))
    seconds, busy = min(taken[1:])
    useful = network_flops(config.model, setup.model().sizes, 1).training
    held = program.memory_analysis().temp_size_in_bytes
    return Cost(useful, seconds, busy, held, size, machine.peak_bytes())


def _sea(lat: int, lon: int) -> xr.DataArray:
    """Four years of months of noise over the whole globe."""
    time_axis = xr.date_range("1990-01-01", periods=48, freq="MS", use_cftime=False)
    values = np.random.default_rng(0).standard_normal((48, lat, lon), np.float32)
    return xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={
            "time": time_axis,
            "lat": np.linspace(-90, 90, lat),
            "lon": np.arange(lon) * 360 / lon,
        },
        name="sst",
        attrs={"units": "degC"},
    )


if __name__ == "__main__":
    sys.exit(tell(table(), "large-grid", str(__doc__)))
