"""One table over all that a CNN-LSTM or ConvLSTM of this package can be asked for.

Each row is trained for a few steps, forecasts its test dates and is scored; what is peculiar to it
is asserted beside it, and tested in depth in the file that is named there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import small_config
from flax import nnx

import gridcast
from gridcast.config import Config
from gridcast.crossval import cross_validate
from gridcast.errors import ConfigError
from gridcast.pretraining import pretrain
from gridcast.run import Run
from gridcast.training.checkpoints import load_newest
from gridcast.training.encoders import load_encoder

pytestmark = [pytest.mark.family, pytest.mark.usefixtures("no_pictures")]

CNN = {"name": "cnn_lstm", "channels": [3, 4], "latent": 4, "hidden": [5]}
CONV = {"name": "conv_lstm", "hidden": [3], "downsample": 2}
SERIES = {"name": "series", "filters": [4], "length": 3, "hidden": [5]}
BOX = {"lat": [-45, 45], "lon": [100, 260]}
SPLITS = {"train": [1950, 1957], "validation": [1958, 1959], "test": [1960, 1963]}
ONE_EPOCH = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Row:
    """What is asked for, and what has to be seen then."""

    name: str
    model: dict[str, Any]
    seen: Callable[[Run, xr.Dataset, xr.Dataset], bool]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: str = "ocean"


def shape(forecast: xr.Dataset) -> tuple[int, ...]:
    return next(iter(forecast.data_vars.values())).shape


def finite_in_mask(run: Run, forecast: xr.Dataset, _: xr.Dataset) -> bool:
    values = next(iter(forecast.data_vars.values())).values
    inside = run.transform.grid.mask
    return bool(np.isfinite(values[..., inside]).all() and np.isnan(values[..., ~inside]).all())


def layers(run: Run) -> str:
    return " ".join(type(module).__name__ for _, module in nnx.iter_modules(run.model))


def odds(run: Run, forecast: xr.Dataset, scores: xr.Dataset) -> bool:
    total = next(iter(forecast.data_vars.values())).sum("category", skipna=False)
    inside = run.transform.grid.mask
    return bool(np.allclose(total.values[..., inside], 1, atol=1e-5)) and "rps" in scores


def lowest(_: Run, forecast: xr.Dataset, __: xr.Dataset) -> float:
    return float(forecast["precip"].min())


TABLE = [
    # 1-D CNN-LSTM for series: tests/test_series.py
    Row(
        "an index of a box",
        SERIES,
        lambda r, f, s: shape(f)[2:] == (1, 1),
        {"data": {"mean_over": BOX}},
    ),
    Row(
        "each cell of a grid by itself, with dense layers, pooling and valid convolutions",
        SERIES | {"padding": "valid", "length": 2, "pool": 2, "dense": [6]},
        lambda r, f, s: (
            finite_in_mask(r, f, s) and layers(r).count("Dense") > layers_of_plain_series
        ),
    ),
    # 2-D CNN per frame: tests/test_cnn_lstm.py
    Row(
        "a deep encoder with batch norm straight into the LSTM",
        CNN | {"convolutions": 2, "latent": None, "kernel": 2, "norm": "batch"},
        lambda r, f, s: layers(r).count("GridConv") >= 4 and "BatchNorm" in layers(r),
    ),
    # LSTM stacks: tests/test_lstm.py
    Row(
        "layers, both directions, dropout of both kinds, sequences",
        CNN
        | {
            "hidden": [5, 4],
            "bidirectional": True,
            "dropout": 0.2,
            "recurrent_dropout": 0.2,
            "sequence": True,
        },
        lambda r, f, s: layers(r).split().count("Lstm") == 4,
    ),
    Row(
        "sequence to sequence with scheduled sampling",
        CONV | {"name": "conv_seq2seq", "sampling": "scheduled"},
        finite_in_mask,
    ),
    # Broken sequences: tests/test_gaps.py
    Row("windows under a mask", CONV, finite_in_mask, {"frames": {"missing": "mask"}}, "holes"),
    Row(
        "windows that are complete", CONV, finite_in_mask, {"frames": {"missing": "drop"}}, "holes"
    ),
    # Categories: tests/test_classes.py, tests/test_categories.py
    Row("terciles", CONV, odds, {"target": {"classes": {}}}),
    Row(
        "the user's thresholds",
        CNN | {"base": "climatology"},
        lambda r, f, s: odds(r, f, s) and f.sizes["category"] == 2,
        {"target": {"classes": {"kind": "thresholds", "thresholds": [25.0], "of": "value"}}},
    ),
    # One answer for a sequence
    Row(
        "a class for a whole window",
        CNN,
        lambda r, f, s: odds(r, f, s) and shape(f)[-2:] == (1, 1),
        {"target": {"mean_over": BOX, "classes": {"kind": "thresholds", "thresholds": [0.0]}}},
    ),
    Row(
        "a value for a whole window",
        CONV,
        lambda r, f, s: shape(f)[-2:] == (1, 1),
        {"target": {"mean_over": BOX}},
    ),
    # Several variables: tests/test_variables.py
    Row(
        "a second target and an input on another grid",
        CONV,
        lambda r, f, s: list(f.data_vars) == ["sst", "precip"] and len(r.fields.inputs) == 3,
        {"data": {"more": [{"path": "coarse"}, {"path": "wet", "target": True, "weight": 0.5}]}},
    ),
    # Patches: tests/test_tiles.py, tests/test_patches.py
    Row(
        "random patches and blended tiles",
        CONV,
        finite_in_mask,
        {"frames": {"patches": {"size": [8, 10], "overlap": 4}}},
    ),
    # Against overfitting
    Row(
        "a preset size, layer norm, penalties, season and light known in advance",
        {"name": "cnn_lstm", "size": "small", "norm": "layer"},
        lambda r, f, s: finite_in_mask(r, f, s) and r.config.model.channels == [8, 16, 16],
        {
            "frames": {"known": ["season", "insolation"]},
            "train": {"l1": 1e-5, "l2": 1e-5, "weight_decay": 0.01},
        },
    ),
    Row(
        "noise, rolls and flips",
        CONV,
        finite_in_mask,
        {"frames": {"augment": {"noise": 0.1, "roll": True, "flip": ["lon"]}}},
    ),
    # Rain: tests/test_skew.py, tests/test_training.py
    *(
        Row(
            f"rain after {kind}, the {loss} loss",
            CONV,
            lambda r, f, s: lowest(r, f, s) >= 0 and {"csi", "fss"} <= set(s),
            {
                "data": {"transform": kind, "lowest": 0.0},
                "train": {"loss": loss},
                "verification": {"thresholds": [2.0]},
            },
            "rain",
        )
        for kind, loss in (("log1p", "mae"), ("cube_root", "huber"), ("quantile", "balanced_mse"))
    ),
    Row(
        "a Bernoulli-gamma distribution",
        CONV | {"base": "climatology"},
        lambda r, f, s: lowest(r, f, s) >= 0,
        {"train": {"loss": "bernoulli_gamma"}},
        "rain",
    ),
]

# Of a series model without dense layers: the LSTM's two and the head.
layers_of_plain_series = 3


@pytest.fixture(scope="module")
def data(ocean, tmp_path_factory) -> dict[str, Any]:
    """Series by name, and files for further variables."""
    folder = tmp_path_factory.mktemp("family")
    rain, _ = gridcast.simulated_series("rain", years=14, shape=(9, 18), seed=4)
    rain.to_netcdf(folder / "wet.nc")
    coarse = ocean.coarsen(lat=3, lon=3).mean().rename("coarse")
    coarse.attrs = ocean.attrs
    coarse.to_netcdf(folder / "coarse.nc")
    holes = ocean.copy(deep=True)
    holes[40] = np.nan
    holes[60, 4, 9:12] = np.nan
    holes = holes.isel(time=np.delete(np.arange(ocean.sizes["time"]), [20, 21]))
    return {"ocean": ocean, "rain": rain, "holes": holes, "folder": folder}


def config_of(row: Row, data: dict[str, Any], directory: Path) -> Config:
    sections = {name: dict(values) for name, values in row.sections.items()}
    for variable in sections.get("data", {}).get("more", []):
        variable["path"] = str(data["folder"] / f"{Path(variable['path']).stem}.nc")
    train = ONE_EPOCH | sections.pop("train", {})
    output = {"directory": str(directory)}
    return small_config(**sections, train=train, model=row.model, splits=SPLITS, output=output)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name.replace(" ", "_"))
def test_what_can_be_asked_for_trains_forecasts_and_is_scored(row, data, tmp_path):
    run = gridcast.train(config_of(row, data, tmp_path), data[row.data])
    forecast, scores = (xr.load_dataset(tmp_path / f"{name}.nc") for name in ("forecast", "scores"))
    assert row.seen(run, forecast, scores)
    assert (tmp_path / "report.html").is_file()
    again = gridcast.load_run(tmp_path).forecast(data[row.data])
    for name, values in forecast.data_vars.items():
        np.testing.assert_array_equal(again[name], values)


def test_an_encoder_is_pretrained_frozen_and_left_alone(data, tmp_path):
    own = {"train": ONE_EPOCH, "splits": SPLITS}
    first = small_config(**own, model=CNN | {"norm": "batch"}, output={"directory": str(tmp_path)})
    encoder = pretrain(first, data["ocean"])
    model = CNN | {"norm": "batch", "encoder_from": str(encoder), "freeze_encoder": True}
    frozen = small_config(**own, model=model, output={"directory": str(tmp_path / "run")})
    before = load_encoder(encoder)
    run = gridcast.train(frozen, data["ocean"])
    after = load_encoder(tmp_path / "run")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert not any(
        "encoder" in str(path) for path, _ in nnx.to_flat_state(nnx.state(run.model, nnx.Param))
    )
    # The control: an encoder that is not frozen moves on from there.
    loose = small_config(
        **own,
        model=model | {"freeze_encoder": False},
        output={"directory": str(tmp_path / "loose")},
    )
    gridcast.train(loose, data["ocean"])
    last = load_newest(tmp_path / "loose" / "checkpoints").arrays["weights"]
    moved = {
        name.split("['encoder']", 1)[1].removesuffix(".value"): array
        for name, array in last.items()
        if "['encoder']" in name
    }
    assert moved.keys() == before.keys()
    assert any((moved[name] != array).any() for name, array in before.items())


def test_every_year_is_forecast_by_models_that_did_not_see_it(data, tmp_path):
    config = small_config(
        train=ONE_EPOCH,
        splits=SPLITS,
        crossval={"folds": 3, "buffer": 6},
        output={"directory": str(tmp_path)},
    )
    scores = cross_validate(config, data["ocean"])[0]
    assert (tmp_path / "scores.csv").is_file()
    months = [
        xr.load_dataset(tmp_path / f"hindcast_fold{k}.nc")["time"].isel(forecast_period=0)
        for k in (1, 2, 3)
    ]
    years = np.unique(np.concatenate([m.dt.year.values for m in months]))
    np.testing.assert_array_equal(years, np.arange(1950, 1964))
    assert np.isfinite(scores["rmse"].sel(forecast="model")).all()


def test_settings_that_contradict_each_other_are_refused_with_a_way_out():
    for sections in (
        {"model": CONV | {"name": "conv_seq2seq"}, "target": {"classes": {}}},
        {"model": CONV, "target": {"classes": {}}, "train": {"loss": "mse"}},
        {"model": CONV, "train": {"loss": "bernoulli_gamma"}},
        {
            "model": CONV,
            "target": {"mean_over": BOX},
            "frames": {"patches": {"size": [8, 8], "overlap": 2}},
        },
        {"model": CONV, "frames": {"least": 9}},
    ):
        with pytest.raises(ConfigError, match=r"fix|inputs"):
            small_config(**sections)
