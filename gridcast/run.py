"""A trained run: load it, forecast with it, judge it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from flax import nnx

from gridcast.assembly import base_predictor_of, model_of, predictor_of
from gridcast.config import Config, config_from_dict
from gridcast.errors import DataError
from gridcast.forecasting import Predictor
from gridcast.frames.fields import Fields, target_series
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform
from gridcast.labelling import label_forecast
from gridcast.matching import initial_position, matching_series, require_history
from gridcast.models import ForecastModel
from gridcast.models.members import member_of, stacked
from gridcast.models.window import Frozen
from gridcast.opening import Data
from gridcast.preparation import observed_frames
from gridcast.stages import stage
from gridcast.timeaxis import TimeAxis
from gridcast.training.checkpoints import Checkpoint, fill, load_newest
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.state import Weights
from gridcast.verification.comparison import beside
from gridcast.verification.foreign import Forecasts
from gridcast.verification.hindcast import Hindcast, make_hindcast
from gridcast.verification.scores import score

_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Run:
    """A model with its weights and everything that was fitted for it.

    Attributes:
      directory: where the run's files are.
      origin: what it was trained on; says "simulated" for simulated data.
      training_dates: how many dates there were to fit on.
      members: the stacked weights of an ensemble, of which `model` has the first; None: of one
        network.
      clock: as `TimeAxis.clock`, of the dates it was trained on; None: of a run of before.
    """

    directory: Path
    config: Config
    fields: Fields
    model: ForecastModel
    origin: str
    training_dates: int
    members: Weights | None = None
    clock: tuple[str, int] | None = None

    @classmethod
    @stage("loading")
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
        checkpoint = load_newest(directory / CHECKPOINTS)
        if not checkpoint.about["position"]["finished"]:
            text = "the training of %s has not ended; its best weights after %d steps are used"
            _log.warning(text, directory, checkpoint.step)
        return cls.restore(directory, checkpoint)

    @classmethod
    def restore(cls, directory: Path, checkpoint: Checkpoint) -> Run:
        about, arrays = checkpoint.about, checkpoint.arrays
        config = config_from_dict(about["config"])
        fields = Fields.restore(config, arrays["fields"], about["fields"])
        layers, head = arrays["layers"]["layers"], arrays["head"]
        model = model_of(config, fields, layers, head, weights=False)
        weights, members = Weights(*nnx.state(model, nnx.Param, nnx.BatchStat)), None
        if config.train.members == 1:
            weights = fill(weights, arrays["best"])
        else:
            shapes = jax.eval_shape(stacked, [weights] * config.train.members)
            members = fill(shapes, arrays["best"])
            weights = member_of(members, 0)
        nnx.update(model, *weights, fill(nnx.state(model, Frozen), arrays["frozen"]))
        dates, clock = about["training_dates"], about.get("clock")
        clock = None if clock is None else (clock[0], clock[1])
        return cls(directory, config, fields, model, about["origin"], dates, members, clock)

    @stage("forecast")
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
        series, axis = matching_series(self.config, self.fields, data)
        initial = initial_position(self.config, series, axis, start)
        require_history(self.config, axis, int(initial[0]))
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

    def verify(
        self,
        data: Data | None = None,
        others: Mapping[str, Forecasts] | None = None,
        *,
        regrid: bool = False,
    ) -> tuple[list[xr.Dataset], xr.Dataset]:
        """The scores of each variable that is forecast, and the hindcast, in one go.

        Args:
          others: files of other systems by name, scored beside on the dates that all have; as
            `gridcast.verification.comparison.beside`, like `regrid`.
        """
        series, axis = matching_series(self.config, self.fields, data)
        splits = Splits.by_date(axis, self.config.splits)
        if (found := int(splits.train.sum())) != self.training_dates:
            raise DataError(
                f"the data hold {found} of the {self.training_dates} training dates "
                f"({self.config.splits.train})\n"
                "  expected: all of them, since the references are fitted on them\n"
                "  fix: give the whole series, for example the files of training as well"
            )
        made = self.hindcast_of(series, axis, splits)
        judged = beside(made, self.fields, axis, others, regrid=regrid) if others else made
        scores = score(judged, self.fields, self.attributes, self.config.verification)
        labelled = label_forecast(self.fields, made.made, axis, made.initial, self.attributes)
        return scores, labelled

    @stage("hindcast")
    def hindcast_of(
        self, series: Sequence[xr.DataArray], axis: TimeAxis, splits: Splits
    ) -> Hindcast:
        """Forecasts of the test dates of any splits, by model and references."""
        # The last windows reach beyond the data: their forecasts need the dates, not the values.
        after = axis.times_at(axis.steps[-1] + np.arange(1, self.config.frames.leads + 1))
        arrays = self.fields.arrays_of(series, axis, after)
        observed = observed_frames(self.config, self.fields, arrays)
        return make_hindcast(
            self.predictor, self.fields, series, arrays, axis, splits, observed, self._base
        )

    @cached_property
    def predictor(self) -> Predictor:
        """Forecasts of all members together."""
        return predictor_of(self.config, self.fields, self.model, self.members)

    @cached_property
    def _base(self) -> Predictor | None:
        """What the network corrects, unless it is one of the references that are always there."""
        return base_predictor_of(self.config, self.fields, self.model)

    def __repr__(self) -> str:
        from gridcast.reprs import run_text  # matplotlib: a forecast needs none

        return run_text(self.config, self.fields, self.origin, self.directory)

    def _repr_html_(self) -> str:
        from gridcast.reprs import run_card

        return run_card(self.config, self.fields, self.origin, self.directory)

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
        series, _ = matching_series(self.config, self.fields, data)
        return target_series(self.config, series)[0]
