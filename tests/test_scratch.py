"""Hindcasts larger than memory: the same numbers from blocks as from whole arrays, and no more."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from gridcast import scratch
from gridcast.errors import ConfigError, DataError
from gridcast.labelling import _places
from gridcast.report.cases import cases
from gridcast.report.contents import contents
from gridcast.report.observed import observations
from gridcast.run import Run
from gridcast.scratch import blocks, kept, lead_blocks, room
from gridcast.sources.netcdf import write_netcdf, write_zarr
from gridcast.verification.calibration import pit_histogram, rank_histogram
from gridcast.verification.ensembles import EnsemblePairs, NormalPairs, crps, crps_map, spread
from gridcast.verification.field_significance import field_test
from gridcast.verification.indices import index_series
from gridcast.verification.metrics import METRICS, Pairs
from gridcast.verification.significance import DateSums


@pytest.fixture
def small(monkeypatch) -> Callable[[int], None]:
    return lambda nbytes: monkeypatch.setattr(scratch, "BLOCK", nbytes)


def test_blocks_cover_an_axis_once_and_hold_no_more_than_they_may(small):
    small(100)
    for size, nbytes in ((7, 30), (7, 1), (7, 1000), (1, 5), (9, 0)):
        parts = list(blocks(size, nbytes))
        assert [k for part in parts for k in range(size)[part]] == list(range(size))
        assert all((part.stop - part.start) * nbytes <= max(100, nbytes) for part in parts)
    for shape in ((5, 4, 6, 2), (1, 4, 6, 2), (50, 4, 6, 2)):
        seen = np.zeros(shape[1:3], int)
        for leads, rows in lead_blocks(shape, 1):
            seen[leads, rows] += 1
            assert (rows.stop - rows.start == 1) or seen[leads, rows].size * shape[0] * 2 <= 100
        assert (seen == 1).all()


@pytest.mark.parametrize("nbytes", [2**30, 500])
def test_what_is_kept_is_what_was_made_by_whole_batches(small, nbytes):
    small(nbytes)
    whole = np.random.default_rng(0).normal(size=(23, 3, 2, 4)).astype(np.float32)
    asked = []

    def make(part: slice) -> dict:
        asked.append(part)
        return {"one": whole[part], "more": {"two": 2.0 * whole[part, ..., 0].astype(float)}}

    found = kept(make, 23, whole[0].nbytes, batch=4)
    np.testing.assert_array_equal(found["one"], whole)
    np.testing.assert_array_equal(found["more"]["two"], 2.0 * whole[..., 0].astype(float))
    assert found["one"].dtype == np.float32
    assert len(asked) == (1 if nbytes > 500 else 6)
    assert all((part.stop - part.start) % 4 == 0 for part in asked[:-1])
    on_disk = isinstance(
        found["one"].base.base if found["one"].base is not None else None, np.memmap
    )
    assert on_disk is (nbytes == 500)
    assert not on_disk or found["one"][:, 1].flags.c_contiguous  # all windows of a lead together


def test_no_space_for_a_hindcast_is_an_error_and_not_the_end_of_the_process(small, monkeypatch):
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    small(100)
    room((10, 4, 5), np.float64)  # the control
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError, match=r"no space for 0 MB of forecasts \(No space left.*\n.*TMPDIR"
    ):
        room((10, 4, 5), np.float64)


LEADS, CELLS = 3, (6, 7)


def pairs_of(windows: int, leads: int = LEADS, cells: tuple[int, int] = CELLS) -> list:
    """A forecast, another, a distribution and an ensemble of the same dates, with gaps."""
    rng = np.random.default_rng(windows)
    shape = (windows, leads, *cells)
    observed, one, two = (room(shape, np.float32) for _ in range(3))
    for lead in range(leads):
        for array in (observed, one, two):
            array[:, lead] = rng.normal(size=(windows, *cells))
    observed[3, 0, 2] = np.nan
    weight = np.outer(np.arange(cells[0]), np.ones(cells[1]))
    verified = np.ones(shape[:2], bool)
    judged = (observed, verified, weight / weight.sum(), True)
    members = np.stack([one, two, observed * 0 + 1])
    members[np.isnan(members)] = 0.0
    return [
        Pairs(one, *judged),
        Pairs(two, *judged),
        NormalPairs(one, np.abs(two) + np.float32(0.1), *judged),
        EnsemblePairs(members, *judged),
    ]


def scores_of(pairs: list) -> dict[str, np.ndarray]:
    """All that goes through whole hindcasts."""
    one, two, normal, ensemble = pairs
    dates = np.broadcast_to(np.arange(len(one.verified))[:, None], one.verified.shape)
    sums, test = DateSums.of(one, dates), field_test(one, two, dates)
    found = {name: metric(one) for name, metric in METRICS.items()}
    found |= {f"sum {k}": part for k, part in vars(sums).items()}
    found |= {f"test {k}": part for k, part in test._asdict().items()}
    found["index"] = index_series(one.forecast, one.weight)
    found["pit"], found["rank"] = pit_histogram(normal), rank_histogram(ensemble)
    for name, some in (("normal", normal), ("ensemble", ensemble)):
        found |= {f"{name} {f.__name__}": f(some) for f in (crps, crps_map, spread)}
    return found


@pytest.mark.parametrize("nbytes", [8 * 40 * 42 * 2, 8 * 40 * 20, 8])
def test_scores_of_blocks_are_those_of_whole_arrays(small, nbytes):
    """Blocks of two leads; of some rows of a lead; of one row, cell or date: then, sums over dates
    of one cell are made in another order."""
    whole = scores_of(pairs_of(40))
    small(nbytes)
    for name, found in scores_of(pairs_of(40)).items():
        exact = name in METRICS or name.startswith("test") or "crps_map" in name
        error = 0 if exact and nbytes > 8 else 1e-13
        np.testing.assert_allclose(found, whole[name], rtol=error, atol=error, err_msg=name)


def peak(leads: int) -> float:
    """MiB that scoring takes beside the hindcast."""
    pairs = pairs_of(50, leads, (40, 50))
    tracemalloc.start()
    scores_of(pairs)
    found = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return found


@pytest.mark.family
def test_the_memory_that_scores_take_does_not_grow_with_the_leads(small):
    """Whole arrays are 12 MiB in the control, 16 leads of them in float64."""
    small(2**30)
    few, many = peak(4), peak(16)
    assert many > 24  # the control
    assert many > 2 * few
    small(2**17)
    # What grows are the results, maps by lead.
    few, many = peak(4), peak(16)
    assert many < few + 2 < 6


@pytest.fixture(scope="module")
def run(trained) -> Run:
    return Run.load(trained.directory)


def test_a_run_is_verified_in_blocks_as_in_one_go(run, small):
    """All but the LIM to the same forecasts; its products of matrices are rounded by their size."""
    (whole,), labelled = run.verify()
    small(9000)
    (found,), again = run.verify()
    assert list(found.variables) == list(whole.variables)
    xr.testing.assert_identical(again.drop_attrs(deep=False), labelled.drop_attrs(deep=False))
    for name in ("rmse", "mae", "bias", "acc", "rmse_map"):
        for forecast in whole["forecast"].values:
            tolerance = 1e-5 if forecast == "lim" else 0
            ours, theirs = (one[name].sel(forecast=forecast) for one in (found, whole))
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("rmse_difference_interval", "skill", "index_rmse", "crps", "rpss"):
        if name in whole:
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.shares_memory(again["sst"].values, labelled["sst"].values)


def test_the_report_s_cases_are_the_same_from_blocks(trained, small):
    """And no array of all dates is asked for."""
    with contents(trained.directory) as run:
        whole = cases(run.subjects()[0])
        small(4000)
        found = cases(run.subjects()[0])
    assert whole is not None
    assert found is not None
    assert len(whole.rmse) > 8
    for name in ("initial", "valid", "rmse", "normal"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for ours, theirs in zip(found.indices, whole.indices, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours.observed, theirs.observed)
        np.testing.assert_array_equal(ours.forecast, theirs.forecast)


def test_observations_of_many_dates_are_written_in_parts(run, small, tmp_path):
    """A part needs a record dimension; small files are as they were."""
    _, hindcast = run.verify()
    whole = observations(run, None, hindcast)
    small(9000)
    found = observations(run, None, hindcast)
    for name, one in (("whole", whole), ("found", found)):
        write_netcdf(one, tmp_path / f"{name}.nc")
    with (
        netCDF4.Dataset(tmp_path / "whole.nc") as one,
        netCDF4.Dataset(tmp_path / "found.nc") as two,
    ):
        assert not one.dimensions["time"].isunlimited()
        assert two.dimensions["time"].isunlimited()
    ours, theirs = (xr.load_dataset(tmp_path / f"{name}.nc") for name in ("found", "whole"))
    xr.testing.assert_equal(ours, theirs)


def test_a_forecast_as_zarr_holds_what_netcdf_holds_and_appears_whole(run, tmp_path, monkeypatch):
    forecast = run.forecast()
    write_netcdf(forecast, tmp_path / "one.nc")
    write_zarr(forecast, tmp_path / "one.zarr")
    options = {"decode_times": False, "mask_and_scale": False}
    zarr = {"engine": "zarr", "consolidated": False}
    file = xr.load_dataset(tmp_path / "one.nc", **options)
    directory = xr.load_dataset(tmp_path / "one.zarr", **zarr, **options)
    xr.testing.assert_equal(directory, file)
    assert directory.attrs == file.attrs
    for name, variable in file.variables.items():
        found, wanted = ({**one.attrs, "_FillValue": 0} for one in (directory[name], variable))
        assert found == wanted, name
    write_zarr(forecast.isel(forecast_period=[0]), tmp_path / "one.zarr")  # replaced, not added to
    again = xr.load_dataset(tmp_path / "one.zarr", **zarr)
    assert again.sizes["forecast_period"] == 1

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(xr.Dataset, "to_zarr", fail)
        with pytest.raises(DataError, match="No space left"):
            write_zarr(forecast, tmp_path / "one.zarr")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "one.zarr", **zarr), again)
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises(DataError, match="something else already"):
        write_zarr(forecast, tmp_path / "other.zarr")
    monkeypatch.setattr("gridcast.sources.netcdf.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"gridcast\[stream\]"):
        write_zarr(forecast, tmp_path / "new.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"one.nc", "one.zarr", "other.zarr"}


@pytest.mark.parametrize("nbytes", [2**30, 8])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -2e6])
def test_a_forecast_that_is_wrong_is_found_in_any_block(small, nbytes, wrong):
    values = np.random.default_rng(0).normal(size=(7, 2, 4, 5)).astype(np.float32)
    mask = np.ones((4, 5), bool)
    mask[0] = False
    small(nbytes)
    values[1, 0, 0, 0] = wrong  # off the mask
    assert _places(values, mask, 1e6) is None  # the control
    values[3, 1, 2, 4] = values[5, 0, 1, 1] = wrong
    found = _places(values, mask, 1e6)
    assert found is not None
    assert (found[0].tolist(), found[1]) == ([3, 1, 2, 4], 2)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells what is mapped")
def test_rows_of_all_windows_bring_little_of_a_file_into_memory():
    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(one for one in lines if one.startswith("RssFile")).split()[1])

    whole = room((64, 1, 512, 512), np.float32)
    for window in range(len(whole)):
        whole[window] = window
    scratch._let_go()
    before = mapped()
    assert whole[:, :, :4].sum() == 4 * 512 * sum(range(64))
    rows = mapped() - before
    assert whole.sum() == 512 * 512 * sum(range(64))
    assert mapped() - before > 60 * 2**20  # the control
    assert rows < 10 * 2**20


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_a_file_written_in_parts_is_the_file_written_at_once(small, tmp_path, calendar):
    times = xr.date_range("2001-01-30", periods=9, freq="6h", calendar=calendar, use_cftime=True)
    values = np.random.default_rng(0).normal(size=(9, 2, 4, 5)).astype(np.float32)
    values[6, 1, 2, 3] = np.nan  # none in the first parts
    both = np.stack([times, times.shift(1, "6h")], axis=1)
    data = xr.Dataset(
        {"sst": (("start", "ahead", "lat", "lon"), values), "depth": ("lat", np.arange(4.0))},
        {"start": times, "time": (("start", "ahead"), both), "ahead": [1, 2]},
        {"title": "a test"},
    )
    data.encoding["unlimited_dims"] = {"start"}
    write_netcdf(data, tmp_path / "whole.nc")
    small(400)
    write_netcdf(data, tmp_path / "parts.nc")
    with (
        netCDF4.Dataset(tmp_path / "whole.nc") as whole,
        netCDF4.Dataset(tmp_path / "parts.nc") as parts,
    ):
        assert parts.dimensions["start"].isunlimited()
        assert list(whole.variables) == list(parts.variables)
        for name, expected in whole.variables.items():
            found = parts[name]
            for one in (expected, found):
                one.set_auto_maskandscale(False)
            assert str(found.__dict__) == str(expected.__dict__)
            assert (found.dtype, found.filters()) == (expected.dtype, expected.filters())
            np.testing.assert_array_equal(found[:], expected[:])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts.nc", "whole.nc"]


MEASURED = """
import sys, tracemalloc
from pathlib import Path
import gridcast
from gridcast.calibrating import fit_run
from gridcast.config import config_from_dict
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.sources.netcdf import write_netcdf

directory, leads = Path(sys.argv[1]), int(sys.argv[2])
(directory / "checkpoints").mkdir(parents=True)
sst, _ = gridcast.simulated_series("ocean", years=60, shape=(30, 60))
config = config_from_dict({
    "data": {"path": "(in memory)"},
    "frames": {"inputs": 3, "leads": leads},
    "splits": {"train": [1950, 1969], "validation": [1970, 1972], "test": [1973, 2009]},
    "model": {"name": "lim"},
    "train": {"loss": "crps"},
})
setup = prepare(config, open_source(config, sst))
run = fit_run(setup, directory, resume=False)
tracemalloc.start()
scores, hindcast = run.verify(setup.source)
write_netcdf(hindcast, directory / "hindcast.nc")
print(tracemalloc.get_traced_memory()[1] / 2**20, hindcast["sst"].nbytes / 2**20)
"""


@pytest.mark.slow
def test_the_memory_of_a_verification_is_far_below_its_hindcast(tmp_path):
    """By `python -m pytest -m slow -n 0 tests/test_scratch.py -s`; a LIM with deviations.

    14 arrays of the size of one forecast are made: five forecasts, their deviations, what came.
    """
    found = {}
    for leads in (6, 24):
        command = [sys.executable, "-c", MEASURED, str(tmp_path / str(leads)), str(leads)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[leads], size = map(float, out.split())
        print(f"{leads} leads: {found[leads]:.0f} MiB at most; one forecast in float32 {size:.0f}")
    assert found[24] < 2 * found[6]
