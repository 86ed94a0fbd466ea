"""Training and runs as an object to fit: `Forecaster(...).fit(data).predict()`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from gridcast.config import config_from_dict
from gridcast.errors import ConfigError, DataError
from gridcast.experiment import train
from gridcast.forecast_plots import forecast_figure
from gridcast.frames.splits import by_years
from gridcast.opening import IN_MEMORY, Data, Labelled, open_source
from gridcast.plots import Picture
from gridcast.report.contents import contents
from gridcast.reprs import as_text, card
from gridcast.run import Run
from gridcast.sources import catalog
from gridcast.timeaxis import TimeAxis

_NOT_FITTED = "gridcast forecaster, not fitted"
# Until the data are there, for the other settings to be checked.
_NO_SPLITS = {"train": ["0001", "0001"], "validation": ["0002", "0002"], "test": ["0003", "0003"]}


class Forecaster:
    """A model with its settings; `fit` trains and judges it as `gridcast.train` does.

    Args:
      model: `conv_lstm`, `cnn_lstm`, `conv_seq2seq`, `series` or a reference such as `lim`; or the
        whole section, {"name": "conv_lstm", "hidden": [8]}.
      leads, inputs, epochs, seed: the settings of `frames` and `train`; None: their defaults.
      splits: {"train": [1950, 1994], "validation": [1995, 2000], "test": [2001, 2012]}; None: whole
        years in this order, of which validation and test have 15 % each. Nothing is fitted on
        dates of validation and test.
      directory: of the run's files; None: a temporary one, which is kept as long as this object.
      **sections: further settings as mappings, as in a YAML file: train={"batch_size": 8}.

    Raises:
      ConfigError: an unknown or wrong setting.

    Example:
      >>> import gridcast
      >>> sst, relief = gridcast.simulated_series("ocean", years=15, shape=(9, 18))
      >>> forecaster = gridcast.Forecaster("lim", leads=3, inputs=3).fit(sst)
      >>> forecast = forecaster.predict(sst, start="1960-03", leads=2)
      >>> forecast["time"].dt.strftime("%Y-%m").values.tolist()
      [['1960-04', '1960-05']]
      >>> forecaster.score()["rmse"].sizes["lead"]
      3
    """

    def __init__(
        self,
        model: str | Mapping[str, Any] = "conv_lstm",
        *,
        leads: int | None = None,
        inputs: int | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        splits: Mapping[str, Any] | None = None,
        directory: str | Path | None = None,
        **sections: Any,
    ):
        name = {"name": model} if isinstance(model, str) else model
        self._settings: dict[str, Any] = {"model": name, **sections}
        if splits is not None:
            self._settings["splits"] = splits
        self._put("frames", leads=leads, inputs=inputs)
        self._put("train", epochs=epochs, seed=seed)
        self._put("output", directory=directory)
        self._temporary: str | None = None
        self._run: Run | None = None
        self._data: xr.Dataset | xr.DataArray | None = None
        # A mistake is found here, not after the data were read.
        config_from_dict({"splits": _NO_SPLITS} | self._with_data({"path": IN_MEMORY}))

    def fit(self, data: Labelled) -> Forecaster:
        """Train on the training dates, choose by validation, judge on the test dates.

        Args:
          data: labelled data of any convention, in memory or not, which are not changed; or, as in
            `gridcast.open`, the name of a data set, a file, files, a glob.

        Returns:
          This object.

        Raises:
          ConfigError, DataError: as `gridcast.train`.
        """
        dataset = data if isinstance(data, xr.Dataset | xr.DataArray) else None
        settings = self._with_data(_source(data))
        if "splits" not in settings:
            known = config_from_dict({"splits": _NO_SPLITS} | settings)
            axis = TimeAxis.of(open_source(known, dataset).series[0]["time"].values)
            window = known.frames.inputs + known.frames.leads
            settings["splits"] = by_years(axis, window).model_dump()
        if "directory" not in settings.get("output", {}):
            settings["output"] = {"directory": self._kept()}
        self._run = None  # its files make room for those of the new one
        self._run = train(dataset=dataset, **settings)
        self._data = dataset
        return self

    @property
    def run(self) -> Run:
        """The trained run.

        Raises:
          ConfigError: nothing was fitted yet.
        """
        if self._run is None:
            raise ConfigError(
                "this Forecaster was not fitted\n  fix: forecaster.fit(data), which trains it"
            )
        return self._run

    def predict(
        self, data: Data | None = None, *, start: str | None = None, leads: int | None = None
    ) -> xr.Dataset:
        """A forecast from the last date of the data, or from `start`; as `Run.forecast`.

        Args:
          data: on the grid of training, in any convention; default: those of `fit`.
          start: YYYY, YYYY-MM or YYYY-MM-DD: the last date within it is the initial date.
          leads: steps ahead, also beyond those of training.
        """
        return self.run.forecast(self._given(data), leads=leads, start=start)

    def hindcast(self, data: Data | None = None) -> xr.Dataset:
        """The forecasts of the test dates; by default those that `fit` made and judged."""
        if data is not None:
            return self.run.hindcast(data)
        with contents(self.run.directory) as files:
            if files.hindcast is None:
                raise DataError(
                    f"{self.run.directory}: hindcast.nc is gone\n"
                    "  fix: hindcast(data) makes it again"
                )
            return files.hindcast.load()

    def score(self, data: Data | None = None, *, variable: str | None = None) -> xr.Dataset:
        """Scores on the test dates beside the references; by default those that `fit` made.

        Args:
          data: the whole series, training dates included: the references are fitted on them.
          variable: which of several that are forecast; default: the first.

        Returns:
          Over `forecast` (model, climatology, persistence, ...) and `lead`: rmse, acc, ...; as
          `Run.evaluate`.
        """
        if data is not None:
            return self.run.evaluate(data, variable=variable)
        names = [target.variable for target in self.run.fields.targets]
        if variable is not None and variable not in names:
            raise DataError(f"no forecast of {variable!r}\n  known here: {', '.join(names)}")
        with contents(self.run.directory) as files:
            return files.scores[0 if variable is None else names.index(variable)]

    def plot(self, data: Data | None = None, *, start: str | None = None) -> Picture:
        """The forecast of `predict` beside what was observed, as a figure."""
        forecast = self.predict(data, start=start)
        return forecast_figure(forecast, self.run.observed(self._given(data)))

    def __repr__(self) -> str:
        return as_text(_NOT_FITTED, self._rows()) if self._run is None else repr(self._run)

    def _repr_html_(self) -> str:
        if self._run is None:
            return card(_NOT_FITTED, "", self._rows())
        return self._run._repr_html_()

    def _rows(self) -> list[tuple[str, str]]:
        return [(name, str(value)) for name, value in self._settings.items()]

    def _given(self, data: Data | None) -> Data | None:
        return self._data if data is None else data

    def _put(self, section: str, **given: object) -> None:
        """Put settings that have names of their own in their section, unless they are None."""
        there = self._settings.get(section, {})
        new = {name: value for name, value in given.items() if value is not None}
        if not new or not isinstance(there, Mapping):  # what is no section is refused later
            return
        if twice := sorted(new.keys() & there.keys()):
            raise ConfigError(
                f"{twice[0]}={new[twice[0]]!r} and {section}={dict(there)!r} say the same twice\n"
                "  fix: one of them"
            )
        self._settings[section] = {**there, **new}

    def _with_data(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, and where the data are."""
        given = self._settings.get("data", {})
        return self._settings | {
            "data": {**given, **source} if isinstance(given, Mapping) else given
        }

    def _kept(self) -> str:
        """A directory that goes with this object."""
        if self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="gridcast-")
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        return self._temporary


def _source(data: Labelled) -> dict[str, Any]:
    """Where the data are, as in the section `data`."""
    if isinstance(data, xr.Dataset | xr.DataArray):
        return {"path": IN_MEMORY}
    if isinstance(data, str) and data in catalog.catalog():
        return {"name": data}
    return {"path": data}
