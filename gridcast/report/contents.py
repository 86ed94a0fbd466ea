"""What a run directory holds, opened for its report; nothing else is read."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridcast.config import Config, dump_config, load_config
from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.netcdf import opened
from gridcast.verification.tables import LEAD, headline

# Of a cross-validation: its settings, and the scores of each block of years.
SETTINGS, BY_BLOCK = "crossval.yaml", "scores_by_block.nc"
_TITLE = "scores of forecasts of "
_SCORES = re.compile(r"scores(?:_(\d+))?\.nc")
_PATH = re.compile(r"(?<![\w.~:])/(?:[^\s/'\",;]+/)+([^\s/'\",;]*)")


@dataclass(frozen=True)
class Contents:
    """The files of a run; data sets are read where they are used.

    Attributes:
      name: of the directory, without what is above it.
      scores: one for each target.
      hindcast, forecast, observations: None where there is no such file.
      metrics: lines of the training log.
      indices: what each member forecasts; None where there is no such file.
      blocks: the scores of each block of years; of a cross-validation only.
    """

    name: str
    config: Config
    scores: list[xr.Dataset]
    hindcast: xr.Dataset | None
    forecast: xr.Dataset | None
    observations: xr.Dataset | None
    metrics: list[dict[str, Any]]
    indices: xr.Dataset | None = None
    blocks: xr.Dataset | None = None

    @cached_property
    def source(self) -> str:
        """Model and data in one line."""
        return self.public(str(self.scores[0].attrs.get("source", "")))

    @property
    def simulated(self) -> bool:
        return "simulated" in self.source

    @property
    def tested(self) -> str:
        """The dates of the test."""
        if self.blocks is None:
            return str(self.config.splits.test)
        years = self.blocks["block"].values.tolist()
        return f"{', '.join(years)}: each block by a model of the other years"

    @property
    def settings(self) -> str:
        """The whole configuration as YAML."""
        return self.public(dump_config(self.config))

    def public(self, text: str) -> str:
        """Text without absolute paths: of each the last part is left."""
        for path in sorted(_absolute(self.config.model_dump()), key=len, reverse=True):
            text = text.replace(path, Path(path).name)
        return _PATH.sub(r"\1", text)

    def subjects(self) -> list[Subject]:
        return [Subject(self, scores) for scores in self.scores]


@dataclass(frozen=True)
class Subject:
    """One target of one run: what a column of the report is about."""

    run: Contents
    scores: xr.Dataset

    @property
    def variable(self) -> str:
        return str(self.scores.attrs["title"]).removeprefix(_TITLE)

    @property
    def step(self) -> str:
        """One step in words: "month", "6 hours"."""
        return str(self.scores["lead"].attrs["long_name"]).removeprefix(LEAD)

    @property
    def classes(self) -> bool:
        return headline(self.scores)[0] == "rps"

    @property
    def units(self) -> str:
        if self.run.observations is not None and self.variable in self.run.observations:
            return str(self.run.observations[self.variable].attrs.get("units", "1"))
        return str(self.scores[headline(self.scores)[0]].attrs.get("units", "1"))

    @property
    def single(self) -> bool:
        """Whether it is a single series, not a field."""
        return self.grid.mask.size == 1

    @cached_property
    def grid(self) -> Grid:
        """Cells with scores."""
        maps = self.scores["rps_map" if self.classes else "rmse_map"]
        known = np.asarray(np.isfinite(maps.values).any(axis=(0, 1)))
        return Grid(maps["lat"].values, maps["lon"].values, known)

    @property
    def title(self) -> str:
        return self.run.name if len(self.run.scores) == 1 else f"{self.run.name}: {self.variable}"


@contextlib.contextmanager
def contents(directory: str | Path) -> Iterator[Contents]:
    """Open the files of a run.

    Raises:
      DataError: no run is there, or a file is damaged.
      ConfigError: its config.yaml is not one of this version.
    """
    directory = Path(directory)
    numbered = {
        int(found[1] or 1): path
        for path in directory.glob("scores*.nc")
        if (found := _SCORES.fullmatch(path.name))
    }
    settings = directory / SETTINGS
    if not settings.is_file():
        settings = directory / "config.yaml"
    if not numbered or not settings.is_file():
        raise DataError(
            f"{directory}: no run with scores\n  expected: config.yaml and scores.nc\n"
            "  fix: the directory of a run that has ended, for example runs/sst"
        )
    config = load_config(settings)
    with contextlib.ExitStack() as stack:

        def held(name: str) -> xr.Dataset | None:
            path = directory / name
            return stack.enter_context(opened(path)) if path.is_file() else None

        scores = [stack.enter_context(opened(numbered[k])).load() for k in sorted(numbered)]
        yield Contents(
            directory.resolve().name,
            config,
            scores,
            held("hindcast.nc"),
            held("forecast.nc"),
            held("observations.nc"),
            _metrics(directory / "metrics.jsonl"),
            held("indices.nc"),
            held(BY_BLOCK),
        )


def _metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _absolute(values: Any) -> Iterator[str]:
    """The texts of a config that are absolute paths."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _absolute(value)
    elif isinstance(values, str) and Path(values).is_absolute():
        yield values
