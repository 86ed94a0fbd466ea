"""Means over a box are those of the sphere, over the sea, whatever the longitudes are called."""

import numpy as np
import pytest
import xarray as xr

from gridcast.config.bounds import Region
from gridcast.errors import DataError
from gridcast.sources.box import box_mean
from gridcast.sources.canonical import canonical

NINO34 = Region(lat=(-5, 5), lon=(190, 240))


def sea(lat=None, lon=None, seed: int = 0) -> xr.DataArray:
    lat = np.arange(-88, 89, 4.0) if lat is None else np.asarray(lat, np.float64)
    lon = np.arange(0, 360, 5.0) if lon is None else np.asarray(lon, np.float64)
    times = np.array(["2001-01-01", "2001-02-01", "2001-03-01"], dtype="datetime64[ns]")
    values = np.random.default_rng(seed).normal(20, 5, (3, lat.size, lon.size)).astype(np.float32)
    coords = {
        "time": times,
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    return xr.DataArray(values, coords, ("time", "lat", "lon"), "sst", {"units": "degC"})


def test_nino34_is_the_weighted_mean_of_xarray():
    data = sea()
    part = data.sel(lat=slice(-5, 5), lon=slice(190, 240)).astype(np.float64)
    expected = part.weighted(np.cos(np.deg2rad(part["lat"]))).mean(("lat", "lon"))
    index = box_mean(data, NINO34)
    np.testing.assert_allclose(index.values[:, 0, 0], expected, rtol=1e-6)
    assert index.dims == ("time", "lat", "lon")
    assert (index.name, index.attrs, index.dtype) == ("sst", {"units": "degC"}, np.float32)
    assert (index["lat"].item(), index["lon"].item()) == (0, 215)
    np.testing.assert_array_equal(index["time"], data["time"])
    xr.testing.assert_identical(canonical(index), index.assign_coords(canonical(index).coords))


def test_areas_by_hand():
    # Bands 0..30, 30..60 and 60..90: sines 1/2, 0.3660254 and 0.1339746.
    data = sea([15, 45, 75], [0, 1])
    data.values[:] = np.array([1.0, 10.0, 100.0])[:, None]
    whole = box_mean(data, Region(lat=(0, 90), lon=(0, 1))).values[0, 0, 0]
    assert whole == pytest.approx(0.5 + 3.660254 + 13.39746, rel=1e-6)
    two = box_mean(data, Region(lat=(15, 45), lon=(0, 1))).values[0, 0, 0]  # bounds included
    assert two == pytest.approx((0.5 + 3.660254) / 0.8660254, rel=1e-6)
    one = box_mean(data, Region(lat=(40, 50), lon=(-1, 0))).values[0, 0, 0]
    assert one == pytest.approx(10)


@pytest.mark.parametrize(
    ("box", "lon", "middle"),
    [
        ((-20, 15), [340, 345, 350, 355, 0, 5, 10, 15], 357.5),
        ((340, 375), [340, 345, 350, 355, 0, 5, 10, 15], 357.5),
        ((170, 190), [170, 175, 180, 185, 190], 180),
        ((-190, -170), [170, 175, 180, 185, 190], 180),
        ((0, 360), np.arange(0, 360, 5), 180),
    ],
)
def test_boxes_go_across_0_and_180_in_any_convention(box, lon, middle):
    data = sea()
    expected = data.sel(lon=lon, lat=[0.0]).mean(("lat", "lon"))
    index = box_mean(data, Region(lat=(-1, 1), lon=box))
    np.testing.assert_allclose(index.values[:, 0, 0], expected, rtol=1e-6)
    assert index["lon"].item() == middle
    signed = data.assign_coords(
        lon=("lon", (data["lon"].values + 180) % 360 - 180, data["lon"].attrs)
    )
    other = box_mean(canonical(signed.sortby("lon")), Region(lat=(-1, 1), lon=box))
    np.testing.assert_array_equal(other.values, index.values)


def test_land_does_not_count_and_a_hole_in_the_sea_is_a_missing_date():
    data = sea()
    land = data.copy(deep=True)
    land.loc[{"lat": 0, "lon": slice(190, 215)}] = np.nan
    part = land.sel(lat=slice(-5, 5), lon=slice(190, 240)).astype(np.float64)
    expected = part.weighted(np.cos(np.deg2rad(part["lat"]))).mean(("lat", "lon"))
    np.testing.assert_allclose(box_mean(land, NINO34).values[:, 0, 0], expected, rtol=1e-6)
    holes = land.copy(deep=True)
    holes[1].loc[{"lat": 4, "lon": 200}] = np.nan
    index = box_mean(holes, NINO34).values
    np.testing.assert_array_equal(np.isnan(index[:, 0, 0]), [False, True, False])
    np.testing.assert_array_equal(index[[0, 2]], box_mean(land, NINO34).values[[0, 2]])
    holes[1].loc[{"lat": 40}] = np.nan  # outside of the box
    np.testing.assert_array_equal(box_mean(holes, NINO34).values, index)


def test_a_box_without_a_cell_or_without_sea_is_refused():
    data = sea(np.arange(20, 60, 4.0), np.arange(0, 100, 5.0))
    for box in (NINO34, Region(lat=(20, 30), lon=(190, 240)), Region(lat=(21, 22), lon=(0, 20))):
        with pytest.raises(
            DataError,
            match=r"(?s)sst: no centre of a cell lies in the box lat \[.*found: lat 20 to",
        ) as error:
            box_mean(data, box)
        assert "mean_over" in str(error.value)
    data[:, :2] = np.nan
    with pytest.raises(DataError, match="no value was observed in the box"):
        box_mean(data, Region(lat=(20, 24), lon=(0, 50)))
