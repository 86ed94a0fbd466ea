"""Fine-tuning: what is taken from another run, what is not, and what has to be the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from conftest import Bench, same_bits, small_config
from flax import nnx

from gridcast.errors import CheckpointError, ConfigError
from gridcast.fitting import compile_setup, fit_setup
from gridcast.models.members import member_of, stacked
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.resuming import checkpoint_of
from gridcast.sources.simulated import simulated_series
from gridcast.training import checkpoints
from gridcast.training.checkpoints import named_leaves
from gridcast.training.encoders import CHECKPOINTS
from gridcast.training.fine_tuning import weights_of
from gridcast.training.state import Weights

CNN = {"name": "cnn_lstm", "channels": [4, 4], "latent": 4, "hidden": [4], "norm": "batch"}


def setup_of(series: xr.DataArray, **sections: Any) -> Setup:
    config = small_config(**sections)
    return prepare(config, open_source(config, series))


def moved(weights: Weights, size: float) -> Weights:
    """As if trained: other weights than any seed gives."""
    return jax.tree.map(lambda leaf: leaf + size, weights)


def first_weights(setup: Setup) -> Weights:
    """Of all members of a setup, as they start without another run."""
    models = [setup.model()] * setup.config.train.members
    return stacked([Weights(*nnx.state(one, nnx.Param, nnx.BatchStat)) for one in models])


def written(setup: Setup, directory: Path, weights: Weights, frozen: Any = None) -> Path:
    """The directory of a run whose best weights these are."""
    groups = {"weights": moved(weights, 9.0), "optimizer": {}, "best": weights}
    groups["frozen"] = {} if frozen is None else frozen
    checkpoints.save(directory / CHECKPOINTS, checkpoint_of(setup, 1, groups, {"best_loss": 1.0}))
    return directory


def taken(setup: Setup, directory: Path) -> Weights:
    return weights_of(
        directory,
        setup.config,
        setup.layer_names,
        setup.fields.inputs[0].grid.shape,
        first_weights(setup),
    )


@pytest.fixture(scope="module")
def simulation() -> xr.DataArray:
    """Another ocean of the same coast, warmer and with twice the anomalies."""
    series, _ = simulated_series("ocean", years=14, shape=(9, 18), seed=3)
    other, _ = simulated_series("ocean", years=14, shape=(9, 18), seed=8)
    values = np.where(np.isfinite(series), 3.0 + 2.0 * np.nan_to_num(other.values, nan=9.0), np.nan)
    return series.copy(data=values.astype(np.float32))


@pytest.fixture(scope="module")
def trained(simulation, tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """A run on the simulation, really trained, and its best weights."""
    directory = tmp_path_factory.mktemp("simulation")
    setup = setup_of(simulation, train={"epochs": 1}, model={"base": "climatology"})
    last = fit_setup(setup, directory, resume=False)
    assert last.about["position"]["best_epoch"] == 1
    return directory, last.arrays["best"]


# ---------------------------------------------------------------- what is taken, what is not


def test_training_starts_from_the_weights_of_the_other_run_and_takes_nothing_else(
    ocean, trained, bench, tmp_path
):
    directory, best = trained
    started = Bench.of(ocean, small_config(train={"start_from": str(directory)}))
    found = named_leaves(started.weights)
    assert found.keys() == best.keys()
    assert all(found[name].tobytes() == best[name].tobytes() for name in best)
    # Climatology, scaler, reference and the scale of the loss are those of a run from scratch.
    ours, theirs = started.setup, bench.setup
    assert same_bits(ours.fields.arrays(), theirs.fields.arrays())
    assert same_bits(ours.head, theirs.head)
    assert same_bits(ours.arrays, theirs.arrays)
    assert same_bits(started.series, bench.series)
    assert same_bits(started.stepper.fixed, bench.stepper.fixed)
    # The untouched start is the first candidate for the best.
    begin = started.validate(started.weights)
    assert begin != bench.validate(bench.weights)
    end = started.fit(tmp_path / "metrics", epochs=1)
    assert end.progress.best_loss <= begin
    assert not same_bits(end.state.weights, started.weights)


def test_all_that_the_control_compares_would_differ_on_the_other_runs_data(simulation, bench):
    theirs = setup_of(simulation)
    assert not same_bits(theirs.fields.arrays(), bench.setup.fields.arrays())
    assert not same_bits(theirs.head, bench.setup.head)


def test_statistics_and_an_encoder_that_was_frozen_there_are_taken_too(ocean, tmp_path):
    there = setup_of(ocean, model=CNN)
    weights = moved(first_weights(there), 0.25)
    assert same_bits(taken(there, written(there, tmp_path / "all", weights)), weights)
    names = named_leaves(weights)
    assert sum("mean" in name for name in names) == 2

    def split(part: bool) -> dict[str, np.ndarray]:
        return {k: v for k, v in names.items() if ("['encoder']" in k) == part}

    # On disk, places as names: what is trained there, and what is frozen.
    frozen = {
        k.removeprefix(".params").removeprefix(".statistics"): v for k, v in split(True).items()
    }
    checkpoint = checkpoint_of(there, 1, {"best": weights}, {})
    checkpoint.arrays.update(best=split(False), frozen=frozen)
    checkpoints.save(tmp_path / "frozen" / CHECKPOINTS, checkpoint)
    assert same_bits(taken(there, tmp_path / "frozen"), weights)
    two = setup_of(ocean, model=CNN, train={"members": 2})
    both = taken(two, tmp_path / "frozen")
    assert same_bits(member_of(both, 0), weights)
    assert same_bits(member_of(both, 1), weights)


def test_one_run_is_copied_to_all_members_and_as_many_members_one_by_one(ocean, tmp_path):
    single, three = setup_of(ocean), setup_of(ocean, train={"members": 3})
    weights = moved(first_weights(single), 0.5)
    directory = written(single, tmp_path / "one", weights)
    for member in range(3):
        assert same_bits(member_of(taken(three, directory), member), weights)
    many = stacked([moved(weights, float(k)) for k in range(3)])
    directory = written(three, tmp_path / "three", many)
    assert same_bits(taken(three, directory), many)
    for members in (1, 2):
        with pytest.raises(ConfigError, match=f"has 3 members, train.members: {members}\n"):
            taken(setup_of(ocean, train={"members": members}), directory)


# ---------------------------------------------------------------- what has to be the same


@pytest.fixture(scope="module")
def plain(ocean, tmp_path_factory) -> Path:
    setup = setup_of(ocean)
    return written(setup, tmp_path_factory.mktemp("plain"), moved(first_weights(setup), 0.5))


SAME = {
    "reference": {"model": {"base": "climatology"}},
    "dropout": {"model": {"dropout": 0.3}},
    "size": {"model": {"size": "large"}},
    "climatology": {"frames": {"climatology": {"harmonics": 1, "trend": True}}},
    "scaling": {"frames": {"scaling": "cell"}},
    "loss": {"train": {"loss": "mae", "epochs": 7, "l2": 0.1}},
    "splits": {"splits": {"train": [1950, 1956], "validation": [1958, 1959]}},
}


@pytest.mark.parametrize("sections", SAME.values(), ids=SAME)
def test_what_does_not_change_the_network_may_differ(ocean, plain, sections):
    setup = setup_of(ocean, **sections)
    assert same_bits(taken(setup, plain), moved(first_weights(setup_of(ocean)), 0.5))


OTHER = {
    "model.name": ({"model": CNN}, "conv_lstm there, cnn_lstm here"),
    "model.hidden": ({"model": {"hidden": [4, 4]}}, r"\[4\] there, \[4, 4\] here"),
    "model.kernel": ({"model": {"kernel": 5, "norm": "group"}}, "3 there, 5 here"),
    "frames.inputs": ({"frames": {"inputs": 4, "leads": 3}}, "3 there, 4 here"),
    "frames.leads": ({"frames": {"leads": 3}}, "2 there, 3 here"),
    "frames.known": ({"frames": {"known": []}}, r"\['season'\] there, \[\] here"),
    "frames.trailing": ({"frames": {"trailing": 2}}, "None there, 2 here"),
    "frames.missing: mask": ({"frames": {"missing": "mask"}}, "False there, True here"),
    "the static layers": ({"static": {"layers": []}}, r"\[.*\] there, \[\] here"),
    "the numbers of a target at each cell and lead": (
        {"target": {"classes": {}}},
        "1 there, 3 here",
    ),
    "target.mean_over": ({"target": {"mean_over": {"lat": [-30, 30]}}}, "None there, a box here"),
}


@pytest.mark.parametrize("setting", OTHER)
def test_the_first_setting_of_another_network_is_named_with_both_values(ocean, plain, setting):
    sections, values = OTHER[setting]
    with pytest.raises(ConfigError) as error:
        taken(setup_of(ocean, **sections), plain)
    said = str(error.value)
    assert said.startswith(f"train.start_from: {plain} has another network, in {setting}\n")
    assert error.match(f"found: .*{values}\n")


def test_another_grid_or_more_variables_are_another_network(ocean, plain):
    half = ocean.isel(lat=slice(0, 8))
    with pytest.raises(
        ConfigError, match=r"grid of the network\n  found: \[9, 18\] there, \[8, 18\]"
    ):
        taken(setup_of(half), plain)
    config = small_config(data={"path": "(in memory)", "more": [{"path": "a.nc", "target": True}]})
    setup = setup_of(ocean)
    with pytest.raises(ConfigError, match=r"number of variables\n  found: 1 there, 2 here"):
        weights_of(plain, config, setup.layer_names, (9, 18), first_weights(setup))


def test_the_check_comes_before_training_and_a_run_that_lacks_is_said(ocean, plain, tmp_path):
    with pytest.raises(ConfigError, match=r"another network, in model\.hidden"):
        compile_setup(setup_of(ocean, model={"hidden": [5]}, train={"start_from": str(plain)}))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        compile_setup(setup_of(ocean, train={"start_from": str(tmp_path / "none")}))


def test_two_sources_of_an_encoder_contradict_each_other():
    with pytest.raises(ConfigError, match=r"train\.start_from brings all weights"):
        small_config(model=CNN | {"encoder_from": "a"}, train={"start_from": "b"})
    small_config(model=CNN, train={"start_from": "b"})
