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
from scipy import stats

from gridcast.cli import main
from gridcast.errors import DataError
from gridcast.paired import Paired
from gridcast.pairing import compare_runs
from gridcast.sources.netcdf import write_netcdf
from gridcast.verification.significance import draw_dates


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


ODDS = {"a": [0.2, 0.3, 0.5], "b": [0.6, 0.3, 0.1]}
# (sum of odds below - what came below)^2 over the two boundaries, of the lowest class that came and
# of the highest.
RPS = {"a": (0.8**2 + 0.5**2, 0.2**2 + 0.5**2), "b": (0.4**2 + 0.1**2, 0.6**2 + 0.9**2)}
HITS = {"a": (0, 1), "b": (1, 0)}
AREA = np.diff(np.sin(np.deg2rad(np.linspace(-90, 90, 10))))


def classes_of(run: Path, came: Callable[[xr.DataArray], xr.DataArray]) -> None:
    """Make it a run of three classes whose odds are `ODDS` everywhere.

    Args:
      came: the class of each date and cell, from what was observed.
    """
    with changed(run, "scores.nc") as held:
        held[0] = held[0].rename(rmse_map="rps_map")
        held[0].attrs["headline"] = "rps hit_rate"
    with changed(run, "observations.nc") as held:
        observed = held[0]["sst"]
        held[0]["sst_class"] = xr.where(np.isfinite(observed), came(observed), np.nan)
    with changed(run, "hindcast.nc") as held:
        names = xr.DataArray(ODDS[run.name], {"category": ["low", "middle", "high"]}, "category")
        odds = held[0]["sst"].where(np.isnan(held[0]["sst"]), 1.0) * names
        held[0]["sst_probability"] = odds.transpose(..., "category", "lat", "lon")
        held[0] = held[0].drop_vars("sst")


def highest_in_even_months(observed: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(observed) * (2.0 * (observed["time"].dt.month % 2 == 0))


def highest_in_the_north(observed: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(observed) * (2.0 * (observed["lat"] > 0))


def test_classes_are_compared_by_numbers_made_by_hand(pair):
    for run in pair:
        classes_of(run, highest_in_even_months)
    (found,) = compare_runs(*pair)
    assert (found.dates, found.classes) == (48, ["low", "middle", "high"])
    for number, name in enumerate("ab"):
        np.testing.assert_allclose(found.rps[number], np.mean(RPS[name]), rtol=1e-5)
        np.testing.assert_allclose(found.hit_rate[number], 0.5)
    # Every second of 48 dates: the differences are -0.88 and 0.72, their mean -0.08.
    apart = np.where(
        np.arange(1, 49) % 2 == 0, RPS["a"][1] - RPS["b"][1], RPS["a"][0] - RPS["b"][0]
    )
    block = 10  # 1.3 * sqrt(48) dates
    drawn = draw_dates(48, block, 1000, 0)
    freedom = 1.5 * 48 / block
    wider = np.sqrt((48 - block) * (48 - block + 1)) / 48
    tail = stats.norm.cdf(stats.t.ppf(0.025, freedom) / wider)
    expected = np.quantile(drawn @ apart / 48, [tail, 1 - tail])
    assert found.compared.block.tolist() == [block] * 3
    for lead in range(3):
        ours = [bound[lead] for bound in found.compared.rps_difference]
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert "The RPS of" in found.verdict
    low, high = compare_runs(*pair[::-1])[0].compared.hit_rate_difference
    np.testing.assert_allclose(low, -found.compared.hit_rate_difference.high, atol=1e-12)
    np.testing.assert_allclose(high, -found.compared.hit_rate_difference.low, atol=1e-12)


def test_cells_of_classes_count_by_their_area_and_what_is_sure_is_said(pair, capsys):
    for run in pair:
        classes_of(run, highest_in_the_north)
    (found,) = compare_runs(*pair)
    mask = np.isfinite(read(pair[0] / "observations.nc")["sst"].values[0])
    area = (AREA[:, None] * mask).sum(axis=1)
    north = area[5:].sum() / area.sum()
    for number, name in enumerate("ab"):
        expected = RPS[name][1] * north + RPS[name][0] * (1 - north)
        np.testing.assert_allclose(found.rps[number], expected, rtol=1e-5)
        hits = HITS[name][1] * north + HITS[name][0] * (1 - north)
        np.testing.assert_allclose(found.hit_rate[number], hits, rtol=1e-6)
    assert main(["compare", *map(str, pair)]) == 0
    assert found.verdict in capsys.readouterr().out
    # The same each date: no doubt is left.
    way = "below" if found.rps[0, 0] < found.rps[1, 0] else "above"
    assert f"is surely {way} at leads 1 to 3." in found.verdict
    assert main(["compare", *map(str, pair), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["compared"]
    np.testing.assert_array_equal(told["hit_rate"], found.hit_rate)
    assert told["interval_95"][0] == [float(one[0]) for one in found.compared.rps_difference]


def renamed(run: Path) -> None:
    with changed(run, "hindcast.nc") as held:
        held[0] = held[0].assign_coords(category=["dry", "middle", "wet"])


def other_terciles(run: Path) -> None:
    with changed(run, "observations.nc") as held:
        held[0]["sst_class"][:, 4, 9] = 1.0


def unknown(run: Path) -> None:
    with changed(run, "observations.nc") as held:
        held[0] = held[0].drop_vars("sst_class")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (renamed, r"judged by different classes\n  found: .*low.*wet"),
        (other_terciles, "judged by different classes\n  found: in 48 of .* another class of sst"),
        (unknown, "b: no observations.nc with sst_class\n.*\n  fix: train it again"),
    ],
)
def test_classes_that_are_not_the_same_are_refused(pair, spoil, said):
    for run in pair:
        classes_of(run, highest_in_even_months)
    spoil(pair[1])
    with pytest.raises(DataError, match=said):
        compare_runs(*pair)


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
    classes_of(run, highest_in_even_months)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename, "the runs forecast no variable in common\n  found: .*a forecasts sst; .* tos"),
        (units, "the runs differ in units\n  found: .*a: degC, .*b: K"),
        (shifted, "the runs differ in lon\n  found: .*other cells"),
        (other_sea, r"different observations of sst: they differ by up to 0\.1"),
        (years_apart, "no date that both runs forecast at all 3 leads\n  found: .*1971 to 1974"),
        (of_classes, "differ in what they forecast\n  found: .*a: values, .*b: classes"),
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
