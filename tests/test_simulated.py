"""The simulated ocean keeps to its stated limit; the simulated rain needs its relief."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.sources.netcdf import open_frames
from gridcast.sources.simulated import (
    OceanSystem,
    RainSystem,
    load_system,
    simulated_series,
    write_simulation,
)
from gridcast.sources.simulated_currents import ocean_currents, ocean_noise, ocean_operator
from gridcast.sources.simulated_rain import PERSISTENCE, TURN

SMALL = [(3, 3), (5, 7), (13, 9), (9, 18)]


def cells(system: OceanSystem, sst: np.ndarray) -> np.ndarray:
    """Anomalies [time, cell] of a series that begins in January."""
    cycle = np.tile(system.seasonal_cycle.astype(np.float64), (len(sst) // 12, 1, 1))
    return (sst - cycle)[:, system.mask]


# ---------------------------------------------------------------- the limit of the ocean


def test_expected_error_equals_dense_covariance_algebra_for_every_month():
    system = OceanSystem.create((5, 7), seed=1)
    A, S = system.operator.toarray(), system.noise_factor.toarray()
    error = system.expected_error(5)
    for initial in range(12):
        P = np.zeros_like(A)
        for lead in range(1, 6):
            entering = system.monthly_amplitude[(initial + lead) % 12]
            P = A @ P @ A.T + entering**2 * S @ S.T
            found = error[initial, lead - 1, system.mask]
            np.testing.assert_allclose(found, np.sqrt(np.diag(P)), rtol=1e-12)
    assert np.isnan(error[..., ~system.mask]).all()


def test_optimal_forecast_errs_as_much_as_expected_and_others_more():
    system = OceanSystem.create((9, 18), seed=2)
    sst = system.simulate(400, seed=5)
    anomaly = np.full(sst.shape, np.nan)
    anomaly[:, system.mask] = cells(system, sst)
    leads = (1, 3, 12)
    forecast = system.optimal_forecast(anomaly[:-12], leads)
    expected = system.expected_error(12)
    start = np.arange(len(anomaly) - 12)
    # Four standard deviations of this ratio over seeds: errors at long leads overlap in time.
    sampling = {1: 0.011, 3: 0.016, 12: 0.034}
    for k, lead in enumerate(leads):
        truth = anomaly[lead : len(anomaly) - 12 + lead]
        square = (forecast[:, k] - truth)[:, system.mask] ** 2
        limit = expected[:, lead - 1, system.mask] ** 2
        assert np.sqrt(square.mean() / limit.mean()) == pytest.approx(1.0, abs=sampling[lead])
        for month in range(12):  # the season of the start matters as stated
            found = square[start % 12 == month].mean() / limit[month].mean()
            assert np.sqrt(found) == pytest.approx(1.0, abs=3.5 * sampling[lead])
        by_cell = np.sqrt(square.mean(axis=0) / limit.mean(axis=0))
        assert np.abs(by_cell - 1.0).max() < 6.0 * sampling[lead]
        for wrong in (0.85, 1.15):  # control: another forecast misses the limit
            worse = ((wrong * forecast[:, k] - truth)[:, system.mask] ** 2).mean()
            assert worse > square.mean()


@pytest.mark.parametrize("seed", [0, 3])
def test_memory_is_like_the_ocean_and_persistence_leaves_much_to_learn(seed):
    system = OceanSystem.create(seed=seed)
    x = cells(system, system.simulate(60, seed=1))
    x = x - x.mean(axis=0)
    weight = np.broadcast_to(np.cos(np.deg2rad(system.lat))[:, None], system.mask.shape)
    weight = weight[system.mask] / weight[system.mask].sum()
    gain = {}
    for lead in (1, 3):
        memory = (x[lead:] * x[:-lead]).mean(axis=0) / x.var(axis=0)
        damped = np.sqrt(((x[lead:] - memory * x[:-lead]) ** 2).mean(axis=0) @ weight)
        gain[lead] = 1.0 - system.optimal_rmse(lead)[-1] / damped
        if lead == 1:
            assert 0.78 < memory @ weight < 0.88
    assert 0.15 < gain[1] < 0.30
    assert gain[1] < gain[3] < 0.40
    assert 0.5 < np.sqrt(x.var(axis=0) @ weight) < 1.2


def test_lag_covariance_is_the_operator_times_the_covariance():
    system = OceanSystem.create((5, 7), seed=0)
    x = cells(system, system.simulate(1500, seed=3))
    C0, C1 = x[:-1].T @ x[:-1] / len(x), x[1:].T @ x[:-1] / len(x)
    noise = 5.0 * np.sqrt(np.outer(np.diag(C0), np.diag(C0)) / len(x))
    assert (np.abs(C1 - system.operator @ C0) < noise).all()
    # Controls: the operator backwards, and damping in its place, are no explanation.
    assert (np.abs(C1 - system.operator.T @ C0) > noise).any()
    assert (np.abs(C1 - 0.87 * C0) > noise).any()


def test_variance_of_each_calendar_month_is_the_stationary_one_from_the_first_year_on():
    system = OceanSystem.create((5, 7), seed=4)
    A, S = system.operator.toarray(), system.noise_factor.toarray()
    C, stationary = np.zeros_like(A), np.zeros((12, len(A)))
    for step in range(12 * 60):
        C = A @ C @ A.T + system.monthly_amplitude[step % 12] ** 2 * S @ S.T
        stationary[step % 12] = np.diag(C)
    x = cells(system, system.simulate(1000, seed=2)).reshape(1000, 12, -1)
    np.testing.assert_allclose(x.var(axis=0) / stationary, 1.0, atol=0.25)
    np.testing.assert_allclose(x.var(axis=0).mean() / stationary.mean(), 1.0, atol=0.03)
    assert stationary.mean(axis=1).max() > 1.1 * stationary.mean(axis=1).min()  # the season shows
    starts = np.stack([cells(system, system.simulate(1, seed))[0] for seed in range(150)])
    np.testing.assert_allclose((starts**2).mean() / stationary[0].mean(), 1.0, atol=0.15)


def test_optimal_rmse_weights_cells_by_cosine_of_latitude():
    system = OceanSystem.create((9, 18), seed=0)
    error, total, weights = system.expected_error(4), np.zeros(4), 0.0
    for i, lat in enumerate(system.lat):
        for j in range(18):
            if system.mask[i, j]:
                weights += np.cos(np.deg2rad(lat))
                total += np.cos(np.deg2rad(lat)) * (error[:, :, i, j] ** 2).mean(axis=0)
    np.testing.assert_allclose(system.optimal_rmse(4), np.sqrt(total / weights), rtol=1e-12)


# ---------------------------------------------------------------- the ocean's forecast


def test_optimal_forecast_is_a_power_of_the_operator_for_any_shape_and_order_of_leads():
    system = OceanSystem.create((5, 7), seed=0)
    rng = np.random.default_rng(0)
    anomaly = rng.standard_normal((2, 3, 5, 7))
    A = system.operator.toarray()
    forecast = system.optimal_forecast(anomaly, [4, 0, 1, 4])
    assert forecast.shape == (2, 3, 4, 5, 7)
    for k, lead in enumerate([4, 0, 1, 4]):
        power = np.linalg.matrix_power(A, lead)
        for index in np.ndindex(2, 3):
            found = forecast[index][k][system.mask]
            np.testing.assert_allclose(found, power @ anomaly[index][system.mask], atol=1e-12)
    assert np.isnan(forecast[..., ~system.mask]).all()
    assert system.optimal_forecast(anomaly[0, 0], [1]).shape == (1, 5, 7)


def test_land_is_not_read_and_a_missing_ocean_cell_is_an_error():
    system = OceanSystem.create((9, 18), seed=0)
    anomaly = np.random.default_rng(0).standard_normal((9, 18))
    expected = system.optimal_forecast(np.where(system.mask, anomaly, 0.0), [1, 2])
    for anything in (np.nan, 1e30):
        found = system.optimal_forecast(np.where(system.mask, anomaly, anything), [1, 2])
        np.testing.assert_array_equal(found, expected)
    anomaly[np.nonzero(system.mask)[0][0], np.nonzero(system.mask)[1][0]] = np.nan
    with pytest.raises(DataError, match="missing in 1 places at sea"):
        system.optimal_forecast(anomaly, [1])


# ---------------------------------------------------------------- the ocean's operators


@pytest.mark.parametrize("shape", [*SMALL, (45, 90)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_anomaly_dies_out(shape, seed):
    system = OceanSystem.create(shape, seed)
    operator = system.operator
    assert operator.min() >= 0.0
    # Row sums of a matrix without negative entries bound its spectral radius.
    assert (operator @ np.ones(system.mask.sum())).max() < 0.98


def test_nothing_crosses_land_nor_slips_through_a_corner():
    mask = np.ones((6, 10), dtype=bool)
    mask[:, 0] = False  # one wall, and one that is joined only at corners
    mask[:3, 5], mask[3:, 6] = False, False
    west = np.zeros_like(mask)
    west[:3, 1:5], west[3:, 1:6] = True, True
    rng = np.random.default_rng(0)
    number = np.cumsum(mask).reshape(mask.shape) - 1
    a, b = number[west & mask], number[~west & mask]
    for east, north in [(0.9, 0.9), (0.9, -0.9), (-0.9, 0.9), (-0.9, -0.9)]:
        u, v = east * rng.uniform(0.5, 1, mask.shape), north * rng.uniform(0.5, 1, mask.shape)
        A = ocean_operator(mask, u, v, np.ones(mask.sum())).toarray()
        S = ocean_noise(mask, np.ones(mask.sum())).toarray()
        for matrix in (A, S):
            assert not matrix[np.ix_(a, b)].any()
            assert not matrix[np.ix_(b, a)].any()
        np.testing.assert_allclose(A.sum(axis=1), 1.0)
        np.testing.assert_allclose((S**2).sum(axis=1), 1.0)
    # Control: one gap in the corner's wall connects the two seas.
    mask[2, 5] = True
    number = np.cumsum(mask).reshape(mask.shape) - 1
    west[2, 5] = True
    A = ocean_operator(mask, u, v, np.ones(mask.sum())).toarray()
    assert A[np.ix_(number[west & mask], number[~west & mask])].any()


def test_a_current_moves_an_anomaly_its_way_also_over_longitude_0():
    mask = np.ones((21, 24), dtype=bool)
    step = ocean_operator(mask, np.full(mask.shape, 0.7), np.full(mask.shape, -0.4), np.ones(504))
    x = np.zeros(mask.shape)
    x[15, 22] = 1.0
    for _ in range(5):
        x = (step @ x.ravel()).reshape(mask.shape)
    assert x.sum() == pytest.approx(1.0)
    assert (x.sum(axis=1) @ np.arange(21)) == pytest.approx(15 - 5 * 0.4)
    along = np.roll(x.sum(axis=0), 8) @ np.arange(24)  # column 22 becomes 6
    assert along == pytest.approx(6 + 5 * 0.7)


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_currents_are_brisk_smooth_and_keep_to_the_sea(seed):
    system = OceanSystem.create(seed=seed)
    u, v = ocean_currents(system.lat, system.mask)
    speed = np.hypot(u, v)
    assert not speed[~system.mask].any()
    assert 0.7 < np.median(speed[system.mask]) < 1.0
    assert speed.max() < 1.0  # a step reaches no further than a neighbour
    equator = np.abs(system.lat) < 1
    assert (u[equator][system.mask[equator]] > 0.9).all()  # the wave guide
    inside = system.mask & np.roll(system.mask, 1, axis=1)
    assert np.abs(u - np.roll(u, 1, axis=1))[inside].mean() < 0.05
    assert np.abs(v - np.roll(v, 1, axis=1))[inside].mean() < 0.05


def test_noise_is_alike_in_neighbours_and_apart_beyond_a_few_cells():
    mask = np.ones((20, 30), dtype=bool)
    S = ocean_noise(mask, np.full(600, 2.0)).toarray()
    Q = (S @ S.T)[10 * 30 + 4].reshape(mask.shape) / 4.0
    assert Q[10, 4] == pytest.approx(1.0)
    assert 0.6 < Q[10, 5] < 0.9
    assert Q[10, 5] == pytest.approx(Q[9, 4])
    assert 0.0 < Q[10, (4 - 6) % 30] < 0.01  # over longitude 0
    assert Q[10, 12] == 0.0


def test_seasonal_cycle_is_warm_at_the_equator_and_opposite_in_the_hemispheres():
    system = OceanSystem.create(seed=0)
    cycle = system.seasonal_cycle
    mean = np.nanmean(np.nanmean(cycle, axis=2), axis=0)
    equator, north, south = (np.argmin(np.abs(system.lat - lat)) for lat in (0, 40, -40))
    assert mean[equator] == pytest.approx(28.0, abs=1.0)
    assert mean[0] == pytest.approx(-1.5, abs=0.2)
    assert 8 <= np.argmax(np.nanmean(cycle[:, north], axis=1)) + 1 <= 10
    assert 2 <= np.argmax(np.nanmean(cycle[:, south], axis=1)) + 1 <= 4
    monthly = system.simulate(120, seed=0).reshape(120, 12, *system.mask.shape).mean(axis=0)
    np.testing.assert_allclose(monthly[:, system.mask], cycle[:, system.mask], atol=1.0)
    assert np.abs(monthly - cycle)[:, system.mask].mean() < 0.1


# ---------------------------------------------------------------- relief


@pytest.mark.parametrize("seed", range(4))
def test_a_third_of_the_planet_is_land_and_the_same_at_every_resolution(seed):
    coarse, fine = (RainSystem.create(shape, seed) for shape in ((45, 90), (90, 180)))
    area = np.repeat(np.cos(np.deg2rad(coarse.lat))[:, None], 90, axis=1)
    assert (area * (coarse.relief > 0)).sum() / area.sum() == pytest.approx(0.3, abs=0.01)
    # Compared where both have a column: every second longitude, and the row just north.
    agree = (coarse.relief > 0) == (fine.relief[::2, ::2] > 0)
    assert agree.mean() > 0.95
    assert -6000 < coarse.relief.min() < -2500
    assert 1500 < coarse.relief.max() < 6000


def test_relief_has_no_seam():
    relief = RainSystem.create(seed=0).relief.astype(np.float64)
    across = np.abs(np.diff(np.concatenate([relief, relief[:, :1]], axis=1), axis=1))
    assert across[:, -1].mean() < 1.3 * across.mean()
    rolled = np.abs(relief - np.roll(relief, 30, axis=1)).mean()  # control: what a seam would be
    assert rolled > 3.0 * across.mean()


# ---------------------------------------------------------------- rain


def test_rain_falls_on_the_windward_side_and_is_never_negative():
    system = RainSystem.create((24, 48), seed=0)
    rain = system.simulate(40, seed=1)
    u, v = system.wind(40, seed=1)
    land = system.relief > 0
    assert rain.shape == (480, 24, 48)
    assert np.isfinite(rain).all()
    assert rain.min() == 0.0  # lee sides fall dry
    assert 0.5 < rain.mean() < 6.0
    height = np.maximum(system.relief, 0.0).astype(np.float64)
    rise_east = np.roll(height, -1, axis=1) - np.roll(height, 1, axis=1)
    rise_north = np.zeros_like(height)
    rise_north[1:-1] = height[2:] - height[:-2]
    uphill = u * rise_east + v * rise_north
    land[[0, -1]] = False
    excess = rain - rain.reshape(40, 12, 24, 48).mean(axis=0)[np.arange(480) % 12]
    windward = np.corrcoef(excess[:, land].ravel(), uphill[:, land].ravel())[0, 1]
    crosswind = np.corrcoef(
        excess[:, land].ravel(), (v * rise_east - u * rise_north)[:, land].ravel()
    )
    assert windward > 0.85
    assert abs(crosswind[0, 1]) < 0.15


def test_wind_turns_by_the_stated_angle_and_keeps_its_strength():
    system = RainSystem.create((9, 18), seed=0)
    u, v = system.wind(400, seed=2)
    wind = u + 1j * v
    turn = (wind[1:] * wind[:-1].conj()).mean() / (np.abs(wind) ** 2).mean()
    assert np.abs(turn) == pytest.approx(PERSISTENCE, abs=0.02)
    assert np.angle(turn) == pytest.approx(TURN, abs=0.03)
    assert u.std() == pytest.approx(5.0, rel=0.1)
    assert v.std() == pytest.approx(5.0, rel=0.1)


def local_sum(field: np.ndarray) -> np.ndarray:
    """Sums over 5 x 5 cells, wrapping in longitude."""
    padded = np.pad(np.pad(field, ((0, 0), (0, 0), (2, 2)), "wrap"), ((0, 0), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    return windows.sum(axis=(-1, -2))


def rain_error(system: RainSystem, slopes: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """RMSE over land of next month's rain, in years not trained on: without and with `slopes`.

    One linear rule for all cells: 5 x 5 cells of this and last month; with slopes, also the wind
    that explains the 5 x 5 cells, times the cell's own slopes.
    """
    years, train = 40, 360
    rain = system.simulate(years, seed=1).astype(np.float64)
    month = np.arange(len(rain)) % 12
    cycle = np.stack([rain[:train][month[:train] == m].mean(axis=0) for m in range(12)])
    x = rain - cycle[month]
    east, north = (s[None] for s in slopes)
    ee, en, nn = local_sum(east**2) + 0.1, local_sum(east * north), local_sum(north**2) + 0.1
    xe, xn = local_sum(x * east), local_sum(x * north)
    u, v = (nn * xe - en * xn) / (ee * nn - en**2), (ee * xn - en * xe) / (ee * nn - en**2)
    around = [
        np.roll(x, (lag, i, j), axis=(0, 1, 2))
        for lag in (0, 1)
        for i in range(-2, 3)
        for j in range(-2, 3)
    ]
    relief = [wind * slope for wind in (u, v) for slope in (east, north)]
    land = system.relief > 0
    land[[0, 1, -2, -1]] = False
    errors = []
    for features in (around, around + relief):
        inputs = np.stack([f[:-1][:, land] for f in features], axis=-1)[1:]
        target = x[2:][:, land]
        a, b = inputs[: train - 2].reshape(-1, len(features)), target[: train - 2].ravel()
        weight = np.linalg.solve(a.T @ a + 1e-6 * np.eye(len(features)), a.T @ b)
        errors.append(float(np.sqrt(np.mean((inputs[train:] @ weight - target[train:]) ** 2))))
    return errors[0], errors[1]


@pytest.mark.family
@pytest.mark.parametrize("seed", [0, 1])
def test_relief_tells_next_months_rain(seed):
    system = RainSystem.create((24, 48), seed=seed)
    without, with_relief = rain_error(system, (system.slope_east, system.slope_north))
    assert with_relief < 0.85 * without
    # Control: the relief of another place helps nothing.
    elsewhere = tuple(np.roll(s, 12, axis=1) for s in (system.slope_east, system.slope_north))
    _, misplaced = rain_error(system, (elsewhere[0], elsewhere[1]))
    assert misplaced > 0.98 * without


# ---------------------------------------------------------------- labelled data and files


@pytest.mark.parametrize("kind", ["ocean", "rain"])
@pytest.mark.parametrize("shape", SMALL)
def test_small_grids_work_and_say_what_they_are(kind, shape):
    series, elevation = simulated_series(kind, years=2, shape=shape, seed=3)
    assert series.dims == ("time", "lat", "lon")
    assert series.shape == (24, *shape)
    assert series.dtype == elevation.dtype == np.float32
    assert series.name == ("sst" if kind == "ocean" else "precip")
    assert series.attrs["units"] == ("degC" if kind == "ocean" else "mm day-1")
    assert series.attrs["source"].startswith(f"simulated {kind}")
    assert "seed 3" in series.attrs["source"]
    dates = series["time"].values.astype("datetime64[D]").astype(str)
    assert dates[0] == "1950-01-01"
    assert dates[13] == "1951-02-01"
    present = np.asarray(np.isfinite(series.values).all(axis=0))
    expected = elevation.values < 0 if kind == "ocean" else np.ones(shape, dtype=bool)
    np.testing.assert_array_equal(present, expected)
    assert Grid(series["lat"].values, series["lon"].values, present).wraps
    assert np.isnan(series.values[:, ~present]).all()


@pytest.mark.parametrize("kind", ["ocean", "rain"])
def test_files_hold_the_series_and_read_back_unchanged(kind, tmp_path):
    path = tmp_path / "sim.nc"
    write_simulation(path, kind=kind, years=3, shape=(9, 18), seed=7)
    series, elevation = simulated_series(kind, years=3, shape=(9, 18), seed=7)
    read = open_frames(path)
    np.testing.assert_array_equal(read.values, series.values)
    for axis in ("time", "lat", "lon"):
        np.testing.assert_array_equal(read[axis].values, series[axis].values)
    with xr.open_dataset(tmp_path / "sim_relief.nc") as file:
        np.testing.assert_array_equal(file["elevation"].values, elevation.values)
        assert file["elevation"].attrs["units"] == "m"
    names = {"sim.nc", "sim_relief.nc"} | ({"sim_limit.nc"} if kind == "ocean" else set())
    assert {entry.name for entry in tmp_path.iterdir()} == names
    for name in names:
        with xr.open_dataset(tmp_path / name) as file:
            assert file.attrs["source"] == series.attrs["source"]
            assert "imulated" in file.attrs["title"]


@pytest.mark.parametrize("kind", ["ocean", "rain"])
def test_one_seed_gives_the_same_bytes_and_another_seed_another_planet(kind, tmp_path):
    for name, seed in [("a", 4), ("b", 4), ("c", 5)]:
        (tmp_path / name).mkdir()
        write_simulation(tmp_path / name / "x.nc", kind=kind, years=2, shape=(5, 7), seed=seed)
    for first in (tmp_path / "a").iterdir():
        assert first.read_bytes() == (tmp_path / "b" / first.name).read_bytes()
    a, c = (xr.load_dataset(tmp_path / name / "x_relief.nc") for name in ("a", "c"))
    assert not np.array_equal(a["elevation"], c["elevation"])


@pytest.mark.parametrize("kind", ["ocean", "rain"])
def test_more_years_of_a_seed_only_add_to_its_series(kind):
    short, relief = simulated_series(kind, years=2, shape=(5, 7), seed=1)
    longer, same = simulated_series(kind, years=4, shape=(5, 7), seed=1)
    np.testing.assert_array_equal(short, longer[:24])
    np.testing.assert_array_equal(relief, same)
    other, _ = simulated_series(kind, years=2, shape=(5, 7), seed=2)
    assert not np.array_equal(short, other, equal_nan=True)


def test_the_limit_file_rebuilds_the_system_bit_for_bit(tmp_path):
    write_simulation(tmp_path / "ocean.nc", kind="ocean", years=2, shape=(9, 18), seed=6)
    system = OceanSystem.create((9, 18), seed=6)
    loaded = load_system(tmp_path / "ocean_limit.nc")
    anomaly = np.random.default_rng(1).standard_normal((3, 9, 18))
    leads = range(1, 13)
    np.testing.assert_array_equal(
        loaded.optimal_forecast(anomaly, leads), system.optimal_forecast(anomaly, leads)
    )
    np.testing.assert_array_equal(loaded.expected_error(3), system.expected_error(3))
    np.testing.assert_array_equal(loaded.simulate(2, 0), system.simulate(2, 0))
    assert loaded.relief.dtype == loaded.seasonal_cycle.dtype == np.float32


def test_a_user_can_forecast_from_the_limit_file_alone(tmp_path):
    write_simulation(tmp_path / "ocean.nc", kind="ocean", years=2, shape=(9, 18), seed=0)
    file = xr.load_dataset(tmp_path / "ocean_limit.nc")
    sst = xr.load_dataset(tmp_path / "ocean.nc")["sst"]
    place = file["cell_lat_index"].values, file["cell_lon_index"].values
    anomaly = (sst[4].values - file["seasonal_cycle"].sel(month=5).values)[place]
    row, column = file["operator_row"].values, file["operator_col"].values
    assert row.dtype == column.dtype == np.int32
    assert file["operator_weight"].dtype == np.float64
    step = np.bincount(row, file["operator_weight"].values * anomaly[column])
    system = OceanSystem.create((9, 18), seed=0)
    field = np.zeros((9, 18))
    field[place] = anomaly
    np.testing.assert_allclose(step, system.optimal_forecast(field, [1])[0][place], rtol=1e-12)
    for name, values in [
        ("expected_error", system.expected_error(12)),
        ("optimal_rmse", system.optimal_rmse(12)),
    ]:
        assert file[name].dtype == np.float32
        np.testing.assert_allclose(file[name].values, values, rtol=1e-6)
    np.testing.assert_array_equal(file["month"], np.arange(1, 13))
    np.testing.assert_array_equal(file["lead"], np.arange(1, 13))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "snow"}, "no simulation of kind 'snow'\n  expected: ocean or rain"),
        ({"years": 1}, "the number of years is 1\n  expected: a whole number from 2"),
        ({"years": 301}, "the number of years is 301"),
        ({"shape": (2, 9)}, "the number of grid rows is 2"),
        ({"shape": (5, 0)}, "the number of grid columns is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_named_with_what_was_expected(wrong, message, tmp_path):
    good = {"kind": "ocean", "years": 2, "shape": (5, 7), "seed": 0}
    simulated_series(**good)  # control
    with pytest.raises(DataError) as caught:
        simulated_series(**{**good, **wrong})
    assert str(caught.value).startswith(message)
    with pytest.raises(DataError):
        write_simulation(tmp_path / "x.nc", **{**good, **wrong})
    assert not list(tmp_path.iterdir())


def test_leads_grid_and_files_that_do_not_fit_are_errors(tmp_path):
    system = OceanSystem.create((5, 7), seed=0)
    with pytest.raises(DataError, match="a lead is -1"):
        system.optimal_forecast(np.zeros((5, 7)), [-1])
    with pytest.raises(DataError, match=r"shape \(7, 5\)"):
        system.optimal_forecast(np.zeros((7, 5)), [1])
    with pytest.raises(DataError, match="max_lead is 0"):
        system.expected_error(0)
    with pytest.raises(DataError):
        load_system(tmp_path / "none_limit.nc")
    write_simulation(tmp_path / "x.nc", kind="ocean", years=2, shape=(5, 7), seed=0)
    with pytest.raises(DataError, match="has no cell_lat_index"):
        load_system(tmp_path / "x_relief.nc")
