"""Numerics: losses and gradients that are not finite, overflow, forecasts that are no numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "numerics"
VALUES = (np.nan, np.inf, -np.inf, *(10.0**power for power in range(4, 39, 2)))
# Settings that no training survives.
WILD = (
    ("train.learning_rate=1.0e+30",),
    ("train.learning_rate=1.0e+10", "train.clip=1.0e+30"),
    ("train.learning_rate=1.0e+20", "train.loss=crps"),
)
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "ConvLSTM": {},
    "batch norm": {
        "model": {"name": "cnn_lstm", "channels": [3], "latent": 4, "hidden": [4], "norm": "batch"}
    },
    "members, averaged": {"train": {"members": 2, "average": 0.9, "l2": 1e-4}},
    "a distribution": {"train": {"loss": "crps"}},
}


def run(folder: Path) -> Outcome:
    """Values of all sizes in the data of one step; then runs, checkpoints and forecasts."""
    tally = Tally()
    for number, (kind, sections) in enumerate(KINDS.items()):
        steps(tally, kind, small.write_experiment(folder / f"steps{number}", **sections))
    config = small.write_experiment(folder / "experiment", train={"epochs": 2})
    _runs(tally, folder, config)
    _half_precision(tally, config)
    return tally.outcome


def steps(tally: Tally, kind: str, path: Path) -> None:
    """A step whose data hold the value is not taken, or leaves all finite; the next one is."""
    import jax
    import jax.numpy as jnp

    from gridcast.config import load_config
    from gridcast.fitting import compile_setup
    from gridcast.opening import open_source
    from gridcast.preparation import prepare

    config = load_config(path)
    setup = prepare(config, open_source(config))
    stepper, series, weights, _ = compile_setup(setup)
    batches = jnp.asarray(setup.epoch(0))
    row, column = np.argwhere(setup.fields.target_mask[..., 0])[7]
    frame = int(np.asarray(batches).reshape(-1, batches.shape[-2], batches.shape[-1])[0, 0, 0])

    def leaves(tree: Any) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]

    def bits(state: Any) -> list[bytes]:
        return [leaf.tobytes() for leaf in leaves(state._replace(step=jnp.zeros((), jnp.int32)))]

    def begun() -> Any:
        # The learning rate of the first step is 0: some later step is the one to skip.
        copied = jax.tree.map(jnp.copy, weights)  # it is given away
        return stepper.run(stepper.start(copied), series, batches, 1, 4)[0]

    def step(state: Any, value: float | None, first: int) -> tuple[Any, np.ndarray]:
        values = series.frames.values
        if value is not None:
            values = values.at[frame, row, column, 0].set(value)
        broken = series._replace(frames=series.frames._replace(values=values))
        state, log = stepper.run(state, broken, batches, first, first + 1)
        return state, np.asarray(log)[first]

    before, skipped = bits(begun()), 0
    state, log = step(begun(), None, 0)
    moved = np.isfinite(log).all() and bits(state) != before
    tally.control(None if moved else f"{kind}: a step without a fault is not taken")
    for value in VALUES:

        def judge(value: float = value) -> str | None:
            nonlocal skipped
            state, log = step(begun(), value, 0)
            if not all(np.isfinite(leaf).all() for leaf in leaves(state)):
                return "the state is not finite"
            if int(state.step) != 4:
                return f"{int(state.step)} steps are counted"
            after, taken = bits(state), bool(np.isfinite(log).all())
            if taken:
                return None if after != before else "a step that was taken changes nothing"
            skipped += 1
            if stepper.members == 1 and after != before:
                return "a step that was not taken changes something"
            expected = bits(step(begun()._replace(step=jnp.asarray(4, jnp.int32)), None, 1)[0])
            found = bits(step(state, None, 1)[0])
            return None if stepper.members > 1 or found == expected else "the next step is another"

        tally.check(f"{kind}, {value:g} in a step", judge)
    tally.control(None if skipped > 3 else f"{kind}: only {skipped} steps were not finite")


def _runs(tally: Tally, folder: Path, config: Path) -> None:
    from gridcast.training import checkpoints

    def finite(directory: Path) -> str | None:
        for path in checkpoints.saved(directory / "checkpoints"):
            for group in checkpoints.TRAINED:
                for name, array in checkpoints.load(path).arrays.get(group, {}).items():
                    if not np.isfinite(array).all():
                        return f"{path.name}: {group}{name} is not finite"
        return None

    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    tally.control(said[-300:] if code else finite(whole))
    for number, options in enumerate(WILD):

        def ends(at: Path = folder / f"wild{number}", options: tuple = options) -> str | None:
            code, said = small.command("train", config, f"output.directory={at}", *options)
            results = sorted(p.name for p in at.glob("*.nc"))
            return (
                small.refused(code, said, "no longer finite")
                or finite(at)
                or _valid_lines(at / "metrics.jsonl")
                or (f"{results} were written" if results else None)
                or (None if checkpoints.saved(at / "checkpoints") else "no weights are left")
            )

        tally.check(" ".join(options), ends)
    spoiled_weights(tally, folder, whole)


def spoiled_weights(tally: Tally, folder: Path, whole: Path) -> None:
    """What is not finite is not saved, and what was saved all the same gives no forecast.

    Args:
      whole: a run with a checkpoint.
    """
    from gridcast.errors import TrainingError
    from gridcast.training import checkpoints

    saved = checkpoints.load_newest(whole / "checkpoints")
    for group in ("weights", "best", "optimizer"):
        for value in (np.nan, np.inf):
            bad = _spoiled(saved, group, value)
            at = folder / f"{group}-{value}"
            try:
                checkpoints.save(at, bad)
                wrong = "saved"
            except TrainingError:
                wrong = "a folder is left" if at.exists() and list(at.iterdir()) else None
            tally.case(f"a checkpoint with {value:g} in {group}", wrong)
    for value in (np.nan, np.inf, 1e30):
        copy = folder / f"spoiled-{value:g}"
        shutil.copytree(whole, copy)
        with mock.patch.object(checkpoints, "_require_finite"):
            checkpoints.save(copy / "checkpoints", _spoiled(saved, "best", value, all_of=True))
        before = small.files(copy)
        for command in (["forecast", copy], ["evaluate", copy]):
            code, said = small.command(*command)
            what = "standard deviations" if np.isfinite(value) else "not finite"
            wrong = small.refused(code, said, what)
            changed = None if small.files(copy) == before else "files were written"
            tally.case(f"{command[0]} with weights of {value:g}", wrong or changed)


def _spoiled(saved: Any, group: str, value: float, *, all_of: bool = False) -> Any:
    """A checkpoint with one number of a group spoiled, or all."""
    arrays = {name: dict(named) for name, named in saved.arrays.items()}
    floats = [n for n, array in arrays[group].items() if array.dtype.kind == "f"]
    for name in floats if all_of else floats[-1:]:
        array = arrays[group][name].copy()
        array.reshape(-1)[slice(None) if all_of else -1] = value
        arrays[group][name] = array
    return replace(saved, arrays=arrays)


def _valid_lines(path: Path) -> str | None:
    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=refuse)
    except ValueError as error:
        return f"{path.name} is not JSON: {error}"
    return None


def _half_precision(tally: Tally, config: Path) -> None:
    """Data in half precision: what overflows is refused, the rest is taken for what it is."""
    import ml_dtypes

    from gridcast.errors import DataError
    from gridcast.sources.netcdf import open_frames

    series = open_frames(config.with_name("ocean.nc"))
    half = series.values.astype(np.float16)
    taken = open_frames(series.copy(data=half)).values
    same = np.array_equal(taken, half.astype(np.float32), equal_nan=True)
    tally.control(None if same else "float16: other values")
    with np.errstate(over="ignore"):
        large = np.where(half > np.nanmax(half) - 1, half * np.float16(40_000), half)
    # numpy has no bfloat16 of its own, and xarray takes it for no number.
    for dtype, data in (("float16", large), ("bfloat16", half.astype(ml_dtypes.bfloat16))):
        try:
            open_frames(series.copy(data=data))
            wrong = "taken"
        except DataError:
            wrong = None
        tally.case(f"{dtype} that cannot be taken", wrong)
