"""Trainings on 8 devices that are made up of one CPU; prints what came of them as JSON.

Run by tests/test_parallel.py, in a process of its own: the first use of JAX fixes the number of
devices. Arguments: names of cases, see CASES; without any, the small experiment on 3 devices.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from conftest import Bench, small_config

from gridcast.sources.simulated import simulated_series
from gridcast.training.state import TrainState

GRID = (16, 32)
STEPS = 20
CONV = {"name": "conv_lstm", "hidden": [4]}
# Its weights are smaller than any field of a batch: what is gathered can be told by its size.
CNN = {"name": "cnn_lstm", "channels": [4, 4], "latent": 2, "hidden": [3]}
MEMBERS = {"model": CONV, "train": {"members": 4, "average": 0.9}}
RANDOM = {
    "model": CNN | {"norm": "batch", "dropout": 0.2, "recurrent_dropout": 0.1},
    "frames": {"augment": {"noise": 0.1, "roll": True, "flip": ["lat"]}},
}
ACCUMULATED = {
    "model": CONV | {"dropout": 0.2, "base": "lim"},
    "train": {"accumulate": 2, "loss": "mse_crps"},
}
# The sections of the experiment, and the devices: data, lat, lon.
CASES: dict[str, tuple[dict[str, Any], list[int]]] = {
    f"{name} {mesh}": (sections, [int(n) for n in mesh.split("x")])
    for name, sections, meshes in [
        ("conv", {"model": CONV}, ["1x1x1", "8x1x1", "1x2x1", "1x1x4", "2x2x2"]),
        ("cnn", {"model": CNN}, ["1x1x1", "8x1x1", "1x1x4", "2x2x2"]),
        ("members", MEMBERS, ["1x1x1", "4x1x1", "3x1x1"]),
        ("random", RANDOM, ["1x1x1", "4x1x1"]),
        ("accumulated", ACCUMULATED, ["1x1x1", "3x1x1", "2x1x2"]),
    ]
    for mesh in meshes
}
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def outcome(sections: dict[str, Any], mesh: list[int]) -> dict[str, Any]:
    """Losses of 20 steps and of validation, and the sizes of what devices send each other."""
    series, _ = simulated_series("ocean", years=14, shape=GRID, seed=3)
    bench = on_mesh(series, sections, mesh)
    state = bench.stepper.start(bench.weights)
    epochs = np.concatenate([bench.setup.epoch(epoch) for epoch in range(2)], axis=-2)
    before = bench.validate(state.delivered)
    state, found = trained(bench, state, epochs[..., :STEPS, :])
    return found | {"validation": [before, bench.validate(state.delivered)]}


def small(mesh: list[int]) -> dict[str, Any]:
    """The same of the first epoch of the small experiment of all tests, without validation."""
    series, _ = simulated_series("ocean", years=14, shape=(9, 18), seed=3)
    bench = on_mesh(series, {}, mesh)
    return trained(bench, bench.stepper.start(bench.weights), bench.setup.epoch(0))[1]


def on_mesh(series: xr.DataArray, sections: dict[str, Any], mesh: list[int]) -> Bench:
    parallel = dict(zip(("data", "lat", "lon"), mesh, strict=True))
    return Bench.of(series, small_config(**sections, parallel=parallel))


def trained(bench: Bench, state: TrainState, order: np.ndarray) -> tuple[TrainState, dict]:
    """The state after these batches, and what is to be known of the steps."""
    steps, order = order.shape[-2], order.astype(np.int32)
    program = bench.stepper.run.lower(state, bench.series, order, 0, steps).compile()
    sent: dict[str, list[int]] = {}
    for made, kind in COLLECTIVE.findall(program.as_text()):
        shapes = [dims.split(",") for dims in re.findall(r"\[([\d,]*)\]", made)]
        sizes = [int(np.prod([int(n) for n in shape if n])) for shape in shapes]
        sent.setdefault(kind, []).append(max(sizes))
    state, log = program(state, bench.series, order, np.int32(0), np.int32(steps))
    return state, {
        "wraps": bench.setup.fields.inputs[0].grid.wraps,
        "losses": np.asarray(log)[:, 0].tolist(),
        "largest weight": max(leaf.size for leaf in jax.tree.leaves(bench.weights)),
        "sent": sent,
        "devices": len(state.step.sharding.device_set),
    }


def main(names: list[str]) -> dict[str, dict[str, Any]]:
    if not names:
        return {"small": small([3, 1, 1])}
    return {name: outcome(*CASES[name]) for name in names}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
