"""Layers keep what they average: constants, integrals, planes; conventions do not matter."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.netcdf import open_frames, write_netcdf
from gridcast.sources.static import on_grid, open_elevation, static_layers


def grid(lat, lon) -> Grid:
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    return Grid(lat, lon, np.ones((lat.size, lon.size), bool))


def centres(low: float, high: float, count: int) -> np.ndarray:
    width = (high - low) / count
    return low + width * (np.arange(count) + 0.5)


def relief(lat, lon, values=None) -> xr.DataArray:
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    if values is None:
        values = np.random.default_rng(1).normal(0, 1000, (lat.size, lon.size))
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    return xr.DataArray(values, coords, ("lat", "lon"), "elevation", {"units": "m"})


def regrid(source: xr.DataArray, target: Grid) -> np.ndarray:
    return on_grid(source.values, source["lat"].values, source["lon"].values, target)


def test_four_cells_become_one_with_the_areas_of_the_sphere():
    # Rows 0..30 and 30..60: sin 30 - sin 0 = 1/2, sin 60 - sin 30 = 0.3660254.
    source = relief([15, 45], [15, 45], np.array([[1.0, 2.0], [3.0, 5.0]]))
    target = grid([30, 90], [30, 90])
    weights = np.array([0.5, np.sqrt(3) / 2 - 0.5])
    expected = (weights @ np.array([1.5, 4.0])) / weights.sum()
    wide = relief([15, 45, 75], [15, 45, 75, 105], np.pad(source.values, ((0, 1), (0, 2))))
    assert regrid(wide, target)[0, 0] == pytest.approx(expected, rel=1e-12)
    assert regrid(wide, target)[1, 1] == 0


def test_a_cell_across_longitude_zero_takes_from_both_ends():
    values = np.zeros((2, 8))
    values[:, 0], values[:, -1] = 2.0, 4.0
    source = relief([-45, 45], centres(0, 360, 8), values)
    out = regrid(source, grid([-45, 45], [0, 90, 180, 270]))
    np.testing.assert_allclose(out, [[3, 0, 0, 0]] * 2, atol=1e-14)


@given(st.integers(2, 9), st.integers(3, 11), st.integers(0, 5), st.floats(-20, 20))
@settings(deadline=None, max_examples=40)
def test_area_means_keep_constants_and_the_integral(rows, columns, extra, start):
    lat, lon = centres(-90, 90, 2 * rows + extra), centres(0, 360, 2 * columns + extra)
    target = grid(centres(-90, 90, rows), start + centres(0, 360, columns))
    np.testing.assert_allclose(regrid(relief(lat, lon) * 0 + 7, target), 7, rtol=1e-12)
    source = relief(lat, lon)
    out = regrid(source, target)

    def integral(values, count):  # bands of equal height in degrees: an independent weight
        edges = np.linspace(-90, 90, count + 1)
        return (np.diff(np.sin(np.deg2rad(edges))) * values.mean(axis=1)).sum()

    whole = integral(source.values, lat.size)
    assert integral(out, rows) == pytest.approx(whole, rel=1e-9, abs=1e-9)


def test_a_grid_onto_itself_changes_nothing():
    source = relief(centres(-40, 40, 8), centres(20, 100, 9))
    np.testing.assert_allclose(
        regrid(source, grid(source["lat"], source["lon"])), source.values, rtol=1e-12
    )


def test_bilinear_is_exact_on_a_plane():
    lat, lon = np.arange(-30, 31, 10.0), np.arange(100, 201, 10.0)
    plane = 3 + 0.5 * lat[:, None] - 0.25 * lon[None, :]
    target = grid(np.arange(-20, 21, 2.5), np.arange(110, 191, 2.5))
    expected = 3 + 0.5 * target.lat[:, None] - 0.25 * target.lon[None, :]
    np.testing.assert_allclose(regrid(relief(lat, lon, plane), target), expected, atol=1e-12)


def test_bilinear_goes_through_longitude_zero():
    wave = np.broadcast_to((np.arange(12.0) - 3) ** 2, (3, 12))  # 64 | 9 at the seam
    source = relief([-30, 0, 30], np.arange(12) * 30.0, wave)
    out = regrid(source, grid([-15, 0, 15], np.arange(-15, 345, 15.0)))
    by_hand = np.interp(
        np.arange(-15, 345, 15.0) % 360, np.arange(13) * 30.0, [*wave[0], wave[0, 0]]
    )
    np.testing.assert_allclose(out, np.broadcast_to(by_hand, out.shape), atol=1e-12)


def variants(data: xr.DataArray) -> dict[str, xr.DataArray]:
    signed = data.assign_coords(
        lon=("lon", (data["lon"].values + 180) % 360 - 180, data["lon"].attrs)
    )
    return {
        "as it is": data,
        "-180..180": signed.sortby("lon"),
        "north first": data.isel(lat=slice(None, None, -1)),
        "rolled": data.roll(lon=11, roll_coords=True),
        "with time": data.expand_dims(time=np.array(["2000-01-01"], dtype="datetime64[ns]")),
        "transposed": data.transpose("lon", "lat"),
    }


@pytest.mark.parametrize("resolution", [(90, 180), (9, 18)], ids=["area mean", "bilinear"])
def test_the_convention_of_the_source_does_not_matter(resolution, tmp_path):
    data = relief(centres(-90, 90, resolution[0]), centres(0, 360, resolution[1]))
    results = []
    for name, variant in variants(data).items():
        write_netcdf(variant.to_dataset(), tmp_path / "a.nc")
        target = grid(np.arange(-30, 31, 5.0), np.arange(-40, 41, 5.0))
        layers, names = static_layers(
            ["elevation", "land_mask"], target, open_elevation(tmp_path / "a.nc")
        )
        assert names == ["elevation", "land_mask"], name
        results.append(layers.tobytes())
    assert len(set(results)) == 1


def test_layers_have_names_and_sizes_of_the_order_of_one():
    source = relief(centres(-90, 90, 90), centres(0, 360, 180))
    target = grid(np.arange(-60, 61, 6.0), np.arange(0, 360, 6.0))
    layers, names = static_layers(["position", "elevation", "land_mask"], target, source)
    assert names == ["sin_lat", "cos_lat", "sin_lon", "cos_lon", "elevation", "land_mask"]
    assert layers.shape == (*target.shape, 6)
    assert layers.dtype == np.float32
    np.testing.assert_allclose(layers[..., 0] ** 2 + layers[..., 1] ** 2, 1, atol=1e-6)
    by_hand = [-0.5, np.sqrt(3) / 2, np.sqrt(3) / 2, 0.5]  # 30 S, 60 E
    np.testing.assert_allclose(layers[5, 10, :4], by_hand, atol=1e-6)
    assert layers[..., 4].mean() == pytest.approx(0, abs=1e-6)
    assert layers[..., 4].std() == pytest.approx(1, abs=1e-5)
    assert layers[..., 5].min() >= 0
    assert layers[..., 5].max() <= 1
    assert static_layers([], target)[0].shape == (*target.shape, 0)


def test_the_land_mask_is_the_fraction_above_the_sea_not_the_sign_of_the_mean():
    values = np.array([[9000.0, -1.0], [-1.0, -1.0]]).repeat(2, 0).repeat(2, 1)
    source = relief([-3, -1, 1, 3], [1, 3, 5, 7], values)
    layers, _ = static_layers(["land_mask"], grid([-2, 2], [2, 6]), source)
    np.testing.assert_allclose(layers[..., 0], [[1, 0], [0, 0]], atol=1e-6)
    fine = relief([-3, -1, 1, 3], [1, 3, 5, 7], np.array([[1.0, -9, -9, -9]] * 4))
    layers, _ = static_layers(["land_mask"], grid([-2, 2], [2, 6]), fine)
    np.testing.assert_allclose(layers[..., 0], [[0.5, 0]] * 2, atol=1e-6)


def test_a_constant_relief_is_a_layer_of_zeros():
    source = relief(centres(-90, 90, 90), centres(0, 360, 180)) * 0 + 4321.1
    layers, _ = static_layers(["elevation"], grid([-2, 2], [2, 6]), source)
    np.testing.assert_allclose(layers, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("lat", "lon", "missing"),
    [
        (np.arange(-35, 36, 2.0), np.arange(101, 180, 2.0), "latitude -36 to -30 and 30 to 36"),
        (np.arange(-25, 26, 2.0), np.arange(91, 180, 2.0), "longitude 90 to 100 is"),
        (np.arange(-25, 26, 2.0), np.arange(-59, -20, 2.0), "longitude -60 to -20 is"),
    ],
)
def test_a_source_that_does_not_cover_the_grid_names_the_missing_range(lat, lon, missing):
    source = relief(centres(-30, 30, 60), centres(100, 180, 80))
    with pytest.raises(DataError, match=missing):
        static_layers(["elevation"], grid(lat, lon), source)
    static_layers(["elevation"], grid(np.arange(-25, 26, 2.0), np.arange(101, 180, 2.0)), source)


def test_missing_heights_on_the_grid_are_refused_and_elsewhere_do_no_harm():
    source = relief(centres(-30, 30, 60), centres(100, 180, 80))
    source[0, 0] = np.nan
    static_layers(["elevation"], grid([-5, 5], [120, 130]), source)
    with pytest.raises(DataError, match="elevation is missing in 1 cells"):
        static_layers(["elevation"], grid([-25, -15], [105, 115]), source)


def test_elevation_has_to_be_given_for_layers_that_need_it():
    target = grid([0, 1], [0, 1])
    static_layers(["position"], target)
    for layer in ("elevation", "land_mask"):
        with pytest.raises(DataError, match=r"(?s)needs a file of elevation.*fix: static.path"):
            static_layers([layer], target)
    with pytest.raises(DataError, match="known: elevation, land_mask, position"):
        static_layers(["slope"], target)


@pytest.mark.parametrize(("units", "factor"), [("m", 1), ("m**2 s**-2", 9.80665), ("km", 1e-3)])
def test_heights_and_geopotential_are_understood(units, factor, tmp_path):
    data = relief(centres(-90, 90, 9), centres(0, 360, 18))
    stored = (data * factor).rename("z").assign_attrs(units=units)
    write_netcdf(stored.to_dataset(), tmp_path / "a.nc")
    out = open_elevation(tmp_path / "a.nc")
    np.testing.assert_allclose(out.values, data.values, rtol=1e-6)
    assert out.attrs["units"] == "m"


def test_what_is_no_elevation_is_refused(tmp_path):
    data = relief(centres(-90, 90, 9), centres(0, 360, 18))
    path = tmp_path / "a.nc"
    for units, values, found in (
        ("K", data, "has units 'K'"),
        ("m2 s-2", data * 1000, "expected: -12000 to 9000 m"),
        ("m", data - 32768, "declare the fill value"),
    ):
        write_netcdf(values.assign_attrs(units=units).to_dataset(name="z"), path)
        with pytest.raises(DataError, match=found):
            open_elevation(path)
    write_netcdf(xr.Dataset({"a": data, "b": data}), path)
    with pytest.raises(DataError, match="2 variables have latitude, longitude: a, b"):
        open_elevation(path)
    write_netcdf(xr.Dataset({"a": data}), path)
    assert open_elevation(path).name == "a"
    write_netcdf(xr.Dataset({"a": data, "Band1": data}), path)
    assert open_elevation(path).name == "Band1"


def real(name: str) -> Path:
    for folder in os.environ.get("GRIDCAST_DATA", "").split(os.pathsep):
        found = sorted(Path(folder).glob(name)) if folder else []
        if found:
            return found[0]
    pytest.skip(f"{name} is in no folder of GRIDCAST_DATA")


def test_etopo_on_the_grid_of_ersst_is_the_relief_of_era5_on_land():
    sst = open_frames(real("sst_ersstv5_*_1950-2012.nc"))
    target = Grid(sst["lat"].values, sst["lon"].values, ~np.isnan(sst.values).any(axis=0))
    layers, _ = static_layers(
        ["elevation", "land_mask"], target, open_elevation(real("static_etopo20_*.nc"))
    )
    with xr.open_dataset(real("static_era5_orography_*.nc")) as file:
        era5 = file["orography"].load()
    # An oracle of its own: the plain mean of the 0.25 degree points within one degree.
    era5 = era5.pad(lon=(8, 8), mode="wrap").values
    boxes = np.array(
        [
            [era5[4 + 8 * i : 13 + 8 * i, 4 + 8 * j : 13 + 8 * j].mean() for j in range(180)]
            for i in range(89)
        ]
    )
    land = layers[..., 1] > 0.9
    assert land.sum() > 3000
    assert np.corrcoef(layers[land, 0], boxes[land])[0, 1] > 0.95
    assert np.corrcoef(layers[..., 1].ravel(), target.mask.ravel())[0, 1] < -0.9
