"""Runs that forecast classes: untrained they are their reference, and files say what they mean."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import same_bits, small_config
from scipy.stats import norm

import gridcast
from gridcast.config import Config
from gridcast.errors import DataError
from gridcast.labelling import label_forecast
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.report.observed import observations
from gridcast.run import Run
from gridcast.verification.hindcast import MODEL, Hindcast
from gridcast.verification.scores import score

pytestmark = pytest.mark.usefixtures("no_pictures")

# Six years of training, and a test of six years.
SPLITS = {"train": [1950, 1955], "validation": [1956, 1957], "test": [1958, 1963]}
BEFORE, TESTED = slice("1950", "1955"), slice("1958", "1963")
TERCILES = {"target": {"classes": {}}}
WARM = {"target": {"classes": {"kind": "thresholds", "thresholds": [0.0, 0.3]}}}
CLIMATOLOGY = {"model": {"base": "climatology"}}
MONTHLY = {"climatology": {"kind": "monthly"}}
BOX = {"lat": [-45, 45], "lon": [100, 260]}


def config_of(**sections: Any) -> Config:
    frames = MONTHLY | sections.pop("frames", {})
    return small_config(splits=SPLITS, frames=frames, **sections)


@cache
def repeating() -> xr.DataArray:
    """An ocean whose test years repeat its training years, value by value."""
    series, _ = gridcast.simulated_series("ocean", years=14, shape=(9, 18), seed=3)
    values = series.values.copy()
    values[96:] = values[:72]
    return series.copy(data=values)


@cache
def sea() -> xr.DataArray:
    return gridcast.simulated_series("ocean", years=14, shape=(9, 18), seed=3)[0]


def untrained(series: xr.DataArray, **sections: Any) -> tuple[Setup, Run]:
    config = config_of(**sections)
    setup = prepare(config, open_source(config, series))
    return setup, Run(Path(), config, setup.fields, setup.model(), "", 72)


def judged(setup: Setup, run: Run) -> tuple[Hindcast, xr.Dataset]:
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    return made, score(made, run.fields, {"source": ""}, run.config.verification)[0]


def mask() -> np.ndarray:
    return np.isfinite(sea().values[0])


def area() -> np.ndarray:
    """Relative areas of the sea's cells, from the sines of their edges; they sum to 1."""
    edges = np.deg2rad(np.linspace(-90, 90, 10))
    cells = np.where(mask(), np.diff(np.sin(edges))[:, None], 0.0)
    return cells / cells.sum()


# ---------------------------------------------------------------- untrained: the reference


@pytest.fixture(scope="module")
def odds() -> tuple[Setup, Run]:
    return untrained(repeating(), **WARM, **CLIMATOLOGY)


def test_observations_of_a_run_hold_the_classes_and_the_odds_that_were_scored(odds):
    setup, run = odds
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    labelled = label_forecast(run.fields, made.made, setup.axis, made.initial, run.attributes)
    found = observations(run, repeating(), labelled)
    for lead in range(2):
        there = found.sel(time=labelled["time"].values[:, lead])
        came, scored = there["sst_class"].values[:, mask()], made.observed[:, lead, ..., 0]
        np.testing.assert_array_equal(came, scored[:, mask()])
        shares = there["sst_climatology_probability"].values[:, :, mask()]
        expected = made.forecasts["climatology"][:, lead, mask(), 0]
        np.testing.assert_allclose(np.moveaxis(shares, 1, -1), expected, atol=1e-6)
    assert np.isnan(found["sst_class"].values[:, ~mask()]).all()


def test_untrained_over_climatology_it_forecasts_the_odds_of_the_month(odds):
    setup, run = odds
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    anomaly = repeating().groupby("time.month") - (
        repeating().sel(time=BEFORE).groupby("time.month").mean()
    )
    training = anomaly.sel(time=BEFORE)
    number = xr.where(training > 0.0, 1, 0) + xr.where(training > 0.3, 1, 0)
    for k, start in enumerate(made.initial):
        for lead in (1, 2):
            month = (start + lead) % 12 + 1
            came = number.values[training["time"].dt.month.values == month]
            for one in range(3):
                expected = ((came == one).sum(axis=0) + 0.5) / (6 + 1.5)
                found = made.forecasts[MODEL][k, lead - 1, :, :, 0, one]
                np.testing.assert_allclose(found[mask()], expected[mask()], rtol=1e-5)
    ours, theirs = (made.forecasts[name] for name in (MODEL, "climatology"))
    np.testing.assert_allclose(ours[..., mask(), :, :], theirs[..., mask(), :, :], rtol=1e-5)


def test_climatology_has_no_skill_against_itself(odds):
    _, scores = judged(*odds)
    skill = scores["skill"].sel(reference="climatology")
    np.testing.assert_allclose(skill, 0.0, atol=1e-6)
    maps = scores["skill_map"].sel(reference="climatology").values
    np.testing.assert_allclose(maps[:, mask()], 0.0, atol=1e-5)
    assert np.isnan(maps[:, ~mask()]).all()
    # The control: it does differ from the others.
    assert (np.abs(scores["skill"].sel(reference="persistence")) > 0.01).all()


def test_odds_are_reliable_where_the_years_to_come_repeat_those_of_training(odds):
    """With n years and K classes, p = (k + 1/2) / (n + K/2): then k / n is what comes."""
    _, scores = judged(*odds)
    ours = scores.sel(forecast="climatology")
    expected = (ours["forecast_probability"] * (6 + 1.5) - 0.5) / 6
    np.testing.assert_allclose(ours["observed_frequency"], expected, atol=1e-5)
    assert (ours["share"] > 0.01).sum("bin").min() >= 3


def test_terciles_come_in_thirds_where_the_years_to_come_repeat_those_of_training():
    _, scores = judged(*untrained(repeating(), **TERCILES, **CLIMATOLOGY))
    ours = scores.sel(forecast=MODEL)
    used = ours["share"] > 0
    assert (used.sum("bin") == 1).all()
    for name in ("forecast_probability", "observed_frequency"):
        np.testing.assert_allclose(ours[name].values[used], 1 / 3, atol=1e-6)
    # (1/9 + 4/9), (1/9 + 1/9) and (4/9 + 1/9), a third of the time each.
    np.testing.assert_allclose(ours["rps"], 4 / 9, atol=1e-5)
    np.testing.assert_allclose(ours["log_score"], np.log(3), atol=1e-5)


@pytest.mark.parametrize("target", [TERCILES, WARM], ids=["terciles", "thresholds"])
@pytest.mark.parametrize("base", ["damped_persistence", "persistence"])
def test_untrained_it_scores_as_the_reference_that_it_corrects(base, target):
    made, scores = judged(*untrained(sea(), **target, model={"base": base}))
    ours = scores["rps"].sel(forecast=MODEL)
    if base == "damped_persistence":
        np.testing.assert_allclose(ours, scores["rps"].sel(forecast=base), atol=1e-5)
        np.testing.assert_allclose(scores["skill"].sel(reference=base), 0.0, atol=1e-5)
        pair = [made.forecasts[name][..., mask(), :, :] for name in (MODEL, base)]
        np.testing.assert_allclose(*pair, atol=1e-5)
        # Persistence that knows how often it was wrong beats the odds of the month.
        assert (ours < scores["rps"].sel(forecast="climatology")).all()
    else:  # the persistence of an anomaly with its errors, not of the class for certain
        assert (ours < scores["rps"].sel(forecast="persistence")).all()


def test_a_dressed_reference_is_a_normal_distribution_around_it():
    """Damping, error and edges by hand from the observations."""
    setup, run = untrained(sea(), **WARM, model={"base": "damped_persistence"})
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    normal = sea().sel(time=BEFORE).groupby("time.month").mean()
    anomaly = (sea().groupby("time.month") - normal).values.astype(np.float64)
    row, column = np.argwhere(mask())[20]
    one = anomaly[:, row, column]
    start = made.initial[30]
    for lead in (1, 2):
        now, later = one[: 72 - lead], one[lead:72]
        damping = (now * later).sum() / (now**2).sum()
        spread = np.sqrt(((damping * now - later) ** 2).mean())
        below = norm.cdf([0.0, 0.3], damping * one[start], spread)
        expected = np.diff([0.0, *below, 1.0])
        found = made.forecasts[MODEL][30, lead - 1, row, column, 0]
        np.testing.assert_allclose(found, 0.001 + 0.997 * expected, atol=2e-4)


# ---------------------------------------------------------------- classes by hand


def test_the_hit_rate_of_persistence_follows_from_the_observations_alone():
    _, scores = judged(*untrained(sea(), **TERCILES))
    months = sea()["time"].dt.month.values
    inside = np.arange(168) < 72
    number = np.full(sea().shape, np.nan)
    for month in range(1, 13):
        dates = months == month
        edges = np.quantile(sea().values[dates & inside].astype(np.float64), [1 / 3, 2 / 3], axis=0)
        number[dates] = (sea().values[dates][:, None] > edges).sum(axis=1)
    for lead in (1, 2):
        hit = (number[96 - lead : 168 - lead] == number[96:]).mean(axis=0)
        found = float(scores["hit_rate"].sel(forecast="persistence", lead=lead))
        assert found == pytest.approx(float((hit * area()).sum()), abs=2e-3)
        assert int(scores["dates"].sel(lead=lead)) == 72


def test_classes_by_value_are_cut_at_the_very_threshold():
    """A value that lies on a threshold belongs below it; the climatology does not matter."""
    series = sea().copy(deep=True)
    values = np.round(series.values * 2) / 2  # many lie on 24.5
    values[120, 4, 2:6] = np.where(np.isfinite(values[120, 4, 2:6]), 24.5, np.nan)
    classes = {"kind": "thresholds", "thresholds": [10.0, 24.5], "of": "value"}
    setup, run = untrained(series.copy(data=values), target={"classes": classes})
    made = run.hindcast_of(setup.series, setup.axis, setup.splits)
    checked = 0
    for k, start in enumerate(made.initial):
        for lead in (1, 2):
            if start + lead >= 168:
                assert np.isnan(made.observed[k, lead - 1]).all()
                continue
            came = values[start + lead]
            expected = (came > 10.0).astype(float) + (came > 24.5)
            found = made.observed[k, lead - 1, ..., 0]
            np.testing.assert_array_equal(found[mask()], expected[mask()])
            checked += int((came == 24.5).sum())
    assert checked > 50
    assert run.fields.classes is not None
    assert run.fields.classes.labels == ["below 10", "10 to 24.5", "above 24.5"]


def corrupted(after: str) -> xr.DataArray:
    values = sea().values.copy()
    late = (sea()["time"] >= np.datetime64(after)).values
    values[late] += np.random.default_rng(0).normal(0, 30, values[late].shape).astype(np.float32)
    return sea().copy(data=values)


@pytest.mark.parametrize("target", [TERCILES, WARM], ids=["terciles", "thresholds"])
def test_edges_odds_and_the_forecast_from_before_see_nothing_after_training(target):
    def forecast(series: xr.DataArray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        setup, run = untrained(series, **target)
        return setup.head, run.predictor(setup.arrays, np.array([50, 71]))

    (head, made), (same, again) = forecast(sea()), forecast(corrupted("1956-01"))
    assert same_bits(head, same)
    assert same_bits(made, again)
    # The control: one month earlier belongs to training.
    other, _ = forecast(corrupted("1955-12"))
    # Terciles are equally frequent, wherever their edges are.
    moved = "edges" if target is TERCILES else "odds"
    assert not same_bits(other[moved], head[moved])
    assert not same_bits(other["deviation"], head["deviation"])


# ---------------------------------------------------------------- trained, and its files


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    """On a grid, and for one cell: the area mean of a box."""
    few = {"train": {"epochs": 1}}
    made = {}
    for name, sections in {
        "grid": {**TERCILES},
        "index": {**WARM, "data": {"mean_over": BOX}, "model": {"downsample": 1}},
    }.items():
        output = {"directory": str(tmp_path_factory.mktemp(name))}
        made[name] = gridcast.train(config_of(**few, **sections, output=output), sea())
    return made


def file_of(run: Run, name: str) -> xr.Dataset:
    return xr.load_dataset(run.directory / f"{name}.nc", decode_timedelta=False)


@pytest.mark.family
@pytest.mark.parametrize("name", ["grid", "index"])
def test_files_of_probabilities_sum_to_one_on_the_mask_and_are_missing_off_it(name, runs):
    inside = mask() if name == "grid" else np.ones((1, 1), bool)
    labels = ["below", "near", "above"] if name == "grid" else ["below 0", "0 to 0.3", "above 0.3"]
    for file in ("forecast", "hindcast"):
        field = file_of(runs[name], file)["sst_probability"]
        assert field.dims[2:] == ("category", "lat", "lon")
        assert field.shape[1:] == (2, 3, *inside.shape)
        assert field["category"].values.tolist() == labels
        values = field.values
        assert np.isnan(values[..., ~inside]).all()
        on_mask = values[..., inside]
        assert on_mask.min() > 0
        np.testing.assert_allclose(on_mask.sum(axis=2), 1.0, atol=1e-5)
        assert on_mask.std() > 0.01


@pytest.mark.family
@pytest.mark.parametrize("name", ["grid", "index"])
def test_scores_follow_from_the_hindcast_file_and_the_classes_observed(name, runs):
    run = runs[name]
    scores, hindcast = (file_of(run, file) for file in ("scores", "hindcast"))
    weight = area() if name == "grid" else np.ones((1, 1))
    series = open_source(run.config, sea()).series
    axis = prepare(run.config, open_source(run.config, sea())).axis
    came = xr.DataArray(
        run.fields.observed_classes(series, axis)[..., 0],
        {"time": sea()["time"].values},
        ("time", "lat", "lon"),
    ).sel(time=TESTED)
    for lead in (1, 2):
        one = hindcast["sst_probability"].isel(forecast_period=lead - 1)
        one = one.swap_dims(forecast_reference_time="time").sel(time=came["time"])
        below = one.cumsum("category").isel(category=slice(0, 2)).values
        reached = np.stack([came.values <= k for k in range(2)], axis=1)
        rps = ((below - reached) ** 2).sum(axis=1).mean(axis=0)
        found = scores.sel(forecast=MODEL, lead=lead)
        assert float(found["rps"]) == pytest.approx(
            float((np.nan_to_num(rps) * weight).sum()), rel=1e-5
        )
        hit = (np.nan_to_num(one.values).argmax(axis=1) == came.values).mean(axis=0)
        assert float(found["hit_rate"]) == pytest.approx(float((hit * weight).sum()), abs=1e-6)


@pytest.mark.family
def test_every_file_of_probabilities_passes_the_cf_checker(runs):
    names = ("forecast", "hindcast", "scores")
    paths = [str(run.directory / f"{name}.nc") for run in runs.values() for name in names]
    checker = Path(sys.executable).with_name("compliance-checker")
    command = [str(checker), "-t", "cf:1.11", "-c", "strict", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("All tests passed!") == len(paths), done.stdout


@pytest.mark.family
@pytest.mark.parametrize("name", ["grid", "index"])
def test_more_leads_than_trained_for_are_refused_with_the_reason(name, runs):
    run = runs[name]
    with pytest.raises(DataError) as raised:
        run.forecast(sea(), leads=5)
    text = str(raised.value)
    assert "trained for 2 leads and cannot be rolled out: it forecasts probabilities" in text
    assert "found: 5 leads\n  fix: train with frames.leads: 5" in text
    # Fewer are what comes first of the trained ones.
    one = run.forecast(sea(), leads=1)["sst_probability"]
    np.testing.assert_array_equal(one, file_of(run, "forecast")["sst_probability"][:, :1])


def test_a_calendar_month_that_training_lacks_has_no_terciles():
    setup, _ = untrained(sea(), **TERCILES, frames={"climatology": {"harmonics": 1}})
    june = setup.axis.dates[:, 1] == 6
    train = setup.splits.train & ~june
    with pytest.raises(DataError, match=r"hold no month \[6\]"):
        prepare(setup.config, setup.source, replace(setup.splits, train=train))


@pytest.mark.family
@pytest.mark.parametrize("name", ["grid", "index"])
def test_the_last_hindcast_is_the_forecast_also_for_months_beyond_the_data(name, runs):
    last = file_of(runs[name], "hindcast")["sst_probability"].isel(forecast_reference_time=-1)
    forecast = runs[name].forecast(sea(), start="1963-11")["sst_probability"][0]
    np.testing.assert_array_equal(last["time"], forecast["time"])
    assert last["time"].values[-1] > sea()["time"].values[-1]
    np.testing.assert_allclose(last, forecast, atol=1e-6)
