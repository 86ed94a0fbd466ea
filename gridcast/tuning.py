"""The choice of settings by validation: each trial forecasts years that it has not seen."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridcast.config import Config, dump_config
from gridcast.config.schema import OutputConfig
from gridcast.crossval import forecast_block, require_unlearned
from gridcast.drafts import drafted, write_text
from gridcast.errors import ConfigError, DataError, TrainingError
from gridcast.judging import Years, errors, measure, moved, reference_of
from gridcast.locks import alone_in
from gridcast.opening import open_source
from gridcast.preparation import complete_series
from gridcast.trials import SECTIONS, Trial, most_inputs, trials_of, word
from gridcast.verification.hindcast import MODEL

_log = logging.getLogger("gridcast")


def tune(config: Config, dataset: xr.Dataset | xr.DataArray | None = None) -> xr.Dataset:
    """Try the settings of `tune.search` on years before those of the test.

    The series is cut before the test dates, and with `tune.how: blocks` before the validation dates
    too, ahead of all else. Each trial is trained once for each fold (`judging.folds_of`). Its score
    is the mean over folds and leads of its mean square error relative to that of damped persistence
    with the settings of the config, in the same fold; of distributions the CRPS, of classes the
    RPS, relative to climatology's. Less is better, 1 is no better than the reference.

    Args:
      dataset: a series in memory to use in place of `data`.

    Returns:
      Over `trial`, best first (numbered as tried, 1: the config's own settings): score, seconds,
      each setting as text; over (trial, fold) fold_score, over (trial, lead) ratio. The score is
      infinite where training broke off. In `output.directory` are the same as tune.csv, the whole
      experiment with the best settings as best.yaml, and trials/, by which a search that is
      started again skips what has been tried on the same data.

    Raises:
      ConfigError: as `trials_of`, or weights that may know the years of the folds.
      DataError: as `train`, or too few years for the folds.
      TrainingError: no trial could be trained.
    """
    config = config.with_directory("runs/tune")
    directory = Path(str(config.output.directory))
    trials = trials_of(config)
    for trial in trials:
        require_unlearned(trial.config, "a search of settings")
    if any(getattr(trial.config.model, "encoder_from", None) for trial in trials):
        _log.warning("the encoder that training starts from may have seen the years of the folds")
    with alone_in(directory):
        inputs = most_inputs(config)
        opened: dict[str, Years] = {}
        results = []
        for number, trial in enumerate(trials, 1):
            _log.info("trial %d of %d: %s", number, len(trials), trial)
            key = trial.config.model_dump_json(include={"data", "static"})
            if key not in opened:
                opened[key] = Years.of(config, open_source(trial.config, dataset), inputs)
            results.append(_result(trial, opened[key], directory / "trials"))
        if all(result.model is None for result in results):
            raise TrainingError(f"no trial could be trained: {results[0].failure}")
        made = _labelled(config, trials, results)
        best = trials[int(made["trial"][0]) - 1]
        _write(directory, made, _best_text(config, best, made))
        _log.info("the best settings are in %s", directory / "best.yaml")
    return made


def table(made: xr.Dataset) -> str:
    """The trials as lines of text, best first."""
    leads = made["lead"].values
    shown = np.unique(np.linspace(0, leads.size - 1, 4).round().astype(int))
    heads = ["score", *(f"lead {leads[i]}" for i in shown), "seconds"]
    lines = ["".join(f"{head:>9}" for head in heads) + "  settings"]
    for k, number in enumerate(made["trial"].values):
        one = made.isel(trial=k)
        numbers = [float(one["score"]), *one["ratio"].values[shown]]
        cells = ["failed" if np.isinf(x) else f"{x:.4f}" for x in numbers]
        settings = ", ".join(f"{key}={one[key].item()}" for key in made.attrs["settings"])
        mine = "  (the config's own)" if number == 1 else ""
        seconds = f"{float(one['seconds']):.0f}"
        lines.append("".join(f"{cell:>9}" for cell in [*cells, seconds]) + f"  {settings}{mine}")
    lines.append(f"score: {made['score'].attrs['long_name']}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Result:
    """What came of a trial.

    Attributes:
      model, reference: [fold][target][lead] mean errors; None where training broke off.
      failure: why it did.
    """

    seconds: float
    model: list[list[list[float]]] | None = None
    reference: list[list[list[float]]] | None = None
    failure: str | None = None


def _result(trial: Trial, years: Years, directory: Path) -> _Result:
    """Judge a trial, or read what was kept of it."""
    settings = trial.config.model_dump_json(include={"target", *SECTIONS})
    key = hashlib.sha256(f"{years.digest} {settings}".encode()).hexdigest()[:16]
    kept = directory / f"{key}.json"
    if (found := _read(kept)) is not None:
        _log.info("  tried before: %s", kept)
        return found
    began = time.perf_counter()
    model, reference, failure = [], [], None
    name = reference_of(trial.config)
    try:
        for number, fold in enumerate(years.folds, 1):
            _, axis = complete_series(trial.config, years.source)
            splits = moved(fold, years.axis, axis)
            run, made = forecast_block(
                trial.config, years.source, splits, directory / key / f"fold{number}"
            )
            model.append(errors(made, run.fields, MODEL).tolist())
            reference.append(errors(made, run.fields, name).tolist())
    except TrainingError as error:
        failure = str(error).splitlines()[0]
        _log.warning("  failed: %s", failure)
    except (ConfigError, DataError) as error:
        raise type(error)(f"trial {trial}: {error}") from error
    seconds = round(time.perf_counter() - began, 1)
    if failure is None:
        result = _Result(seconds, model, reference)
    else:
        result = _Result(seconds, failure=failure)
    write_text(kept, json.dumps({"settings": trial.chosen, **vars(result)}, indent=1))
    shutil.rmtree(directory / key)
    return result


def _read(path: Path) -> _Result | None:
    try:
        found = json.loads(path.read_text())
        return _Result(*(found[k] for k in ("seconds", "model", "reference", "failure")))
    except (OSError, ValueError, KeyError):  # not tried, or not by this version
        return None


def _labelled(config: Config, trials: Sequence[Trial], results: Sequence[_Result]) -> xr.Dataset:
    """The table, from mean errors relative to the reference of the first trial that has them.

    One reference for all: that of a trial has its climatology, and a poor one would flatter it.
    """
    scale = np.array(next(r.reference for r in results if r.reference is not None))
    ratios = np.full((len(results), *scale.shape), np.inf)
    for ratio, result in zip(ratios, results, strict=True):
        if result.model is not None:
            np.divide(np.array(result.model), scale, out=ratio, where=scale > 0)
    ratios = ratios.mean(axis=2)  # over targets
    score = ratios.mean(axis=(1, 2))
    order = np.argsort(score, kind="stable")
    rule = (
        f"mean over {len(scale)} folds ({config.tune.how}) and {scale.shape[-1]} leads of "
        f"{measure(config).upper()} / that of {reference_of(config).replace('_', ' ')}; "
        "less is better"
    )
    keys = list(config.tune.search)
    texts = {key: [word(trial.chosen[key]) for trial in trials] for key in keys}
    variables: dict[str, Any] = {
        "score": ("trial", score, {"units": "1", "long_name": rule}),
        "fold_score": (("trial", "fold"), ratios.mean(axis=2), {"units": "1"}),
        "ratio": (("trial", "lead"), ratios.mean(axis=1), {"units": "1"}),
        "seconds": ("trial", [result.seconds for result in results], {"units": "s"}),
        **{key: ("trial", np.array(text, object)) for key, text in texts.items()},
    }
    coords = {
        "trial": np.arange(1, len(trials) + 1),
        "fold": np.arange(1, len(scale) + 1),
        "lead": np.arange(1, scale.shape[-1] + 1),
    }
    return xr.Dataset(variables, coords, {"settings": keys}).isel(trial=order)


def _best_text(config: Config, best: Trial, made: xr.Dataset) -> str:
    whole = best.config.model_copy(update={"tune": config.tune, "output": OutputConfig()})
    own = float(made["score"].sel(trial=1))
    rule = str(made["score"].attrs["long_name"])
    return (
        f"# The best of {made.sizes['trial']} trials of `gridcast tune`: score "
        f"{float(made['score'][0]):.4f}, the settings it began with: {own:.4f}.\n"
        f"# Score: {rule}.\n{dump_config(whole)}"
    )


def _write(directory: Path, made: xr.Dataset, best: str) -> None:
    keys = made.attrs["settings"]
    with drafted(directory / "tune.csv") as draft, draft.open("w", newline="") as file:
        lines = csv.writer(file)
        leads = [f"ratio_lead_{lead}" for lead in made["lead"].values]
        lines.writerow(["trial", *keys, "score", *leads, "seconds"])
        for k in range(made.sizes["trial"]):
            one = made.isel(trial=k)
            numbers = [float(one["score"]), *one["ratio"].values.tolist()]
            cells = [f"{number:.6g}" for number in numbers]
            settings = [one[key].item() for key in keys]
            lines.writerow([int(one["trial"]), *settings, *cells, float(one["seconds"])])
    write_text(directory / "best.yaml", best)
