"""The main job: train, judge, forecast; and what a config asks for, in words."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from flax import nnx

from gridcast.accelerator import device_name
from gridcast.calibrating import fit_run
from gridcast.config import Config, config_from_dict, dump_config, load_config
from gridcast.drafts import write_text
from gridcast.errors import ConfigError
from gridcast.fitting import compile_setup
from gridcast.opening import IN_MEMORY, open_source
from gridcast.output import clear, writing_to
from gridcast.preparation import Setup, prepare
from gridcast.report.member_indices import member_indices
from gridcast.report.observed import observations
from gridcast.run import Run
from gridcast.sources.netcdf import write_netcdf
from gridcast.stages import stage, timed
from gridcast.timeaxis import label
from gridcast.trained import said, write_scores
from gridcast.training.loop import STEPS_PER_CALL
from gridcast.training.memory import step_memory

_log = logging.getLogger("gridcast")


def train(
    config: str | Path | Config | None = None,
    dataset: xr.Dataset | xr.DataArray | None = None,
    *,
    resume: bool = False,
    **sections: Mapping[str, Any],
) -> Run:
    """Train, judge on the test dates and forecast from the last date.

    Args:
      config: a YAML file, a Config, or None: then the sections are given by keyword.
      dataset: a series in memory to use in place of `data`.
      resume: go on from the run's last checkpoint.
      **sections: `data`, `frames`, `splits`, `model`, ... as mappings, as in a YAML file.

    Returns:
      The run, with the weights that were best on validation.

    Raises:
      ConfigError, DataError: what was found, what was expected, and the nearest fix.

    Example:
      >>> import tempfile
      >>> import gridcast
      >>> sst, relief = gridcast.simulated_series("ocean", years=15, shape=(9, 18))
      >>> run = gridcast.train(
      ...     dataset=sst,
      ...     frames={"inputs": 3, "leads": 3},
      ...     splits={"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1964]},
      ...     model={"name": "conv_lstm", "hidden": [4]},
      ...     train={"epochs": 1},
      ...     output={"directory": tempfile.mkdtemp()},
      ... )
      >>> (run.directory / "forecast.nc").is_file()
      True
    """
    if config is None:
        settings = dict(sections)
        if dataset is not None:
            data = dict(settings.get("data", {}))
            settings["data"] = (
                data if {"name", "path"} & data.keys() else {"path": IN_MEMORY} | data
            )
        config = config_from_dict(settings)
    elif sections:
        raise ConfigError("give a config or its sections by keyword, not both")
    elif not isinstance(config, Config):
        path = Path(config)
        config = load_config(path).with_directory(f"runs/{path.stem}")
    return run_training(config, resume=resume, dataset=dataset)


def run_training(
    config: Config, *, resume: bool = False, dataset: xr.Dataset | xr.DataArray | None = None
) -> Run:
    """The main job, with all its files in `output.directory`."""
    from gridcast.forecast_plots import plot_forecast  # matplotlib: a forecast needs none
    from gridcast.report.page import report_run

    began = time.perf_counter()
    config = config.with_directory("runs/default")
    directory = Path(str(config.output.directory))
    with writing_to(directory, resume=resume), timed() as times:
        setup = prepare(config, open_source(config, dataset))
        _log.info("%s", _describe(setup))
        if not resume:
            clear(directory)
        write_text(directory / "config.yaml", dump_config(config))
        with stage("training"):
            run = fit_run(setup, directory, resume=resume)
        _log.info("trained in %.0f s on %s", time.perf_counter() - began, device_name())
        source = setup.source
        scores, hindcast = run.verify(source)
        write_netcdf(hindcast, directory / "hindcast.nc")
        write_scores(scores, directory)
        forecast = run.forecast(source)
        write_netcdf(forecast, directory / "forecast.nc")
        with stage("pictures"):
            plot_forecast(run.observed(source), forecast, directory / "forecast.png")
        write_netcdf(observations(run, source, hindcast, forecast), directory / "observations.nc")
        if (indices := member_indices(run, source, hindcast)) is not None:
            write_netcdf(indices, directory / "indices.nc")
        _log.info("%s", said(scores))
        with stage("report"):
            report_run(directory)
    _log.info("all files are in %s, after %.0f s", directory, time.perf_counter() - began)
    _log.info("%s", times)
    return run


def dry_run(config: Config) -> str:
    """Check the config and the data, and say what training would do."""
    setup = prepare(config, open_source(config))
    stepper, series, weights, _ = compile_setup(setup)
    state = jax.eval_shape(stepper.start, weights)
    part = next(series.stretches(setup.epoch(0), 0, STEPS_PER_CALL))
    memory = step_memory(stepper.run, state, part.series, part.batches, 0, 1)
    lines = [_describe(setup), *([] if memory is None else [str(memory)])]
    lines.append(f"would write to {config.output.directory}; nothing was written")
    return "\n".join(lines)


def summary(config: Config) -> str:
    """The layers of the configured model, their output shapes for one window, and parameters."""
    return repr(prepare(config, open_source(config)).model())


def _describe(setup: Setup) -> str:
    """What is trained on what, in a few lines."""
    config, axis = setup.config, setup.axis
    shapes = nnx.state(nnx.eval_shape(setup.model), nnx.Param)  # no weights are made for a count
    count = sum(p.size for p in jax.tree.leaves(shapes))
    classes = setup.fields.classes
    lines = [
        f"data: {setup.source.origin}",
        f"  {', '.join(f'{t.variable} [{t.units}]' for t in setup.fields.inputs)}, "
        f"{axis.times.size} dates, "
        f"{label(axis.times[0])} to {label(axis.times[-1])}, every {axis.frequency}"
        + (f"; gaps: {'; '.join(axis.gaps[:3])}" if axis.gaps else ""),
        f"grid: {setup.fields.inputs[0].grid}",
        f"forecast: {', '.join(target.variable for target in setup.fields.targets)}"
        + (" of the box" if setup.fields.whole else "")
        + (f" in classes: {', '.join(classes.labels)}" if classes is not None else ""),
    ]
    windows = {"train": setup.train_windows, "validation": setup.validation_windows}
    for name in ("train", "validation", "test"):
        dates = axis.times[getattr(setup.splits, name)]
        count_windows = f", {windows[name].size} windows" if name in windows else ""
        lines.append(
            f"{name}: {label(dates[0])} to {label(dates[-1])}, {dates.size} dates{count_windows}"
        )
    frames = config.frames
    lines.append(
        f"model: {config.model.name} over {config.model.base}, {frames.inputs} inputs, "
        f"{frames.leads} leads, {count:,} parameters"
        + (f"; static layers: {', '.join(setup.layer_names)}" if setup.layer_names else "")
    )
    return "\n".join(lines)
