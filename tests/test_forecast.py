"""Forecast files: labels, units, mask, the same bits from any form of the data, and CF."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gridcast.cli import main
from gridcast.config import config_from_dict
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.frames.known import known_fields
from gridcast.labelling import label_forecast
from gridcast.models import Inputs
from gridcast.run import Run
from gridcast.sources.netcdf import open_frames, write_netcdf
from gridcast.timeaxis import TimeAxis


@pytest.fixture(scope="module")
def run(trained) -> Run:
    return Run.load(trained.directory)


@pytest.fixture(scope="module")
def sea(trained) -> xr.Dataset:
    """The data of the run; the variable is `sst`."""
    with xr.open_dataset(trained.data) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def forecast(run, sea) -> xr.Dataset:
    return run.forecast(sea)


def reopened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        return dataset.load()


def months(values: xr.DataArray) -> list:
    return values.dt.strftime("%Y-%m-%d").values.tolist()


def test_the_network_of_the_tests_has_learned_something(run, sea, forecast):
    """The control of this file: the forecast is not that of the model's base."""
    climate = run.transform.climatology.at(forecast["time"].values[0])
    assert np.nanmax(np.abs(forecast["sst"].values[0] - climate)) > 0.05


def test_forecasts_are_labelled_with_initial_date_lead_and_valid_date(forecast, sea):
    assert forecast["sst"].dims == ("forecast_reference_time", "forecast_period", "lat", "lon")
    assert months(forecast["forecast_reference_time"]) == ["1964-12-01"]
    assert forecast["forecast_period"].values.tolist() == [1, 2, 3]
    assert forecast["forecast_period"].attrs["units"] == "month"
    assert months(forecast["time"]) == [["1965-01-01", "1965-02-01", "1965-03-01"]]
    for axis in ("lat", "lon"):
        np.testing.assert_array_equal(forecast[axis], sea[axis])
    assert forecast["sst"].attrs["units"] == "degC"
    assert forecast["sst"].attrs["units_metadata"] == "temperature: on_scale"


def test_the_mask_comes_back_exactly_and_values_are_in_the_units_of_the_data(forecast, sea):
    land = np.isnan(sea["sst"].values[0])
    assert 0 < land.sum() < land.size
    assert (np.isnan(forecast["sst"].values) == land).all()
    # Anomalies of this ocean are some degrees: the seasonal cycle is back in the forecast.
    same_months = sea["sst"].isel(time=slice(-12, -9)).values
    assert np.nanmax(np.abs(forecast["sst"].values[0] - same_months)) < 8.0
    assert np.nanmean(forecast["sst"].values) == pytest.approx(np.nanmean(same_months), abs=1.0)


def rolled(data: xr.Dataset) -> xr.Dataset:
    west = data.assign_coords(lon=(data["lon"] + 180) % 360 - 180)
    return west.sortby("lon")


def renamed(data: xr.Dataset) -> xr.Dataset:
    data = data.rename(lat="latitude", lon="longitude", time="t", sst="tos")
    return data.transpose("longitude", "t", "latitude").expand_dims(depth=[0.0])


FORMS = {
    "flipped": lambda data: data.isel(lat=slice(None, None, -1)),
    "rolled": lambda data: data.roll(lon=5, roll_coords=True),
    "west_negative": rolled,
    "time_shuffled": lambda data: data.isel(
        time=np.random.default_rng(0).permutation(data.sizes["time"])
    ),
    "other_names_and_order": renamed,
    "double_precision": lambda data: data.astype(np.float64),
    "field_alone": lambda data: data["sst"],
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_data_give_the_same_bits(form, run, sea, forecast):
    other = run.forecast(FORMS[form](sea))
    assert other["sst"].values.tobytes() == forecast["sst"].values.tobytes()
    assert other.drop_attrs().identical(forecast.drop_attrs())


def test_a_file_in_another_form_gives_the_same_bits(tmp_path, run, sea, forecast):
    rolled(sea.isel(lat=slice(None, None, -1))).to_netcdf(tmp_path / "other.nc")
    for data in (tmp_path / "other.nc", str(tmp_path / "o*.nc"), [str(tmp_path / "other.nc")]):
        assert run.forecast(data)["sst"].values.tobytes() == forecast["sst"].values.tobytes()


def test_data_in_kelvin_give_the_same_forecast_in_degrees_celsius(run, sea, forecast):
    kelvin = sea.assign(sst=(sea["sst"] + 273.15).assign_attrs(units="K"))
    other = run.forecast(kelvin)
    assert other["sst"].attrs["units"] == "degC"
    np.testing.assert_allclose(other["sst"], forecast["sst"], atol=1e-4)


def test_other_values_give_another_forecast(run, sea, forecast):
    warmer = sea.assign(sst=(sea["sst"] + 0.5).assign_attrs(sea["sst"].attrs))
    assert np.nanmax(np.abs(run.forecast(warmer)["sst"] - forecast["sst"])) > 0.05


def without_cell(data: xr.Dataset) -> xr.Dataset:
    row, column = np.argwhere(np.isfinite(data["sst"].values[0]))[3]
    return data.where((data["lat"] != data["lat"][row]) | (data["lon"] != data["lon"][column]))


def with_hole(data: xr.Dataset) -> xr.Dataset:
    data = data.copy(deep=True)
    row, column = np.argwhere(np.isfinite(data["sst"].values[0]))[3]
    data["sst"][7, row, column] = np.nan
    return data


MISFITS = {
    "rows cut": (lambda d: d.isel(lat=slice(1, None)), r"lat is -60 to 80 \(8 values\)"),
    "columns moved": (lambda d: d.assign_coords(lon=d["lon"] + 0.5), "lon is"),
    "one cell more of land": (without_cell, r"mask differs from training in 1 of 162 cells"),
    "a hole": (with_hole, "missing inside the mask.*1950-08-01"),
    "every second month": (lambda d: d.isel(time=slice(None, None, 2)), "step.*2 months"),
    "two dates": (
        lambda d: d.isel(time=slice(-2, None)),
        "needs the 3 dates up to it, itself among them; found 2",
    ),
    "other units": (lambda d: d.assign(sst=d["sst"].assign_attrs(units="m")), "units 'm'"),
    "a gap before the end": (
        lambda d: d.isel(time=np.r_[0:170, 171:172]),
        "needs the 3 dates.*found 2.*gaps: 1 step",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_data_that_do_not_fit_the_run_are_refused_with_the_reason(misfit, run, sea):
    change, reason = MISFITS[misfit]
    with pytest.raises(DataError, match=f"(?s){reason}"):
        run.forecast(change(sea))


def test_a_start_date_forecasts_as_if_the_data_ended_there(run, sea):
    early = run.forecast(sea, start="1960-03")
    assert months(early["forecast_reference_time"]) == ["1960-03-01"]
    assert months(early["time"]) == [["1960-04-01", "1960-05-01", "1960-06-01"]]
    cut = run.forecast(sea.sel(time=slice(None, "1960-03")))
    assert early["sst"].values.tobytes() == cut["sst"].values.tobytes()
    assert run.forecast(sea, start="1960")["time"].values[0, 0] == np.datetime64("1961-01-01")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("1949-12", "the data hold no date in 1949-12\n  found: 1950-01-01 to 1964-12-01"),
        ("1965", "the data hold no date in 1965"),
        ("1960-13", "start is no date: '1960-13'"),
        ("soon", "start is no date: 'soon'"),
        (
            "1950-02",
            "from 1950-02-01 needs the 3 dates up to it, itself among them; found 2",
        ),
    ],
)
def test_a_start_date_that_cannot_be_used_is_refused(start, reason, run, sea):
    with pytest.raises(DataError, match=reason):
        run.forecast(sea, start=start)


def test_forecasts_from_beyond_a_gap_use_only_what_lies_after_it(run, sea, forecast):
    gap = sea.isel(time=np.r_[0:100, 103:180])
    assert run.forecast(gap)["sst"].values.tobytes() == forecast["sst"].values.tobytes()
    # The step before a gap is forecast into it, with its own dates.
    into = run.forecast(gap, start="1958-04", leads=7)
    assert months(into["time"])[0] == [f"1958-{month:02d}-01" for month in range(5, 12)]
    whole = run.forecast(sea, start="1958-04", leads=7)
    assert into["sst"].values.tobytes() == whole["sst"].values.tobytes()


def test_leads_beyond_training_roll_out_and_agree_with_the_trained_ones(run, sea, forecast):
    longer = run.forecast(sea, leads=7)
    assert longer.sizes["forecast_period"] == 7
    assert months(longer["time"])[0][-1] == "1965-07-01"
    assert longer["sst"].values[:, :3].tobytes() == forecast["sst"].values.tobytes()
    shorter = run.forecast(sea, leads=2)
    assert shorter["sst"].values.tobytes() == forecast["sst"].values[:, :2].tobytes()


def test_a_rollout_is_the_model_applied_to_its_own_forecast(run, sea):
    transform, model = run.transform, run.model
    series = open_frames(sea)
    frames = jnp.asarray(transform.frames(series)[None, -3:])
    ahead = np.array([f"1965-0{k}-01" for k in range(1, 7)], dtype="datetime64[ns]")
    dates = np.concatenate([series["time"].values[-3:], ahead])
    known = jnp.asarray(known_fields(["season"], dates, "month", transform.grid.lat))[None]
    month = jnp.arange(1, 7)[None]
    first = model(Inputs(frames, known[:, :6], month[:, :3], frames[:, -1]))
    # Three inputs and three leads: the second block sees nothing but the first.
    second = model(Inputs(first, known[:, 3:], month[:, 3:], first[:, -1]))
    scaled = np.concatenate([first, second], axis=1)[..., 0]
    by_hand = transform.physical(scaled, ahead[None])
    np.testing.assert_allclose(run.forecast(sea, leads=6)["sst"], by_hand, atol=1e-4)


def test_the_hindcast_of_a_date_is_the_forecast_from_it(trained, run, sea):
    hindcast = reopened(trained.directory / "hindcast.nc")
    for start in ("1961-05", "1964-09"):
        one = run.forecast(sea, start=start)
        same = hindcast["sst"].sel(forecast_reference_time=f"{start}-01")
        np.testing.assert_allclose(one["sst"][0], same, atol=1e-4)


SETTINGS = {
    "data": {"path": "(in memory)"},
    "splits": {"train": [2000, 2001], "validation": [2002, 2002], "test": [2003, 2003]},
    "model": {"name": "conv_lstm"},
}


def tiny_fields(times: np.ndarray, *, target=None, **attributes) -> tuple[Fields, TimeAxis]:
    """Fitted on a tiny field with a season; the last cell is land. `target` as in a config."""
    axis = TimeAxis.of(times)
    season = 3 * np.cos(2 * np.pi * axis.phase())[:, None, None]
    values = np.random.default_rng(0).normal(15.0, 1.0, (times.size, 2, 3)) + season
    values[:, 1, 2] = np.nan
    series = xr.DataArray(
        values.astype(np.float32),
        {"time": times, "lat": [-1.0, 1.0], "lon": [10.0, 11.0, 12.0]},
        ("time", "lat", "lon"),
        attributes.pop("name", "sst"),
        {"units": "degC", **attributes},
    )
    inside = np.ones(times.size, dtype=bool)
    config = config_from_dict(SETTINGS | {"target": target or {}})
    return Fields.fit(config, [series], axis, inside), axis


def labelled(times: np.ndarray, leads: int = 3, **attributes) -> xr.Dataset:
    """Two forecasts, from the third last and the last date, of no anomaly."""
    fields, axis = tiny_fields(times, **attributes)
    initial = np.array([times.size - 3, times.size - 1])
    scaled = np.zeros((2, leads, 2, 3, 1), np.float32)
    return label_forecast(fields, scaled, axis, initial, {"title": "a test", "source": "simulated"})


def labelled_classes(times: np.ndarray) -> tuple[xr.Dataset, np.ndarray]:
    """A forecast of terciles, and the numbers it was made of."""
    fields, axis = tiny_fields(times, target={"classes": {"kind": "terciles"}})
    odds = np.random.default_rng(1).dirichlet(np.ones(3), (1, 2, 2, 3)).astype(np.float32)
    about = {"title": "a test", "source": "simulated"}
    return label_forecast(fields, odds, axis, np.array([times.size - 1]), about), odds


def test_probabilities_are_labelled_by_class_from_low_to_high():
    dataset, odds = labelled_classes(CALENDARS["daily"][0])
    field = dataset["sst_probability"]
    assert field.dims[2] == "category"
    assert field["category"].values.tolist() == ["below", "near", "above"]
    assert field.attrs["units"] == "1"
    for k, name in enumerate(("below", "near", "above")):
        found = field.sel(category=name).values
        assert np.isnan(found[..., 1, 2]).all()
        sea = np.isfinite(found)
        np.testing.assert_array_equal(found[sea], odds[..., k][sea])
        assert sea.sum() == 2 * 5
    np.testing.assert_allclose(field.sum("category").values[:, :, 0], 1.0, rtol=1e-6)


def cf_times(*arguments, **keywords) -> np.ndarray:
    return xr.date_range(*arguments, use_cftime=True, **keywords).values


CALENDARS = {
    "daily": (
        np.arange("2000-01-01", "2004-02-28", dtype="datetime64[D]").astype("datetime64[ns]"),
        [["2004-02-26", "2004-02-27", "2004-02-28"], ["2004-02-28", "2004-02-29", "2004-03-01"]],
        [24, 48, 72],
        "hours",
    ),
    "daily without leap days": (
        cf_times("2000-01-01", "2004-02-27", freq="D", calendar="noleap"),
        [["2004-02-26", "2004-02-27", "2004-02-28"], ["2004-02-28", "2004-03-01", "2004-03-02"]],
        [24, 48, 72],
        "hours",
    ),
    "months of 30 days": (
        cf_times("2000-01-01", periods=50, freq="MS", calendar="360_day"),
        [["2004-01-01", "2004-02-01", "2004-03-01"], ["2004-03-01", "2004-04-01", "2004-05-01"]],
        [1, 2, 3],
        "month",
    ),
    "six hourly": (
        np.arange("2000-01-01", "2001-01-01", np.timedelta64(6, "h"), dtype="datetime64[ns]"),
        None,
        [6, 12, 18],
        "hours",
    ),
}


@pytest.mark.parametrize("calendar", CALENDARS)
def test_valid_dates_follow_the_calendar_of_the_data(calendar, tmp_path):
    times, dates, period, units = CALENDARS[calendar]
    dataset = labelled(times)
    assert dataset["forecast_period"].values.tolist() == period
    assert dataset["forecast_period"].attrs["units"] == units
    if dates is not None:
        assert months(dataset["time"]) == dates
    # The last field forecast is the seasonal cycle of its own date.
    transform = tiny_fields(times)[0].targets[0]
    expected = transform.climatology.at(dataset["time"].values[1])
    np.testing.assert_allclose(
        dataset["sst"][1], np.where(transform.grid.mask, expected, np.nan), rtol=1e-5
    )
    write_netcdf(dataset, tmp_path / "forecast.nc")
    back = reopened(tmp_path / "forecast.nc")
    assert (back["time"].values == dataset["time"].values).all()


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "on_scale"),
        ({"units": "K"}, "on_scale"),
        ({"units": "degree_Celsius"}, "on_scale"),
        ({"units": "K", "name": "ssta", "long_name": "SST anomaly"}, "difference"),
        ({"units": "K", "units_metadata": "temperature: difference"}, "difference"),
        ({"units": "mm/day", "name": "precip"}, None),
    ],
)
def test_temperatures_and_their_anomalies_are_told_apart(attributes, kind):
    field = next(iter(labelled(CALENDARS["daily"][0], **attributes).data_vars.values()))
    assert field.attrs.get("units_metadata") == (kind and f"temperature: {kind}")


def test_a_forecast_read_back_equals_the_one_written(tmp_path, forecast):
    write_netcdf(forecast, tmp_path / "forecast.nc")
    back = reopened(tmp_path / "forecast.nc")
    xr.testing.assert_equal(back, forecast)
    assert back.attrs == forecast.attrs
    assert back["sst"].attrs == forecast["sst"].attrs


@pytest.mark.family
def test_every_file_that_a_run_writes_passes_the_cf_checker(trained, tmp_path):
    paths = [trained.directory / f"{name}.nc" for name in ("forecast", "hindcast", "scores")]
    for calendar, (times, *_) in CALENDARS.items():
        paths.append(tmp_path / f"{calendar.replace(' ', '_')}.nc")
        write_netcdf(labelled(times), paths[-1])
    rain, broken = tmp_path / "rain.nc", tmp_path / "broken.nc"
    write_netcdf(labelled(times, units="mm/day", name="precip"), rain)
    write_netcdf(labelled_classes(times)[0], tmp_path / "classes.nc")
    paths.append(tmp_path / "classes.nc")
    spoiled = labelled(times)
    spoiled["sst"].attrs |= {"units": "no unit at all", "standard_name": "no_such_name"}
    write_netcdf(spoiled, broken)
    checker = Path(sys.executable).with_name("compliance-checker")

    def check(*files: Path) -> subprocess.CompletedProcess:
        command = [str(checker), "-t", "cf:1.11", "-c", "strict", *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True)

    done = check(*paths, rain)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("All tests passed!") == len(paths) + 1, done.stdout
    assert "Errors" in check(broken).stdout  # the control: the checker does find mistakes


def test_the_command_writes_what_the_function_returns(trained, forecast, tmp_path, capsys):
    path = tmp_path / "mine.nc"
    code = main(["forecast", str(trained.directory), "--output", str(path), "--leads", "5"])
    assert (code, capsys.readouterr().out.strip()) == (0, str(path))
    back = reopened(path)
    np.testing.assert_array_equal(back["sst"][:, :3], forecast["sst"])
    assert "simulated" in back.attrs["source"]


def test_references_are_not_fitted_on_a_part_of_the_training_dates(run, sea):
    run.evaluate(sea)  # the control
    with pytest.raises(DataError, match="the data hold 96 of the 108 training dates"):
        run.evaluate(sea.isel(time=slice(12, None)))
