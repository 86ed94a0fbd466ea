"""What a run starts from: the data, their splits, all that is fitted before training, the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from gridcast.config import Config
from gridcast.errors import ConfigError, DataError
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform
from gridcast.frames.windows import shuffled, whole_windows
from gridcast.models import ForecastModel, build_model
from gridcast.references import BASES, Damping, TrainingSeries
from gridcast.sources import catalog
from gridcast.sources.netcdf import open_frames
from gridcast.sources.simulated import FIRST_YEAR, simulated_series
from gridcast.sources.static import open_elevation, static_layers
from gridcast.timeaxis import TimeAxis, label

IN_MEMORY = "(in memory)"
SIMULATED_SEED = 0
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Source:
    """A canonical series, the relief below it, and where both come from.

    Attributes:
      elevation: m on any grid, or None where no static layer needs it.
      origin: one line for `source` attributes; says "simulated" if the series is.
    """

    series: xr.DataArray
    elevation: xr.DataArray | None
    origin: str


def open_source(config: Config, dataset: xr.Dataset | xr.DataArray | None = None) -> Source:
    """Find and read the configured series: `dataset` if given, else data.path, else data.name.

    Raises:
      DataError: the data are not found or cannot be used.
    """
    data = config.data
    if dataset is not None:
        series = open_frames(dataset, variable=data.variable, region=data.region)
        origin = str(series.attrs.get("source") or dataset.attrs.get("source") or "data in memory")
    elif data.path == IN_MEMORY:
        raise DataError(
            "this run was trained on data in memory, which are not here\n"
            "  fix: give the data: run.forecast(dataset), or --data PATH on the command line"
        )
    elif data.path is not None:
        series = open_frames(data.path, variable=data.variable, region=data.region)
        origin = str(series.attrs.get("source", data.path))
    else:
        entry = catalog.entry(str(data.name))
        try:
            paths = catalog.locate(entry)
        except catalog.DataNotFound as error:
            if data.offline != "simulated":
                raise
            return _stand_in(config, entry, error)
        series = open_frames(paths, variable=data.variable, region=data.region)
        origin = entry.title
    return Source(series, _elevation(config), origin)


def _elevation(config: Config) -> xr.DataArray | None:
    if not {"elevation", "land_mask"} & set(config.static.layers):
        return None
    return open_elevation(config.static.path or catalog.locate("relief")[0])


def _stand_in(config: Config, entry: catalog.DataSet, error: DataError) -> Source:
    """Simulated data in place of a data set that is out of reach: asked for by the config only."""
    if entry.stand_in is None:
        raise ConfigError(
            f"data.offline: simulated has no stand-in for {entry.name}\n  {error}"
        ) from error
    last = int(config.splits.test.last[:4])
    series, elevation = simulated_series(
        entry.stand_in, years=max(2, last - FIRST_YEAR + 1), seed=SIMULATED_SEED
    )
    origin = str(series.attrs["source"])
    _log.warning("SIMULATED DATA: %s is out of reach, this run uses: %s", entry.name, origin)
    return Source(open_frames(series, region=config.data.region), elevation, origin)


@dataclass(frozen=True)
class Setup:
    """A run before its first step.

    Attributes:
      frames, season: of every date of the series.
      damping: the reference that the model corrects.
      scale: mean squared error of that reference over training windows, at each lead.
    """

    config: Config
    source: Source
    axis: TimeAxis
    splits: Splits
    transform: FrameTransform
    frames: Float[np.ndarray, "time lat lon channel"]
    season: Float[np.ndarray, "time 2"]
    layers: Float[np.ndarray, "lat lon layer"]
    layer_names: list[str]
    damping: Damping
    scale: Float[np.ndarray, " lead"]
    train_windows: Int[np.ndarray, " window"]
    validation_windows: Int[np.ndarray, " validation_window"]

    def epoch(self, epoch: int) -> Int[np.ndarray, "step batch"]:
        """The batches of one epoch of training."""
        train = self.config.train
        return shuffled(self.train_windows, train.batch_size, train.seed, epoch)

    def model(self) -> ForecastModel:
        return build_model(
            self.config.model,
            self.transform.grid,
            damping=self.damping.factor,
            layers=self.layers,
            seed=self.config.train.seed,
        )


def prepare(config: Config, source: Source) -> Setup:
    """Cut the series into splits and fit, on training dates only, all that comes before training.

    Raises:
      DataError: too little data for the splits or the windows, or data that cannot be used.
    """
    axis = TimeAxis.of(source.series["time"].values)
    splits = Splits.by_date(axis, config.splits)
    transform = FrameTransform.fit(source.series, axis, splits.train, config.frames)
    frames = transform.frames(source.series)
    inputs, leads = config.frames.inputs, config.frames.leads
    windows = {}
    for name in ("train", "validation"):
        windows[name] = whole_windows(axis, getattr(splits, name), inputs, leads)
        if windows[name].size == 0:
            found = int(getattr(splits, name).sum())
            gaps = f"; gaps: {', '.join(axis.gaps[:3])}" if axis.gaps else ""
            raise DataError(
                f"splits.{name} has no window of {inputs} inputs and {leads} leads: {found} dates, "
                f"{label(axis.times[0])} to {label(axis.times[-1])}{gaps}\n"
                f"  expected: {inputs + leads} consecutive dates\n"
                f"  fix: a longer splits.{name}, or fewer frames.inputs or frames.leads"
            )
    training = TrainingSeries(frames, axis, splits.train, transform.grid.weight)
    damping = BASES[config.model.base](training, leads)
    layers, layer_names = static_layers(config.static.layers, transform.grid, source.elevation)
    return Setup(
        config=config,
        source=source,
        axis=axis,
        splits=splits,
        transform=transform,
        frames=frames,
        season=transform.season(axis.times),
        layers=layers,
        layer_names=layer_names,
        damping=damping,
        scale=_reference_error(training, damping, windows["train"]),
        train_windows=windows["train"],
        validation_windows=windows["validation"],
    )


def _reference_error(
    training: TrainingSeries, reference: Damping, windows: np.ndarray
) -> Float[np.ndarray, " lead"]:
    """Mean square error of the reference over training windows; 1 where it makes none."""
    error = []
    for k, factor in enumerate(reference.factor, 1):
        miss = training.values[windows] * factor - training.values[windows + k]
        square = np.square(miss, dtype=np.float64).mean(axis=(0, 3))
        error.append((square * training.weight).sum())
    error = np.array(error)
    return np.where(error > 0, error, 1.0)
