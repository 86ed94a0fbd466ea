"""What lies after the training period changes nothing that is fitted or trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import Bench, same_bits, small_config

from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.training import loop

# Patience outlasts the epochs: how long it trains may depend on validation, the weights may not.
CONFIG = small_config(train={"epochs": 2, "patience": 2})


def corrupted(series: xr.DataArray, first: str, last: str, lowest: float = -150.0) -> xr.DataArray:
    """Finite junk in place of every value from `first` to `last`."""
    inside = slice(
        *series.get_index("time").slice_indexer(first, last).indices(series.sizes["time"])
    )
    values = series.values.copy()
    junk = np.random.default_rng(0).uniform(lowest, 150.0, values[inside].shape)
    values[inside] = np.where(np.isfinite(values[inside]), junk, np.nan)
    return series.copy(data=values)


def trained(series: xr.DataArray, metrics: Path) -> tuple[Bench, loop.Fit]:
    bench = Bench.of(series, CONFIG)
    return bench, bench.fit(metrics)


def fitted(bench: Bench) -> dict[str, np.ndarray]:
    """Everything fitted before the first step."""
    setup = bench.setup
    return fixed(setup) | {"scale": np.asarray(bench.series.scale), "layers": setup.layers}


def fixed(setup: Setup) -> dict[str, np.ndarray]:
    return setup.fields.arrays() | setup.head


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
    assert not same_bits(bench.setup.arrays.values, clean[0].setup.arrays.values)


def test_one_training_value_changes_all_that_is_fitted(ocean, clean, tmp_path):
    values = ocean.values.copy()
    row, column = (index[0] for index in np.nonzero(np.isfinite(values[0])))
    values[50, row, column] += 1.0
    bench, end = trained(ocean.copy(data=values), tmp_path / "metrics")
    expected = fitted(clean[0])
    names = ("targets/0/climatology", "targets/0/deviation", "damping", "scale")
    for name in names:
        assert not same_bits(fitted(bench)[name], expected[name]), name
    assert not same_bits(end.state.params, clean[1].state.params)
    assert not same_bits(end.best, clean[1].best)


# ---------------------------------------------------------------- all else that can be fitted

MEMORY = {"path": "(in memory)"}
CLASSES = {"classes": {"kind": "terciles"}}
# What is fitted there, beside climatology and deviation, by its name.
KINDS = {
    "terciles": ({"target": CLASSES}, ["classes/edges", "damping", "deviation"]),
    "odds": ({"target": CLASSES, "model": {"base": "climatology"}}, ["classes/edges", "edges"]),
    "thresholds": (
        {"target": {"classes": {"kind": "thresholds", "thresholds": [0.2], "of": "anomaly"}}},
        ["classes/edges", "deviation", "odds"],
    ),
    "quantile": (
        {"data": MEMORY | {"transform": "quantile"}},
        ["inputs/0/skew_quantiles", "plain/0/climatology", "damping"],
    ),
    "log1p": ({"data": MEMORY | {"transform": "log1p"}}, ["inputs/0/skew_scale", "damping"]),
    "rain": (
        {"train": {"loss": "bernoulli_gamma"}, "model": {"base": "climatology"}},
        ["climate"],
    ),
    "index": (
        {"target": {"mean_over": {"lat": [-20, 20], "lon": [150, 250]}}},
        ["targets/0/climatology", "targets/0/deviation", "damping"],
    ),
    "by cell": ({"frames": {"scaling": "cell", "climatology": {"trend": True}}}, ["damping"]),
    "lim": (
        {"model": {"base": "lim", "reference": {"seasonal": True, "eofs": [2, 4, 8]}}},
        ["damping", "patterns", "projection", "propagators"],
    ),
    "analogues": (
        {"model": {"base": "analogues", "reference": {"eofs": [2, 4]}}},
        ["projection", "library", "later", "damping"],
    ),
    "trailing": (
        {"frames": {"trailing": 3}, "model": {"reference": {"by_month": True}}},
        ["damping"],
    ),
    "crps": ({"train": {"loss": "crps"}, "model": {"base": "lim"}}, ["propagators", "deviation"]),
    "all at once": (
        {
            "frames": {"trailing": 3},
            "train": {"loss": "mse_crps"},
            "model": {"base": "lim", "reference": {"eofs": [2, 4, 8]}},
            "target": {"mean_over": {"lat": [-20, 20], "lon": [150, 250]}},
        },
        ["patterns", "projection", "propagators", "deviation"],
    ),
}
# Where validation chooses the number of EOFs, its values may matter and those of the test not.
CHOSEN = ("lim", "analogues", "all at once")
NEVER_NEGATIVE = ("log1p", "rain")


def amounts(series: xr.DataArray) -> xr.DataArray:
    """As rain: a third of the values 0, the others positive."""
    anomaly = series - series.mean("time")
    positive = anomaly.where(anomaly > -0.2, 0.0).where(anomaly <= 0, anomaly + 0.1)
    return np.abs(positive).where(np.isfinite(series)).astype(np.float32).assign_attrs(series.attrs)


def series_for(kind: str, ocean: xr.DataArray) -> xr.DataArray:
    return amounts(ocean) if kind in NEVER_NEGATIVE else ocean


def prepared(kind: str, series: xr.DataArray) -> Setup:
    config = small_config(**KINDS[kind][0])
    return prepare(config, open_source(config, series))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_fitted_sees_values_after_training(kind, ocean):
    series = series_for(kind, ocean)
    lowest = 0.0 if kind in NEVER_NEGATIVE else -150.0
    clean = prepared(kind, series)
    first, known = ("1961-01", 132) if kind in CHOSEN else ("1959-01", 108)
    junk = prepared(kind, corrupted(series, first, "1963-12", lowest))
    expected = fixed(clean)
    for name, array in fixed(junk).items():
        assert same_bits(array, expected[name]), name
    assert same_bits(junk.arrays.known, clean.arrays.known)
    for name in ("values", "last", "targets", "trailing", "last_trailing"):
        ours, theirs = (getattr(setup.arrays, name) for setup in (junk, clean))
        assert (ours is None) == (theirs is None)
        assert ours is None or same_bits(ours[:known], theirs[:known]), name
    # The control: the junk did come in.
    assert not same_bits(junk.arrays.values[known:], clean.arrays.values[known:])


@pytest.mark.parametrize("kind", KINDS)
def test_training_values_change_all_that_is_fitted(kind, ocean):
    series = series_for(kind, ocean)
    expected = fixed(prepared(kind, series))
    found = fixed(prepared(kind, corrupted(series, "1958-01", "1958-12", 0.0)))
    names = ["inputs/0/climatology", "inputs/0/deviation", *KINDS[kind][1]]
    for name in names:
        assert not same_bits(found[name], expected[name]), name


def two_variables(ocean: xr.DataArray) -> xr.Dataset:
    other = (0.1 * np.roll(ocean.values, 3, axis=0) + 1.0).astype(np.float32)
    height = ocean.copy(data=other).rename("ssh").assign_attrs(units="m", long_name="height")
    return xr.Dataset({"sst": ocean, "ssh": height})


@pytest.mark.parametrize("target", [True, False])
def test_a_further_variable_is_fitted_on_its_own_training_dates(ocean, target):
    further = {**MEMORY, "variable": "ssh", "target": target, "transform": "quantile"}
    config = small_config(data={**MEMORY, "variable": "sst", "more": [further]})
    dataset = two_variables(ocean)

    def found(**changed: xr.DataArray) -> dict[str, np.ndarray]:
        return fixed(prepare(config, open_source(config, dataset.assign(changed))))

    clean = found()
    assert clean["damping"].shape[-1] == 1 + target
    after = found(ssh=corrupted(dataset["ssh"], "1959-01", "1963-12"))
    assert same_bits(after, clean)
    before = found(ssh=corrupted(dataset["ssh"], "1958-01", "1958-12"))
    changed = {name for name in clean if not same_bits(before[name], clean[name])}
    own = {"inputs/1/climatology", "inputs/1/deviation", "inputs/1/skew_quantiles"}
    assert own <= changed
    # One variable does not see the other.
    assert not {name for name in changed if name.startswith(("inputs/0", "targets/0", "plain/0"))}
    assert same_bits(before["damping"][..., 0], clean["damping"][..., 0])
    assert ("damping" in changed) is target
