"""Skill where the best possible forecast is known, and where a static layer must help."""

from __future__ import annotations

import numpy as np
import pytest

from gridcast.experiment import train
from gridcast.frames.transform import grid_of
from gridcast.run import Run
from gridcast.sources.netcdf import write_netcdf
from gridcast.sources.simulated import OceanSystem, simulated_series

SHAPE = (45, 90)
TEST_YEARS = [1996, 2009]


@pytest.mark.slow
def test_model_nears_the_known_limit_of_a_simulated_ocean_and_stays_above_it(tmp_path):
    series, _ = simulated_series("ocean", years=60, shape=SHAPE, seed=0)
    system = OceanSystem.create(SHAPE, 0)
    run = train(
        dataset=series,
        frames={"inputs": 2, "leads": 3},
        splits={"train": [1950, 1989], "validation": [1990, 1995], "test": TEST_YEARS},
        model={"name": "conv_lstm", "hidden": [32], "downsample": 1},
        train={"epochs": 16, "learning_rate": 5e-3},
        output={"directory": str(tmp_path / "ocean")},
    )
    scores = run.evaluate(series)
    limit = system.optimal_rmse(1)[0]
    model = float(scores["rmse"].sel(forecast="model", lead=1))
    damped = float(scores["rmse"].sel(forecast="damped_persistence", lead=1))
    noise = sampling_noise(system, series)
    # The control: an oracle that knows the system reaches the limit, on these very dates.
    oracle = oracle_rmse(system, series)
    print(f"ocean: model {model / limit:.3f}, damped persistence {damped / limit:.3f} x the limit")
    assert abs(oracle / limit - 1) < 3 * noise
    assert model > oracle * (1 - 3 * noise)
    assert model < 1.10 * limit
    assert damped > 1.15 * limit  # what the model had to gain


def oracle_rmse(system: OceanSystem, series) -> float:
    """RMSE at lead 1 of the optimal forecast, which knows the climatology and the operator."""
    anomaly = true_anomaly(system, series)
    dates = series["time"].dt.year.values
    later = np.flatnonzero((dates >= TEST_YEARS[0]) & (dates <= TEST_YEARS[1]))
    forecast = system.optimal_forecast(anomaly[later - 1], range(1, 2))[:, 0]
    weight = grid_of(series).weight
    square = np.where(weight > 0, forecast - anomaly[later], 0.0) ** 2
    return float(np.sqrt((square.mean(axis=0) * weight).sum()))


def true_anomaly(system: OceanSystem, series) -> np.ndarray:
    cycle = system.seasonal_cycle[series["time"].dt.month.values - 1]
    return np.nan_to_num(series.values - cycle)


def sampling_noise(system: OceanSystem, series) -> float:
    """Relative standard error of the test RMSE, from the spread between its months."""
    anomaly = true_anomaly(system, series)
    weight = grid_of(series).weight
    forecast = system.optimal_forecast(anomaly[:-1], range(1, 2))[:, 0]
    monthly = (np.where(weight > 0, forecast - anomaly[1:], 0.0) ** 2 * weight).sum(axis=(1, 2))
    months = 12 * (TEST_YEARS[1] - TEST_YEARS[0] + 1)
    return float(monthly.std() / monthly.mean() / np.sqrt(months) / 2)


def rain_run(seed: int, layers: list[str], series, relief, directory) -> float:
    """RMSE at lead 1 of a model of the simulated rain, with the given static layers."""
    run: Run = train(
        dataset=series,
        static={"layers": layers, "path": str(relief)},
        frames={"inputs": 1, "leads": 1},
        splits={"train": [1950, 1964], "validation": [1965, 1969], "test": [1970, 1979]},
        model={"name": "conv_lstm", "hidden": [24, 24], "downsample": 1},
        train={"epochs": 20, "learning_rate": 4e-3, "batch_size": 4, "patience": 20, "seed": seed},
        output={"directory": str(directory / f"rain-{seed}-{len(layers)}")},
    )
    return float(run.evaluate(series)["rmse"].sel(forecast="model", lead=1))


@pytest.mark.slow
def test_elevation_lowers_the_error_of_rain_over_relief_for_every_seed(tmp_path):
    series, elevation = simulated_series("rain", years=30, shape=SHAPE, seed=1)
    path = tmp_path / "relief.nc"
    write_netcdf(elevation.to_dataset(), path)
    for seed in (0, 1, 2):
        without = rain_run(seed, ["position"], series, path, tmp_path)
        with_relief = rain_run(seed, ["position", "elevation"], series, path, tmp_path)
        print(f"rain, seed {seed}: RMSE {without:.3f} without relief, {with_relief:.3f} with it")
        assert with_relief < 0.97 * without, (seed, with_relief, without)
