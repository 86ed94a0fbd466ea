"""A trained run: load it, forecast with it, judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from flax import nnx

from gridcast.config import Config, config_from_dict
from gridcast.config.bounds import Period
from gridcast.errors import DataError
from gridcast.fitting import coarsening
from gridcast.forecasting import Predictor, Tiling
from gridcast.frames.fields import Fields, target_series
from gridcast.frames.gaps import require_complete
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform, grid_of
from gridcast.frames.windows import positions_at
from gridcast.grid import Grid
from gridcast.labelling import label_forecast
from gridcast.models import ForecastModel
from gridcast.models.window import Frozen
from gridcast.opening import Data, open_source
from gridcast.preparation import complete_series, model_of, observed_frames
from gridcast.sources.units import convert, same_units
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label
from gridcast.training.checkpoints import Checkpoint, fill, load_newest
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.step import Weights
from gridcast.verification.hindcast import Hindcast, make_hindcast
from gridcast.verification.scores import score


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
    fields: Fields
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
        about, arrays = checkpoint.about, checkpoint.arrays
        config = config_from_dict(about["config"])
        fields = Fields.restore(config, arrays["fields"], about["fields"])
        model = model_of(config, fields, arrays["layers"]["layers"], arrays["head"])
        weights = Weights(nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat))
        for state in fill(weights, arrays["best"]):
            nnx.update(model, state)
        nnx.update(model, fill(nnx.state(model, Frozen), arrays["frozen"]))
        return cls(directory, config, fields, model, about["origin"], about["training_dates"])

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
          lat, lon), with the coordinate `time`; NaN off the mask. A run with classes gives
          probabilities, with a dimension `category` before `lat`.

        Raises:
          DataError: another grid, mask or step than in training, or too few frames before `start`.

        Example, with the run and the data of the example of `gridcast.train`:
          >>> forecast = run.forecast(sst, leads=4, start="1960-03")
          >>> forecast["sst"].sizes["forecast_period"]
          4
          >>> forecast["time"].dt.strftime("%Y-%m").values.tolist()
          [['1960-04', '1960-05', '1960-06', '1960-07']]
        """
        series, axis = self._open(data)
        initial = self._initial(series, axis, start)
        leads = leads or self.predictor.leads
        # The dates after the initial one follow it without a gap, whatever the series does. Models
        # give whole blocks of leads.
        blocks = -(-leads // self.predictor.leads) * self.predictor.leads
        after = axis.times_at(axis.steps[initial[0]] + np.arange(1, blocks + 1))
        last = slice(None, int(initial[0]) + 1)
        known = TimeAxis(axis.times[last], axis.unit, axis.every, axis.steps[last])
        arrays = self.fields.arrays_of([one[last] for one in series], known, after)
        forecast = self.predictor(arrays, initial, leads)
        return label_forecast(self.fields, forecast, axis, initial, self.attributes)

    def evaluate(self, data: Data | None = None, *, variable: str | None = None) -> xr.Dataset:
        """Scores on the test dates of the config, beside the references.

        Args:
          data: the whole series, training dates included: the references are fitted on them.
          variable: which of several that are forecast; default: the first.

        Returns:
          As `gridcast.verification.scores.score`.
        """
        names = [target.variable for target in self.fields.targets]
        if variable is not None and variable not in names:
            raise DataError(f"no forecast of {variable!r}\n  known here: {', '.join(names)}")
        return self.verify(data)[0][0 if variable is None else names.index(variable)]

    def hindcast(self, data: Data | None = None) -> xr.Dataset:
        """The model's forecasts of the test dates, labelled like `forecast`."""
        return self.verify(data)[1]

    def verify(self, data: Data | None = None) -> tuple[list[xr.Dataset], xr.Dataset]:
        """The scores of each variable that is forecast, and the hindcast, in one go."""
        series, axis = self._open(data)
        splits = Splits.by_date(axis, self.config.splits)
        if (found := int(splits.train.sum())) != self.training_dates:
            raise DataError(
                f"the data hold {found} of the {self.training_dates} training dates "
                f"({self.config.splits.train})\n"
                "  expected: all of them, since the references are fitted on them\n"
                "  fix: give the whole series, for example the files of training as well"
            )
        made = self.hindcast_of(series, axis, splits)
        scores = score(made, self.fields, self.attributes, self.config.verification)
        labelled = label_forecast(self.fields, made.made, axis, made.initial, self.attributes)
        return scores, labelled

    def hindcast_of(
        self, series: Sequence[xr.DataArray], axis: TimeAxis, splits: Splits
    ) -> Hindcast:
        """Forecasts of the test dates of any splits, by model and references."""
        # The last windows reach beyond the data: their forecasts need the dates, not the values.
        after = axis.times_at(axis.steps[-1] + np.arange(1, self.config.frames.leads + 1))
        arrays = self.fields.arrays_of(series, axis, after)
        observed = observed_frames(self.config, self.fields, arrays)
        return make_hindcast(self.predictor, self.fields, series, arrays, axis, splits, observed)

    @cached_property
    def predictor(self) -> Predictor:
        config, patches = self.config, self.config.frames.patches
        grid = self.fields.inputs[0].grid
        tiling = None
        if patches is not None:
            step = coarsening(config)
            tiling = Tiling(grid.shape, patches.size, patches.overlap, step, grid.wraps)
        return Predictor.of(
            self.model,
            inputs=config.frames.inputs,
            leads=config.frames.leads,
            variables=len(self.fields.inputs),
            batch_size=config.train.batch_size,
            tiling=tiling,
        )

    @property
    def transform(self) -> FrameTransform:
        """Of the first variable that is forecast."""
        return self.fields.targets[0]

    @property
    def attributes(self) -> dict[str, str]:
        """Global attributes of every data set that the run makes."""
        names = ", ".join(target.variable for target in self.fields.targets)
        return {
            "title": f"gridcast forecast of {names}",
            "source": f"{self.config.model.name} trained on {self.origin}",
            "references": "gridcast",
        }

    def observed(self, data: Data | None = None) -> xr.DataArray:
        """What was observed of the first target, over (time, lat, lon), in units of training."""
        return target_series(self.config, self._open(data)[0])[0]

    def _open(self, data: Data | None) -> tuple[list[xr.DataArray], TimeAxis]:
        """The series on this run's grid, in this run's units, their gaps treated as in training."""
        source = open_source(self.config, data)
        missing = self.config.frames.missing
        series = []
        for one, trained in zip(source.series, self.fields.inputs, strict=True):
            moved = _in_units(one, trained.units)
            if missing == "error":
                require_complete(moved)
            series.append(_on_grid(moved, trained.grid, gaps=missing == "mask"))
        axis = TimeAxis.of(series[0]["time"].values)
        trained = (self.transform.climatology.unit, self.transform.every)
        if (axis.unit, axis.every) != trained:
            raise DataError(
                f"the step of the data is: {axis.frequency}\n"
                f"  expected: {self.transform.step}, as in training"
            )
        # Dates that lack are in nobody's way as long as no forecast needs them.
        if missing == "error":
            return series, axis
        return complete_series(self.config, replace(source, series=series))

    def _initial(
        self, series: Sequence[xr.DataArray], axis: TimeAxis, start: str | None
    ) -> np.ndarray:
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
        frames = np.isfinite(series[0].values[history]).any(axis=(2, 3))
        seen = (history >= 0) & frames
        least = self.config.frames.least if self.config.frames.missing == "mask" else inputs
        if seen.sum() < least or not seen[0, -1]:
            dates = f"{inputs} dates" if least == inputs else f"{least} of the {inputs} dates"
            raise DataError(
                f"the forecast from {label(axis.times[last])} needs the {dates} up to it, itself "
                f"among them; found {int(seen.sum())}\n  found: {label(axis.times[0])} to "
                f"{label(axis.times[-1])}{'; gaps: ' + axis.gaps[-1] if axis.gaps else ''}\n"
                "  fix: an earlier --start, or data that reach further back"
            )
        return np.array([last])


def _in_units(series: xr.DataArray, expected: str) -> xr.DataArray:
    found = str(series.attrs.get("units", "1"))
    if same_units(found, expected):
        return series
    days = TimeAxis.of(series["time"].values).days_per_step[:, None, None]
    values = convert(series.values, found, expected, days, difference=is_difference(series))
    return series.copy(data=values)


def _on_grid(series: xr.DataArray, grid: Grid, *, gaps: bool) -> xr.DataArray:
    """The series itself, on the very cells of the run; values off its mask may not appear."""
    found = grid_of(series)
    if gaps:  # a short record with gaps may lack a cell throughout
        found = Grid(found.lat, found.lon, found.mask | grid.mask)
    grid.require_same(found)
    return series
