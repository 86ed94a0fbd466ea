"""Forecast files of any convention give the same array; what cannot be compared is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr
from conftest import Trained, small_config
from scipy.stats import norm

import gridcast
from gridcast.cli import main
from gridcast.config.bounds import Region
from gridcast.config.data import VariableConfig
from gridcast.config.frames import FramesConfig
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.frames.splits import Splits
from gridcast.frames.transform import FrameTransform
from gridcast.labelling import valid_times
from gridcast.matching import matching_series
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.sources.netcdf import write_netcdf
from gridcast.timeaxis import TimeAxis
from gridcast.verification.comparison import beside
from gridcast.verification.foreign import ForeignForecast, read_forecast
from gridcast.verification.foreign_fields import GatheredFields
from gridcast.verification.hindcast import Hindcast, same_dates
from gridcast.verification.scores import score

LEADS = 3
INITIAL = np.arange(130, 150)  # months since 1950-01


@pytest.fixture(scope="module")
def setup(ocean) -> Setup:
    config = small_config(frames={"leads": LEADS})
    return prepare(config, open_source(config, ocean))


@pytest.fixture(scope="module")
def truth(setup) -> np.ndarray:
    """[window lead lat lon] degC: another number for each window, lead and cell."""
    mask = setup.fields.targets[0].grid.mask
    number = np.arange(INITIAL.size * LEADS * mask.size).reshape(INITIAL.size, LEADS, *mask.shape)
    return np.where(mask, 5.0 + number * 2.0**-9, np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def own(setup, truth) -> xr.Dataset:
    """The truth as CF has it: initial dates of the last month known, leads in months."""
    grid, times = setup.fields.targets[0].grid, setup.axis.times
    standard = ("forecast_reference_time", "forecast_period", "latitude", "longitude")
    about = [{"standard_name": name} for name in standard]
    return xr.Dataset(
        {"sst": (("init", "lead", "lat", "lon"), truth, {"units": "degC"})},
        {
            "init": ("init", times[INITIAL], about[0]),
            "lead": ("lead", np.arange(1, LEADS + 1), {**about[1], "units": "months"}),
            "lat": ("lat", grid.lat, about[2]),
            "lon": ("lon", grid.lon, about[3]),
        },
    )


@pytest.fixture(scope="module")
def read(setup) -> Callable[..., ForeignForecast]:
    def read(source, **options) -> ForeignForecast:
        usual = {"target": setup.fields.targets[0], "initial": INITIAL, "leads": LEADS}
        return read_forecast(source, axis=setup.axis, **(usual | options))

    return read


def months_later(times: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    return (times.astype("datetime64[M]") + count).astype("datetime64[ns]")


def bare(data: xr.Dataset) -> xr.Dataset:
    """Without any attribute but units: only names tell what is what."""
    units = {name: v.attrs.get("units") for name, v in data.variables.items()}
    data = data.drop_attrs()
    for name, unit in units.items():
        if unit is not None:
            data[name].attrs["units"] = unit
    return data


# ---------------------------------------------------------------- one forecast, many conventions


def nmme(own: xr.Dataset) -> xr.Dataset:
    """Started on the first of the month after, in a calendar of 360 days; L = 0.5, 1.5, ...

    Kelvin, four members, north first, longitude -180 to 160, and the only level there is.
    """
    months = own["init"].values.astype("datetime64[M]").astype(int) + 1 + 10 * 12  # since 1960
    data = bare(own).rename(init="S", lead="L", lat="Y", lon="X")
    data = data.assign_coords(
        S=("S", months.astype(np.float64), {"units": "months since 1960-01-01"}),
        L=("L", np.arange(LEADS) + 0.5, {"units": "months"}),
        X=("X", own["lon"].values - 180.0, {"units": "degree_east"}),
        Y=("Y", own["lat"].values, {"units": "degree_north"}),
    )
    data["S"].attrs["calendar"] = "360_day"
    data["sst"] = data["sst"].roll(X=own.sizes["lon"] // 2) + np.float32(273.15)
    spread = xr.DataArray(
        np.array([-3, -1, 1, 3], np.float32), dims="M", coords={"M": [1.0, 2, 3, 4]}
    )
    data["sst"] = (data["sst"] + spread).expand_dims(Z=[0.0]).assign_attrs(units="Kelvin")
    data = data.isel(Y=slice(None, None, -1)).transpose("L", "M", "S", "Z", "Y", "X")
    return data.assign_coords(Z=("Z", [0.0]))


def climpred(own: xr.Dataset) -> xr.Dataset:
    """Leads 0, 1, ...: the month of the initial date is the first that is forecast."""
    data = bare(own).assign_coords(init=months_later(own["init"].values, 1))
    return data.assign_coords(lead=("lead", np.arange(LEADS), {"units": "months"}))


def copernicus(own: xr.Dataset) -> xr.Dataset:
    """forecastMonth 1 is the first whole month from the initial date on; valid dates end months."""
    data = bare(own).rename(init="time", lead="forecastMonth", lat="latitude", lon="longitude")
    start = months_later(own["init"].values, 1)
    start[::2] -= np.timedelta64(14, "D")
    ends = months_later(own["init"].values[:, None], np.arange(2, LEADS + 2))
    data = data.assign_coords(time=start, valid_time=(("time", "forecastMonth"), ends))
    data["time"].attrs["standard_name"] = "forecast_reference_time"
    return data.isel(latitude=slice(None, None, -1))


def verifying(own: xr.Dataset) -> xr.Dataset:
    """Every initial date with every valid date, most of them missing; and a scalar member."""
    start = months_later(own["init"].values, 1)
    valid = np.unique(months_later(start[:, None], np.arange(LEADS)))
    values = np.full((start.size, valid.size, *own["sst"].shape[2:]), np.nan, np.float32)
    for k in range(start.size):
        values[k, k : k + LEADS] = own["sst"].values[k]
    return xr.Dataset(
        {"t": (("time", "verifying_time", "lat", "lon"), values, {"units": "C"})},
        {
            "time": ("time", start, {"standard_name": "forecast_reference_time"}),
            "verifying_time": ("verifying_time", valid, {"standard_name": "time"}),
            "valid_time": ("time", start, {"standard_name": "time"}),
            "number": 0,
            "lat": own["lat"],
            "lon": own["lon"],
        },
    )


def dated(own: xr.Dataset) -> xr.Dataset:
    """Valid dates amid the months of another calendar; the leads say nothing."""
    start = own["init"].values
    valid = months_later(start[:, None], np.arange(1, LEADS + 1))
    dates = [str(date)[:7].split("-") for date in valid.ravel()]
    noleap = np.array([cftime.DatetimeNoLeap(int(y), int(m), 16) for y, m in dates])
    data = bare(own).rename(init="time", lead="step")
    return data.assign_coords(
        step=("step", np.arange(LEADS), {"units": "1"}),
        valid_time=(("time", "step"), noleap.reshape(valid.shape)),
    )


def listed(own: xr.Dataset) -> xr.Dataset:
    """One dimension of cases with both dates beside it, in no order, and a land mask."""
    cases = bare(own).stack(case=("init", "lead"), create_index=False)
    start = cases["init"].values
    data = cases[["sst"]].drop_vars(["init", "lead"])
    data = data.assign_coords(
        reftime=("case", start), valid_time=("case", months_later(start, cases["lead"].values))
    )
    data["land"] = (("lat", "lon"), np.isfinite(own["sst"].values[0, 0]).astype(np.int8))
    mixed = np.random.default_rng(0).permutation(start.size)
    return data.rename(sst="tos").isel(case=mixed).transpose("lat", "case", "lon")


def wider(own: xr.Dataset) -> xr.Dataset:
    """More dates, leads, rows and columns than are asked for."""
    shifted = own.assign_coords(init=months_later(own["init"].values, -own.sizes["init"]))
    data = xr.concat([shifted - 50.0, own], "init", combine_attrs="override")
    further = (data.isel(lead=[-1]) + 50.0).assign_coords(lead=[LEADS + 1])
    data = xr.concat([data, further], "lead", combine_attrs="override")
    rows = (data.isel(lat=[0, -1]) + 9.0).assign_coords(lat=[-85.0, 85.0])
    data = xr.concat(
        [rows.isel(lat=[0]), data, rows.isel(lat=[1])], "lat", combine_attrs="override"
    )
    columns = (data + 9.0).assign_coords(lon=data["lon"] + 10.0)
    data = xr.concat([data, columns], "lon", combine_attrs="override").sortby("lon")
    data["sst"].attrs["units"] = "degree_Celsius"
    data["lead"].attrs |= own["lead"].attrs
    return data


def misnamed(own: xr.Dataset) -> xr.Dataset:
    """Standard names count, whatever the names are; there is no telling what these names are of."""
    data = own.rename(init="a", lead="b", lat="c", lon="d")
    return data.assign_coords(
        start=("a", months_later(own["init"].values, 5)),
        lead_time=("b", np.arange(LEADS) + 7, {"units": "months"}),
    )


CONVENTIONS = [misnamed, nmme, climpred, copernicus, verifying, dated, listed, wider]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda one: one.__name__)
def test_each_convention_gives_the_same_forecasts(convention, own, truth, read, tmp_path):
    write_netcdf(own, tmp_path / "own.nc")
    expected = read(tmp_path / "own.nc")
    np.testing.assert_array_equal(expected.values, truth)
    assert expected.there.all()
    convention(own).to_netcdf(tmp_path / "other.nc")
    found = read(tmp_path / "other.nc")
    tolerance = 1e-4 if convention is nmme else 0.0  # float32 of 300 kelvin
    np.testing.assert_allclose(found.values, truth, rtol=0, atol=tolerance)
    assert found.there.all()


def test_the_calendar_and_units_of_the_iri_data_library_are_read(own, truth, read, tmp_path):
    data = nmme(own)
    data["S"].attrs["calendar"] = "360"
    data["sst"] = (data["sst"] - np.float32(273.15)).assign_attrs(units="Celsius_scale")
    data.to_netcdf(tmp_path / "iri.nc")
    np.testing.assert_allclose(read(tmp_path / "iri.nc").values, truth, atol=1e-4)


def test_files_of_one_initial_date_each_are_one_forecast(own, truth, read, tmp_path):
    for k in range(own.sizes["init"]):
        one = own.isel(init=k) if k % 2 else own.isel(init=[k])
        one.to_netcdf(tmp_path / f"{k:02d}.nc")
    np.testing.assert_array_equal(read(str(tmp_path / "*.nc")).values, truth)
    single = read(own.isel(init=4, lead=1))
    np.testing.assert_array_equal(single.values[4, 1], truth[4, 1])
    assert np.argwhere(single.there).tolist() == [[4, 1]]
    assert np.isnan(np.delete(single.values.reshape(-1, *truth.shape[2:]), 4 * LEADS + 1, 0)).all()


def test_a_file_is_read_in_parts_as_in_one_go(own, truth, read, monkeypatch):
    """Parts of some initial dates each, of which some are not asked for."""
    chosen = np.array([1, 2, 5, 12, 19])
    backwards = own.isel(init=slice(None, None, -1))
    for count in (1, 3, 7, 50):
        nbytes = count * own["sst"].isel(init=0).size * 4
        monkeypatch.setattr("gridcast.sources.forecast_file._BLOCK", nbytes)
        for source in (own, backwards):
            found = read(source, initial=INITIAL[chosen])
            np.testing.assert_array_equal(found.values, truth[chosen])


def test_a_file_is_read_field_by_field_in_any_order_of_its_axes(own, truth, read, monkeypatch):
    """Also where all initial dates of a lead are more than a part; members come and go."""
    members = (own["sst"] + xr.DataArray([0.0, 1.0], dims="number")).astype(np.float32)
    members[{"init": 3, "number": 1}] = np.nan
    data = members.assign_attrs(own["sst"].attrs).to_dataset(name="sst")
    data = data.transpose("lead", "init", ...)
    whole = read(data)
    sizes = []
    put = GatheredFields.put

    def count(self: GatheredFields, pairs, values, there) -> None:
        sizes.append(len(pairs))
        put(self, pairs, values, there)

    monkeypatch.setattr(GatheredFields, "put", count)
    field = data["sst"].isel(init=0, lead=0).size * 4
    for fields in (1, 7, 50):
        monkeypatch.setattr("gridcast.sources.forecast_file._BLOCK", fields * field)
        found = read(data)
        assert max(sizes) == min(fields, 2 * INITIAL.size)
        np.testing.assert_array_equal(found.values, whole.values)
        np.testing.assert_array_equal(found.members, whole.members)
        assert found.there.all()
        sizes.clear()
    np.testing.assert_array_equal(whole.values[3], truth[3])
    np.testing.assert_array_equal(whole.values[4], truth[4] + np.float32(0.5))


def test_what_a_forecast_knew_can_be_said(own, truth, read):
    """Integer leads from 1 on: of months after the last one known, unless it is said otherwise."""
    assert read(own).there.all()
    begun = read(own, begins=True)
    # Begun in month p, for p + 2: two months ahead of p, three of p - 1, the last one known.
    np.testing.assert_array_equal(begun.there.sum(axis=0), [0, INITIAL.size - 1, INITIAL.size - 1])
    np.testing.assert_array_equal(begun.values[:-1, 1:], truth[1:, :2])
    middle = read(xr.decode_cf(nmme(own)).isel(L=[1, 2]))  # half months say it without the first
    np.testing.assert_allclose(middle.values[:, 1:], truth[:, 1:], atol=1e-4)
    later = read(copernicus(own).isel(forecastMonth=[1, 2]))
    np.testing.assert_array_equal(later.values[:, 1:], truth[:, 1:])
    assert not middle.there[:, 0].any()
    assert not later.there[:, 0].any()
    zero = climpred(own)
    assert read(zero).there.all()
    np.testing.assert_array_equal(read(zero, begins=False).values[1:, :2], truth[:-1, 1:])


def test_a_forecast_may_lack_dates_and_leads(own, truth, read):
    lacking = own.isel(init=np.r_[0:3, 7:20], lead=[0, 2]).copy(deep=True)
    lacking["sst"].values[5, 0] = np.nan
    found = read(lacking)
    expected = np.ones((INITIAL.size, LEADS), bool)
    expected[3:7] = expected[:, 1] = expected[9, 0] = False
    np.testing.assert_array_equal(found.there, expected)
    np.testing.assert_array_equal(found.values[expected], truth[expected])
    assert np.isnan(found.values[~expected]).all()


def test_members_that_are_there_are_averaged_and_given(own, truth, read):
    spread = xr.DataArray(np.array([-1, 0, 4, 5], np.float32), dims="realisation")
    ensemble = (own["sst"] + spread).to_dataset(name="sst").rename(realisation="number")
    ensemble["sst"].attrs = own["sst"].attrs
    absent = {"init": slice(0, 5), "number": [1, 3]}
    ensemble["sst"][absent] = np.nan
    found = read(ensemble)
    np.testing.assert_allclose(found.values[:5], truth[:5] + 1.5)
    np.testing.assert_allclose(found.values[5:], truth[5:] + 2.0)
    for k, offset in enumerate([-1, 0, 4, 5]):
        known = found.members[k, 5 * (k % 2) :]
        np.testing.assert_array_equal(known, (truth + np.float32(offset))[5 * (k % 2) :])
    assert np.isnan(found.members[[1, 3], :5]).all()


# ---------------------------------------------------------------- days, rain, indices, other grids


def daily_target(units: str = "mm/day", frequency: str = "D") -> tuple[FrameTransform, TimeAxis]:
    """Two years without missing values on 2 x 3 cells, and their dates."""
    times = xr.date_range("2000-01-01", "2001-12-31", freq=frequency)
    rng = np.random.default_rng(1)
    series = xr.DataArray(
        rng.gamma(1.0, 2.0, (times.size, 2, 3)).astype(np.float32),
        {"time": times, "lat": [-1.0, 1.0], "lon": [10.0, 12.0, 14.0]},
        ("time", "lat", "lon"),
        "rain",
        {"units": units},
    )
    axis = TimeAxis.of(series["time"].values)
    inside = np.ones(times.size, bool)
    config, variable = FramesConfig(), VariableConfig(path="(in memory)")
    return FrameTransform.fit(series, axis, inside, config, variable), axis


def rain(start: np.ndarray, lead: np.ndarray, attrs: dict[str, str], units: str) -> xr.Dataset:
    """[time step lat lon] 100 * number of the start + number of the lead."""
    numbers = 100.0 * np.arange(len(start))[:, None] + np.arange(len(lead))
    values = np.broadcast_to(numbers[..., None, None], (*numbers.shape, 2, 3)).astype(np.float32)
    dims = ("time", "prediction_timedelta", "latitude", "longitude")
    coords = {
        "time": start,
        "prediction_timedelta": ("prediction_timedelta", lead, attrs),
        "latitude": [-1.0, 1.0],
        "longitude": [10.0, 12.0, 14.0],
    }
    return xr.Dataset({"tp": (dims, values, {"units": units})}, coords)


DAYS = np.array(["2000-02-27", "2000-02-28", "2000-12-31"], dtype="datetime64[ns]")


def days_read(data: xr.Dataset) -> np.ndarray:
    """The first cell of forecasts 1 to 3 days ahead, from DAYS."""
    target, axis = daily_target()
    initial = np.searchsorted(axis.times, DAYS)
    return read_forecast(data, target, axis, initial, 3).values[..., 0, 0]


def test_days_are_counted_over_leap_days_and_years_whatever_the_lead_is_counted_in(tmp_path):
    expected = 100 * np.arange(3)[:, None] + np.arange(1, 4)
    hours = rain(DAYS, np.arange(0, 120, 24), {"units": "hours"}, "mm/day")
    hours.to_netcdf(tmp_path / "hours.nc")
    lengths = np.arange(5).astype("timedelta64[D]").astype("timedelta64[ns]")
    spans = rain(DAYS, lengths, {}, "mm/day")
    spans.to_netcdf(tmp_path / "spans.nc")
    noon = rain(DAYS + np.timedelta64(12, "h"), np.arange(5), {"units": "days"}, "mm/day")
    for source in (tmp_path / "hours.nc", tmp_path / "spans.nc", spans, noon):
        np.testing.assert_array_equal(days_read(source), expected)
    # In the middles of days, the first of which begins at the initial date (SubX).
    halves = rain(DAYS + np.timedelta64(1, "D"), np.arange(4) + 0.5, {"units": "days"}, "mm/day")
    np.testing.assert_array_equal(days_read(halves), expected - 1)
    # From noon to midnight, and on: the day of the initial date is not forecast.
    halves = halves.assign_coords(time=DAYS + np.timedelta64(12, "h"))
    np.testing.assert_array_equal(days_read(halves), expected - 1)


def test_rates_become_totals_with_the_days_of_the_month_that_is_forecast():
    target, axis = daily_target("mm", "MS")
    start = np.array(["1999-12-01"], "datetime64[ns]")
    lead = np.arange(1, 15)
    data = rain(start, lead, {"units": "months"}, "kg m-2 s-1")
    data["tp"][:] = 1 / 86400
    data = data.assign_coords(time=np.array(["2000-01-01"], "datetime64[ns]"))
    found = read_forecast(data, target, axis, np.array([0]), 14).values[0, :, 0, 0]
    days = [29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28, 31]
    np.testing.assert_allclose(found, days, rtol=1e-6)


def test_a_forecast_on_finer_cells_is_taken_only_when_interpolation_is_asked_for(own, truth, read):
    grid = {name: own[name].values for name in ("lat", "lon")}
    lat = np.add.outer(grid["lat"], [-5.0, 5.0]).ravel()
    lon = np.add.outer(grid["lon"], [-5.0, 5.0]).ravel()
    values = np.repeat(np.repeat(truth, 2, axis=2), 2, axis=3)
    fine = xr.Dataset(
        {"sst": (own["sst"].dims, values, {"units": "degC"})},
        {"init": own["init"], "lead": own["lead"], "lat": lat, "lon": lon},
    )
    with pytest.raises(DataError) as error:
        read(fine)
    assert "latitude is -85 to 85 (18 values)" in str(error.value)
    assert "expected: -80 to 80 (9 values)" in str(error.value)
    np.testing.assert_allclose(read(fine, regrid=True).values, truth, rtol=1e-6)


def test_an_index_is_the_mean_over_its_box_or_the_index_itself(ocean):
    box = Region(lat=(-25, 25), lon=(190, 230))
    config = small_config(target={"mean_over": box.model_dump()})
    setup = prepare(config, open_source(config, ocean))
    target, initial = setup.fields.targets[0], np.array([140, 141])
    inside = ocean.sel(lat=slice(-25, 25), lon=slice(190, 230))
    assert inside.notnull().all()
    dims = ("init", "lat", "lon")
    fields = xr.Dataset(
        {"sst": (dims, ocean.values[[141, 142]], {"units": "degC"})},
        {
            "init": ocean["time"].values[[141, 142]],
            "lead": ((), 0, {"units": "months"}),
            "lat": ocean["lat"],
            "lon": ocean["lon"],
        },
    )
    weight = np.cos(np.deg2rad(inside["lat"].astype(float)))  # as on the sphere, for equal rows
    expected = inside.astype(float)[[141, 142]].weighted(weight).mean(("lat", "lon")).values
    found = read_forecast(fields, target, setup.axis, initial, 1, box=box)
    np.testing.assert_allclose(found.values[:, 0, 0, 0], expected, rtol=1e-5)
    index = xr.Dataset(
        {"sst": (dims, found.values[:, 0], {"units": "degC"})},
        {**fields.drop_vars(["lat", "lon"]).coords, "lat": target.grid.lat, "lon": target.grid.lon},
    )
    # Further indices of a run are labelled with the place of the first, outside of their own box.
    for own_box in (box, Region(lat=(40, 60), lon=(0, 40))):
        again = read_forecast(index, target, setup.axis, initial, 1, box=own_box)
        np.testing.assert_array_equal(again.values, found.values)
    lacking = fields.copy(deep=True)
    lacking["sst"][1, 4, 10] = np.nan
    with pytest.raises(DataError, match=r"no value in 1 of 1 cells .* in 1 of 2 fields"):
        read_forecast(lacking, target, setup.axis, initial, 1, box=box)


# ---------------------------------------------------------------- what is refused


def without(own: xr.Dataset, *cells: int) -> xr.Dataset:
    """Some cells of the sea are missing in the forecasts from two dates."""
    data = own.copy(deep=True)
    places = np.argwhere(np.isfinite(own["sst"].values[0, 0]))
    for row, column in places[list(cells)]:
        data["sst"][[3, 8], :, row, column] = np.nan
    return data


def renamed_units(own: xr.Dataset, name: str, units: str) -> xr.Dataset:
    data = own.copy()
    data[name] = data[name].assign_attrs(units=units)
    return data


FAULTS = {
    "none of the forecasts is one that the run makes": lambda d: d.assign_coords(
        init=months_later(d["init"].values, 400)
    ),
    "from 1994-03 to 1995-10, each forecast knowing its own step": lambda d: d.assign_coords(
        init=months_later(d["init"].values, 400)
    ),
    "a further forecast from 1960-12 for 1961-01": lambda d: d.assign_coords(
        init=d["init"].values[[1, *range(1, d.sizes["init"])]]
    ),
    "longitude is 0 to 320 (17 values), without the cells": lambda d: d.isel(lon=slice(0, -1)),
    "no value in 2 of 97 cells that the run forecasts, in 6 of 60 fields; the first for 1961-03-01":
        lambda d: without(d, 5, 20),
    "sst: found units 'm', expected 'degC'": lambda d: renamed_units(d, "sst", "m"),
    "lead has the units 'weeks or so'": lambda d: renamed_units(d, "lead", "weeks or so"),
    "lead holds 1.3 months": lambda d: renamed_units(
        d.assign_coords(lead=[1.0, 1.3, 2.0]), "lead", "months"
    ),
    "sst holds anomalies, by its name and long_name": lambda d: d.assign(
        sst=d["sst"].assign_attrs(long_name="SST anomaly")
    ),
    "units are contradictory": lambda d: renamed_units(d, "sst", "K"),
    "2 variables have latitude and longitude: tos, tas": lambda d: d.rename(sst="tos").assign(
        tas=d["sst"]
    ),
    "further dimensions: depth (2)": lambda d: d.expand_dims(depth=2),
    "no initial date among time, lead": lambda d: bare(d).rename(init="time").isel(lead=0),
    "no lead among init": lambda d: d.isel(lead=0).drop_vars("lead"),
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_compared_is_refused(message, own, read):
    """The control is the first test: without the fault all conventions are read."""
    with pytest.raises(DataError) as error:
        read(FAULTS[message](own))
    assert message in str(error.value)


def test_the_variable_is_the_target_or_the_only_one_or_the_one_that_is_named(own, truth, read):
    two = own.assign(tas=own["sst"] + 1.0)
    two["tas"].attrs["units"] = "degC"
    np.testing.assert_array_equal(read(two).values, truth)
    np.testing.assert_array_equal(read(two, variable="tas").values, truth + np.float32(1))
    with pytest.raises(DataError, match="no variable 'ta'; found sst, tas\n  nearest: tas"):
        read(two, variable="ta")


def test_leads_in_months_are_refused_by_a_run_of_days():
    data = rain(DAYS, np.arange(1, 3), {"units": "months"}, "mm/day")
    with pytest.raises(DataError, match="counted in months\n  expected: forecasts of each day"):
        days_read(data)


# ---------------------------------------------------------------- beside the run's own


@pytest.fixture(scope="module")
def hindcast(setup, truth) -> Hindcast:
    """A model that forecasts the truth with an error of 1, of the dates of three years."""
    axis, target = setup.axis, setup.fields.targets[0]
    normal = target.normal(valid_times(axis, INITIAL, LEADS))
    anomaly = np.where(target.grid.mask, truth - normal, 0.0)[..., None]
    verifying = INITIAL[:, None] + np.arange(1, LEADS + 1)
    inside = np.zeros(axis.times.size, bool)
    inside[133:150] = True
    made = np.zeros_like(anomaly)
    forecasts = {"model": anomaly + 1.0, "climatology": made}
    verified = same_dates(verifying, inside)
    months, deviations = verifying % 12 + 1, {"climatology": np.full_like(anomaly, 2.0)}
    normal = normal[..., None]
    return Hindcast(
        INITIAL, made, verified, forecasts, anomaly, normal, verifying, months, deviations
    )


def scores_of(made: Hindcast, fields: Fields) -> xr.Dataset:
    return score(made, fields, {"source": "a test"}, fields.config.verification)[0]


def test_all_systems_are_judged_on_the_dates_that_all_have_at_every_lead(setup, own, hindcast):
    fields, axis = setup.fields, setup.axis
    before = scores_of(hindcast, fields)
    assert before["dates"].values.tolist() == [17] * LEADS
    half = own.isel(init=slice(8, None)) + 0.5
    half["sst"].attrs = own["sst"].attrs
    made = beside(hindcast, fields, axis, {"perfect": own, "half": half})
    after = scores_of(made, fields)
    # The first that the second system forecasts at every lead is 8 + 3 months after the first.
    first = INITIAL[8] + LEADS
    assert after["dates"].values.tolist() == [150 - first] * LEADS
    dates = (INITIAL[:, None] + np.arange(1, LEADS + 1))[made.verified]
    assert set(dates.tolist()) == set(range(first, 150))
    rmse = after["rmse"]
    np.testing.assert_allclose(rmse.sel(forecast="model"), 1.0, rtol=1e-6)
    np.testing.assert_allclose(rmse.sel(forecast="half"), 0.5, rtol=1e-5)
    assert (rmse.sel(forecast="perfect") < 1e-5).all()
    assert after["forecast"].values.tolist() == ["model", "climatology", "perfect", "half"]
    assert hindcast.forecasts.keys() == {"model", "climatology"}  # as it was
    # None says how sure it is, but climatology.
    assert not {"crps", "crps_skill", "members", "rank_share", "rps"} & set(after.variables)


def test_leads_that_a_system_does_not_have_are_left_out(setup, own, hindcast):
    made = beside(hindcast, setup.fields, setup.axis, {"short": own.isel(lead=[0, 1])})
    scores = scores_of(made, setup.fields)
    assert scores["lead"].values.tolist() == [1, 2]
    assert scores["dates"].values.tolist() == [17, 17]
    with pytest.raises(DataError, match=r"found: \[0, 17, 17\] dates with forecasts"):
        beside(hindcast, setup.fields, setup.axis, {"late": own.isel(lead=[1, 2])})


def test_names_are_free_and_errors_say_whose_file_it_is(setup, own, hindcast):
    with pytest.raises(DataError, match="'climatology' is the name of another forecast"):
        beside(hindcast, setup.fields, setup.axis, {"climatology": own})
    with pytest.raises(DataError, match="cfs: the forecast: latitude"):
        beside(hindcast, setup.fields, setup.axis, {"cfs": own.isel(lat=slice(1, None))})


def ensemble(own: xr.Dataset, *offsets: float) -> xr.Dataset:
    """Members that miss the truth by so much."""
    members = xr.DataArray(np.array(offsets, np.float32), dims="realization")
    return (own["sst"] + members).assign_attrs(own["sst"].attrs).to_dataset(name="sst")


def lacking(data: xr.Dataset, dates: slice, *members: int) -> xr.Dataset:
    """The forecasts from some dates without some members."""
    data = data.copy(deep=True)
    data["sst"][{"init": dates, "realization": list(members)}] = np.nan
    return data


def test_members_are_scored_as_an_ensemble_by_hand(setup, own, hindcast):
    fields, axis = setup.fields, setup.axis
    others = {"four": ensemble(own, -1, 1, 2, 6), "sure": own, "two": ensemble(own, -1, 3)}
    scores = scores_of(beside(hindcast, fields, axis, others), fields)
    # Mean errors 10/4 and 4/2; distances of pairs 2 3 7 1 5 4 and 4; means 2 and 1, variances
    # 26/3 * 5/4 and 8 * 3/2; above one member each.
    expected = {
        "crps": (10 / 4 - 22 / 16, 4 / 2 - 4 / 4),
        "fair_crps": (10 / 4 - 22 / 12, 4 / 2 - 4 / 2),
        "rmse": (2, 1),
        "spread": (np.sqrt(26 / 3 * 5 / 4), np.sqrt(8 * 3 / 2)),
        "spread_error_ratio": (np.sqrt(26 / 3 * 5 / 4) / 2, np.sqrt(8 * 3 / 2)),
    }
    for name, numbers in expected.items():
        found = scores[name].sel(forecast=["four", "two"])
        by_hand = np.broadcast_to(np.array(numbers)[:, None], found.shape)
        np.testing.assert_allclose(found, by_hand, atol=1e-4, err_msg=name)
    z = hindcast.observed[hindcast.verified][..., setup.fields.targets[0].grid.mask, 0] / 2.0
    closed = 2.0 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    climate = scores["crps"].sel(forecast="climatology")
    area = setup.fields.targets[0].grid.weight[setup.fields.targets[0].grid.mask]
    assert float(climate.mean()) == pytest.approx(np.average(closed.mean(axis=0), weights=area))
    np.testing.assert_allclose(scores["crps_skill"], 1 - scores["crps"] / climate)
    ranks = scores["rank_share"].sel(lead=1)
    np.testing.assert_allclose(ranks.sel(forecast="four"), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(ranks.sel(forecast="two"), [0, 1, 0, np.nan, np.nan])
    assert scores["members"].values.tolist() == [0, 0, 4, 0, 2]
    for name in ("model", "sure"):  # without members
        for score_of in ("crps", "fair_crps", "spread", "rank_share", "pit_share"):
            assert np.isnan(scores[score_of].sel(forecast=name)).all()


def same_scores(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    assert set(ours) == set(theirs)
    for name in ("rmse", "crps", "fair_crps", "spread", "spread_error_ratio", "rank_share"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)


def test_neither_the_order_of_members_nor_their_names_matter(setup, own, hindcast):
    def scored(data: xr.Dataset) -> xr.Dataset:
        made = beside(hindcast, setup.fields, setup.axis, {"some": data})
        return scores_of(made, setup.fields)

    usual = scored(ensemble(own, -1, 1, 2, 6))
    same_scores(scored(ensemble(own, 6, -1, 2, 1)), usual)
    named = ensemble(own, 2, 1, 6, -1).rename(realization="M").assign_coords(M=[4.0, 3.0, 2.0, 1.0])
    same_scores(scored(named), usual)


def test_as_many_members_are_scored_as_there_are_on_every_date(setup, own, hindcast, caplog):
    def scored(data: xr.Dataset) -> xr.Dataset:
        made = beside(hindcast, setup.fields, setup.axis, {"some": data})
        return scores_of(made, setup.fields)

    whole = ensemble(own, -1, 1, 2, 6)
    two = lacking(whole, slice(5, 9), 0, 2)
    first = whole.isel(realization=[0, 1]).copy(deep=True)
    first["sst"][{"init": slice(5, 9)}] = whole["sst"].isel(init=slice(5, 9), realization=[1, 3])
    with caplog.at_level("INFO", "gridcast"):
        found = scored(two)
    same_scores(found, scored(first))
    assert "some has 2 to 4 members: the first 2 are scored" in caplog.text
    assert found["members"].sel(forecast="some") == 2
    # The last forecasts are for dates that nobody judges.
    same_scores(scored(lacking(whole, slice(19, 20), 0, 2)), scored(whole))
    # Of a date with a single member there is no spread: the mean of those there are, as before.
    with caplog.at_level("INFO", "gridcast"):
        single = scored(lacking(whole, slice(5, 9), 0, 1, 3))
    assert "some has 1 to 4 members: their mean is scored" in caplog.text
    assert not {"crps", "members", "rank_share"} & set(single.variables)
    np.testing.assert_allclose(single["rmse"].sel(forecast="some"), 2.0, rtol=1e-5)


def test_each_variable_that_is_forecast_is_compared(ocean, own, hindcast):
    height = (0.1 * ocean).rename("ssh").assign_attrs(units="m", long_name="height")
    further = {"path": "(in memory)", "variable": "ssh", "target": True}
    data = {"path": "(in memory)", "variable": "sst", "more": [further]}
    config = small_config(data=data, frames={"leads": LEADS})
    setup = prepare(config, open_source(config, xr.Dataset({"sst": ocean, "ssh": height})))
    normal = np.concatenate([hindcast.normal, 0.1 * hindcast.normal], axis=-1)
    anomaly = np.concatenate([hindcast.observed, 0.1 * hindcast.observed], axis=-1)
    two = replace(
        hindcast, observed=anomaly, normal=normal, forecasts={"model": anomaly}, deviations={}
    )
    both = own.assign(ssh=(10.0 * own["sst"] + 50.0).assign_attrs(units="cm"))
    both = both.copy(deep=True)
    both["sst"].values[4] = np.nan
    made = beside(two, setup.fields, setup.axis, {"other": both})
    assert made.verified.sum(axis=0).tolist() == [17 - LEADS] * LEADS  # three dates are for all
    errors = np.delete(made.forecasts["other"] - anomaly, 4, axis=0)
    sea = np.broadcast_to(setup.fields.targets[0].grid.mask, errors.shape[:-1])
    np.testing.assert_allclose(errors[..., 0], 0.0, atol=1e-5)
    np.testing.assert_allclose(errors[..., 1], np.where(sea, 0.5, 0.0), atol=1e-5)
    members = xr.DataArray(np.float32([0.0, 1.0, 5.0]), dims="number")
    several = (both + members).assign_attrs(both.attrs)
    for name in ("sst", "ssh"):
        several[name].attrs = both[name].attrs
    several["ssh"][{"number": 1}] = np.nan
    made = beside(two, setup.fields, setup.axis, {"other": several})
    found = made.members["other"] - anomaly[..., None]
    found = np.delete(found, 4, axis=0)[:, :, setup.fields.targets[0].grid.mask]
    # Two of each target, the last of them another; a cm is 0.01 m.
    np.testing.assert_allclose(found - [[0.0, 1.0], [0.5, 0.55]], 0.0, atol=1e-5)
    with pytest.raises(DataError, match="other: the forecast: there is no variable 'ssh'"):
        beside(two, setup.fields, setup.axis, {"other": own})


def test_values_are_not_compared_with_probabilities(ocean, own, hindcast):
    config = small_config(target={"classes": {}})
    setup = prepare(config, open_source(config, ocean))
    with pytest.raises(DataError, match="the run forecasts probabilities of classes"):
        beside(hindcast, setup.fields, setup.axis, {"cfs": own})


def test_the_own_hindcast_as_a_foreign_one_scores_as_the_model(trained: Trained):
    run = gridcast.load_run(trained.directory)
    series, axis = matching_series(run.config, run.fields, None)
    made = run.hindcast_of(series, axis, Splits.by_date(axis, run.config.splits))
    file: Path = trained.directory / "hindcast.nc"
    scores = scores_of(beside(made, run.fields, axis, {"file": file}), run.fields)
    alone = scores_of(made, run.fields)
    for name in ("rmse", "mae", "bias", "acc", "rmse_map"):
        ours, theirs = (scores[name].sel(forecast=f).values for f in ("model", "file"))
        np.testing.assert_array_equal(ours, alone[name].sel(forecast="model").values)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(scores["dates"], alone["dates"])
    assert (alone["rmse"].sel(forecast="model") > 0.01).all()
    # It does not say how sure it is; climatology does, for ensembles to be held against.
    assert list(made.deviations) == ["climatology"]
    anomaly = (series[0] - run.transform.climatology.at(axis.times)).sel(time=slice(None, "1958"))
    sea = run.transform.grid.mask
    for lead in (1, 3):
        expected = np.sqrt((anomaly[lead:] ** 2).mean("time")).values
        found = made.deviations["climatology"][-1, lead - 1, ..., 0]
        np.testing.assert_allclose(found[sea], expected[sea], rtol=1e-4)


@pytest.mark.family
def test_the_command_puts_other_forecasts_in_the_table_and_leaves_the_scores(
    trained: Trained, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    scores = (run / "scores.nc").read_bytes()
    later = xr.load_dataset(run / "hindcast.nc", decode_timedelta=False)
    later.isel(forecast_reference_time=slice(5, None)).to_netcdf(tmp_path / "later.nc")
    own, named = str(run / "hindcast.nc"), f"five later={tmp_path / 'later.nc'}"
    assert main(["evaluate", str(run), "--forecast", own, "--forecast", named]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = {line[:24].strip(): line[24:] for line in said[:8]}
    assert rows["hindcast"] == rows["five later"] == rows["model"]
    assert "43 verification dates" in "".join(said)
    assert (run / "scores.nc").read_bytes() == scores
    assert {p.name for p in run.glob("comparison*")} == {
        f"comparison.{e}" for e in ("nc", "csv", "png")
    }
    # With members the CRPS is in the table, the histogram in the file, reliability in a picture.
    noise = np.random.default_rng(0).normal(0, 0.3, (4, *later["sst"].shape)).astype(np.float32)
    members = later["sst"] + xr.DataArray(noise, dims=("realization", *later["sst"].dims))
    members.assign_attrs(later["sst"].attrs).to_dataset(name="sst").to_netcdf(tmp_path / "many.nc")
    assert main(["evaluate", str(run), "--forecast", str(tmp_path / "many.nc")]) == 0
    said = capsys.readouterr().out
    with xr.open_dataset(run / "comparison.nc", decode_timedelta=False) as written:
        assert written["rank_share"].dims == ("forecast", "lead", "rank")
        np.testing.assert_allclose(written["rank_share"].sel(forecast="many").sum("rank"), 1.0)
        crps = written["crps"].sel(forecast="many").values
        assert np.isfinite(written["rpss"].sel(forecast=["climatology", "many"])).all()
        assert np.isnan(written["rpss"].sel(forecast="model")).all()
    block = said[said.index("CRPS degC") :].splitlines()
    (row,) = (line for line in block if line.startswith("many"))
    assert row.split()[1:] == [f"{value:.3f}" for value in crps]
    assert (run / "comparison_reliability.png").stat().st_size > 10_000
    for wrong in ([f"lim={own}"], [own, "--forecast", own], ["*.nc"]):
        assert main(["evaluate", str(run), "--forecast", *wrong]) == 2
