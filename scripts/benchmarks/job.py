"""Training as a user starts it, from the NetCDF file on: where the time goes."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.workloads import ROOT
from gridcast.config import load_config
from gridcast.fitting import fit_setup
from gridcast.opening import open_source
from gridcast.output import writing_to
from gridcast.preparation import prepare
from gridcast.training.step import Stepper


class Job:
    """A shipped config, trained for some epochs.

    Args:
      began: `time.time()` when the process was started.
    """

    def __init__(self, folder: Path, config: str, epochs: int, began: float):
        path = ROOT / "configs" / f"{config}.yaml"
        self.config = load_config(path, ["data.offline=error", f"train.epochs={epochs}"])
        self.folder, self.began = folder, began

    def run(self) -> dict[str, Any]:
        """Seconds since the start of the process at each milestone, and what the steps are."""
        at = {"imported": self._now()}
        source = open_source(self.config)
        at["loaded"] = self._now()
        setup = prepare(self.config, source)
        at["prepared"] = self._now()
        calls = watched_steps()
        with writing_to(self.folder):
            fit_setup(setup, self.folder, resume=False)
        (first, after, steps), *further = calls
        return {
            "model": self.config.model.name,
            "seconds": {
                **at,
                "first_step_begins": first - self.began,
                "first_step_ends": after - self.began,
                "last_step_ends": calls[-1][1] - self.began,
            },
            "cache": jax.config.values["jax_compilation_cache_dir"],
            **shares((first, after, steps), further, setup.config.train.batch_size, self.began),
        }

    def _now(self) -> float:
        return time.time() - self.began


Call = tuple[float, float, int]


def shares(first: Call, further: list[Call], batch: int, began: float) -> dict[str, float]:
    """What the calls of the compiled step, each (begin, end, steps), say about a job.

    Returns:
      compile: seconds of the first call beyond those of its steps.
      steps_share: of the time between first and last step, what the steps took.
      samples_per_second: from the first step on; samples_per_second_from_file: from the start of
        the process on.
    """
    took = sum(end - begin for begin, end, _ in further)
    count = sum(steps for *_, steps in further)
    last = further[-1][1]
    return {
        "compile": first[1] - first[0] - first[2] * took / count,
        "step": took / count,
        "steps": first[2] + count,
        "steps_share": took / (last - first[1]),
        "samples_per_second": count * batch / (last - first[1]),
        "samples_per_second_from_file": (first[2] + count) * batch / (last - began),
    }


def watched_steps() -> list[Call]:
    """A list to which each call of the compiled step of any later run is added."""
    calls: list[Call] = []
    made = vars(Stepper)["run"].func

    def watched(stepper: Stepper) -> Any:
        run = made(stepper)

        def call(*arguments: Any) -> Any:
            begin = time.time()
            state, log = jax.block_until_ready(run(*arguments))
            end = time.time()
            calls.append((begin, end, int(np.isfinite(np.asarray(log)[:, 0]).sum())))
            return state, log

        return call

    replaced = cached_property(watched)
    replaced.__set_name__(Stepper, "run")
    Stepper.run = replaced  # pyright: ignore[reportAttributeAccessIssue]
    return calls
