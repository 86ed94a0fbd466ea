"""Exported programs of each kind of run: the bits of `Run.forecast`, or an error that says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from conftest import same_bits, small_config
from flax import nnx

import gridcast
from gridcast.errors import ConfigError, DataError
from gridcast.models.members import member_of, stacked
from gridcast.opening import Source, open_source
from gridcast.preparation import prepare
from gridcast.run import Run
from gridcast.training.state import Weights

pytestmark = pytest.mark.family

CNN = {"name": "cnn_lstm", "channels": [3, 4], "latent": 4, "hidden": [5]}
CONV = {"name": "conv_lstm", "hidden": [3], "downsample": 2}
BOX = {"lat": [-45, 45], "lon": [100, 260]}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a drifting climate, with a trend": (
        "ocean",
        {
            "model": CNN | {"base": "lim", "norm": "batch"},
            "frames": {"trailing": 3, "climatology": {"trend": True}, "scaling": "cell"},
        },
    ),
    "members, mean and deviation": (
        "ocean",
        {
            "model": CONV | {"base": "lim", "reference": {"seasonal": True, "eofs": 4}},
            "train": {"members": 3, "loss": "crps"},
            "frames": {"trailing": 2},
        },
    ),
    "static layers, season and light, a monthly climatology": (
        "ocean",
        {
            "model": CONV | {"base": "persistence"},
            "frames": {"known": ["season", "insolation"], "climatology": {"kind": "monthly"}},
            "static": {"layers": ["position"]},
        },
    ),
    "analogues": ("ocean", {"model": CONV | {"base": "analogues"}}),
    "no network": ("ocean", {"model": {"name": "lim"}}),
    "a sequence of leads": ("ocean", {"model": CONV | {"name": "conv_seq2seq"}}),
    "an index": (
        "ocean",
        {
            "model": {"name": "series", "filters": [4], "length": 3, "hidden": [5]},
            "data": {"mean_over": BOX},
        },
    ),
    "terciles": ("ocean", {"model": CONV, "target": {"classes": {}}}),
    "gaps under a mask": (
        "holes",
        {"model": CONV, "frames": {"missing": "mask", "trailing": 2}},
    ),
    "gaps left out": ("holes", {"model": CONV, "frames": {"missing": "drop"}}),
    "a second target and an input": (
        "ocean",
        {
            "model": CONV,
            "data": {"more": [{"path": "level"}, {"path": "wet", "target": True}]},
        },
    ),
    "rain, log1p": (
        "rain",
        {"model": CONV, "data": {"transform": "log1p", "lowest": 0.0}},
    ),
    "rain, cube root": (
        "rain",
        {"model": CONV, "data": {"transform": "cube_root", "lowest": 0.0}},
    ),
    "amounts": (
        "rain",
        {"model": CONV | {"base": "climatology"}, "train": {"loss": "bernoulli_gamma"}},
    ),
    "days": ("days", {"model": CONV, "frames": {"trailing": 1, "climatology": {"trend": True}}}),
    "days without leap years": ("noleap", {"model": CNN, "frames": {"trailing": 1}}),
}
REFUSED = {
    "frames.patches": {"frames": {"patches": {"size": [8, 10], "overlap": 4}}},
    "target.mean_over": {"target": {"mean_over": BOX}},
    "data.transform: quantile": {"data": {"transform": "quantile"}},
}
SPLITS = {"train": [1950, 1957], "validation": [1958, 1959], "test": [1960, 1963]}
DAYS = {"train": [1950, 1950], "validation": [1951, 1951], "test": [1952, 1953]}


@pytest.fixture(scope="module")
def data(ocean, tmp_path_factory) -> dict[str, Any]:
    """Series by name, and a folder of files for further variables."""
    folder = tmp_path_factory.mktemp("exported")
    rain, _ = gridcast.simulated_series("rain", years=14, shape=(9, 18), seed=4)
    rain.to_netcdf(folder / "wet.nc")
    level = (ocean * np.float32(0.01)).rename("level").assign_attrs(units="m")
    level.to_netcdf(folder / "level.nc")
    holes = ocean.copy(deep=True)
    holes[40] = np.nan
    holes[-2] = np.nan
    holes[-20, 4, 9:12] = np.nan
    found = {"ocean": ocean, "rain": rain, "holes": holes, "folder": folder}
    long, _ = gridcast.simulated_series("ocean", years=115, shape=(9, 18), seed=5)
    for name, calendar in (("days", "standard"), ("noleap", "noleap")):
        # Months taken for days, stamped at noon, up to a few days after a leap day.
        dates = xr.date_range("1950-01-01T12", "1952-03-03T12", calendar=calendar)
        found[name] = long.isel(time=slice(dates.size)).assign_coords(time=dates)
    return found


def run_of(data: dict[str, Any], name: str, sections: dict[str, Any]) -> tuple[Run, Source]:
    """A run whose weights are all at work, as if trained."""
    sections = {key: dict(value) for key, value in sections.items()}
    for variable in (more := [dict(one) for one in sections.get("data", {}).get("more", [])]):
        variable["path"] = str(data["folder"] / f"{variable['path']}.nc")
    if more:
        sections["data"]["more"] = more
    splits = DAYS if name in ("days", "noleap") else SPLITS
    config = small_config(splits=splits, **sections)
    source = open_source(config, data[name])
    setup = prepare(config, source)
    generator = np.random.default_rng(0)
    model = setup.model()
    first = Weights(*nnx.state(model, nnx.Param, nnx.BatchStat))

    def shaken(leaf: jax.Array) -> jax.Array:
        return leaf + np.float32(0.1) * np.abs(generator.standard_normal(leaf.shape)).astype("f")

    count = config.train.members
    members = stacked([jax.tree.map(shaken, first) for _ in range(count)])
    nnx.update(model, *(members if count == 1 else member_of(members, 0)))
    run = Run(Path(), config, setup.fields, model, "a test", 96, clock=setup.axis.clock)
    return (run if count == 1 else replace(run, members=members)), source


def dataset_of(source: Source) -> xr.Dataset:
    return xr.Dataset({str(one.name): one for one in source.series})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.replace(" ", "_"))
def test_the_exported_forecast_is_that_of_the_run_bit_for_bit(kind, data, tmp_path):
    run, source = run_of(data, *KINDS[kind])
    exported = gridcast.load_exported(gridcast.export_run(run, tmp_path / "export"))
    for back in (-6, -25):  # before what the series with holes lack at their end
        start = str(source.series[0]["time"].values[back])[:10]
        ours, theirs = exported(dataset_of(source), start=start), run.forecast(source, start=start)
        assert ours.assign_attrs(history="").identical(theirs.assign_attrs(history=""))
        for name, values in theirs.data_vars.items():
            assert same_bits(ours[name].values, values.values), name
            assert np.isfinite(values).any()
    # The control: the network has its say.
    plain = replace(run, model=prepared_again(run, source), members=None)
    assert run.config.model.name == "lim" or not same_bits(
        plain.forecast(source, start=start)[name].values, theirs[name].values
    )


def prepared_again(run: Run, source: Source) -> nnx.Module:
    """The untrained model, which is its reference."""
    return prepare(run.config, source).model()


@pytest.mark.parametrize("setting", REFUSED)
def test_what_a_program_cannot_hold_is_refused(setting, data, tmp_path):
    run, _ = run_of(data, "rain", {"model": CONV} | REFUSED[setting])
    with pytest.raises(ConfigError, match=f"a run with {setting} cannot be exported"):
        gridcast.export_run(run, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_under_a_mask_the_last_frame_has_to_be_observed(data, tmp_path):
    run, source = run_of(data, *KINDS["gaps under a mask"])
    exported = gridcast.load_exported(gridcast.export_run(run, tmp_path / "export"))
    lost = dataset_of(source)
    unseen = str(lost["time"].values[-2])[:7]
    for forecast in (exported, lambda _, start: run.forecast(source, start=start)):
        with pytest.raises(DataError, match="itself among them; found 2"):
            forecast(lost, start=unseen)
