"""`gridcast simulate-from`: a long series like the data, from training dates alone, to train on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import same_bits, small_config
from test_leakage import amounts, corrupted, two_variables

from gridcast.cli import main
from gridcast.config import Config, dump_config, load_config
from gridcast.errors import ConfigError, DataError
from gridcast.fitting import compile_setup, fit_setup
from gridcast.long_training import experiment_on, next_commands
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.simulation import simulate_from, simulated_dataset, simulated_dates
from gridcast.timeaxis import TimeAxis
from gridcast.training.checkpoints import named_leaves

MEMORY = {"path": "(in memory)"}
# With an operator for each month nine years allow fewer EOFs than the default.
LIM = {"name": "lim", "reference": {"eofs": 4, "seasonal": True}}


def config_of(**sections: Any) -> Config:
    return small_config(**({"model": LIM} | sections))


def simulated(config: Config, data: Any, years: int = 20, seed: int = 0) -> xr.Dataset:
    return simulated_dataset(config, open_source(config, data), years, seed)


# ---------------------------------------------------------------- nothing leaks

KINDS: dict[str, dict[str, Any]] = {
    "seasonal": {},
    "default": {"model": {}},
    "choice of EOFs": {"model": LIM | {"reference": {"eofs": [2, 4, 6]}}},
    "trailing": {"frames": {"trailing": 3}},
    "trend by cell": {"frames": {"climatology": {"trend": True}, "scaling": "cell"}},
    "quantile": {"data": MEMORY | {"transform": "quantile"}},
    "index": {"data": MEMORY | {"mean_over": {"lat": [-20, 20], "lon": [150, 250]}}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_after_training_changes_a_bit_of_the_simulation(kind, ocean):
    config = config_of(**KINDS[kind])
    clean = simulated(config, ocean)["sst"].values
    assert same_bits(simulated(config, corrupted(ocean, "1959-01", "1963-12"))["sst"].values, clean)
    values = ocean.values.copy()
    row, column = (index[0] for index in np.nonzero(np.isfinite(values[0, 4:5])))
    values[50, 4 + row, column] += 0.5  # the control: one training value, in the box of the index
    values[50, 4, 8:12] += 0.5
    assert not same_bits(simulated(config, ocean.copy(data=values))["sst"].values, clean)


# ---------------------------------------------------------------- what is simulated


@pytest.fixture(scope="module")
def long(ocean) -> xr.Dataset:
    return simulated(config_of(), ocean, years=300)


def test_a_simulation_has_the_climate_of_training_month_by_month(ocean, long):
    trained = ocean.sel(time=slice("1950", "1958"))
    ours, theirs = (one.groupby("time.month").mean("time").values for one in (long["sst"], trained))
    assert np.array_equal(np.isfinite(long["sst"].values[0]), np.isfinite(ocean.values[0]))
    # Two harmonics against nine years: what is left is weather.
    assert np.nanmax(np.abs(ours - theirs)) < 0.6
    assert np.nanstd(ours - theirs) < 0.1 * np.nanstd(theirs)
    spread = [
        np.nanstd((one.groupby("time.month") - one.groupby("time.month").mean("time")).values)
        for one in (long["sst"], trained)
    ]
    assert spread[0] / spread[1] == pytest.approx(1.0, abs=0.1)


def test_the_file_says_that_it_was_simulated_from_what(long, ocean):
    for source in (long.attrs["source"], long["sst"].attrs["source"]):
        assert source.startswith("simulated by a stochastic linear inverse model (4 EOFs, ")
        assert str(ocean.attrs["source"]) in source
        assert "1950-01-01 to 1958-12-01; not observed" in source
    assert long["sst"].attrs["units"] == ocean.attrs["units"]
    assert long["sst"].attrs["units_metadata"] == "temperature: on_scale"


def test_one_seed_gives_one_series(ocean):
    first, again, other = (simulated(config_of(), ocean, seed=s)["sst"] for s in (0, 0, 1))
    assert same_bits(first.values, again.values)
    assert np.nanmax(np.abs((first - other).values)) > 0.1


def test_all_variables_are_simulated_together_inputs_too(ocean):
    """`ssh` of the data follows `sst` by three months: the simulated one does so too."""
    more = {**MEMORY, "variable": "ssh", "target": False}
    lim = {"name": "lim", "reference": {"eofs": 8}}
    config = config_of(data={**MEMORY, "variable": "sst", "more": [more]}, model=lim)
    made = simulated(config, two_variables(ocean), years=200)
    assert made["ssh"].attrs["units"] == "m"
    assert float(made["ssh"].mean()) == pytest.approx(0.1 * float(ocean.mean()) + 1.0, abs=0.05)

    def correlation(dataset: xr.Dataset, months: int) -> float:
        anomalies = [
            (one.groupby("time.month") - one.groupby("time.month").mean("time")).values
            for one in (dataset["sst"], dataset["ssh"])
        ]
        sea = np.isfinite(anomalies[0][0]) & np.isfinite(anomalies[1][0])
        before, after = anomalies[0][: len(anomalies[0]) - months], anomalies[1][months:]
        return float(np.corrcoef(before[:, sea].ravel(), after[:, sea].ravel())[0, 1])

    assert correlation(made, 3) > 0.5
    assert correlation(made, 3) > correlation(made, 0) + 0.1


def test_a_trend_is_not_continued_for_centuries(ocean):
    warming = ocean + 0.1 * xr.DataArray(np.arange(168) / 12.0, dims="time")
    warming = warming.astype(np.float32).assign_attrs(ocean.attrs).rename("sst")
    made = simulated(config_of(frames={"climatology": {"trend": True}}), warming, years=200)["sst"]
    century = [float(made[:1200].mean()), float(made[1200:].mean())]
    middle = float(warming.sel(time=slice("1950", "1958")).mean())
    assert century == pytest.approx([middle, middle], abs=0.1)


def test_where_the_climate_drifts_departures_from_the_years_before_are_simulated(ocean):
    slow = np.sin(2 * np.pi * np.arange(168) / 60.0)[:, None, None] * np.ones((9, 18))
    drifting = ocean.copy(data=(ocean.values + slow).astype(np.float32))
    config = config_of(frames={"trailing": 1})
    made = simulated(config, drifting, years=200)["sst"].values
    setup = prepare(config, open_source(config, drifting))
    arrays, transform = setup.arrays, setup.fields.inputs[0]
    trained, sea = setup.splits.train, transform.grid.mask
    anomalies = arrays.values[trained][:, sea]
    assert arrays.trailing is not None
    departures = anomalies - arrays.trailing[trained][:, sea]
    cycle = made.reshape(200, 12, 9, 18).mean(axis=0)
    ours = (made.reshape(200, 12, 9, 18) - cycle)[..., sea] / transform.scaler.deviation
    assert ours.std() == pytest.approx(np.sqrt((departures**2).mean()), rel=0.15)
    assert ours.std() < 0.8 * np.sqrt((anomalies**2).mean())


def test_amounts_stay_amounts(ocean):
    rain = amounts(ocean)
    for sections in (
        {"data": MEMORY | {"transform": "log1p"}},
        {"model": {"base": "climatology"}, "train": {"loss": "bernoulli_gamma"}},
        {"data": MEMORY | {"lowest": 0.0}},
    ):
        values = simulated(config_of(**sections), rain)["sst"].values
        assert np.nanmin(values) == pytest.approx(0.0, abs=1e-6)
        assert np.nanmin(values) >= 0.0
        assert np.nanmax(values) > 0.1


# ---------------------------------------------------------------- dates


def test_dates_have_the_step_and_the_months_of_the_data():
    day = np.datetime64("2001-03-15T12", "ns") + np.arange(40) * np.timedelta64(5, "D")
    seasons = np.array(["2001-05", "2001-08", "2001-11", "2002-02"], "datetime64[ns]")
    julys = np.array(["2001-07", "2003-07", "2005-07"], "datetime64[ns]")
    thirty = np.array([cftime.Datetime360Day(1990, 1 + m, 16) for m in range(12)])
    for times, count, first, step in (
        (day, 3 * 73, (1, 1, 1), ("day", 5)),
        (seasons, 12, (1, 2, 1), ("month", 3)),
        (julys, 2, (1, 7, 1), ("year", 2)),
        (thirty, 36, (1, 1, 1), ("month", 1)),
    ):
        dates = simulated_dates(TimeAxis.of(times), 3)
        axis = TimeAxis.of(dates)
        assert (len(dates), tuple(axis.dates[0]), (axis.unit, axis.every)) == (count, first, step)
        assert int(axis.dates[-1, 0]) == 3
        assert axis.gaps == []
        assert axis.calendar == ("360_day" if times is thirty else "noleap")


def test_a_daily_series_has_its_seasons():
    times = np.datetime64("2001-01-01", "ns") + np.arange(5 * 365) * np.timedelta64(1, "D")
    rng = np.random.default_rng(0)
    season = 5.0 * np.cos(2 * np.pi * np.arange(times.size) / 365.25)
    noise = np.zeros((times.size, 2, 3))
    for t in range(1, len(noise)):
        noise[t] = 0.8 * noise[t - 1] + 0.3 * rng.standard_normal((2, 3))
    data = xr.DataArray(
        (season[:, None, None] + noise).astype(np.float32),
        {"time": times, "lat": [0.0, 1.0], "lon": [10.0, 11.0, 12.0]},
        ("time", "lat", "lon"),
        "flow",
        {"units": "m3 s-1"},
    )
    splits = {"train": [2001, 2003], "validation": [2004, 2004], "test": [2005, 2005]}
    made = simulated(config_of(splits=splits), data, years=10)["flow"]
    assert made.sizes["time"] == 3650
    monthly = made.groupby("time.month").mean().values.mean(axis=(1, 2))
    np.testing.assert_allclose(monthly[[0, 6]], [4.8, -4.8], atol=0.5)


# ---------------------------------------------------------------- the experiment on it


@pytest.mark.parametrize(
    "sections",
    [
        {"frames": {"missing": "mask", "inputs": 3, "leads": 2, "trailing": 2}},
        {"frames": {"climatology": {"period": [1951, 1957]}}},
        {"target": {"classes": {}}, "model": {}},
        {"data": MEMORY | {"mean_over": {"lat": [-20, 20], "lon": [150, 250]}}},
        {"target": {"mean_over": {"lat": [-20, 20], "lon": [150, 250]}}},
        {"data": MEMORY | {"region": {"lat": [-60, 60], "lon": [-40, 200]}}},
    ],
)
def test_the_series_can_be_prepared_as_the_data_were(sections, ocean, tmp_path):
    config = config_of(**sections)
    path = simulate_from(config, ocean, years=15, output=tmp_path / "long.nc")
    experiment = load_config(path.with_suffix(".yaml"))
    setup = prepare(experiment, open_source(experiment))
    theirs = prepare(config, open_source(config, ocean))
    for ours, given in zip(setup.fields.inputs, theirs.fields.inputs, strict=True):
        assert np.array_equal(ours.grid.mask, given.grid.mask)
        np.testing.assert_allclose(ours.grid.lon, given.grid.lon)
        # It was simulated with these deviations and this climatology.
        ratio = ours.scaler.deviation / given.scaler.deviation
        np.testing.assert_allclose(ratio, 1.0, atol=0.35)
    assert setup.splits.train.sum() == 13 * 12
    assert setup.splits.test.sum() == setup.splits.validation.sum() == 12
    assert "not observed" in setup.source.origin


def test_the_experiment_names_every_variable_and_takes_over_all_other_settings(ocean, tmp_path):
    box = {"lat": [-30, 30], "lon": [100, 250]}
    own = {"lat": [-40, 40], "lon": [0, 100]}
    more = [
        {**MEMORY, "variable": "ssh", "target": False, "mean_over": own, "transform": "cube_root"}
    ]
    data = {**MEMORY, "variable": "sst", "more": more, "mean_over": box, "lowest": -5.0}
    start = {"epochs": 7, "start_from": "runs/other"}
    config = config_of(data=data, train=start, output={"directory": "a"}, model={"base": "lim"})
    path = simulate_from(config, two_variables(ocean), years=12, output=tmp_path / "long.nc")
    experiment = load_config(path.with_suffix(".yaml"))
    first, second = experiment.data, experiment.data.more[0]
    assert (first.path, second.path) == (str(path), str(path))
    assert (first.variable, second.variable) == ("sst", "ssh")
    assert (first.lowest, second.transform, second.target) == (-5.0, "cube_root", False)
    assert experiment.train.start_from is None
    assert experiment.output.directory is None
    kept = {"data": config.data, "splits": config.splits, "output": config.output}
    train = experiment.train.model_copy(update={"start_from": "runs/other"})
    assert experiment.model_copy(update={**kept, "train": train}) == config
    # The one cell of the file is the mean over the box, of both.
    setup = prepare(experiment, open_source(experiment))
    written = xr.load_dataset(path)
    for one, name in zip(setup.series, ("sst", "ssh"), strict=True):
        np.testing.assert_allclose(one.values, written[name].values, rtol=1e-6)


def test_nine_tenths_of_the_years_are_for_training(ocean):
    config = config_of()
    for years, expected in (
        (1000, [("0001", "0900"), ("0901", "0950"), ("0951", "1000")]),
        (30, [("0001", "0028"), ("0029", "0029"), ("0030", "0030")]),
    ):
        axis = TimeAxis.of(simulated_dates(TimeAxis.of(ocean["time"].values), years))
        splits = experiment_on(config, Path("long.nc"), ["sst"], axis).splits
        periods = (splits.train, splits.validation, splits.test)
        assert [(one.first, one.last) for one in periods] == expected
    longer = config_of(frames={"inputs": 12, "leads": 18})  # windows of 2.5 years
    assert experiment_on(longer, Path("a.nc"), ["sst"], axis).splits.test.first == "0028"
    short = TimeAxis.of(simulated_dates(axis, 8))
    with pytest.raises(ConfigError, match=r"windows of 30 steps(.|\n)*at least 9 years"):
        experiment_on(longer, Path("a.nc"), ["sst"], short)


# ---------------------------------------------------------------- the command


@pytest.fixture
def written(ocean, tmp_path, monkeypatch) -> Path:
    """The config of a small network, with its data, in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    ocean.to_netcdf("sea.nc")
    config = small_config(data={"path": "sea.nc"}, train={"epochs": 1})
    Path("small.yaml").write_text(dump_config(config))
    return Path("small.yaml")


def said_by(capsys, *arguments: str) -> list[list[str]]:
    """The commands that simulate-from prints, as lists of arguments."""
    assert main(["simulate-from", *arguments]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


CHOICE = ["model.base=lim", "model.reference.eofs=3"]
SECOND = [
    *("gridcast", "train", "small.yaml", *CHOICE, "train.start_from=runs/small-simulated"),
    "output.directory=runs/small-fine-tuned",
]


@pytest.mark.family
def test_the_commands_that_it_prints_train_on_the_series_and_then_on_the_data(written, capsys):
    first, second = said_by(capsys, str(written), "--years", "10", *CHOICE)
    assert first == ["gridcast", "train", "runs/small-simulated.yaml"]
    assert second == SECOND
    experiment = load_config(first[2]).with_directory("runs/small-simulated")
    setup = prepare(experiment, open_source(experiment))
    Path("runs/small-simulated").mkdir()
    best = fit_setup(setup, Path("runs/small-simulated"), resume=False).arrays["best"]
    config = load_config(second[2], second[3:])
    _, _, weights, _ = compile_setup(prepare(config, open_source(config)))
    found = named_leaves(weights)
    assert found.keys() == best.keys()
    assert all(found[name].tobytes() == best[name].tobytes() for name in best)


@pytest.mark.slow
def test_the_commands_that_it_prints_can_be_run(written, capsys):
    for command in said_by(capsys, str(written), "--years", "10", *CHOICE):
        assert main(command[1:]) == 0, capsys.readouterr().err
    source = xr.load_dataset("runs/small-simulated/forecast.nc", decode_timedelta=False)
    assert "not observed" in str(source.attrs)
    settings = yaml.safe_load(Path("runs/small-fine-tuned/config.yaml").read_text())
    assert settings["data"]["path"] == "sea.nc"
    assert Path("runs/small-fine-tuned/forecast.nc").is_file()


def test_a_reference_has_nothing_to_fine_tune_and_a_pretrained_encoder_is_given_once():
    path = Path("long.nc")
    assert next_commands(config_of(), "a.yaml", [], path) == ["gridcast train long.yaml"]
    cnn = {"name": "cnn_lstm", "channels": [2], "encoder_from": "b", "freeze_encoder": True}
    config = config_of(model=cnn, output={"directory": "my run"})
    assert next_commands(config, "a b.yaml", ["train.epochs=3"], path)[1] == (
        "gridcast train 'a b.yaml' train.epochs=3 train.start_from=runs/long "
        "model.encoder_from=null model.freeze_encoder=false 'output.directory=my run-fine-tuned'"
    )


def test_only_its_own_files_are_replaced(written, ocean, capsys):
    few = ["simulate-from", str(written), "model.base=lim", "model.reference.eofs=2", "--years"]
    before = Path("small.yaml").read_bytes(), Path("sea.nc").read_bytes()
    for output, found in (("small.nc", "small.yaml"), ("sea.nc", "sea.nc")):
        assert main([*few, "9", "--output", output]) == 2
        assert f"{found} exists, and simulate-from did not write it" in capsys.readouterr().err
    assert (Path("small.yaml").read_bytes(), Path("sea.nc").read_bytes()) == before
    assert main([*few, "9", "--output", "sea.txt"]) == 2
    assert "NAME.nc" in capsys.readouterr().err
    for years in (9, 10):
        assert main([*few, str(years), "--output", "long.nc"]) == 0
        assert xr.load_dataset("long.nc").sizes["time"] == 12 * years


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--years", "0"], "expected a number of years, at least 1"),
        (["--seed", "-1"], "expected"),
        (["--years", "10000"], "expected 1 to 9999"),
        (["--years", "1"], "at least 3 years"),
        (["splits.train=[1950-01, 1950-04]"], "a climatology of 5 coefficients"),
    ],
)
def test_mistakes_end_with_a_reason_and_code_2(arguments, reason, written, capsys):
    assert main(["simulate-from", str(written), *arguments]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not list(Path().rglob("*.nc.*")) + list(Path().rglob("small-simulated*"))


def test_more_than_fits_in_memory_is_refused_before_it_is_simulated(ocean, monkeypatch):
    monkeypatch.setattr("gridcast.simulation._BYTES", 1 << 40)
    with pytest.raises(DataError, match=r"20 simulated years need about \d+ GiB"):
        simulated(config_of(), ocean)
