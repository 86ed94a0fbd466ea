"""Series larger than memory: the store, what is fitted on it, and the batches read from it."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import STEPS, Bench, same_bits, small_config

from gridcast import scratch, storage
from gridcast.cli import main
from gridcast.config import Config
from gridcast.errors import ConfigError, DataError
from gridcast.experiment import run_training
from gridcast.fitting import _reference_loss, compile_setup
from gridcast.frames.fields import months_of
from gridcast.frames.streamed import StreamedFrames
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.references import TrainingSeries, training_bands
from gridcast.run import Run
from gridcast.sources import store, storing
from gridcast.sources.collection import Collection
from gridcast.sources.netcdf import open_frames, write_netcdf
from gridcast.sources.storing import write_store
from gridcast.storing import prepare_store
from gridcast.training import loop, streaming
from gridcast.training.loop import STEPS_PER_CALL
from gridcast.training.streaming import StreamedSeries
from gridcast.verification.by_name import anomalies, fit_references, training_errors
from gridcast.verification.by_rows import fit_by_rows
from gridcast.verification.terciles import Terciles

ROW = 18 * 4


@pytest.fixture(scope="module")
def files(ocean: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small ocean in three files, whose names are not in the order of their dates."""
    folder = tmp_path_factory.mktemp("files")
    for name, part in (("c", slice(0, 50)), ("a", slice(50, 110)), ("b", slice(110, None))):
        write_netcdf(ocean[part].to_dataset(name="sst"), folder / f"{name}.nc")
    return str(folder / "*.nc")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that the small ocean takes many of them."""
    monkeypatch.setattr(storing, "BLOCK", 9 * ROW * 20)
    monkeypatch.setattr(store, "BAND", 168 * ROW * 2)
    monkeypatch.setattr(store, "PIECE", ROW * 2 * 16)
    monkeypatch.setattr(scratch, "BLOCK", 9 * ROW * 10)
    monkeypatch.setattr(streaming, "STRETCH", 9 * ROW * 60)


def streamed(path: Path) -> Config:
    return small_config(data={"path": str(path)}, frames={"storage": "stream"})


@pytest.fixture(scope="module")
def kept(files: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the small ocean in bands of two rows, in pieces of 16 dates."""
    path = tmp_path_factory.mktemp("store") / "sst.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "BLOCK", 9 * ROW * 20)
        patch.setattr(store, "BAND", 168 * ROW * 2)
        patch.setattr(store, "PIECE", ROW * 2 * 16)
        prepare_store(small_config(data={"path": files}), path)
    return path


@pytest.fixture(scope="module")
def setup(kept: Path) -> Setup:
    """The small experiment on the store."""
    config = streamed(kept)
    return prepare(config, open_source(config))


@pytest.fixture(scope="module")
def memory(files: str) -> Setup:
    """The small experiment in memory."""
    config = small_config(data={"path": files})
    return prepare(config, open_source(config))


def test_a_store_holds_the_canonical_series_bit_for_bit(files: str, kept: Path):
    series, expected = store.open_store(kept), open_frames(files)
    assert np.array_equal(series.values, expected.values, equal_nan=True)
    assert np.array_equal(series["time"].values, expected["time"].values)
    assert series.attrs == expected.attrs
    assert series["lat"].attrs == expected["lat"].attrs
    assert np.array_equal(series["mask"].values, np.isfinite(expected.values).any(axis=0))


def test_others_read_a_store_as_zarr(files: str, kept: Path):
    with xr.open_zarr(kept, consolidated=False) as dataset:
        assert np.array_equal(dataset["sst"].values, open_frames(files).values, equal_nan=True)
    assert np.array_equal(open_frames(kept).values, open_frames(files).values, equal_nan=True)


@pytest.mark.parametrize("dates", [[5], [3, 4, 5, 90, 91, 167], [7, 2, 7], slice(30, 40), 12])
def test_any_dates_and_rows_are_read_alone(files: str, kept: Path, dates: Any):
    series, expected = store.open_store(kept), open_frames(files)
    for rows in (slice(None), slice(2, 5), [1, 7]):
        part = {"time": dates, "lat": rows}
        assert np.array_equal(series.isel(part).values, expected.isel(part).values, equal_nan=True)


@pytest.mark.parametrize("kind", ["packed", "turned", "dask"])
def test_a_store_of_any_collection(ocean: xr.DataArray, tmp_path: Path, kind: str, few: None):
    dataset, path = ocean.to_dataset(name="sst"), tmp_path / "sea.nc"
    if kind == "packed":
        how = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -32768}
        dataset.to_netcdf(path, encoding={"sst": {**how, "chunksizes": (60, 3, 5)}})
    elif kind == "turned":
        shuffled = np.random.default_rng(0).permutation(dataset.sizes["time"])
        dataset = dataset.isel(time=shuffled, lat=slice(None, None, -1)).rename(lon="longitude")
        dataset.transpose("longitude", "time", "lat").to_netcdf(path)
    else:
        path = tmp_path / "sea.zarr"
        dataset.chunk(time=7, lat=4).to_zarr(path, consolidated=False)
    write_store(Collection.of(path), tmp_path / "out.zarr")
    found = store.open_store(tmp_path / "out.zarr")
    assert np.array_equal(found.values, open_frames(path).values, equal_nan=True)


HOW = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -999}


@pytest.mark.parametrize(
    ("ways", "kind"),
    [
        ([HOW], "int16"),
        ([{**HOW, "add_offset": None}], "int16"),
        ([HOW, HOW], "int16"),
        ([HOW, {**HOW, "scale_factor": 0.02}], "float32"),
        ([{**HOW, "scale_factor": np.float32(0.01), "add_offset": np.float32(5)}], "float32"),
        ([{**HOW, "dtype": "i4"}], "float32"),
        ([{"dtype": "f4"}], "float32"),
    ],
)
def test_a_store_is_packed_as_its_source_where_nothing_is_lost(
    ocean: xr.DataArray, tmp_path: Path, ways: list[dict[str, Any]], kind: str, few: None
):
    size = ocean.sizes["time"] // len(ways)
    for k, how in enumerate(ways):
        part = ocean.isel(time=slice(k * size, (k + 1) * size)).to_dataset(name="sst")
        how = {key: value for key, value in how.items() if value is not None}
        part.to_netcdf(tmp_path / f"sea.{k}.nc", encoding={"sst": how})
    files, path = str(tmp_path / "sea.*.nc"), tmp_path / "out.zarr"
    write_store(Collection.of(files), path)
    assert json.loads((path / "sst/zarr.json").read_text())["data_type"] == kind
    expected = open_frames(files).values
    for found in (store.open_store(path), open_frames(path)):
        assert np.array_equal(found.values, expected, equal_nan=True)


def test_values_that_the_packing_would_change_begin_the_store_anew(
    ocean: xr.DataArray, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
):
    ocean.to_dataset(name="sst").to_netcdf(tmp_path / "sea.nc", encoding={"sst": HOW})
    exact = open_frames(tmp_path / "sea.nc").values
    read = Collection.read

    def moved(self: Collection, dates: slice) -> xr.DataArray:
        return read(self, dates) + np.float32(0.001 * (dates.start > 100))

    monkeypatch.setattr(Collection, "read", moved)
    write_store(Collection.of(tmp_path / "sea.nc"), tmp_path / "out.zarr")
    found = store.open_store(tmp_path / "out.zarr").values
    assert np.array_equal(found[:90], exact[:90], equal_nan=True)
    assert np.nanmin(found[-10:] - exact[-10:]) > 0.0009


def test_an_interrupted_preparation_goes_on(
    files: str, kept: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
):
    read, asked = Collection.read, []

    def stopped_at(count: int):
        def reading(self: Collection, dates: slice) -> xr.DataArray:
            asked.append(dates.start)
            if len(asked) > count:
                raise KeyboardInterrupt
            return read(self, dates)

        return reading

    path, config = tmp_path / "sst.zarr", small_config(data={"path": files})
    monkeypatch.setattr(Collection, "read", stopped_at(3))
    with pytest.raises(KeyboardInterrupt):
        prepare_store(config, path)
    with pytest.raises(DataError, match="unfinished"):
        store.open_store(path)
    stopped = asked[-1]
    monkeypatch.setattr(Collection, "read", stopped_at(1000))
    asked.clear()
    prepare_store(config, path)
    assert asked[0] == stopped > 0
    assert np.array_equal(
        store.open_store(path).values, store.open_store(kept).values, equal_nan=True
    )
    asked.clear()
    prepare_store(config, path)  # it is there already
    assert not asked


def test_what_is_there_is_not_overwritten(files: str, kept: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    shutil.copytree(kept, tmp_path / "other.zarr")
    cut = small_config(data={"path": files, "region": {"lat": [-40, 40]}})
    for path in (tmp_path / "mine", tmp_path / "other.zarr"):
        with pytest.raises(DataError, match="something else"):
            prepare_store(cut, path)


def test_holes_are_found_while_writing(ocean: xr.DataArray, tmp_path: Path, few: None):
    values = ocean.values.copy()
    row, column = np.argwhere(np.isfinite(values[0]))[7]
    values[77, row, column] = np.nan
    write_netcdf(ocean.copy(data=values).to_dataset(name="sst"), tmp_path / "sea.nc")
    with pytest.raises(DataError, match=r"missing inside the mask: 1 in all, in 1 of \d+ cells"):
        write_store(Collection.of(tmp_path / "sea.nc"), tmp_path / "out.zarr")


def test_what_is_fitted_by_rows_is_what_is_fitted_at_once(
    memory: Setup, setup: Setup, kept: Path, few: None
):
    config = streamed(kept)
    source = open_source(config)
    assert len(store.row_bands(source.series[0])) == 5
    by_rows = prepare(config, source)
    ours, expected = by_rows.fields.arrays(), memory.fields.arrays()
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        # Equations are solved for many cells at a time, in an order of their own.
        np.testing.assert_allclose(ours[name], array, rtol=1e-12, atol=1e-12, err_msg=name)
    for name, array in memory.head.items():
        np.testing.assert_allclose(by_rows.head[name], array, rtol=1e-6, atol=1e-7)
    assert setup.checksums == memory.checksums


def test_streamed_frames_are_those_in_memory(memory: Setup, setup: Setup):
    values = setup.arrays.values
    assert isinstance(values, StreamedFrames)
    dates = np.arange(60, 72)[:, None] + np.arange(5)
    assert same_bits(values[dates], memory.arrays.values[dates])
    assert same_bits(values[..., :1][dates], memory.arrays.values[dates])


@pytest.mark.parametrize("first", [0, 5])
def test_stretches_hold_the_windows_of_their_steps(setup: Setup, few: None, first: int):
    weight, past, ahead = jnp.zeros((9, 18, 1)), 2, 2
    series = StreamedSeries(setup.arrays, weight, jnp.ones((2, 1)), past, ahead)
    batches, step, shapes = setup.epoch(0), first, set()
    offsets = np.arange(-past, ahead + 1)
    for part in series.stretches(batches, first, STEPS_PER_CALL):
        frames = part.series.frames
        shapes.add((frames.values.shape, part.batches.shape))
        for row in np.asarray(part.batches)[part.first : part.last]:
            here, there = row[:, None] + offsets, batches[step][:, None] + offsets
            assert same_bits(frames.values[here], setup.arrays.values[there])
            assert same_bits(frames.known[here], setup.arrays.known[there])
            assert np.array_equal(frames.month[here], setup.arrays.month[there])
            step += 1
    assert step == STEPS
    # One compiled program serves all of them, and none of them holds the whole series.
    assert len(shapes) == 1
    assert shapes.pop()[0][0] < len(setup.arrays.values)


def streamed_series(bench: Bench, setup: Setup) -> StreamedSeries:
    scale = bench.series.scale
    return StreamedSeries(setup.arrays, bench.series.weight, scale, past=2, ahead=2)


@pytest.mark.family
def test_streaming_trains_the_same_weights_bit_for_bit(
    bench: Bench, setup: Setup, few: None, tmp_path: Path
):
    series = streamed_series(bench, setup)
    validate = loop.validator(bench.stepper, series, setup.validation_windows, 8)
    assert validate(bench.weights) == bench.validate(bench.weights)
    ours = bench.fit(tmp_path / "ours", series=series, validate=validate, epochs=2)
    expected = bench.fit(tmp_path / "expected", epochs=2)
    assert same_bits(ours.state, expected.state)
    assert same_bits(ours.best, expected.best)
    assert ours.progress == expected.progress
    # Gone on from the middle of an epoch, with stretches of another length.
    middle = bench.stepper.run(
        loop.start(bench.stepper, bench.weights, bench.validate).state,
        bench.series,
        jnp.asarray(bench.setup.epoch(0)),
        0,
        5,
    )[0]
    begin = loop.start(bench.stepper, bench.weights, bench.validate)
    again = bench.fit(
        tmp_path / "again", series=series, begin=replace(begin, state=middle), epochs=2
    )
    assert same_bits(again.state, expected.state)


PATCHES = {"patches": {"size": [4, 6], "overlap": 2}, "augment": {"flip": ["lat", "lon"]}}


@pytest.mark.family
@pytest.mark.parametrize(
    "train", [{}, {"members": 2, "accumulate": 2}], ids=["one network", "members"]
)
def test_of_patches_only_their_rows_are_read(
    files: str,
    kept: Path,
    few: None,
    train: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    read: list[int] = []
    plain = StreamedFrames.read

    def counted(self: StreamedFrames, dates: Any, into: Any, rows: slice = slice(None)) -> None:
        read.append(len(range(*rows.indices(into.shape[1]))))
        plain(self, dates, into, rows)

    monkeypatch.setattr(StreamedFrames, "read", counted)
    found = {}
    for where, path in (("memory", files), ("stream", str(kept))):
        config = small_config(
            data={"path": path}, frames=PATCHES | {"storage": where}, train={"epochs": 2} | train
        )
        setup = prepare(config, open_source(config))
        stepper, series, weights, _ = compile_setup(setup)
        validate = loop.validator(stepper, series, setup.validation_windows, 8)
        windows = [setup.train_windows] * config.train.members
        begin = loop.start(stepper, weights, validate)
        found[where] = loop.fit(
            stepper,
            series,
            windows,
            validate,
            begin,
            config.train,
            save=lambda now: None,
            metrics=tmp_path / f"{where}.jsonl",
        )
        assert same_bits(series.scale, found.setdefault("scale", series.scale))
    assert set(read) == {4}
    assert same_bits(found["stream"].state, found["memory"].state)
    assert found["stream"].progress == found["memory"].progress
    assert found["stream"].progress.skipped == 0


@pytest.mark.family
def test_the_loss_of_the_reference_is_the_same(bench: Bench, setup: Setup, few: None):
    series = streamed_series(bench, setup)
    found = _reference_loss(bench.stepper, series, bench.weights, setup)
    assert same_bits(found, bench.series.scale)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"frames": {"trailing": 3}}, "frames.trailing needs"),
        ({"frames": {"missing": "drop"}}, "frames.missing: drop needs"),
        ({"target": {"classes": {}}}, "target.classes needs"),
        ({"train": {"loss": "crps"}}, "train.loss: crps needs"),
        ({"model": {"base": "lim"}}, r"fix: frames.storage: memory, or model.base: climatology"),
    ],
)
def test_what_streaming_does_not_carry_is_refused(sections: dict[str, Any], said: str):
    small_config(**sections)
    frames = sections.get("frames", {}) | {"storage": "stream"}
    with pytest.raises(ConfigError, match=said):
        small_config(**(sections | {"frames": frames}))


def test_data_that_are_no_store_are_refused(ocean: xr.DataArray, kept: Path, files: str):
    with pytest.raises(DataError, match="no training store"):
        open_source(streamed(Path(files)))
    with pytest.raises(DataError, match="data in memory"):
        open_source(streamed(kept), ocean)
    config = small_config(
        data={"path": str(kept), "region": {"lat": [0, 20]}}, frames={"storage": "stream"}
    )
    with pytest.raises(DataError, match="holds the whole grid"):
        open_source(config)


@pytest.mark.parametrize(
    ("free", "streamed"), [(8 * 168 * 9 * ROW, False), (8 * 168 * 9 * ROW - 1, True)]
)
def test_auto_decides_by_size_and_says_so(
    kept: Path,
    files: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    streamed: bool,
):
    monkeypatch.setattr(storage, "free_memory", lambda: free)
    config = small_config(data={"path": str(kept)}, frames={"storage": "auto"})
    with caplog.at_level("INFO", "gridcast"):
        series = open_source(config).series[0]
    assert store.stored(series) is streamed
    assert f"frames.storage: auto: {'stream' if streamed else 'memory'}, as" in caplog.text
    monkeypatch.setattr(storage, "free_memory", lambda: 0)
    for sections, said in (
        ({"data": {"path": files}}, "fix: gridcast data prepare"),
        ({"data": {"path": str(kept)}, "model": {"base": "lim"}}, "but model.base: lim needs"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_source(small_config(**sections, frames={"storage": "auto"}))


def test_without_the_extra_it_is_named(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(store, "find_spec", lambda name: None if name == "tensorstore" else 1)
    with pytest.raises(ConfigError, match=r"needs tensorstore.*\n.*gridcast\[stream\]"):
        store.open_store(kept)


def test_memory_needs_no_package_of_streaming():
    # Only the store asks for them, inside the functions that use them.
    where = {}
    for path in Path(store.__file__).parents[1].rglob("*.py"):
        lines = path.read_text().splitlines()
        found = [line for line in lines if re.match(r"\s*(import|from) (tensorstore|zarr)", line)]
        if found:
            where[path.name] = all(line.startswith("    ") for line in found)
    assert where == {"store.py": True}


def test_the_command_prepares_a_store(
    files: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config, path = tmp_path / "small.yaml", tmp_path / "sst.zarr"
    config.write_text(
        f"data: {{path: '{files}'}}\nmodel: {{name: conv_lstm}}\n"
        "splits: {train: [1950, 1958], validation: [1959, 1960], test: [1961, 1963]}\n"
    )
    assert main(["data", "prepare", str(config), "--output", str(path)]) == 0
    said = capsys.readouterr().out
    assert said == f"gridcast train {config} data.path={path} frames.storage=stream\n"
    assert store.about_store(path) is not None


def test_references_by_rows_are_those_in_memory_and_keep_nothing(
    memory: Setup, kept: Path, few: None, monkeypatch: pytest.MonkeyPatch
):
    config = streamed(kept)
    setup = prepare(config, open_source(config))
    bands = []

    def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
        for cut, training in training_bands(*arguments, **named):
            bands.append(weakref.ref(training.values))
            yield cut, training

    monkeypatch.setattr("gridcast.verification.by_rows.training_bands", watched)
    months = np.array([[1, 2], [6, 7]])
    splits, axis = setup.splits, setup.axis
    found = fit_by_rows(setup.fields, setup.series, axis, splits.train, months, 2)
    gc.collect()
    assert len(bands) == 3 * 5
    assert all(one() is None for one in bands)
    scaled = memory.fields.scaled(memory.series, plain=True)
    training = TrainingSeries.of(scaled, axis, splits.train, memory.fields.weight)
    expected = fit_references(memory.fields, training, 2)
    initial = np.array([40, 120])
    assert found.references.keys() == expected.keys()
    for name, one in found.references.items():
        made = one.forecast(initial, months)
        np.testing.assert_allclose(made, expected[name].forecast(initial, months), atol=1e-6)
    errors = training_errors(memory.fields, expected, 2)
    np.testing.assert_allclose(found.errors["climatology"], errors["climatology"], rtol=1e-6)
    seen = anomalies(memory.fields, scaled)[splits.train]
    mask = memory.fields.target_mask[..., 0]
    terciles = Terciles.fit(seen, months_of(axis.times[splits.train]), mask, months)
    np.testing.assert_allclose(found.terciles.edges, terciles.edges, atol=1e-6)
    np.testing.assert_allclose(found.terciles.odds, terciles.odds)


@pytest.mark.family
@pytest.mark.usefixtures("no_pictures")
def test_a_streamed_run_makes_the_files_of_one_in_memory(files: str, kept: Path, tmp_path: Path):
    runs = {}
    for where, path in (("memory", files), ("stream", str(kept))):
        runs[where] = run_training(
            small_config(
                data={"path": path},
                frames={"storage": where},
                train={"epochs": 1},
                output={"directory": str(tmp_path / where)},
            )
        )
    for name in ("hindcast.nc", "forecast.nc", "observations.nc", "scores.nc"):
        ours, expected = (xr.load_dataset(tmp_path / w / name) for w in ("stream", "memory"))
        for variable in ("sst", "sst_climatology", "rmse", "acc", "seasonal_rmse"):
            if variable in expected:
                found = ours[variable]
                wanted = expected[variable].reindex_like(found)
                np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    again = Run.load(tmp_path / "stream").forecast(start="1962-06")
    wanted = runs["memory"].forecast(start="1962-06")
    np.testing.assert_allclose(again["sst"].values, wanted["sst"].values, rtol=1e-6)
