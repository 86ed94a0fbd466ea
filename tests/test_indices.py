"""Climate indices: boxes by hand and by xarray, and scores of their means over the sea."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr

from gridcast.config.bounds import Region
from gridcast.errors import ConfigError, DataError
from gridcast.grid import Grid
from gridcast.sources.box import box_mean
from gridcast.verification.indices import (
    INDICES,
    SEASONS,
    cells_in,
    index_patterns,
    index_scores,
    index_series,
    seasons_of,
)
from gridcast.verification.metrics import Pairs, acc, rmse

LEADS = 2


def globe(mask: np.ndarray | None = None) -> Grid:
    lat, lon = np.arange(-88, 89, 4.0), np.arange(0, 360, 5.0)
    return Grid(lat, lon, np.ones((lat.size, lon.size), bool) if mask is None else mask)


def hindcast(grid: Grid, seed: int = 0) -> tuple[Pairs, np.ndarray]:
    """40 monthly windows, the first and last of which one lead does not verify; their months."""
    rng = np.random.default_rng(seed)
    forecast, observed = rng.normal(0.1, 1, (2, 40, LEADS, *grid.shape))
    when = np.arange(40)[:, None] + np.arange(LEADS)
    verified = (when >= 1) & (when < 40)
    return Pairs(forecast + observed, observed, verified, grid.weight), when % 12 + 1


def test_an_index_is_the_weighted_mean_over_its_box_as_of_a_series():
    mask = np.random.default_rng(1).random(globe().shape) > 0.1
    grid = globe(mask)
    fields = np.where(mask, np.random.default_rng(2).normal(size=(3, 1, *grid.shape)), np.nan)
    coords = {"time": np.arange("2001-01", "2001-04", dtype="datetime64[M]").astype("M8[ns]")}
    series = xr.DataArray(fields[:, 0], coords, ("time", "lat", "lon"), "sst")
    series = series.assign_coords(lat=grid.lat, lon=grid.lon)
    patterns = index_patterns(grid, {"around_zero": Region(lat=(-30, 0), lon=(-20, 12))})
    assert list(patterns) == [*INDICES, "around_zero"]
    expected = {
        name: box_mean(series, box).values[:, 0, 0]
        for name, box in {
            **{name: parts[0] for name, parts in INDICES.items()},
            "around_zero": Region(lat=(-30, 0), lon=(340, 372)),
        }.items()
    }
    expected["dmi"] = expected["dmi"] - box_mean(series, INDICES["dmi"][1]).values[:, 0, 0]
    for name, pattern in patterns.items():
        np.testing.assert_allclose(
            index_series(fields, pattern)[:, 0], expected[name], rtol=1e-5, atol=1e-6
        )


def test_boxes_are_those_of_the_literature():
    # West is negative: 170W-120W, 150W-90W, 160E-150W, 90W-80W; 50-70E and 90-110E.
    expected = {
        "nino34": [(-5, 5, -170, -120)],
        "nino3": [(-5, 5, -150, -90)],
        "nino4": [(-5, 5, 160, -150)],
        "nino12": [(-10, 0, -90, -80)],
        "dmi": [(-10, 10, 50, 70), (-10, 0, 90, 110)],
    }
    found = {
        name: [(*b.lat, *((lon + 180) % 360 - 180 for lon in b.lon)) for b in boxes]
        for name, boxes in INDICES.items()
    }
    assert found == expected


def test_areas_by_hand():
    # Bands 0..30 and 30..60 have sines 1/2 and 0.3660254; the dark cell of the first is land.
    mask = np.array([[True, False, True], [True, True, True], [True, True, True]])
    grid = Grid(np.array([15.0, 45.0, 75.0]), np.array([10.0, 11.0, 12.0]), mask)
    pattern = index_patterns(grid, {"box": Region(lat=(10, 50), lon=(10, 11))})["box"]
    total = 0.5 + 2 * 0.3660254
    expected = [[0.5 / total, 0, 0], [0.3660254 / total] * 2 + [0], [0, 0, 0]]
    np.testing.assert_allclose(pattern, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("box", "lon"),
    [
        ((-20, 15), [340, 345, 350, 355, 0, 5, 10, 15]),
        ((340, 375), [340, 345, 350, 355, 0, 5, 10, 15]),
        ((170, 190), [170, 175, 180, 185, 190]),
        ((-190, -170), [170, 175, 180, 185, 190]),
        ((0, 360), list(range(0, 360, 5))),
    ],
)
def test_boxes_go_across_0_and_180_in_any_convention(box, lon):
    grid = globe()
    inside = cells_in(grid, Region(lat=(-1, 1), lon=box))
    assert sorted(grid.lon[inside.any(axis=0)]) == sorted(lon)
    np.testing.assert_array_equal(grid.lat[inside.any(axis=1)], [0])
    # A region across longitude 0 begins below it.
    west = replace(grid, lon=grid.lon - 180)
    shifted = cells_in(west, Region(lat=(-1, 1), lon=box))
    np.testing.assert_array_equal(np.roll(shifted, -36, axis=1), inside)


@pytest.mark.parametrize(
    ("lat", "lon", "names"),
    [
        ((-30, 30), (120, 290), ["nino12", "nino3", "nino34", "nino4"]),  # tropical Pacific
        ((-30, 30), (-240, -70), ["nino12", "nino3", "nino34", "nino4"]),
        ((-30, 30), (192, 290), ["nino12", "nino3"]),  # begins east of Nino 3.4
        ((-4, 4), (120, 290), ["nino3", "nino34", "nino4"]),  # cells of 2 degrees reach 5 S
        ((-3, 4), (120, 290), []),
        ((-30, 30), (40, 100), []),  # only the western box of the dipole
        ((-30, 30), (40, 120), ["dmi"]),
    ],
)
def test_known_indices_are_those_whose_boxes_lie_inside_the_grid(lat, lon, names):
    rows, columns = np.arange(lat[0], lat[1] + 1, 2.0), np.arange(lon[0], lon[1] + 1, 2.0)
    grid = Grid(rows, columns, np.ones((rows.size, columns.size), bool))
    assert list(index_patterns(grid, {})) == names


def test_a_globe_holds_all_boxes_wherever_its_columns_begin():
    begins_in_box = replace(globe(), lon=np.arange(-160, 200, 5.0))
    ours, theirs = (index_patterns(grid, {}) for grid in (begins_in_box, globe()))
    assert list(ours) == list(theirs) == list(INDICES)
    for name, pattern in ours.items():
        np.testing.assert_allclose(np.roll(pattern, -32, axis=1), theirs[name])


def test_an_index_of_the_sea_is_not_made_from_land():
    sea = globe()
    land = replace(sea, mask=~cells_in(sea, Region(lat=(-5, 5), lon=(120, 227))))
    # Of Nino 3.4, 3 of 11 columns are left, of Nino 3 nearly all, of Nino 4 none.
    assert list(index_patterns(land, {})) == ["nino12", "nino3", "dmi"]
    rest = index_patterns(land, {"mine": Region(lat=(-5, 5), lon=(190, 240))})["mine"]
    assert np.count_nonzero(rest) == 3 * 3


def test_a_box_that_misses_the_grid_or_the_mask_is_refused():
    lat, lon = np.arange(20, 60, 4.0), np.arange(0, 100, 5.0)
    mask = np.ones((10, 20), bool)
    mask[:2] = False
    grid = Grid(lat, lon, mask)
    index_patterns(grid, {"north": Region(lat=(20, 30), lon=(0, 50))})
    with pytest.raises(
        DataError, match=r"(?s)far: no centre of a cell lies in the box lat \[-5.*found: lat 20 to"
    ) as error:
        index_patterns(grid, {"far": Region(lat=(-5, 5), lon=(190, 240))})
    assert "fix: another box" in str(error.value)
    with pytest.raises(DataError, match="coast: no cell with values lies in the box"):
        index_patterns(grid, {"coast": Region(lat=(20, 24), lon=(0, 50))})
    with pytest.raises(ConfigError, match="'nino34', which is an index already"):
        index_patterns(grid, {"nino34": Region(lat=(20, 30), lon=(0, 50))})


def test_scores_of_an_index_are_those_of_its_series():
    grid = globe()
    pairs, months = hindcast(grid)
    pattern = index_patterns(grid, {})["nino34"]
    found = index_scores(pairs, pattern, seasons_of(months))
    series = [index_series(f, pattern) for f in (pairs.forecast, pairs.observed)]
    cell = Pairs(*(s[..., None, None] for s in series), pairs.verified, np.ones((1, 1)))
    np.testing.assert_allclose(found.rmse, rmse(cell), rtol=1e-12)
    np.testing.assert_allclose(found.acc, acc(cell), rtol=1e-12)
    np.testing.assert_array_equal(found.dates, pairs.verified.sum(axis=0))
    for lead in range(LEADS):
        chosen = pairs.verified[:, lead]
        ours, theirs = (s[chosen, lead] for s in series)
        assert found.correlation[lead] == pytest.approx(pearsonr(ours, theirs).statistic)
        for k, name in enumerate(SEASONS):
            first = {"DJF": 12, "MAM": 3, "JJA": 6, "SON": 9}[name]
            inside = np.isin(months[:, lead], [(first - 1 + m) % 12 + 1 for m in range(3)])
            ours, theirs = (s[chosen & inside, lead] for s in series)
            assert found.seasonal_dates[k, lead] == ours.size
            assert found.seasonal_rmse[k, lead] == pytest.approx(
                np.sqrt(np.mean((ours - theirs) ** 2))
            )
            assert found.seasonal_acc[k, lead] == pytest.approx(
                ours @ theirs / np.sqrt(ours @ ours * theirs @ theirs)
            )
            assert found.seasonal_correlation[k, lead] == pytest.approx(
                pearsonr(ours, theirs).statistic
            )
    np.testing.assert_array_equal(found.seasonal_dates.sum(axis=0), found.dates)


def test_a_steady_error_lowers_acc_and_not_the_correlation():
    grid = globe()
    pairs, months = hindcast(grid)
    pattern = index_patterns(grid, {})["nino3"]
    plain, moved = (
        index_scores(replace(pairs, forecast=pairs.forecast + shift), pattern, seasons_of(months))
        for shift in (0.0, 2.0)
    )
    np.testing.assert_allclose(moved.correlation, plain.correlation)
    assert (moved.acc < plain.acc - 0.1).all()


def test_a_forecast_that_never_changes_has_no_correlation_and_no_warning():
    grid = globe()
    pairs, months = hindcast(grid)
    pattern = index_patterns(grid, {})["dmi"]
    for value, without in ((0.0, ["acc", "correlation"]), (0.7, ["correlation"])):
        nino = index_patterns(grid, {})["nino4"] if value else pattern
        constant = replace(pairs, forecast=np.full_like(pairs.forecast, value))
        found = index_scores(constant, nino, seasons_of(months))
        for name in ("acc", "correlation"):
            assert np.isnan(getattr(found, name)).all() == (name in without)
        assert np.isfinite(found.rmse).all()


def test_seasons_without_a_date_have_no_score():
    grid = globe()
    pairs, _ = hindcast(grid)
    pattern = index_patterns(grid, {})["nino34"]
    months = np.full(pairs.verified.shape, 7)
    months[:2] = 1
    found = index_scores(pairs, pattern, seasons_of(months))
    assert np.isnan(found.seasonal_rmse[[1, 3]]).all()
    assert np.isfinite(found.seasonal_rmse[[0, 2]]).all()
    assert np.isnan(found.seasonal_correlation[0]).all()  # of two dates at most
    np.testing.assert_allclose(found.seasonal_dates[2], found.dates - found.seasonal_dates[0])


def test_a_date_on_which_a_cell_of_the_box_was_not_observed_does_not_count():
    grid = globe()
    pairs, months = hindcast(grid)
    pattern = index_patterns(grid, {})["nino34"]
    row, column = np.argwhere(pattern)[0]
    holes = pairs.observed.copy()
    holes[7, :, row, column] = np.nan
    holes[9, :, 0, 0] = np.nan  # elsewhere
    found = index_scores(replace(pairs, observed=holes, gaps=True), pattern, seasons_of(months))
    verified = pairs.verified.copy()
    verified[7] = False
    expected = index_scores(replace(pairs, verified=verified), pattern, seasons_of(months))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_values_off_the_box_or_off_the_verified_dates_do_not_count():
    grid = globe()
    pairs, months = hindcast(grid)
    pattern = index_patterns(grid, {})["dmi"]
    unverified = np.broadcast_to(~pairs.verified[:, :, None, None], pairs.observed.shape)
    for value in (np.nan, 1e30):
        wrong = {
            name: np.where(unverified, value, np.where(pattern != 0, getattr(pairs, name), 9.0))
            for name in ("forecast", "observed")
        }
        found = index_scores(replace(pairs, **wrong), pattern, seasons_of(months))
        expected = index_scores(pairs, pattern, seasons_of(months))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
