"""However a series is stored, its canonical form is the same; what cannot be used is refused."""

import logging

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.sources.canonical import canonical, convert, is_difference, same_units
from gridcast.sources.units import squared


def series(lat=None, lon=None, steps=5, units="degC", name="sst") -> xr.DataArray:
    lat = np.arange(-60, 61, 30.0) if lat is None else np.asarray(lat, dtype=float)
    lon = np.arange(0, 360, 30.0) if lon is None else np.asarray(lon, dtype=float)
    values = np.random.default_rng(0).normal(15, 5, (steps, lat.size, lon.size))
    values[:, 0, 1] = np.nan
    return xr.DataArray(
        values.astype(np.float32),
        {
            "time": xr.date_range("2000-01-01", periods=steps, freq="MS"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
        ("time", "lat", "lon"),
        name,
        {"units": units, "long_name": "a field", "history": "made here"},
    )


def test_the_form_itself():
    data = series()
    out = canonical(data)
    assert out.dims == ("time", "lat", "lon")
    assert out.dtype == np.float32
    assert out.name == "sst"
    assert out.attrs == {"units": "degC", "long_name": "a field"}
    np.testing.assert_array_equal(out.values, data.values)
    assert set(out.coords) == {"time", "lat", "lon"}


AXES = {
    "global, whole degrees": np.arange(12) * 30.0,
    "global, thirds": np.arange(12) * 30.0 + 1 / 3,
    "across longitude 0, quarters": np.arange(-6, 6) * 0.25,
    "across longitude 0, tenths": np.round(np.arange(-6, 6) * 0.1, 6),
    "across longitude 180, tenths": np.round(179.5 + np.arange(12) * 0.1, 6),
}


@given(
    lon=st.sampled_from(list(AXES.values())),
    flip=st.booleans(),
    roll=st.integers(0, 11),
    signed=st.booleans(),
    order=st.permutations(range(5)),
    dims=st.permutations(["time", "lat", "lon"]),
    single=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_flipped_rolled_shuffled_and_signed_files_are_identical(
    lon, flip, roll, signed, order, dims, single
):
    data = series(lat=np.round(np.arange(-2, 3) * 0.1, 6), lon=lon)
    expected = canonical(data)
    other = data.isel(time=list(order)).roll(lon=roll, roll_coords=True).transpose(*dims)
    if flip:
        other = other.isel(lat=slice(None, None, -1))
    values = other["lon"].values % 360
    values = np.where(values >= 180, values - 360, values) if signed else values
    kind = np.float32 if single else np.float64
    other = other.assign_coords(
        lon=("lon", values.astype(kind), {"units": "degrees_east"}),
        lat=("lat", other["lat"].values.astype(kind), {"units": "degrees_north"}),
    )
    out = canonical(other)
    xr.testing.assert_identical(out, expected)
    for name in (None, "lat", "lon"):
        ours, theirs = (d if name is None else d[name] for d in (out, expected))
        assert ours.values.tobytes() == theirs.values.tobytes()


def test_the_input_is_not_changed():
    data = series().isel(lat=slice(None, None, -1)).roll(lon=5, roll_coords=True)
    before = data.copy(deep=True)
    canonical(data.to_dataset(), region=Region(lon=(-40, 40)))
    xr.testing.assert_identical(data, before)
    canonical(data)[:] = 0
    xr.testing.assert_identical(data, before)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("roll", [0, 7])
@pytest.mark.parametrize(
    ("lon", "expected"),
    [
        ((120, 290), [120, 150, 180, 210, 240, 270]),
        ((-30, 40), [-30, 0, 30]),
        ((330, 400), [-30, 0, 30]),
        ((170, 200), [180]),
        ((-180, -150), [180, 210]),
        ((-60, 0), [-60, -30, 0]),
        ((0, 60), [0, 30, 60]),
        ((0, 360), list(range(0, 360, 30))),
        ((-180, 180), list(range(0, 360, 30))),
        ((30, 360), list(range(0, 360, 30))),
    ],
)
def test_a_region_is_cut_from_files_of_every_convention(signed, roll, lon, expected):
    data = series()
    other = data.roll(lon=roll, roll_coords=True)
    if signed:
        other["lon"] = (other["lon"] + 180) % 360 - 180
    out = canonical(other, region=Region(lat=(-30, 60), lon=lon))
    np.testing.assert_array_equal(out["lon"], expected)
    np.testing.assert_array_equal(out["lat"], [-30, 0, 30, 60])
    np.testing.assert_array_equal(
        out.values, data.sel(lat=out["lat"], lon=np.mod(expected, 360)).values
    )


def test_bounds_of_a_region_are_inclusive_despite_rounding_noise():
    data = series(lat=[-0.30000001, 0.0, 0.29999998], lon=[9.9999999, 10.1, 10.2000001])
    out = canonical(data, region=Region(lat=(-0.3, 0.3), lon=(10, 10.2)))
    np.testing.assert_array_equal(out["lat"], [-0.3, 0, 0.3])
    np.testing.assert_array_equal(out["lon"], [10, 10.1, 10.2])
    data = series(lon=[0.1, 0.3, 0.5])
    out = canonical(data, region=Region(lon=(0.1 + 0.2, 0.5)))  # 0.30000000000000004
    np.testing.assert_array_equal(out["lon"], [0.3, 0.5])


def test_a_file_that_crosses_longitude_zero_starts_below_zero():
    data = series(lon=[0, 10, 20, 340, 350])
    out = canonical(data)
    np.testing.assert_array_equal(out["lon"], [-20, -10, 0, 10, 20])
    np.testing.assert_array_equal(out.values, data.values[:, :, [3, 4, 0, 1, 2]])


def test_a_region_outside_the_file_names_the_range_of_the_file():
    data = series(lon=np.arange(100, 200, 10))
    with pytest.raises(DataError, match=r"longitude 100 to 190 \(10 values\)"):
        canonical(data, region=Region(lon=(-30, 40)))
    with pytest.raises(DataError, match=r"latitude -60 to 60 \(5 values\)"):
        canonical(data, region=Region(lat=(70, 80)))


def test_a_repeated_seam_column_is_dropped_if_it_is_equal(caplog):
    data = series()
    seam = xr.concat([data, data.isel(lon=[0]).assign_coords(lon=[360.0])], "lon")
    with caplog.at_level(logging.INFO, "gridcast"):
        xr.testing.assert_identical(canonical(seam), canonical(data))
    assert "dropped a column" in caplog.text
    seam[0, 0, -1] += 1
    with pytest.raises(DataError, match="same meridian and differ"):
        canonical(seam)


@pytest.mark.parametrize(("axis", "word"), [("lat", "latitude"), ("lon", "longitude")])
def test_repeated_rows_and_columns_are_refused(axis, word):
    data = series()
    values = data[axis].values.copy()
    values[1] = values[0]
    with pytest.raises(DataError, match=f"{word} .* occurs twice"):
        canonical(data.assign_coords({axis: values}))


def test_missing_coordinates_are_refused():
    data = series()
    values = data["lat"].values.copy()
    values[1] = np.nan
    with pytest.raises(DataError, match="latitude holds missing"):
        canonical(data.assign_coords(lat=values))


@pytest.mark.parametrize(
    "names",
    [
        {"time": "t", "lat": "latitude", "lon": "longitude"},
        {"time": "valid_time", "lat": "y", "lon": "x"},
        {"time": "T", "lat": "Y", "lon": "X"},
        {"time": "Times", "lat": "nav_lat", "lon": "nav_lon"},
    ],
)
def test_axes_are_found_by_names(names):
    data = series()
    for axis in ("lat", "lon"):
        data[axis].attrs.clear()
    xr.testing.assert_identical(canonical(data.rename(names)), canonical(series()))


def test_axes_are_found_by_attributes_whatever_their_names():
    renamed = series().rename(time="a", lat="b", lon="c")
    xr.testing.assert_identical(canonical(renamed), canonical(series()))


def test_coordinates_may_have_another_name_than_their_dimension():
    data = series()
    coords = {
        "time": data["time"].values,
        "lat": ("row", data["lat"].values),
        "lon": ("column", data["lon"].values),
    }
    frame = xr.Dataset({"sst": (("time", "row", "column"), data.values, data.attrs)}, coords)
    xr.testing.assert_identical(canonical(frame), canonical(series()))


def test_size_one_dimensions_are_dropped_with_a_note_and_longer_ones_refused(caplog):
    data = series()
    with caplog.at_level(logging.INFO, "gridcast"):
        out = canonical(data.expand_dims(lev=[0.0], axis=1))
    xr.testing.assert_identical(out, canonical(data))
    assert "dropped the dimension lev (1)" in caplog.text
    with pytest.raises(DataError, match=r"further dimensions: member \(3\)"):
        canonical(data.expand_dims(member=3))


def test_curvilinear_coordinates_are_refused_with_a_fix():
    data = series().rename(lat="j", lon="i").drop_vars(["j", "i"])
    lat2, lon2 = np.meshgrid(np.arange(5.0), np.arange(12.0), indexing="ij")
    frame = data.to_dataset().assign_coords(
        nav_lat=(("j", "i"), lat2, {"units": "degrees_north"}),
        nav_lon=(("j", "i"), lon2, {"units": "degrees_east"}),
    )
    with pytest.raises(DataError, match=r"(?s)curvilinear.*fix: regrid to a regular grid"):
        canonical(frame)


def test_a_field_without_time_is_refused():
    with pytest.raises(DataError, match="no time among the dimensions lat, lon"):
        canonical(series().isel(time=0, drop=True))


def test_numbers_are_no_dates():
    with pytest.raises(DataError, match="time holds no dates"):
        canonical(series().assign_coords(time=np.arange(5)))


def test_the_only_series_is_chosen_and_several_are_listed():
    data = series()
    frame = xr.Dataset({"sst": data, "mask": data.isel(time=0, drop=True)})
    assert canonical(frame).name == "sst"
    frame["ice"] = data
    with pytest.raises(DataError, match=r"sst, ice\n  fix: data.variable: "):
        canonical(frame)
    assert canonical(frame, variable="ice").name == "ice"
    with pytest.raises(DataError, match=r"fix: data\.variable: sst"):
        canonical(frame, variable="sts")


def test_repeated_dates_are_named():
    data = series()
    with pytest.raises(DataError, match=r"1 date\(s\) occur more than once: 2000-01-01"):
        canonical(xr.concat([data, data.isel(time=[0])], "time"))


def test_one_step_is_no_series_but_a_part_of_one():
    one = series().isel(time=[2])
    with pytest.raises(DataError, match="found 1 time step"):
        canonical(one)
    assert canonical(one, series=False).sizes["time"] == 1
    xr.testing.assert_identical(
        canonical(one, series=False), canonical(series().isel(time=2), series=False)
    )


def test_irregular_times_are_refused_and_gaps_are_noted(caplog):
    with caplog.at_level(logging.INFO, "gridcast"):
        canonical(series().isel(time=[0, 1, 4]))
    assert "2 step(s) missing between 2000-02-01 and 2000-05-01" in caplog.text
    times = np.array(["2000-01-01", "2000-01-04", "2000-01-09", "2000-02-02", "2000-02-09"])
    with pytest.raises(DataError, match="the times are irregular"):
        canonical(series().assign_coords(time=times.astype("datetime64[ns]")))


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "proleptic_gregorian"])
def test_dates_of_other_calendars_and_of_long_ago_are_kept(calendar):
    times = xr.date_range("0850-01-01", periods=5, freq="MS", calendar=calendar, use_cftime=True)
    out = canonical(series().assign_coords(time=times[::-1]))
    np.testing.assert_array_equal(out["time"].values, times.values)


def test_dates_are_the_same_however_they_are_held():
    data = series()
    cf = [cftime.datetime(2000, m, 1, calendar="standard") for m in range(1, 6)]
    text = np.array([f"2000-{m:02d}-01_00:00:00" for m in range(1, 6)])
    for times in (cf, data["time"].values.astype("datetime64[s]"), text):
        held = data.assign_coords(time=("time", times))
        xr.testing.assert_identical(canonical(held), canonical(data))
    old = data["time"].values.astype("datetime64[s]") - np.timedelta64(1150 * 365, "D")
    assert canonical(data.assign_coords(time=old), series=False)["time"].dt.year.values[0] == 850


def test_infinite_values_are_named_by_date_and_cell():
    data = series()
    data[3, 1, 2] = -np.inf
    with pytest.raises(DataError, match="infinite on 2000-04-01 at lat -30, lon 60, in 1 place"):
        canonical(data.isel(time=slice(None, None, -1)))


@pytest.mark.parametrize(("fill", "units"), [(-999, "degC"), (-9999, "mm/day"), (1e20, "1")])
def test_undeclared_fill_values_are_refused(fill, units):
    data = series(units=units)
    canonical(data)
    data[:, 2, 3] = fill
    with pytest.raises(DataError, match=rf"(?s)holds {fill:g} .*_FillValue".replace("+", r"\+")):
        canonical(data)


def test_large_negative_numbers_in_other_units_are_values():
    canonical(series(units="m").copy(data=series().values * 0 - 4000))


@pytest.mark.parametrize(("units", "shift"), [("degC", 273.15), ("K", 0.0)])
def test_temperatures_that_contradict_their_units_are_refused(units, shift):
    with pytest.raises(DataError, match="units are contradictory"):
        canonical(_warmer(units, shift))
    canonical(_warmer(units, 273.15 - shift))


def _warmer(units: str, shift: float) -> xr.DataArray:
    data = series(units=units)
    return data.copy(data=data.values + np.float32(shift))


def test_anomalies_in_kelvin_are_no_contradiction():
    data = _warmer("K", -15)
    assert not is_difference(data)
    data.attrs["long_name"] = "SST anomaly"
    assert is_difference(canonical(data))


def test_missing_units_are_taken_as_one_with_a_note(caplog):
    data = series()
    del data.attrs["units"]
    with caplog.at_level(logging.INFO, "gridcast"):
        assert canonical(data).attrs["units"] == "1"
    assert "has no units" in caplog.text


def test_values_outside_the_valid_range_are_missing():
    data = series()
    data[0, 1, 1], data[1, 1, 1] = -5.0, 41.0
    data.attrs |= {"valid_min": np.float32(-2), "valid_max": np.float32(40)}
    out = canonical(data)
    assert np.isnan(out.values[:2, 1, 1]).all()
    assert np.isnan(out.values).sum() == np.isnan(data.values).sum() + 2


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("degC", "degree_Celsius"),
        ("celsius", "C"),
        ("K", "kelvin"),
        ("mm/day", "mm d-1"),
        ("mm day**-1", "mm day^-1"),
        ("kg m-2 s-1", "kg/m2/s"),
        ("kg m**-2 s**-1", "kg/m^2/s"),
        ("m/s", "m s-1"),
        ("meters", "m"),
        ("", "1"),
    ],
)
def test_spellings_of_one_unit(a, b):
    assert same_units(a, b)
    assert same_units(b, a)


def test_the_unit_of_a_square_is_that_of_the_whole():
    assert [squared(u) for u in ("1", "degC", "mm/day", "kg m-2")] == [
        "1",
        "degC2",
        "(mm/day)2",
        "(kg m-2)2",
    ]


@pytest.mark.parametrize(("a", "b"), [("K", "degC"), ("m", "mm"), ("mm/day", "mm"), ("m/s", "m s")])
def test_different_units(a, b):
    assert not same_units(a, b)


@pytest.mark.parametrize(
    ("value", "old", "new", "days", "expected"),
    [
        (300.0, "K", "celsius", None, 26.85),
        (26.85, "degC", "K", None, 300.0),
        (1.0, "kg m-2 s-1", "mm/day", None, 86400.0),
        (1.0, "m/s", "mm/day", None, 8.64e7),
        (24.0, "mm/day", "mm/hour", None, 1.0),
        (62.0, "mm", "mm/day", 31, 2.0),
        (2.0, "mm/day", "mm/month", 30, 60.0),
        (1.5, "m", "cm", None, 150.0),
        (7.0, "mm/month", "mm month-1", None, 7.0),
    ],
)
def test_conversions_by_hand(value, old, new, days, expected):
    out = convert(np.array([value]), old, new, days)
    assert out[0] == pytest.approx(expected, rel=1e-12)


def test_differences_of_temperature_are_not_shifted():
    assert convert(np.array([2.0]), "K", "degC", difference=True)[0] == 2.0


def test_months_of_different_lengths_are_converted_each_by_its_own():
    out = convert(np.array([31.0, 28.0]), "mm/month", "mm/day", np.array([31, 28]))
    np.testing.assert_allclose(out, [1, 1])


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(DataError, match="found units 'K', expected 'mm': no conversion"):
        convert(np.ones(1), "K", "mm")
    with pytest.raises(DataError, match="days it covers is not known"):
        convert(np.ones(1), "mm", "mm/day")
