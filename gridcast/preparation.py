"""What a run starts from: the data, their splits, all that is fitted before training, the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Float, Int

from gridcast.assembly import model_of
from gridcast.config import Config
from gridcast.errors import DataError
from gridcast.frames.fields import AMOUNTS, NORMAL, Fields, months_of, target_series
from gridcast.frames.gaps import treat_gaps
from gridcast.frames.rain import rain_climatology
from gridcast.frames.splits import Splits
from gridcast.frames.windows import FrameSeries, Observed, whole_windows
from gridcast.models import ForecastModel
from gridcast.opening import Source
from gridcast.provenance import checksums
from gridcast.references import (
    TrainingSeries,
    error_deviation,
    fit_base,
    fit_base_by_rows,
    training_bands,
)
from gridcast.sources.static import static_layers
from gridcast.sources.store import stored
from gridcast.stages import stage
from gridcast.timeaxis import TimeAxis, label
from gridcast.training.batches import epoch_batches, member_windows
from gridcast.training.encoders import load_encoder, put_encoder


@dataclass(frozen=True)
class Setup:
    """A run before its first step.

    Attributes:
      series: as `gridcast.frames.fields.variables` orders them, on the dates of `axis`.
      arrays: what the model takes of them.
      head: arrays of the reference that the model corrects.
      encoder: weights that the encoder starts from, by name, or None.
    """

    config: Config
    source: Source
    series: list[xr.DataArray]
    axis: TimeAxis
    splits: Splits
    fields: Fields
    arrays: FrameSeries
    observed: Observed | None
    layers: Float[np.ndarray, "lat lon layer"]
    layer_names: list[str]
    head: dict[str, np.ndarray]
    encoder: dict[str, np.ndarray] | None
    train_windows: Int[np.ndarray, " window"]
    validation_windows: Int[np.ndarray, " validation_window"]

    @cached_property
    def member_windows(self) -> list[Int[np.ndarray, " _"]]:
        """The training windows of each member of the ensemble."""
        years = self.axis.dates[self.train_windows, 0]
        return member_windows(self.train_windows, years, self.config.train)

    @cached_property
    def checksums(self) -> dict[str, str]:
        """As `gridcast.provenance.checksums`, of the series."""
        return checksums(self.source.series)

    def epoch(self, epoch: int) -> Int[np.ndarray, "*member step batch"]:
        """The batches of one epoch of training."""
        train = self.config.train
        return epoch_batches(self.member_windows, train.batch_size, train.seed, epoch)

    def model(self, network: Callable[..., nnx.Module] | None = None) -> ForecastModel:
        """The untrained model; its encoder from another run, if the config says so.

        Args:
          network: in place of the configured one, for the same settings.
        """
        model = model_of(self.config, self.fields, self.layers, self.head, network=network)
        if self.encoder is not None:
            put_encoder(model, self.encoder)
        return model


@stage("references")
def prepare(config: Config, source: Source, splits: Splits | None = None) -> Setup:
    """Cut the series into splits and fit, on training dates only, all that comes before training.

    Args:
      splits: in place of the dates of the config; of the dates that `complete_series` gives.

    Raises:
      DataError: too little data for the splits or the windows, or data that cannot be used.
    """
    series, axis = complete_series(config, source)
    splits = splits or Splits.by_date(axis, config.splits)
    fields = Fields.fit(config, series, axis, splits.train)
    arrays = fields.arrays_of(series, axis)
    observed = observed_frames(config, fields, arrays)
    windows = {
        name: _windows(config, axis, splits, name, observed) for name in ("train", "validation")
    }
    layers, layer_names = static_layers(
        config.static.layers, fields.inputs[0].grid, source.elevation
    )
    encoder = getattr(config.model, "encoder_from", None)
    return Setup(
        config=config,
        source=source,
        series=series,
        axis=axis,
        splits=splits,
        fields=fields,
        arrays=arrays,
        observed=observed,
        layers=layers,
        layer_names=layer_names,
        head=_fit_head(config, fields, series, arrays, axis, splits),
        encoder=None if encoder is None else load_encoder(encoder),
        train_windows=windows["train"],
        validation_windows=windows["validation"],
    )


def complete_series(config: Config, source: Source) -> tuple[list[xr.DataArray], TimeAxis]:
    """The series with their missing dates and values treated as the config says."""
    axis = TimeAxis.of(source.series[0]["time"].values)
    return treat_gaps(source.series, axis, config.frames)


def observed_frames(config: Config, fields: Fields, arrays: FrameSeries) -> Observed | None:
    """Which frames hold observations, where gaps are masked."""
    if config.frames.missing != "mask":
        return None
    inside = fields.inputs[0].grid.mask
    inputs = np.isfinite(arrays.values[..., 0])[:, inside].any(axis=1)
    answers = arrays.answers(len(fields.targets))
    targets = np.isfinite(answers)[:, fields.target_mask].any(axis=1)
    return Observed(np.asarray(inputs), np.asarray(targets), config.frames.least)


def _windows(
    config: Config, axis: TimeAxis, splits: Splits, name: str, observed: Observed | None
) -> Int[np.ndarray, " window"]:
    inputs, leads = config.frames.inputs, config.frames.leads
    inside = getattr(splits, name)
    windows = whole_windows(axis, inside, inputs, leads, observed)
    if windows.size == 0:
        gaps = f"; gaps: {', '.join(axis.gaps[:3])}" if axis.gaps else ""
        raise DataError(
            f"splits.{name} has no window of {inputs} inputs and {leads} leads: "
            f"{int(inside.sum())} dates, {label(axis.times[0])} to {label(axis.times[-1])}{gaps}\n"
            f"  expected: {inputs + leads} consecutive dates\n"
            f"  fix: a longer splits.{name}, or fewer frames.inputs or frames.leads"
        )
    return windows


def _fit_head(
    config: Config,
    fields: Fields,
    series: list[xr.DataArray],
    arrays: FrameSeries,
    axis: TimeAxis,
    splits: Splits,
) -> dict[str, np.ndarray]:
    """The arrays of the reference, fitted on training dates."""
    answers = target_series(config, series)
    if config.train.loss == AMOUNTS:
        amounts = np.stack([one.values for one in answers], axis=-1)[splits.train]
        mask = fields.target_mask[..., 0]
        return {"climate": rain_climatology(amounts, months_of(axis.times[splits.train]), mask)}
    model, leads = config.model, config.frames.leads
    if stored(series[0]):
        bands = training_bands(fields, answers, axis, splits.train)
        return fit_base_by_rows(model.base, bands, leads, model.reference, splits.validation)
    training = _training_series(config, fields, answers, arrays, axis, splits)
    reference = fit_base(model.base, training, leads, model.reference, splits.validation)
    base = {name: array for name, array in vars(reference).items() if array is not None}
    if fields.classes is None:
        if config.train.loss not in NORMAL:
            return base
        return base | {"deviation": error_deviation(reference, training, leads)}
    classes = {"edges": fields.classes.edges, "odds": fields.classes.odds}
    if model.base == "climatology" and config.frames.trailing is None:
        return classes
    return {**base, "deviation": error_deviation(reference, training, leads), **classes}


def _training_series(
    config: Config,
    fields: Fields,
    answers: list[xr.DataArray],
    arrays: FrameSeries,
    axis: TimeAxis,
    splits: Splits,
) -> TrainingSeries:
    """What the reference of the model is fitted on: departures from what it takes for normal."""
    values, state = fields.scaled(answers), arrays.values
    if arrays.trailing is not None:
        means = arrays.last_trailing
        values = values - (arrays.trailing[..., : values.shape[-1]] if means is None else means)
        state = state - arrays.trailing
    if not fields.whole and len(fields.inputs) == len(fields.targets):
        return TrainingSeries.of(values, axis, splits.train, fields.weight)
    weight = np.stack([one.grid.weight for one in fields.inputs], axis=-1)
    return TrainingSeries.of(values, axis, splits.train, fields.weight, state, weight)
