"""Files of every convention are read and joined, bad ones named; a file is written whole or not."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.sources import files
from gridcast.sources.canonical import canonical
from gridcast.sources.netcdf import open_frames, opened, write_netcdf


def series(steps=24, start="2000-01-01", lat=5, lon=12, calendar="standard") -> xr.Dataset:
    values = np.random.default_rng(steps).normal(15, 5, (steps, lat, lon)).astype(np.float32)
    values[:, 0, 1] = np.nan
    times = xr.date_range(
        start, periods=steps, freq="MS", calendar=calendar, use_cftime=calendar != "standard"
    )
    return xr.Dataset(
        {"sst": (("time", "lat", "lon"), values, {"units": "degC"})},
        {
            "time": times,
            "lat": ("lat", np.linspace(-60, 60, lat), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(lon) * 360.0 / lon, {"units": "degrees_east"}),
        },
    )


def signed(data: xr.Dataset) -> xr.Dataset:
    """The same field, -180..180 and from north to south."""
    lon = (data["lon"].values + 180) % 360 - 180
    data = data.assign_coords(lon=("lon", lon, {"units": "degrees_east"}))
    return data.sortby("lon").isel(lat=slice(None, None, -1))


def message(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        open_frames(source, **options)
    return str(caught.value)


def test_what_is_written_is_read_back(tmp_path):
    data = series()
    write_netcdf(data, tmp_path / "a.nc")
    expected = canonical(data)
    xr.testing.assert_identical(open_frames(tmp_path / "a.nc"), expected)
    xr.testing.assert_identical(open_frames(data), expected)
    xr.testing.assert_identical(open_frames(data["sst"]), expected)


@pytest.mark.parametrize(
    "form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF3_64BIT_DATA"]
)
def test_every_netcdf_format_is_read(form, tmp_path):
    data = series()
    data.to_netcdf(tmp_path / "a.nc", format=form, engine="netcdf4")
    xr.testing.assert_identical(open_frames(tmp_path / "a.nc"), canonical(data))


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
@pytest.mark.parametrize("start", ["0850-01-01", "2000-01-01"])
def test_calendars_and_years_long_ago_survive_a_file(calendar, start, tmp_path):
    if start.startswith("0") and calendar == "standard":
        calendar = "proleptic_gregorian"
    data = series(start=start, calendar=calendar)
    write_netcdf(data, tmp_path / "a.nc")
    times = open_frames(tmp_path / "a.nc")["time"]
    np.testing.assert_array_equal(times.values, data["time"].values)


def test_several_files_of_different_conventions_are_joined_along_time(tmp_path):
    data = series()
    parts = [
        data.isel(time=slice(0, 10)),
        data.isel(time=slice(10, 11)),
        data.isel(time=slice(11, None)),
    ]
    write_netcdf(signed(parts[0]), tmp_path / "sst.c.nc")
    write_netcdf(parts[1], tmp_path / "sst.b.nc")
    write_netcdf(signed(parts[2]), tmp_path / "sst.a.nc")
    expected = canonical(data)
    names = ["sst.c.nc", "sst.b.nc", "sst.a.nc"]
    for source in (str(tmp_path / "sst.*.nc"), [tmp_path / n for n in names]):
        xr.testing.assert_identical(open_frames(source), expected)
    region = Region(lat=(-30, 30), lon=(-60, 60))
    out = open_frames(tmp_path / "sst.*.nc", region=region)
    xr.testing.assert_identical(out, canonical(data, region=region))
    np.testing.assert_array_equal(out["lon"], [-60, -30, 0, 30, 60])


def test_dates_before_and_after_1678_are_joined(tmp_path):
    data = series(48, "1676-01-01", calendar="proleptic_gregorian")
    write_netcdf(data.isel(time=slice(0, 24)), tmp_path / "1.nc")
    write_netcdf(data.isel(time=slice(24, 48)), tmp_path / "2.nc")
    times = open_frames(tmp_path / "*.nc")["time"]
    assert times.size == 48
    assert (np.diff(times.dt.year * 12 + times.dt.month) == 1).all()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.isel(lon=slice(0, 6)), "lon 0 to 150"),
        (lambda d: d.assign_coords(lat=d["lat"] + 1), "lat -59 to 61"),
        (lambda d: d.rename(sst="ssta"), "variable ssta"),
        (lambda d: d.assign(sst=d["sst"].assign_attrs(units="m")), "units 'm'"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_by_name(change, found, tmp_path):
    data = series()
    write_netcdf(data.isel(time=slice(0, 12)), tmp_path / "1.nc")
    write_netcdf(change(data.isel(time=slice(12, 24))), tmp_path / "2.nc")
    text = message(tmp_path / "*.nc")
    assert "2.nc: " + found in text
    assert "as in" in text
    assert "1.nc" in text


def test_overlapping_files_are_refused(tmp_path):
    data = series()
    write_netcdf(data.isel(time=slice(0, 13)), tmp_path / "1.nc")
    write_netcdf(data.isel(time=slice(12, 24)), tmp_path / "2.nc")
    text = message(tmp_path / "*.nc")
    assert "overlap: 1 date(s) occur in more than one file, the first is 2001-01-01" in text


def test_calendars_are_not_mixed(tmp_path):
    write_netcdf(series(), tmp_path / "1.nc")
    write_netcdf(series(start="2002-01-01", calendar="noleap"), tmp_path / "2.nc")
    assert "calendars differ: noleap, standard" in message(tmp_path / "*.nc")


def test_packed_values_fill_values_and_valid_ranges_are_decoded(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, values, units in (
            ("time", np.arange(3.0), "days since 2000-01-01"),
            ("lat", np.array([10.0, 0.0, -10.0]), "degrees_north"),
            ("lon", np.array([0.0, 120.0]), "degrees_east"),
        ):
            file.createDimension(name, values.size)
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = units
        packed = file.createVariable("sst", "i2", ("time", "lat", "lon"), fill_value=-999)
        packed.set_auto_maskandscale(False)
        packed.setncatts(
            {
                "scale_factor": 0.01,
                "add_offset": 20.0,
                "units": "degC",
                "missing_value": np.int16(-998),
            }
        )
        packed.valid_range = np.array([-1000, 2000], dtype="i2")
        packed[:] = 100
        packed[0, 0, 0], packed[0, 0, 1], packed[1, 0, 0], packed[1, 0, 1] = -999, -998, -1001, 2000
    out = open_frames(tmp_path / "a.nc").values
    assert np.isnan(out[0, 2]).all()
    assert np.isnan(out[1, 2, 0])
    assert out[1, 2, 1] == np.float32(40.0)
    assert np.isnan(out).sum() == 3
    assert (out[2] == np.float32(21.0)).all()


def test_a_valid_range_in_unpacked_units_is_understood(tmp_path):
    data = series().fillna(0.0)
    data["sst"].values[0, 0, :3] = [-6, 39.9, 41]
    data["sst"].attrs["valid_range"] = np.array([-5, 40], dtype=np.float32)
    data.to_netcdf(
        tmp_path / "a.nc",
        encoding={"sst": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -999}},
    )
    out = open_frames(tmp_path / "a.nc").values
    np.testing.assert_array_equal(np.isnan(out[0, 0, :3]), [True, False, True])


def test_files_of_other_kinds_are_refused_by_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    for head, expected in (
        (
            b"GRIB\x00\x00\x00\x02",
            "is a GRIB file, and cfgrib is not installed\n  fix: pip install cfgrib",
        ),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04....", "zip archive"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"time,lat,lon\n", "unknown kind"),
        (b"", "the file is empty"),
    ):
        path = tmp_path / "a.nc"
        path.write_bytes(head)
        text = message(path)
        assert str(path) in text
        assert expected in text
    (tmp_path / "store.zarr").mkdir()
    assert "zarr is not installed" in message(tmp_path / "store.zarr")


def test_missing_files_folders_and_empty_globs_name_what_is_near(tmp_path):
    write_netcdf(series(), tmp_path / "sst.mnmean.nc")
    text = message(tmp_path / "sst.mnmaen.nc")
    assert "there is no such file" in text
    assert "nearest there: sst.mnmean.nc" in text
    text = message(str(tmp_path / "sst.*.nc4"))
    assert f"looked in: {tmp_path}\n  nearest there: sst.mnmean.nc" in text
    text = message(tmp_path)
    assert "is a folder with 1 .nc file(s)" in text
    assert "the folder" in message(tmp_path / "nowhere" / "a.nc")
    assert "list of files is empty" in message([])


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_files_are_refused(form, share, tmp_path):
    path = tmp_path / "a.nc"
    series(120, lat=20, lon=36).to_netcdf(path, format=form, engine="netcdf4")
    open_frames(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    text = message(path)
    assert str(path) in text
    assert "fix: " in text


def test_a_flipped_bit_in_a_written_file_is_found_when_values_are_read(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(series(120, lat=20, lon=36), path)
    open_frames(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    assert f"{path}: cannot be read" in message(path)


def test_an_error_in_the_code_that_reads_is_not_taken_for_a_damaged_file(tmp_path):
    write_netcdf(series(), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="a bug"), opened(tmp_path / "a.nc"):
        raise ValueError("a bug")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(series(), path)
    before = path.read_bytes()
    large = series(400, lat=30, lon=60)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(DataError, match="cannot be written") as caught:
            write_netcdf(large, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in str(caught.value)
    assert os.listdir(tmp_path) == ["a.nc"]
    assert path.read_bytes() == before
    write_netcdf(large, path)  # the control: without the limit it is written
    assert open_frames(path).sizes["time"] == 400
    assert os.listdir(tmp_path) == ["a.nc"]


def test_a_full_disk_that_shows_only_at_the_end_is_an_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"(?s)No space left on device.*MB free"):
        write_netcdf(series(), tmp_path / "a.nc")
    assert os.listdir(tmp_path) == []


def test_writing_to_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_netcdf(series(), tmp_path / "nowhere" / "a.nc")


def test_an_interrupted_write_never_shows_half_a_file(tmp_path):
    code = (
        "import os, numpy as np, xarray as xr\n"
        "from gridcast.sources import netcdf\n"
        "os.replace = lambda a, b: os.kill(os.getpid(), 9)\n"
        "netcdf.write_netcdf(xr.Dataset({'a': ('x', np.ones(9))}), 'a.nc')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert result.returncode == -9
    assert not (tmp_path / "a.nc").exists()
    assert [name[:6] for name in os.listdir(tmp_path)] == [".a.nc."]


def test_the_file_is_classic_compressed_and_checked(tmp_path):
    data = series().assign_coords(region=("lon", np.array(["a", "bc"] * 6)))
    data["mask"] = (("lat", "lon"), np.ones((5, 12), dtype=bool))
    data["count"] = ("time", np.arange(24))
    data["sst"].encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -999}
    write_netcdf(data, tmp_path / "a.nc")
    assert data["mask"].dtype == bool
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file.data_model == "NETCDF4_CLASSIC"
        filters = file["sst"].filters()
        assert (filters["zlib"], filters["shuffle"], filters["fletcher32"]) == (True, True, True)
        assert filters["complevel"] == 1
        assert file["sst"].dtype == np.float32
        assert np.isnan(file["sst"]._FillValue)
        assert file["mask"].dtype == np.int8
        assert file["count"].dtype == np.int32
        for name in ("time", "lat", "lon", "mask", "count"):
            assert "_FillValue" not in file[name].ncattrs()
    with xr.open_dataset(tmp_path / "a.nc") as back:
        np.testing.assert_array_equal(back["sst"].values, data["sst"].values)
        np.testing.assert_array_equal(back["region"].values.astype(str), data["region"].values)
    write_netcdf(data.fillna(0.0), tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "b.nc") as file:
        assert "_FillValue" not in file["sst"].ncattrs()


def test_units_of_time_are_written_as_asked(tmp_path):
    data = series()
    data["time"].encoding = {"units": "hours since 1990-01-01", "dtype": np.dtype("int32")}
    write_netcdf(data, tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file["time"].units == "hours since 1990-01-01"
        assert file["time"].dtype == np.int32


def test_whole_numbers_beyond_32_bits_are_refused(tmp_path):
    data = xr.Dataset({"a": ("x", np.array([1, 2**40]))})
    with pytest.raises(DataError, match="beyond 32 bits"):
        write_netcdf(data, tmp_path / "a.nc")
    write_netcdf(data % 2**31, tmp_path / "a.nc")


def real(name: str) -> Path:
    for folder in os.environ.get("GRIDCAST_DATA", "").split(os.pathsep):
        found = sorted(Path(folder).glob(name)) if folder else []
        if found:
            return found[0]
    pytest.skip(f"{name} is in no folder of GRIDCAST_DATA")


@pytest.mark.parametrize(
    ("name", "units", "shape"),
    [
        ("sst_ersstv5_*_1950-2012.nc", "degC", (756, 89, 180)),
        ("sst_oisstv2_tropical_*.nc", "degC", (348, 30, 140)),
        ("precip_gpcp_*.nc", "mm/day", (348, 12, 20)),
        ("precip_chirps_*.nc", "mm", (384, 19, 17)),
        ("ssh_godas_*.nc", "m", (396, 68, 180)),
        ("ssta_kaplan_*.nc", "K", (1884, 12, 22)),
        ("ssta_cpc_*.nc", "K", (399, 30, 84)),
    ],
)
def test_real_files_load(name, units, shape):
    data = open_frames(real(name))
    assert data.attrs["units"] == units
    assert data.shape == shape
    assert np.isfinite(data.values).any()


def test_ersst_loads_fast_and_in_the_layout_of_its_producer(tmp_path):
    path = real("sst_ersstv5_*_1950-2012.nc")
    expected = open_frames(path)
    start = time.perf_counter()
    open_frames(path)
    assert time.perf_counter() - start < 2.0  # 0.2 s where it was written
    for step in range(3):  # one month a file, a level, single precision, -180..180, north first
        month = signed(expected.isel(time=[step]).to_dataset()).expand_dims(lev=[0.0], axis=1)
        month.to_netcdf(tmp_path / f"ersst.v5.19500{step + 1}.nc")
    out = open_frames(tmp_path / "ersst.v5.*.nc")
    xr.testing.assert_identical(out, expected.isel(time=slice(0, 3)))
