"""What `gridcast export` writes: a program, its grid, what it expects and gives, and checksums."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gridcast.accelerator import compiler_options
from gridcast.cf import described, dims_of
from gridcast.drafts import drafted_directory, sha256, write_text
from gridcast.errors import ConfigError, DataError
from gridcast.exporting.dates import Seasons
from gridcast.exporting.program import PLATFORMS, export_program, history
from gridcast.output import EXPORT
from gridcast.run import Run

PROGRAM, GRID, ABOUT, SUMS = "forecast.jax", "grid.npz", "about.json", "sha256.json"
# Of the program's arguments and the files' meaning.
FORMAT = 1


def export_run(run: Run, directory: str | Path | None = None) -> Path:
    """Write a run's forecast as a program that needs jax alone.

    Args:
      directory: new, empty, or an earlier export, which is replaced; default: `export` in the
        directory of the run.

    Returns:
      The directory, with `forecast.jax` (see `export_program`), `grid.npz` (lat, lon and the masks
      of what is taken and given), `about.json` and `sha256.json`.

    Raises:
      ConfigError: flatbuffers is not installed, or a program cannot hold what the run does.
      DataError: the directory holds something else, or cannot be written.
    """
    require_flatbuffers()
    directory = Path(directory) if directory is not None else run.directory / EXPORT
    _require_free(directory)
    seasons = _seasons(run)
    program = export_program(run, seasons).serialize()
    fields = run.fields
    with drafted_directory(directory) as draft:
        (draft / PROGRAM).write_bytes(program)
        np.savez(
            draft / GRID,
            allow_pickle=False,
            lat=fields.inputs[0].grid.lat,
            lon=fields.inputs[0].grid.lon,
            mask=np.stack([one.grid.mask for one in fields.inputs], axis=-1),
            target_mask=fields.target_mask,
        )
        write_text(draft / ABOUT, json.dumps(_about(run, seasons), indent=1))
        sums = {name: sha256(draft / name) for name in (PROGRAM, GRID, ABOUT)}
        write_text(draft / SUMS, json.dumps(sums, indent=1))
    return directory


def require_flatbuffers() -> None:
    """
    Raises:
      ConfigError: the package that jax writes and reads programs with is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError(
            "exported programs are written and read with the package flatbuffers, which is not "
            "installed\n  fix: pip install 'gridcast[export]', or pip install flatbuffers"
        )


def _require_free(directory: Path) -> None:
    if not directory.exists():
        return
    found = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else ["a file"]
    if found and found != sorted((PROGRAM, GRID, ABOUT, SUMS)):
        raise DataError(
            f"{directory} is not empty: {', '.join(found[:5])}\n"
            "  expected: a new directory, or an earlier export\n  fix: another --output"
        )


def _seasons(run: Run) -> Seasons:
    """
    Raises:
      ConfigError: a program cannot hold what the run does.
    """
    config, first = run.config, run.fields.inputs[0]
    transforms = (*run.fields.inputs, *run.fields.targets)
    refused = {
        "frames.patches": config.frames.patches is not None,
        "target.mean_over": config.target.mean_over is not None,
        "data.transform: quantile": any(one.skew.kind == "quantile" for one in transforms),
    }
    for setting, found in refused.items():
        if found:
            raise ConfigError(
                f"a run with {setting} cannot be exported\n  expected: whole grids of values in, "
                "the same grid out, and no quantiles\n"
                f"  fix: forecast with gridcast itself (gridcast forecast {run.directory}), or "
                f"train without {setting}"
            )
    unit = first.climatology.unit
    if unit == "day" and run.clock is None:
        raise ConfigError(
            f"{run.directory} does not say which calendar its days are of: an earlier version of "
            "gridcast wrote it\n  fix: train again"
        )
    return Seasons.of(unit, first.every, *(run.clock or ("proleptic_gregorian", 0)))


def _about(run: Run, seasons: Seasons) -> dict[str, Any]:
    config, fields = run.config, run.fields
    grid, frames = fields.inputs[0].grid, history(run, seasons)
    labels = None if fields.classes is None else fields.classes.labels
    dims = ["batch", "lead", *dims_of(labels)[2:]]
    return {
        "format": FORMAT,
        **run.attributes,
        "call": "forecast(values, date) of forecast.jax: see values, date and forecast",
        "values": {
            "dtype": "float32",
            "dims": ["batch", "frame", "lat", "lon", "variable"],
            "shape": ["batch", frames, *grid.shape, len(fields.inputs)],
            "meaning": "the frames up to the initial date, the oldest first; off the mask anything",
            "variables": [
                {
                    "name": one.variable,
                    "units": one.units,
                    "lowest": 0.0 if one.skew.kind == "log1p" else None,
                    "attributes": one.attributes,
                }
                for one in fields.inputs
            ],
            "may_lack": config.frames.missing == "mask",
            "inputs": config.frames.inputs,
            "least": config.frames.least if config.frames.missing == "mask" else None,
        },
        "date": {
            "dtype": "int32",
            "dims": ["batch", "year, month, day"],
            "shape": ["batch", 3],
            "meaning": "the initial date: that of the last frame",
        },
        "forecast": {
            "dtype": "float32",
            "dims": dims,
            "leads": config.frames.leads,
            "variables": described(fields),
            "categories": labels,
            "meaning": "by name; lead k is k steps after the initial date; NaN off target_mask",
        },
        "step": {
            "unit": seasons.unit,
            "every": seasons.every,
            "clock": run.clock,
        },
        "grid": {"about": str(grid), "digest": grid.digest, "file": GRID},
        "platforms": PLATFORMS,
        "compiler_options": {"cpu": compiler_options() or {}},
        "versions": {name: version(name) for name in ("gridcast", "jax", "jaxlib", "numpy")},
    }
