"""`gridcast compare`: the numbers of the scores, the dates of both, and refusals in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridcast.cli import main
from gridcast.errors import DataError
from gridcast.paired import Paired
from gridcast.pairing import compare_runs
from gridcast.sources.netcdf import write_netcdf


def read(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        return dataset.load()


@pytest.fixture
def pair(trained, tmp_path) -> tuple[Path, Path]:
    """A run and its copy, to be changed."""
    for name in ("a", "b"):
        shutil.copytree(trained.directory, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


@contextmanager
def changed(run: Path, name: str) -> Iterator[list[xr.Dataset]]:
    """A file of a run, in a list whose one member is written back."""
    held = [read(run / name)]
    yield held
    (run / name).unlink()
    write_netcdf(held[0], run / name)


def one(a: Path, b: Path) -> Paired:
    (found,) = compare_runs(a, b)
    return found


def of_climatology(run: Path) -> None:
    """Make its hindcast the climatology at each date."""
    normal = read(run / "observations.nc")["sst_climatology"]
    with changed(run, "hindcast.nc") as held:
        values = normal.sel(time=held[0]["time"]).transpose(*held[0]["sst"].dims).values
        held[0] = held[0].assign(sst=held[0]["sst"].copy(data=values))


def test_a_run_is_no_better_than_itself(pair):
    found = one(*pair)
    np.testing.assert_array_equal(found.rmse[0], found.rmse[1])
    assert not np.any(found.compared.rmse_difference)
    assert found.verdict.endswith("is not surely another at any lead.")


def test_against_climatology_it_gives_the_numbers_of_the_scores(pair):
    a, b = pair
    of_climatology(b)
    found, scores = one(a, b), read(a / "scores.nc")
    rmse = scores["rmse"].sel(forecast=["model", "climatology"]).values
    np.testing.assert_allclose(found.rmse, rmse, rtol=1e-5)
    assert found.dates == int(scores["dates"].values[0]) == 48
    interval = scores["rmse_difference_interval"].sel(reference="climatology").values
    ours = np.stack(found.compared.rmse_difference, axis=-1)
    np.testing.assert_allclose(ours, interval, rtol=1e-4, atol=1e-5)
    assert (interval[0] < 0).all()  # the control: there is something to be sure of
    assert "is surely below at lead" in found.verdict
    assert "is surely above at lead" in one(b, a).verdict
    np.testing.assert_array_equal(one(b, a).rmse, found.rmse[::-1])


def test_dates_that_one_lacks_do_not_count_and_their_order_does_not_matter(pair):
    a, b = pair
    of_climatology(b)
    with changed(b, "hindcast.nc") as held:
        order = np.random.default_rng(0).permutation(30)
        held[0] = held[0].isel(forecast_reference_time=order)
    found = one(a, b)
    hindcast, observations = read(a / "hindcast.nc"), read(a / "observations.nc")
    came, normal = observations["sst"], observations["sst_climatology"]
    initial = read(b / "hindcast.nc")["time"].values
    dates = set(initial[:, 0]) & set(initial[:, 1]) & set(initial[:, 2])
    dates = sorted(date for date in dates if date >= np.datetime64("1961-01-01"))
    assert (found.dates, found.first) == (len(dates), str(dates[0])[:10])
    area = np.cos(np.deg2rad(came["lat"].values))[:, None] * np.isfinite(came.values[0])
    for lead in range(3):
        times = hindcast["time"].values[:, lead]
        windows = [int(np.flatnonzero(times == date)[0]) for date in dates]
        ours = hindcast["sst"].values[windows, lead]
        for run, values in enumerate((ours, normal.sel(time=dates).values)):
            error = values - came.sel(time=dates).values
            expected = np.sqrt(np.nansum(error**2 * area) / (area.sum() * len(dates)))
            assert found.rmse[run, lead] == pytest.approx(expected, rel=2e-3)  # cosine for area


def test_fewer_leads_are_compared_where_one_has_fewer(pair):
    a, b = pair
    with changed(b, "hindcast.nc") as held:
        held[0] = held[0].isel(forecast_period=slice(2))
    assert one(a, b).rmse.shape == (2, 2)


def rename(run: Path) -> None:
    for name in ("hindcast.nc", "observations.nc"):
        with changed(run, name) as held:
            known = {"sst": "tos", "sst_climatology": "tos_climatology"}
            held[0] = held[0].rename({k: v for k, v in known.items() if k in held[0]})
    with changed(run, "scores.nc") as held:
        held[0].attrs["title"] = "scores of forecasts of tos"


def units(run: Path) -> None:
    with changed(run, "observations.nc") as held:
        held[0]["sst"].attrs["units"] = "K"


def shifted(run: Path) -> None:
    with changed(run, "scores.nc") as held:
        held[0] = held[0].assign_coords(lon=held[0]["lon"] + 1.0)


def other_sea(run: Path) -> None:
    with changed(run, "observations.nc") as held:
        held[0]["sst"] = held[0]["sst"] + 0.1 * (held[0]["lat"] > 0)
        held[0]["sst"].attrs["units"] = "degC"


def years_apart(run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    assert "first: '1961'" in text
    config.write_text(text.replace("first: '1961'", "first: '1971'").replace("'1964'", "'1974'"))


def of_classes(run: Path) -> None:
    with changed(run, "scores.nc") as held:
        held[0].attrs["headline"] = "rps hit_rate"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename, "the runs forecast no variable in common\n  found: .*a forecasts sst; .* tos"),
        (units, "the runs differ in units\n  found: .*a: degC, .*b: K"),
        (shifted, "the runs differ in lon\n  found: .*other cells"),
        (other_sea, r"different observations of sst: they differ by up to 0\.1"),
        (years_apart, "no date that both runs forecast at all 3 leads\n  found: .*1971 to 1974"),
        (of_classes, "forecasts probabilities of classes"),
        (lambda run: (run / "hindcast.nc").unlink(), "b: no hindcast.nc with sst"),
        (lambda run: (run / "scores.nc").unlink(), "b: no run with scores"),
    ],
    ids=lambda value: getattr(value, "__name__", "")[:12],
)
def test_what_cannot_be_compared_is_refused(pair, spoil: Callable[[Path], None], said):
    spoil(pair[1])
    with pytest.raises(DataError, match=said):
        compare_runs(*pair)


def test_the_command_prints_a_table_or_json(pair, capsys):
    a, b = pair
    of_climatology(b)
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    found = one(a, b)
    assert f"{found.dates} dates, 1961-01-01 to 1964-12-01" in out
    assert f"{found.rmse[0, 1]:.4f}" in out
    assert found.verdict in out
    assert main(["compare", str(a), str(b), "--json"]) == 0
    output = capsys.readouterr()
    (told,) = json.loads(output.out)["compared"]
    assert output.err == ""
    np.testing.assert_array_equal(told["rmse"], found.rmse)
    assert told["interval_95"][0] == [float(bound[0]) for bound in found.compared.rmse_difference]
    assert main(["compare", str(a), str(a / "absent"), "--json"]) == 2
    assert capsys.readouterr().out == ""
