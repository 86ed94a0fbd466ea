"""Cross-validation: blocks of years left out in turn, forecast by models that never saw them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from gridcast.calibrating import fit_run
from gridcast.config import Config, dump_config
from gridcast.drafts import write_text
from gridcast.errors import ConfigError
from gridcast.frames.splits import Splits, blocked_folds
from gridcast.frames.trailing import steps_of
from gridcast.labelling import label_forecast
from gridcast.opening import Source, open_source
from gridcast.output import clear, writing_to
from gridcast.preparation import Setup, complete_series, prepare
from gridcast.report.contents import BY_BLOCK, SETTINGS
from gridcast.run import Run
from gridcast.sources.netcdf import write_netcdf
from gridcast.stages import stage
from gridcast.timeaxis import TimeAxis, label
from gridcast.trained import said, write_scores
from gridcast.verification.block_scores import block_scores
from gridcast.verification.hindcast import Hindcast, joined
from gridcast.verification.scores import score

_log = logging.getLogger("gridcast")


def cross_validate(
    config: Config, dataset: xr.Dataset | xr.DataArray | None = None
) -> list[xr.Dataset]:
    """Train once for each block of years, on the others, and score all blocks together.

    Blocks are of whole years, from the first training to the last test date of the config. Around
    the block that is forecast, and the next one, which is the validation, `crossval.buffer` steps
    belong to nobody.

    Args:
      dataset: a series in memory to use in place of `data`.

    Returns:
      The scores of each variable that is forecast, over all years. They, those of each block, the
      out-of-fold forecasts of each block and a report are written into `output.directory`.

    Raises:
      ConfigError, DataError: as `train`; or too few years for the folds.
    """
    from gridcast.report.page import report_run  # matplotlib

    require_unlearned(config, "a cross-validation")
    config = config.with_directory("runs/crossval")
    directory = Path(str(config.output.directory))
    with writing_to(directory):
        source = open_source(config, dataset)
        _, axis = complete_series(config, source)
        blocks = folds(config, axis)
        for path in directory.glob("hindcast_fold*.nc"):  # an earlier run may have had more folds
            path.unlink()
        write_text(directory / SETTINGS, dump_config(config))
        made = []
        for number, splits in enumerate(blocks, 1):
            dates = axis.times[splits.test]
            _log.info(
                "fold %d of %d: forecasts of %s to %s",
                number,
                config.crossval.folds,
                label(dates[0]),
                label(dates[-1]),
            )
            run, hindcast = forecast_block(config, source, splits, directory / f"fold{number}")
            made.append(hindcast)
            labelled = label_forecast(
                run.fields, hindcast.made, axis, hindcast.initial, run.attributes
            )
            write_netcdf(labelled, directory / f"hindcast_fold{number}.nc")
        scores = score(joined(made), run.fields, _about(run, config), config.verification)
        write_scores(scores, directory)
        years = [" to ".join(label(axis.times[s.test][k])[:4] for k in (0, -1)) for s in blocks]
        write_netcdf(
            block_scores(made, years, run.fields, _about(run, config)), directory / BY_BLOCK
        )
        with stage("report"):
            report_run(directory)
        _log.info("%s\nout-of-fold forecasts of all years are in %s", said(scores), directory)
    return scores


def require_unlearned(config: Config, where: str) -> None:
    """Raise where training starts from weights that may know what they are to forecast.

    Raises:
      ConfigError: `train.start_from`.
    """
    if config.train.start_from is not None:
        raise ConfigError(
            f"train.start_from: {config.train.start_from} may have learned from the years that are "
            f"left out\n  fix: no train.start_from in {where}"
        )


def folds(config: Config, axis: TimeAxis) -> list[Splits]:
    """The splits of each fold."""
    buffer = config.crossval.buffer or config.frames.inputs + config.frames.leads
    return blocked_folds(axis, config.splits, config.crossval.folds, buffer)


def forecast_block(
    config: Config, source: Source, splits: Splits, directory: Path
) -> tuple[Run, Hindcast]:
    """A run trained on the training dates of `splits`, and its forecasts of their test dates."""
    with writing_to(directory):
        setup = prepare(config, source, splits)
        require_apart(setup)
        clear(directory)
        run = fit_run(setup, directory, resume=False)
    return run, run.hindcast_of(setup.series, setup.axis, splits)


def _about(run: Run, config: Config) -> dict[str, str]:
    count = config.crossval.folds
    source = f"{run.attributes['source']}, {count} folds, each forecast by models of the others"
    return run.attributes | {"source": source}


def require_apart(setup: Setup) -> None:
    """Raise where the mean of the years before carries test values into the training after them.

    Raises:
      ConfigError: a training date whose `frames.trailing` reaches into the test block.
    """
    years, steps = setup.config.frames.trailing, setup.axis.steps
    if years is None:
        return
    reach = steps_of(years, setup.axis)
    test, train = steps[setup.splits.test], steps[setup.splits.train]
    before = np.searchsorted(test, train, side="right") - 1
    if ((before >= 0) & (train - test[before] < reach)).any():
        raise ConfigError(
            f"frames.trailing: {years} reaches {reach} steps back, from training dates into the "
            f"block that is left out before them\n  fix: crossval.buffer: {reach}, no "
            "frames.trailing, or for gridcast tune: tune.how: ahead"
        )
