"""Exported programs: the bits of the run, its dates, what is refused, and life without gridcast."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import same_bits

import gridcast
from gridcast.cli import main
from gridcast.config import config_from_dict
from gridcast.errors import CheckpointError, ConfigError, DataError
from gridcast.exporting.dates import Seasons
from gridcast.exporting.loading import Exported
from gridcast.run import Run
from gridcast.timeaxis import TimeAxis, season_fields

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def run(trained) -> Run:
    return Run.load(trained.directory)


@pytest.fixture(scope="module")
def sea(trained) -> xr.Dataset:
    with xr.open_dataset(trained.data) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Exported:
    """Written by the command line."""
    directory = tmp_path_factory.mktemp("exported") / "new" / "sea"
    assert main(["export", str(trained.directory), "--output", str(directory)]) == 0
    return gridcast.load_exported(directory)


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """The exported directory, to be damaged."""
    for path in exported.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def same(ours: xr.Dataset, theirs: xr.Dataset) -> bool:
    """Labels, attributes and bits; the history says when."""
    a, b = (one.assign_attrs(history="") for one in (ours, theirs))
    return a.identical(b) and same_bits(*({n: v.values for n, v in x.items()} for x in (a, b)))


def windows(sea: xr.Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The arrays that the program takes, of the last windows."""
    values, times = sea["sst"].values, sea["time"].values
    last = np.arange(times.size - count, times.size)
    frames = values[last[:, None] + np.arange(-2, 1)][..., None]
    return frames, TimeAxis.of(times).dates[last].astype(np.int32)


def test_the_exported_forecast_is_that_of_the_run_bit_for_bit(run, sea, exported):
    for start in (None, "1962-05"):
        assert same(exported(sea, start=start), run.forecast(sea, start=start))
    # The control: another window has another forecast.
    assert not same(exported(sea, start="1962-06"), run.forecast(sea, start="1962-05"))


def test_a_window_has_the_same_forecast_in_any_batch(run, sea, exported):
    """Also where a batch is larger than the blocks in which it is forecast."""
    count = run.config.train.batch_size + 3
    values, date = windows(sea, count)
    all_of_them = exported.arrays(values, date)["sst"]
    assert all_of_them.shape == (count, 3, 9, 18)
    for rows in (slice(0, 1), slice(count - 1, count)):
        assert same_bits(exported.arrays(values[rows], date[rows])["sst"], all_of_them[rows])
    assert not same_bits(all_of_them[0], all_of_them[1])


def test_any_order_of_axes_gives_the_same_forecast(run, sea, exported):
    turned = sea.isel(lat=slice(None, None, -1), time=slice(None, None, -1)).roll(lon=5)
    turned = turned.assign_coords(lon=np.roll(sea["lon"].values, 5))
    assert same(exported(turned), exported(sea))


def test_what_lies_off_the_mask_changes_nothing(sea, exported):
    values, date = windows(sea, 1)
    land = np.where(np.isnan(values), np.float32(1e6), values)
    assert same_bits(exported.arrays(land, date), exported.arrays(values, date))
    assert np.isnan(values).any()


def test_a_date_that_does_not_exist_has_no_forecast(sea, exported):
    values, date = windows(sea, 1)
    assert np.isfinite(exported.arrays(values, date)["sst"]).any()
    date[0, 1] = 13
    assert np.isnan(exported.arrays(values, date)["sst"]).all()


def test_it_lowers_for_all_platforms_and_asks_nothing_of_the_host(exported):
    assert exported.program.platforms == ("cpu", "cuda", "tpu")
    text = exported.program.mlir_module()
    assert "stablehlo.convolution" in text
    for host in ("callback", "infeed", "outfeed"):
        assert host not in text


def readme_example() -> str:
    section = README.read_text().split("## Use without gridcast")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.mark.family
def test_the_example_of_the_readme_runs_without_gridcast_and_flax(run, sea, exported, tmp_path):
    values, _ = windows(sea, 1)
    np.save(tmp_path / "values.npy", values)
    refuse = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('gridcast', 'flax', 'optax', 'xarray', 'jaxtyping'):\n"
        "            raise ImportError(f'{name} is not here')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    example = readme_example().replace("runs/sst/export", str(exported.directory))
    example = example.replace("2012, 12, 1", "1964, 12, 1")
    (tmp_path / "use.py").write_text(f"{refuse}{example}\nnp.save('sst.npy', sst)\n")
    command = [sys.executable, "use.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert same_bits(np.load(tmp_path / "sst.npy"), run.forecast(sea)["sst"].values)
    # The control: the hook refuses what it should.
    (tmp_path / "use.py").write_text(f"{refuse}import gridcast\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "gridcast is not here" in done.stderr


@pytest.mark.parametrize("name", ["forecast.jax", "grid.npz", "about.json"])
def test_a_damaged_file_is_refused(copy, name):
    gridcast.load_exported(copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        gridcast.load_exported(copy)


def test_a_directory_that_is_no_export_is_refused(trained, copy):
    with pytest.raises(CheckpointError, match="cannot be read as an exported forecast"):
        gridcast.load_exported(trained.directory)
    (copy / "grid.npz").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as an exported forecast"):
        gridcast.load_exported(copy)


def with_units(sea: xr.Dataset, units: str) -> xr.Dataset:
    return sea.assign(sst=sea["sst"].assign_attrs(units=units))


def moved(sea: xr.Dataset) -> xr.Dataset:
    return sea.assign_coords(lat=sea["lat"] + 1.0)


def flooded(sea: xr.Dataset) -> xr.Dataset:
    return sea.fillna(np.float32(10.0))


def with_a_hole(sea: xr.Dataset) -> xr.Dataset:
    holes = sea.copy(deep=True)
    row, column = np.argwhere(np.isfinite(sea["sst"].values[-1]))[0]
    holes["sst"].values[-2, row, column] = np.nan
    return holes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sea: sea.coarsen(lat=3, lon=3).mean(), "the data's lat is"),
        (moved, "the data's lat is"),
        (flooded, "mask differs from training"),
        (with_a_hole, "missing inside the mask"),
        (lambda sea: sea.astype("float64"), "has dtype float64, expected float32"),
        (lambda sea: sea.rename(sst="temperature"), "no variable 'sst'"),
        (lambda sea: with_units(sea, "m"), "no conversion is known"),
        (lambda sea: sea.isel(time=slice(None, None, 2)), "the step of the data is: 2 months"),
        (lambda sea: sea.isel(time=slice(-2, None)), "needs the 3 dates up to it"),
        (lambda sea: sea.drop_isel(time=-2), "needs the 3 dates up to it"),
    ],
)
def test_data_that_do_not_fit_are_refused(sea, exported, change, message):
    with pytest.raises(DataError, match=message):
        exported(change(sea))


def test_kelvin_are_converted_as_the_run_does(run, sea, exported):
    kelvin = with_units(sea + np.float32(273.15), "K")
    found = exported(kelvin)
    assert same(found, run.forecast(kelvin))
    np.testing.assert_allclose(found["sst"], exported(sea)["sst"], atol=1e-3)


@pytest.mark.parametrize(
    ("values", "date", "message"),
    [
        (lambda v: v.astype(np.float64), lambda d: d, "values has dtype float64"),
        (lambda v: v, lambda d: d.astype(np.int64), "date has dtype int64"),
        (lambda v: v[:, 1:], lambda d: d, "values has shape"),
        (lambda v: v[..., 0], lambda d: d, "values has shape"),
        (lambda v: v[:, :, :, 1:], lambda d: d, "values has shape"),
        (lambda v: v, lambda d: d[:1], "2 windows of values, but 1 dates"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(sea, exported, values, date, message):
    good = windows(sea, 2)
    with pytest.raises(DataError, match=message):
        exported.arrays(values(good[0]), date(good[1]))


def test_it_says_what_it_takes_and_gives(run, exported):
    about = exported.about
    assert about["values"]["shape"] == ["batch", 3, 9, 18, 1]
    assert about["values"]["variables"][0]["units"] == "degC"
    assert about["forecast"]["variables"]["sst"]["units"] == "degC"
    assert (about["step"]["unit"], about["forecast"]["leads"]) == ("month", 3)
    sums = json.loads((exported.directory / "sha256.json").read_text())
    assert sums.keys() == {"forecast.jax", "grid.npz", "about.json"}
    assert exported.grids[0].digest == run.transform.grid.digest == about["grid"]["digest"]


def test_only_an_earlier_export_is_replaced(run, copy):
    gridcast.export_run(run, copy)  # the fixture is one
    gridcast.load_exported(copy)
    (copy / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(DataError, match="is not empty"):
        gridcast.export_run(run, copy)
    assert before == {path.name: path.read_bytes() for path in copy.iterdir()}


def test_without_flatbuffers_the_extra_is_named(run, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for do in (
        lambda: gridcast.export_run(run, tmp_path / "new"),
        lambda: gridcast.load_exported(exported.directory),
    ):
        with pytest.raises(ConfigError, match=r"fix: pip install 'gridcast\[export\]'"):
            do()


def with_settings(run: Run, **sections: dict) -> Run:
    settings = json.loads(run.config.model_dump_json())
    for name, values in sections.items():
        settings[name] |= values
    return replace(run, config=config_from_dict(settings))


def test_what_a_program_cannot_hold_is_refused(run, tmp_path):
    patches = {"patches": {"size": [6, 8], "overlap": 2}}
    box = {"mean_over": {"lat": [-40, 40], "lon": [100, 260]}}
    for refused, what in (
        (with_settings(run, frames=patches), "frames.patches"),
        (with_settings(run, target=box), "target.mean_over"),
    ):
        with pytest.raises(ConfigError, match=f"{what} cannot be exported"):
            gridcast.export_run(refused, tmp_path / "new")
    for unit, calendar in (("hour", "proleptic_gregorian"), ("day", "julian")):
        with pytest.raises(DataError, match=r"(?s)cannot be exported.*fix: forecast with gridcast"):
            Seasons.of(unit, 6, calendar, 0)
    assert not (tmp_path / "new").exists()


STAMPS = [
    ("1999-11-01", "1MS", "standard"),
    ("1899-12-31", "3ME", "standard"),
    ("1950-06-15", "YS", "standard"),
    ("1895-02-20T12", "1D", "standard"),
    ("1999-12-20", "5D", "standard"),
    ("2000-02-20T12", "1D", "noleap"),
    ("2000-02-20", "1D", "all_leap"),
    ("2000-02-20", "7D", "360_day"),
]


@pytest.mark.parametrize(("first", "step", "calendar"), STAMPS)
def test_a_program_counts_dates_as_the_series_does(first, step, calendar):
    """Over ends of years and of Gregorian centuries, to both sides of the initial date."""
    times = xr.date_range(first, periods=2000, freq=step, calendar=calendar).values
    axis = TimeAxis.of(times.astype("datetime64[ns]") if times.dtype != object else times)
    seasons = Seasons.of(axis.unit, axis.every, *axis.clock)
    initial, steps = np.array([900, 1001]), np.arange(-900, 990)
    date = jnp.asarray(axis.dates[initial], jnp.int32)
    season, year = seasons.after(date, steps)
    later = axis.times[initial[:, None] + steps].reshape(-1)
    expected = season_fields(later, axis.unit)
    found = season_fields(seasons.dates, axis.unit)
    season, year = np.asarray(season).reshape(-1), np.asarray(year).reshape(-1)
    np.testing.assert_array_equal(found[0][season], expected[0])
    np.testing.assert_array_equal(seasons.months[season], expected[1])
    np.testing.assert_array_equal(year + found[0][season], expected[2])
    assert np.asarray(seasons.exists(date)).all()


def test_days_that_a_calendar_lacks_do_not_exist():
    def known(calendar: str) -> list[bool]:
        dates = [(2000, 2, 29), (1900, 2, 29), (2001, 2, 28), (2001, 4, 31), (2001, 2, 30)]
        seasons = Seasons.of("day", 1, calendar, 0)
        return np.asarray(seasons.exists(jnp.array(dates, jnp.int32))).tolist()

    assert known("proleptic_gregorian") == [True, False, True, False, False]
    assert known("noleap") == [False, False, True, False, False]
    assert known("all_leap") == [True, True, True, False, False]
    assert known("360_day") == [True, True, True, False, True]
