"""A trained run: load it, forecast with it, judge it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from flax import nnx

from gridcast.config import Config, config_from_dict
from gridcast.config.bounds import Period
from gridcast.errors import DataError
from gridcast.fitting import CHECKPOINTS
from gridcast.forecasting import Predictor, label_forecast
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform, grid_of
from gridcast.frames.windows import positions_at
from gridcast.models import ForecastModel, build_model
from gridcast.preparation import open_source
from gridcast.sources.netcdf import open_frames
from gridcast.sources.units import convert, same_units
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label
from gridcast.training.checkpoints import Checkpoint, fill, load_newest
from gridcast.verification.hindcast import MODEL, Hindcast, make_hindcast
from gridcast.verification.scores import score

Data = str | Path | list[str] | xr.Dataset | xr.DataArray


@dataclass(frozen=True)
class Run:
    """A model with its weights and everything that was fitted for it.

    Attributes:
      directory: where the run's files are.
      origin: what it was trained on; says "simulated" for simulated data.
      training_dates: how many dates there were to fit on.
    """

    directory: Path
    config: Config
    transform: FrameTransform
    model: ForecastModel
    origin: str
    training_dates: int

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Read the newest intact checkpoint of a run.

        Raises:
          CheckpointError: no checkpoint, or none intact.

        Example, with the run of the example of `gridcast.train`:
          >>> import gridcast
          >>> same = gridcast.load_run(run.directory)
          >>> same.transform.variable, same.config.frames.leads
          ('sst', 3)
        """
        directory = Path(directory)
        return cls.restore(directory, load_newest(directory / CHECKPOINTS))

    @classmethod
    def restore(cls, directory: Path, checkpoint: Checkpoint) -> Run:
        about, fixed = checkpoint.about, checkpoint.arrays["setup"]
        config = config_from_dict(about["config"])
        transform = FrameTransform.restore(fixed, about["transform"])
        model = build_model(
            config.model,
            transform.grid,
            damping=fixed["damping"],
            layers=fixed["layers"],
            seed=config.train.seed,
        )
        params = nnx.state(model, nnx.Param)
        nnx.update(model, fill(params, checkpoint.arrays["best"]))
        counted = about["training_dates"]
        return cls(directory, config, transform, model, about["origin"], counted)

    def forecast(
        self, data: Data | None = None, *, leads: int | None = None, start: str | None = None
    ) -> xr.Dataset:
        """Forecast from the last date of the data, or from `start`.

        Args:
          data: a path, a list of paths, or labelled data on the grid of the run, in any convention
            and in units of the same kind; default: the data of the config.
          leads: steps ahead; more than the model was trained for come from rolling out.
          start: YYYY, YYYY-MM or YYYY-MM-DD: the last date within it is the initial date.

        Returns:
          The variable, in the units of training, over (forecast_reference_time, forecast_period,
          lat, lon), with the coordinate `time`; NaN off the mask.

        Raises:
          DataError: another grid, mask or step than in training, or too few frames before `start`.

        Example, with the run and the data of the example of `gridcast.train`:
          >>> forecast = run.forecast(sst, leads=4, start="1960-03")
          >>> forecast["sst"].sizes["forecast_period"]
          4
          >>> forecast["time"].dt.strftime("%Y-%m").values.tolist()
          [['1960-04', '1960-05', '1960-06', '1960-07']]
        """
        series = self._open(data)
        axis = self._axis(series)
        initial = self._initial(axis, start)
        leads = leads or self.predictor.leads
        # The dates after the initial one follow it without a gap, whatever the series does.
        after = axis.times_at(axis.steps[initial[0]] + np.arange(1, leads + 1))
        dates = np.concatenate([axis.times[: initial[0] + 1], after])
        season = self.transform.season(dates)
        frames = self.transform.frames(series)
        scaled = self.predictor(frames, season, initial, leads)
        return label_forecast(self.transform, scaled, axis, initial, self.attributes)

    def evaluate(self, data: Data | None = None) -> xr.Dataset:
        """Scores on the test dates of the config, beside the references.

        Args:
          data: the whole series, training dates included: the references are fitted on them.

        Returns:
          As `gridcast.verification.scores.score`.
        """
        return self.verify(data)[0]

    def hindcast(self, data: Data | None = None) -> xr.Dataset:
        """The model's forecasts of the test dates, labelled like `forecast`."""
        return self.verify(data)[1]

    def verify(self, data: Data | None = None) -> tuple[xr.Dataset, xr.Dataset]:
        """`evaluate` and `hindcast` in one go."""
        series = self._open(data)
        axis = self._axis(series)
        splits = Splits.by_date(axis, self.config.splits)
        if (found := int(splits.train.sum())) != self.training_dates:
            raise DataError(
                f"the data hold {found} of the {self.training_dates} training dates "
                f"({self.config.splits.train})\n"
                "  expected: all of them, since the references are fitted on them\n"
                "  fix: give the whole series, for example the files of training as well"
            )
        frames, season = self.transform.frames(series), self.transform.season(axis.times)
        made = make_hindcast(self.predictor, frames, season, axis, splits, self.transform.grid)
        return self._scored(made, frames, axis)

    def _scored(
        self, made: Hindcast, frames: np.ndarray, axis: TimeAxis
    ) -> tuple[xr.Dataset, xr.Dataset]:
        scores = score(made, frames, self.transform, self.attributes)
        labelled = label_forecast(
            self.transform, made.forecasts[MODEL], axis, made.initial, self.attributes
        )
        return scores, labelled

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor.of(self.model, self.config.frames.inputs, self.config.train.batch_size)

    @property
    def attributes(self) -> dict[str, str]:
        """Global attributes of every data set that the run makes."""
        return {
            "title": f"gridcast forecast of {self.transform.variable}",
            "source": f"{self.config.model.name} trained on {self.origin}",
            "references": "gridcast",
        }

    def observed(self, forecast: xr.Dataset, data: Data | None = None) -> xr.DataArray:
        """The observed field at the last initial date of a forecast, as (lat, lon)."""
        series = self._open(data)
        return series.sel(time=forecast["forecast_reference_time"].values[-1])

    def _open(self, data: Data | None) -> xr.DataArray:
        """The series on this run's grid, in this run's units."""
        if data is None:
            series = open_source(self.config).series
        else:
            region, variable = self.config.data.region, self.config.data.variable
            series = open_frames(data, variable=variable, region=region)
        found, expected = str(series.attrs.get("units", "1")), self.transform.units
        if not same_units(found, expected):
            days = TimeAxis.of(series["time"].values).days_per_step[:, None, None]
            values = convert(series.values, found, expected, days, difference=is_difference(series))
            series = series.copy(data=values)
        self.transform.grid.require_same(grid_of(series))
        return series

    def _axis(self, series: xr.DataArray) -> TimeAxis:
        axis = TimeAxis.of(series["time"].values)
        trained = (self.transform.climatology.unit, self.transform.every)
        if (axis.unit, axis.every) != trained:
            raise DataError(
                f"the step of the data is: {axis.frequency}\n"
                f"  expected: {self.transform.step}, as in training"
            )
        return axis

    def _initial(self, axis: TimeAxis, start: str | None) -> np.ndarray:
        last = axis.times.size - 1
        if start is not None:
            try:
                asked = Period(first=start, last=start)
            except ValueError as error:
                raise DataError(
                    f"start is no date: {start!r}\n  expected: YYYY, YYYY-MM or YYYY-MM-DD"
                ) from error
            inside = axis.inside(*asked.bounds)
            if not inside.any():
                raise DataError(
                    f"the data hold no date in {start}\n  found: {label(axis.times[0])} to "
                    f"{label(axis.times[-1])}, {axis.frequency}"
                )
            last = int(np.flatnonzero(inside)[-1])
        inputs = self.config.frames.inputs
        history = positions_at(axis, np.array([last]), np.arange(1 - inputs, 1))
        if (history < 0).any():
            raise DataError(
                f"the forecast from {label(axis.times[last])} needs the {inputs} dates up to it, "
                f"found {int((history >= 0).sum())}\n  found: {label(axis.times[0])} to "
                f"{label(axis.times[-1])}{'; gaps: ' + axis.gaps[-1] if axis.gaps else ''}"
            )
        return np.array([last])
