"""Trainings on 8 devices that are made up of one CPU; prints what came of them as JSON.

Run by tests/test_parallel.py, in a process of its own: the first use of JAX fixes the number of
devices. Arguments: names of cases, see CASES.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import jax
import numpy as np
from conftest import Bench, small_config

from gridcast.preparation import Setup
from gridcast.sources.simulated import simulated_series

GRID = (16, 32)
SMALL = (9, 18)  # of the small experiment of all tests
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
        ("small", {}, ["3x1x1"]),
        ("conv", {"model": CONV}, ["1x1x1", "8x1x1", "1x2x1", "1x1x2", "2x2x2"]),
        ("cnn", {"model": CNN}, ["1x1x1", "8x1x1", "1x2x1", "1x1x2", "2x2x2"]),
        ("members", MEMBERS, ["1x1x1", "4x1x1", "3x1x1", "1x2x2"]),
        ("random", RANDOM, ["1x1x1", "4x1x1"]),
        ("accumulated", ACCUMULATED, ["1x1x1", "3x1x1", "2x1x2"]),
    ]
    for mesh in meshes
}
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def order(setup: Setup) -> np.ndarray:
    """The batches of the first 20 steps."""
    epochs = np.concatenate([setup.epoch(epoch) for epoch in range(2)], axis=-2)
    return epochs[..., :STEPS, :].astype(np.int32)


def outcome(sections: dict[str, Any], mesh: list[int]) -> dict[str, Any]:
    """Losses of training and validation, and the sizes of what devices send each other."""
    series, _ = simulated_series("ocean", years=14, shape=GRID if sections else SMALL, seed=3)
    parallel = dict(zip(("data", "lat", "lon"), mesh, strict=True))
    bench = Bench.of(series, small_config(**sections, parallel=parallel))
    state = bench.stepper.start(bench.weights)
    batches = order(bench.setup)
    before = bench.validate(state.delivered)
    program = bench.stepper.run.lower(state, bench.series, batches, 0, STEPS).compile()
    text, sent = program.as_text(), {}
    for made, kind in COLLECTIVE.findall(text):
        shapes = [re.findall(r"\d+", dims) for dims in re.findall(r"\[([\d,]*)\]", made)]
        sent.setdefault(kind, []).append(max(int(np.prod([int(n) for n in s])) for s in shapes))
    state, log = program(state, bench.series, batches, np.int32(0), np.int32(STEPS))
    return {
        "wraps": bench.setup.fields.inputs[0].grid.wraps,
        "losses": np.asarray(log)[:, 0].tolist(),
        "validation": [before, bench.validate(state.delivered)],
        "largest weight": max(leaf.size for leaf in jax.tree.leaves(bench.weights)),
        "sent": sent,
        "devices": len(state.step.sharding.device_set),
    }


if __name__ == "__main__":
    print(json.dumps({name: outcome(*CASES[name]) for name in sys.argv[1:]}))
