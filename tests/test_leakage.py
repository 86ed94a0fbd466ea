"""What lies after the training period changes nothing that is fitted or trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import Bench, same_bits, small_config

from gridcast.training import loop

# Patience outlasts the epochs: how long it trains may depend on validation, the weights may not.
CONFIG = small_config(train={"epochs": 2, "patience": 2})


def corrupted(series: xr.DataArray, first: str, last: str) -> xr.DataArray:
    """Finite junk in place of every value from `first` to `last`."""
    inside = slice(
        *series.get_index("time").slice_indexer(first, last).indices(series.sizes["time"])
    )
    values = series.values.copy()
    junk = np.random.default_rng(0).uniform(-300.0, 300.0, values[inside].shape)
    values[inside] = np.where(np.isfinite(values[inside]), junk, np.nan)
    return series.copy(data=values)


def trained(series: xr.DataArray, metrics: Path) -> tuple[Bench, loop.Fit]:
    bench = Bench.of(series, CONFIG)
    return bench, bench.fit(metrics)


def fitted(bench: Bench) -> dict[str, np.ndarray]:
    """Everything fitted before the first step."""
    setup = bench.setup
    return setup.transform.arrays() | {
        "damping": setup.damping.factor,
        "scale": setup.scale,
        "layers": setup.layers,
    }


@pytest.fixture(scope="module")
def clean(ocean, tmp_path_factory) -> tuple[Bench, loop.Fit]:
    return trained(ocean, tmp_path_factory.mktemp("clean") / "metrics")


def test_values_after_training_cannot_change_the_weights(ocean, clean, tmp_path):
    bench, end = trained(corrupted(ocean, "1959-01", "1963-12"), tmp_path / "metrics")
    expected = fitted(clean[0])
    for name, array in fitted(bench).items():
        assert same_bits(array, expected[name]), name
    assert same_bits(end.state, clean[1].state)
    # Validation did see the junk.
    assert end.progress.best_loss > 10 * clean[1].progress.best_loss


def test_values_after_validation_cannot_change_which_weights_are_best(ocean, clean, tmp_path):
    bench, end = trained(corrupted(ocean, "1961-01", "1963-12"), tmp_path / "metrics")
    assert same_bits(end.state, clean[1].state)
    assert same_bits(end.best, clean[1].best)
    assert end.progress == clean[1].progress
    assert not same_bits(bench.setup.frames, clean[0].setup.frames)


def test_one_training_value_changes_all_that_is_fitted(ocean, clean, tmp_path):
    values = ocean.values.copy()
    row, column = (index[0] for index in np.nonzero(np.isfinite(values[0])))
    values[50, row, column] += 1.0
    bench, end = trained(ocean.copy(data=values), tmp_path / "metrics")
    expected = fitted(clean[0])
    for name in ("climatology", "deviation", "damping", "scale"):
        assert not same_bits(fitted(bench)[name], expected[name]), name
    assert not same_bits(end.state.params, clean[1].state.params)
    assert not same_bits(end.best, clean[1].best)
