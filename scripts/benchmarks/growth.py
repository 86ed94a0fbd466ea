"""How the time of a training step grows with cells, frames and hidden channels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.measure import SECONDS, Block, in_turns, summary
from benchmarks.workloads import WORKLOADS, Workload, config_of, series_of
from gridcast.fitting import compile_setup
from gridcast.opening import open_source
from gridcast.preparation import prepare

Sized = dict[int, Workload]


def sizes(workload: Workload) -> dict[str, Sized]:
    """A ConvLSTM's workload with half, once and twice as many cells, frames and hidden channels."""
    (lat, lon), settings = workload.grid, workload.settings
    inputs, hidden = settings["frames"]["inputs"], settings["model"]["hidden"]

    def with_(section: str, **changed: Any) -> Workload:
        return replace(workload, settings={**settings, section: {**settings[section], **changed}})

    return {
        "cells": {
            rows * columns: replace(workload, grid=(rows, columns))
            for rows, columns in ((lat, lon // 2), (lat, lon), (2 * lat, lon))
        },
        "frames": {n: with_("frames", inputs=n) for n in (inputs // 2, inputs, 2 * inputs)},
        "hidden channels": {
            n: with_("model", hidden=[n] * len(hidden))
            for n in (hidden[0] // 2, hidden[0], 2 * hidden[0])
        },
    }


def growth(rounds: int, cores: int, seconds: float = SECONDS) -> dict[str, Any]:
    """By what varies: the sizes, a step's time at each, and the exponent of the power law."""
    found = {}
    for name, sized in sizes(WORKLOADS["W1"]).items():
        steps = {str(size): _step(workload) for size, workload in sized.items()}
        first = {size: step(1).seconds for size, step in steps.items()}
        blocks = in_turns(steps, first, rounds, seconds)
        told = {size: summary(taken, cores) for size, taken in blocks.items()}
        found[name] = {"steps": told, "exponent": exponent(told)}
    return found


def exponent(told: Mapping[str, Mapping[str, Any]]) -> float:
    """The slope of log time over log size, by least squares."""
    size = np.log([float(size) for size in told])
    return float(np.polyfit(size, np.log([one["seconds"] for one in told.values()]), 1)[0])


def _step(workload: Workload) -> Callable[[int], Block]:
    """What takes so many steps of a workload, compiled."""
    config = config_of(workload)
    setup = prepare(config, open_source(config, series_of(workload, config)))
    stepper, series, weights, _ = compile_setup(setup)
    batches, state = jnp.asarray(setup.epoch(0)), stepper.start(weights)

    def take(steps: int) -> Block:
        nonlocal state
        began, cpu, left = time.perf_counter(), machine.cpu_seconds(), steps
        while left:
            some = min(left, batches.shape[-2])
            state, log = stepper.run(state, series, batches, 0, some)
            left -= some
        np.asarray(log)
        wall = time.perf_counter() - began
        return Block(wall / steps, (machine.cpu_seconds() - cpu) / wall)

    take(1)
    return take
