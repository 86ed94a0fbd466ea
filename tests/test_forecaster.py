"""`Forecaster`: one way to train, settings checked at once, files that go when it goes."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import gridcast
from gridcast.errors import ConfigError, DataError
from gridcast.forecaster import Forecaster
from gridcast.frames.splits import by_years
from gridcast.run import Run
from gridcast.timeaxis import TimeAxis
from gridcast.training.progress import Bar

SPLITS = {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1964]}


@pytest.fixture
def asked(monkeypatch, trained) -> list[dict[str, Any]]:
    """What `train` was asked for, by forecasters that get the small run in place of a new one."""
    calls: list[dict[str, Any]] = []

    def note(**given: Any) -> Run:
        calls.append(given)
        return Run.load(trained.directory)

    monkeypatch.setattr("gridcast.forecaster.train", note)
    return calls


@pytest.fixture(scope="module")
def sea(trained) -> xr.DataArray:
    return gridcast.open(str(trained.data))


def test_fit_is_train_with_the_same_settings(asked, sea, tmp_path):
    forecaster = Forecaster(
        model="conv_lstm",
        leads=3,
        inputs=4,
        epochs=2,
        seed=7,
        splits=SPLITS,
        directory=tmp_path,
        train={"batch_size": 8},
        data={"transform": "log1p"},
    )
    assert forecaster.fit(sea) is forecaster
    (call,) = asked
    assert call.pop("dataset") is sea
    assert call == {
        "model": {"name": "conv_lstm"},
        "frames": {"leads": 3, "inputs": 4},
        "train": {"batch_size": 8, "epochs": 2, "seed": 7},
        "splits": SPLITS,
        "output": {"directory": tmp_path},
        "data": {"transform": "log1p", "path": "(in memory)"},
    }


def test_files_and_names_are_given_to_train_as_such_so_that_their_sums_are_recorded(asked, trained):
    Forecaster("lim", splits=SPLITS).fit(str(trained.data))
    Forecaster("lim", splits=SPLITS).fit("ersst-v5")
    assert [call["data"] for call in asked] == [{"path": str(trained.data)}, {"name": "ersst-v5"}]
    assert [call["dataset"] for call in asked] == [None, None]


def test_results_by_default_are_those_that_training_left(asked, sea):
    forecaster = Forecaster("conv_lstm", splits=SPLITS).fit(sea)
    again = forecaster.score(sea)
    for name, values in forecaster.score().data_vars.items():
        np.testing.assert_allclose(values, again[name], rtol=1e-6, err_msg=str(name))
    ours, theirs = forecaster.hindcast(), forecaster.hindcast(sea)
    xr.testing.assert_equal(ours, theirs)
    xr.testing.assert_identical(
        forecaster.predict(start="1960-03", leads=2)["sst"],
        forecaster.run.forecast(sea, start="1960-03", leads=2)["sst"],
    )
    with pytest.raises(DataError, match=r"no forecast of 'rain'\n  known here: sst"):
        forecaster.score(variable="rain")
    (panel, *_) = forecaster.plot(start="1960-03").axes
    assert panel.get_title() == "observed 1960-03"


def test_nothing_can_be_asked_before_fit():
    forecaster = Forecaster()
    for ask in (forecaster.predict, forecaster.hindcast, forecaster.score, forecaster.plot):
        with pytest.raises(ConfigError, match=r"was not fitted\n  fix: forecaster.fit"):
            ask()
    assert "not fitted" in repr(forecaster)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "conv_lstn"}, "conv_lstm"),
        ({"train": {"epoch": 3}}, "did you mean: train.epochs"),
        ({"leads": 0}, "frames.leads"),
        ({"epochs": 3, "train": {"epochs": 4}}, "say the same twice"),
        ({"splits": SPLITS | {"test": [1950, 1964]}}, "must end before"),
        ({"epoch": 3}, "unknown key epoch"),
        ({"train": [1950, 1994], "epochs": 3}, "train"),
    ],
)
def test_wrong_settings_are_found_before_any_data(given, said):
    with pytest.raises(ConfigError, match=said):
        Forecaster(**given)


def test_a_temporary_directory_is_kept_as_long_as_the_forecaster(asked, sea):
    forecaster = Forecaster(splits=SPLITS).fit(sea).fit(sea)
    first, second = (Path(call["output"]["directory"]) for call in asked)
    assert first == second
    assert first.is_dir()
    del forecaster
    gc.collect()
    assert not first.exists()


def years(first: str, count: int, step: str) -> TimeAxis:
    start = np.datetime64(first, step)
    return TimeAxis.of((start + np.arange(count)).astype("datetime64[ns]"))


@pytest.mark.parametrize(
    ("axis", "window", "expected"),
    [
        (years("1950-01", 720, "M"), 18, ["1950 to 1991", "1992 to 2000", "2001 to 2009"]),
        (years("1950-01", 240, "M"), 18, ["1950 to 1963", "1964 to 1966", "1967 to 1969"]),
        (years("2001-01-01", 1095, "D"), 13, ["2001 to 2001", "2002 to 2002", "2003 to 2003"]),
    ],
)
def test_splits_by_default_are_whole_years_in_order(axis, window, expected):
    made = by_years(axis, window)
    assert [str(made.train), str(made.validation), str(made.test)] == expected


def test_too_few_years_for_splits_are_an_error():
    by_years(years("1950-01", 108, "M"), 18)
    with pytest.raises(DataError, match=r"8 year\(s\) of data are too few .* and 3 each"):
        by_years(years("1950-01", 96, "M"), 18)


def test_splits_by_default_are_those_of_the_data(asked, sea):
    Forecaster(inputs=3, leads=3).fit(sea)
    (call,) = asked
    assert call["splits"] == by_years(TimeAxis.of(sea["time"].values), 6).model_dump()


def test_the_progress_bar_is_shown_in_a_notebook_and_not_in_a_log(monkeypatch, capsys):
    def shell(*apps: str) -> SimpleNamespace:
        return SimpleNamespace(get_ipython=lambda: SimpleNamespace(config=dict.fromkeys(apps)))

    monkeypatch.setitem(sys.modules, "IPython", shell("IPKernelApp"))
    bar = Bar(3, 0)
    bar.update(2)
    bar.close()
    assert "2/3" in capsys.readouterr().err
    for other in (shell("TerminalIPythonApp"), SimpleNamespace(get_ipython=lambda: None)):
        monkeypatch.setitem(sys.modules, "IPython", other)
        assert Bar(3, 0).inner.disable


def test_a_notebook_shows_an_error_that_can_be_mended_without_a_traceback():
    with pytest.raises(ConfigError) as caught:
        Forecaster("conv_lstn")
    (text,) = caught.value._render_traceback_()
    assert text.startswith("ConfigError: <settings>: ")
