"""Cross-validation: no fold sees what it is judged on, and the scores are those of all years."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import same_bits, small_config

from gridcast.cli import main
from gridcast.config import Config
from gridcast.crossval import cross_validate, folds
from gridcast.errors import DataError
from gridcast.experiment import summary
from gridcast.fitting import compile_setup
from gridcast.frames.splits import Splits
from gridcast.opening import open_source
from gridcast.preparation import Setup, complete_series, prepare
from gridcast.run import Run
from gridcast.training.encoders import load_encoder

# Blocks of 1950-1954, 1955-1959 and 1960-1963; inputs + leads = 5 steps lie between them.
SPLITS = {"train": [1950, 1957], "validation": [1958, 1959], "test": [1960, 1963]}
YEARS = {1: (1950, 1954), 2: (1955, 1959), 3: (1960, 1963)}
ONE_EPOCH = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2}


def config_of(**sections: Any) -> Config:
    own: dict[str, Any] = {"splits": SPLITS, "train": ONE_EPOCH, "crossval": {"folds": 3}}
    return small_config(**(own | sections))


def setup_of(series: xr.DataArray, splits: Splits, **sections: Any) -> Setup:
    config = config_of(**sections)
    return prepare(config, open_source(config, series), splits)


@pytest.fixture(scope="module")
def splits(ocean) -> list[Splits]:
    config = config_of()
    return folds(config, complete_series(config, open_source(config, ocean))[1])


def corrupted(series: xr.DataArray, dates: np.ndarray) -> xr.DataArray:
    """Finite junk at these dates."""
    values = series.values.copy()
    junk = np.random.default_rng(0).uniform(-100, 100, values[dates].shape)
    values[dates] = np.where(np.isfinite(values[dates]), junk, np.nan)
    return series.copy(data=values)


# ---------------------------------------------------------------- nothing leaks


def hidden(number: int) -> np.ndarray:
    """The dates of the test block of a fold and, on both sides, of the buffers."""
    first, last = YEARS[number]
    position = np.arange(168)
    return (position >= 12 * (first - 1950) - 5) & (position < 12 * (last - 1949) + 5)


KINDS: dict[str, dict[str, Any]] = {
    "values": {},
    "terciles": {"target": {"classes": {}}},
    "quantile": {"data": {"transform": "quantile"}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", YEARS)
def test_nothing_fitted_in_a_fold_sees_its_test_block_or_its_buffers(number, kind, ocean, splits):
    fold = splits[number - 1]
    clean = setup_of(ocean, fold, **KINDS[kind])
    junk = setup_of(corrupted(ocean, hidden(number)), fold, **KINDS[kind])
    for ours, theirs in ((clean.fields.arrays(), junk.fields.arrays()), (clean.head, junk.head)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert same_bits(ours[name], theirs[name]), name
    assert not same_bits(clean.arrays.values, junk.arrays.values)
    # Nor does validation, of which nothing is fitted.
    both = setup_of(corrupted(ocean, ~fold.train), fold, **KINDS[kind])
    assert same_bits(clean.head, both.head)


def after_some_steps(setup: Setup) -> Any:
    """The weights after an epoch."""
    stepper, series, weights, _ = compile_setup(setup)
    batches = setup.epoch(0)
    assert len(batches) > 2
    state, _ = stepper.run(stepper.start(weights), series, batches, 0, len(batches))
    return state.params


@pytest.mark.family
def test_the_weights_of_a_fold_see_neither_its_test_block_nor_its_buffers(ocean, splits):
    fold = splits[1]
    clean = after_some_steps(setup_of(ocean, fold))
    junk = after_some_steps(setup_of(corrupted(ocean, hidden(2)), fold))
    assert same_bits(clean, junk)
    # The control: one training date more.
    one = hidden(2)
    one[np.flatnonzero(fold.train)[-30]] = True
    other = after_some_steps(setup_of(corrupted(ocean, one), fold))
    assert not same_bits(clean, other)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def crossed(ocean, tmp_path_factory) -> Path:
    """What `gridcast crossval` leaves behind; an earlier run had more folds."""
    folder = tmp_path_factory.mktemp("crossval")
    directory = folder / "made"
    directory.mkdir()
    (directory / "hindcast_fold7.nc").write_text("of an earlier run")
    ocean.to_netcdf(folder / "sea.nc")
    config = config_of(data={"path": str(folder / "sea.nc")}, output={"directory": str(directory)})
    (folder / "small.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["crossval", str(folder / "small.yaml")]) == 0
    return directory


def file_of(directory: Path, name: str) -> xr.Dataset:
    return xr.load_dataset(directory / f"{name}.nc", decode_timedelta=False)


@pytest.mark.family
def test_the_command_writes_scores_and_the_forecasts_and_the_run_of_each_fold(crossed):
    names = {path.name for path in crossed.iterdir()}
    assert {"scores.nc", "scores.csv", "scores.png"} <= names
    assert {name for name in names if "fold" in name} == {
        *(f"fold{k}" for k in YEARS),
        *(f"hindcast_fold{k}.nc" for k in YEARS),
    }
    assert {"report.html", "crossval.yaml", "scores_by_block.nc"} <= names
    assert "3 folds, each forecast by models of the others" in (crossed / "scores.csv").read_text()


@pytest.mark.family
def test_its_report_holds_the_scores_of_each_block_and_names_no_split(crossed, tmp_path):
    found, whole = file_of(crossed, "scores_by_block"), file_of(crossed, "scores")
    assert found["block"].values.tolist() == ["1950 to 1954", "1955 to 1959", "1960 to 1963"]
    square = (found["sst_rmse"] ** 2).values
    # Squares of the blocks, weighted by their dates, are those of all years; of the first four
    # months there is no forecast.
    dates = np.array([60 - 4, 60, 48])
    pooled = np.sqrt(np.tensordot(dates / dates.sum(), square, axes=1))
    np.testing.assert_allclose(pooled, whole["rmse"].values, rtol=1e-5)
    output = tmp_path / "one.html"
    assert main(["report", str(crossed), "--output", str(output)]) == 0
    text = output.read_text()
    assert output.read_bytes() == (crossed / "report.html").read_bytes()
    shown = text[text.index("Block by block") :]
    for value in found["sst_rmse"].sel(forecast="model", block="1955 to 1959").values:
        assert f"{value:.3f}" in shown
    assert "each block by a model of the other years" in text
    assert "validated on" not in text


@pytest.mark.family
def test_every_date_is_forecast_in_exactly_one_fold(crossed, ocean, splits):
    found = []
    for number, (first, last) in YEARS.items():
        time = file_of(crossed, f"hindcast_fold{number}")["time"]
        for lead in (0, 1):
            dates = time[:, lead]
            own = dates.sel(
                forecast_reference_time=(dates.dt.year >= first) & (dates.dt.year <= last)
            )
            # Without three inputs there is no forecast for the first dates of the record.
            missing = (3 + lead) if number == 1 else 0
            assert own.size == 12 * (last - first + 1) - missing
            if lead == 0:
                found.append(own.values)
    together = np.concatenate(found)
    np.testing.assert_array_equal(together, ocean["time"].values[3:])
    assert (sum(fold.test.astype(int) for fold in splits) == 1).all()


def area(ocean: xr.DataArray) -> np.ndarray:
    """Relative areas of the sea's cells, from the sines of their edges; they sum to 1."""
    edges = np.deg2rad(np.linspace(-90, 90, 10))
    cells = np.where(np.isfinite(ocean.values[0]), np.diff(np.sin(edges))[:, None], 0.0)
    return cells / cells.sum()


@pytest.mark.family
def test_joined_scores_are_those_of_all_folds_pooled_by_hand(crossed, ocean):
    scores = file_of(crossed, "scores")
    # Of 1950 the first three months have no forecast, and the fourth none two months ahead.
    dates = slice("1950-05", "1963-12")
    assert scores["dates"].values.tolist() == [168 - 4] * 2
    for lead in (1, 2):
        errors: dict[str, list[np.ndarray]] = {"model": [], "climatology": [], "persistence": []}
        anomalies = []
        for number, (first, last) in YEARS.items():
            block = slice(str(first), str(last))
            one = file_of(crossed, f"hindcast_fold{number}")["sst"].isel(forecast_period=lead - 1)
            one = one.swap_dims(forecast_reference_time="time").sel(time=block).sel(time=dates)
            came = ocean.sel(time=one["time"])
            errors["model"].append((one - came).values)
            # References of the fold are against its own climatology.
            climatology = Run.load(crossed / f"fold{number}").transform.climatology
            anomaly = ocean - climatology.at(ocean["time"].values)
            errors["climatology"].append(-anomaly.sel(time=one["time"]).values)
            stays = anomaly.shift(time=lead) - anomaly
            errors["persistence"].append(stays.sel(time=one["time"]).values)
            anomalies.append(anomaly.sel(time=one["time"]).values)
        pooled = {name: np.nan_to_num(np.concatenate(parts)) for name, parts in errors.items()}
        assert len(pooled["model"]) == 168 - 4
        for name, error in pooled.items():
            found = scores.sel(forecast=name, lead=lead)
            rmse = np.sqrt((error**2 * area(ocean)).sum(axis=(1, 2)).mean())
            assert float(found["rmse"]) == pytest.approx(rmse, rel=1e-4)
            mae = (np.abs(error) * area(ocean)).sum(axis=(1, 2)).mean()
            assert float(found["mae"]) == pytest.approx(mae, rel=1e-4)
        came = np.nan_to_num(np.concatenate(anomalies)).astype(np.float64)
        ours = pooled["model"] + came
        product, square, other = (
            (x * y * area(ocean)).sum() for x, y in ((ours, came), (ours, ours), (came, came))
        )
        found = scores["acc"].sel(forecast="model", lead=lead)
        assert float(found) == pytest.approx(product / np.sqrt(square * other), rel=1e-3)


@pytest.mark.family
def test_the_run_of_a_fold_is_fitted_on_the_dates_of_that_fold(crossed, ocean, splits):
    for number, fold in enumerate(splits, 1):
        run = Run.load(crossed / f"fold{number}")
        expected = setup_of(ocean, fold).fields.arrays()
        assert run.training_dates == fold.train.sum()
        for name, array in run.fields.arrays().items():
            assert same_bits(array, expected[name]), name


def test_more_folds_than_years_are_refused(ocean):
    with pytest.raises(DataError, match=r"20 folds, and the data hold 14 year\(s\)"):
        cross_validate(config_of(crossval={"folds": 20}), ocean)


# ---------------------------------------------------------------- pretrain and summary


CNN = {"name": "cnn_lstm", "channels": [3], "latent": 4, "hidden": [4]}


@pytest.fixture
def written(ocean, tmp_path):
    """Writes a config of a small experiment; gives its path."""
    ocean.to_netcdf(tmp_path / "sea.nc")

    def write(**sections: Any) -> Path:
        own = {"data": {"path": str(tmp_path / "sea.nc")}, "output": {"directory": str(tmp_path)}}
        config = config_of(**(own | sections))
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return path

    return write


@pytest.mark.family
def test_pretrain_prints_where_the_encoder_is(written, tmp_path, capsys):
    """Also where windows may lack frames: an autoencoder sees one frame at a time."""
    path = written(model=CNN, frames={"missing": "mask", "least": 2, "inputs": 3})
    assert main(["pretrain", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "encoder")
    assert "best reconstruction error" in said.err
    assert any("kernel" in name for name in load_encoder(said.out.strip()))


def test_summary_prints_what_the_function_returns(written, capsys):
    path = written()
    assert main(["summary", str(path), "train.epochs=2"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == summary(config_of(data={"path": str(path.parent / "sea.nc")})).strip()
    assert "ConvLstm" in said


@pytest.mark.parametrize(
    ("command", "sections", "reason"),
    [
        ("pretrain", {}, "model.name: conv_lstm has no encoder to pretrain"),
        ("crossval", {"crossval": {"folds": 20}}, "20 folds, and the data hold 14"),
        ("crossval", {"crossval": {"folds": 3, "buffer": 70}}, "no validation date"),
        (
            "crossval",
            {"train": {"start_from": "runs/a"}},
            "train.start_from: runs/a may have learned",
        ),
        ("summary", {"data": {"path": "no/such/file.nc"}}, "no/such/file.nc"),
    ],
)
def test_mistakes_end_with_a_reason_and_code_2(command, sections, reason, written, capsys):
    assert main([command, str(written(**sections))]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] != ""
    assert f"error: {reason}" in said.err or reason in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
