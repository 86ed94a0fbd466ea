"""Scores as files, table, sentence and picture: they agree with each other and the hindcast."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from gridcast import forecast_plots, plots
from gridcast.errors import DataError
from gridcast.frames.splits import Splits
from gridcast.frames.transform import grid_of
from gridcast.frames.windows import positions_at
from gridcast.run import Run
from gridcast.timeaxis import TimeAxis
from gridcast.verification.hindcast import MODEL
from gridcast.verification.scores import score
from gridcast.verification.tables import table, verdict, write_csv

REFERENCE_NAMES = ["climatology", "persistence", "damped_persistence", "lim"]


def reopened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def scores(trained) -> xr.Dataset:
    return reopened(trained.directory / "scores.nc")


@pytest.fixture(scope="module")
def observed(trained) -> xr.DataArray:
    return reopened(trained.data)["sst"]


def test_the_table_of_comma_separated_values_equals_the_netcdf(trained, scores):
    with (trained.directory / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3
    assert {(r["forecast"], int(r["lead"])) for r in rows} == {
        (name, lead) for name in (MODEL, *REFERENCE_NAMES) for lead in (1, 2, 3)
    }
    for row in rows:
        here = scores.sel(forecast=row["forecast"], lead=int(row["lead"]))
        for metric in ("rmse", "mae", "bias", "acc"):
            if row[metric] == "":
                assert (metric, row["forecast"]) == ("acc", "climatology")
                assert np.isnan(here[metric])
            else:
                assert float(row[metric]) == pytest.approx(float(here[metric]), rel=1e-5)
        for name in REFERENCE_NAMES:
            cell = row[f"skill_vs_{name}"]
            if row["forecast"] == MODEL:
                skill = scores["skill"].sel(reference=name, lead=int(row["lead"]))
                assert float(cell) == pytest.approx(float(skill), rel=1e-4, abs=1e-6)
            else:
                assert cell == ""
        assert "simulated" in row["source"]


def test_skill_is_one_minus_the_ratio_of_squared_rmse(scores):
    ours = scores["rmse"].sel(forecast=MODEL)
    for name in REFERENCE_NAMES:
        expected = 1 - (ours / scores["rmse"].sel(forecast=name)) ** 2
        np.testing.assert_allclose(scores["skill"].sel(reference=name), expected, rtol=1e-10)


def test_maps_are_missing_exactly_on_land_and_pool_to_the_numbers(scores, observed):
    grid = grid_of(observed)
    for name in ("rmse_map", "skill_map"):
        assert (np.isnan(scores[name].values) == ~grid.mask).all()
    pooled = np.sqrt((np.nan_to_num(scores["rmse_map"].values) ** 2 * grid.weight).sum((-2, -1)))
    np.testing.assert_allclose(pooled, scores["rmse"], rtol=1e-5)


def test_scores_of_the_model_follow_from_the_hindcast_file_and_the_observations(
    trained, scores, observed
):
    """An independent computation by labels: no position, window or scaled anomaly in it."""
    hindcast = reopened(trained.directory / "hindcast.nc")
    test_dates = observed["time"].sel(time=slice("1961", "1964")).values
    weights = xr.DataArray(grid_of(observed).weight, dims=("lat", "lon"))
    for lead in (1, 2, 3):
        one = hindcast["sst"].isel(forecast_period=lead - 1)
        one = one.swap_dims(forecast_reference_time="time").sel(time=test_dates)
        error = one - observed.sel(time=test_dates)
        assert scores["dates"].sel(lead=lead) == 48
        found = scores.sel(forecast=MODEL, lead=lead)
        expected = float(np.sqrt((error**2).weighted(weights).mean()))
        assert float(found["rmse"]) == pytest.approx(expected, rel=1e-4)
        assert float(found["mae"]) == pytest.approx(
            float(abs(error).weighted(weights).mean()), rel=1e-4
        )
        assert float(found["bias"]) == pytest.approx(
            float(error.weighted(weights).mean()), abs=1e-4
        )


def test_scores_of_persistence_follow_from_the_observations_alone(trained, scores, observed):
    run = Run.load(trained.directory)
    seasonal = run.transform.climatology.at(observed["time"].values)
    anomaly = observed - seasonal
    weights = xr.DataArray(grid_of(observed).weight, dims=("lat", "lon"))
    dates = slice("1961", "1964")
    for lead in (1, 2, 3):
        error = (anomaly.shift(time=lead) - anomaly).sel(time=dates)
        expected = float(np.sqrt((error**2).weighted(weights).mean()))
        assert float(scores["rmse"].sel(forecast="persistence", lead=lead)) == pytest.approx(
            expected, rel=1e-5
        )
        expected = float(np.sqrt((anomaly.sel(time=dates) ** 2).weighted(weights).mean()))
        assert float(scores["rmse"].sel(forecast="climatology", lead=lead)) == pytest.approx(
            expected, rel=1e-5
        )


def test_evaluating_again_gives_the_same_numbers(trained, scores):
    again = Run.load(trained.directory).evaluate()
    for name in ("rmse", "mae", "bias", "acc", "skill"):
        np.testing.assert_allclose(again[name], scores[name], rtol=1e-6)


def test_every_forecast_is_judged_on_the_same_dates_at_each_lead(trained, observed):
    """Also where the series has a gap: a date that one lead cannot reach counts for none."""
    run = Run.load(trained.directory)
    gap = observed.isel(time=np.r_[0:150, 151:180])  # July 1962 is missing
    axis = TimeAxis.of(gap["time"].values)
    splits = Splits.by_date(axis, run.config.splits)
    made = run.hindcast_of([gap], axis, splits)
    verifying = positions_at(axis, made.initial, np.arange(1, 4))
    judged = [set(verifying[made.verified[:, k], k].tolist()) for k in range(3)]
    assert judged[0] == judged[1] == judged[2]
    # Without three inputs up to each initial date there are no forecasts for 1962-08 to 1962-12.
    missing = {str(axis.times[i])[:7] for i in np.flatnonzero(splits.test) if i not in judged[0]}
    assert missing == {f"1962-{month:02d}" for month in range(8, 13)}
    (result,) = score(made, run.fields, run.attributes, run.config.verification)
    assert result["dates"].values.tolist() == [47 - 5] * 3
    # A hindcast of which nothing can be verified is an error that says so.
    nothing = replace(made, verified=np.zeros_like(made.verified))
    with pytest.raises(DataError, match="no date can be verified"):
        score(nothing, run.fields, {"source": ""}, run.config.verification)


def invented(model, **others) -> xr.Dataset:
    """Scores with these RMSE by lead; ACC is missing."""
    rmse = xr.DataArray(
        [model, *others.values()],
        {"forecast": [MODEL, *others], "lead": np.arange(1, len(model) + 1)},
        ("forecast", "lead"),
        attrs={"units": "K"},
    )
    dataset = xr.Dataset({"rmse": rmse, "acc": rmse * np.nan, "dates": ("lead", [9] * len(model))})
    dataset["lead"].attrs["long_name"] = "lead in steps of: month"
    dataset = dataset.assign_coords(reference=list(others))
    return dataset.assign_attrs(source="simulated ocean", headline="rmse acc")


def test_the_verdict_says_at_which_leads_the_model_wins_and_what_it_does_not_beat():
    won = verdict(invented([0.1, 0.2], climatology=[0.5, 0.5], lim=[0.2, 0.3]))
    assert won == "The model's RMSE is below every reference at all 2 leads."
    mixed = verdict(
        invented(
            [0.1, 0.3, 0.6],
            climatology=[0.5, 0.5, 0.5],
            persistence=[0.2, 0.4, 0.7],
            lim=[0.2, 0.25, 0.55],
        )
    )
    assert "at 1 of 3 leads" in mixed
    assert "linear inverse model at 2, 3" in mixed
    assert "climatology at 3" in mixed
    assert "persistence" not in mixed
    lost = verdict(invented([0.9], climatology=[0.5]))
    assert "at 0 of 1 leads; not below climatology at 1" in lost


def test_a_model_equal_to_its_reference_is_not_said_to_beat_it():
    text = verdict(invented([0.3], damped_persistence=[0.3]))
    assert "at 0 of 1 leads; not below damped persistence at 1" in text


def test_the_table_shows_each_forecast_and_its_source():
    text = table(invented([0.1234, 0.2], climatology=[0.5, 0.5]))
    lines = text.splitlines()
    assert lines[0].split() == ["RMSE", "K", "1", "2", "x", "month"]
    assert lines[1].split() == ["model", "0.123", "0.200"]
    assert lines[-1] == "simulated ocean; 9 verification dates, the same at each lead"
    assert "nan" not in text


def test_a_long_table_shows_some_leads_the_first_and_last_among_them():
    leads = [0.1] * 40
    head = table(invented(leads, climatology=leads)).splitlines()[0].split()[2:-2]
    assert len(head) <= 12
    assert (head[0], head[-1]) == ("1", "40")


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that `plots` would write; they are written as well."""
    caught: list[Figure] = []
    save = plots.save

    def catch(figure: Figure, path: Path) -> None:
        caught.append(figure)
        save(figure, path)

    for module in (plots, forecast_plots):
        monkeypatch.setattr(module, "save", catch)
    return caught


def test_pictures_of_simulated_data_say_so_and_of_real_data_do_not(
    trained, scores, observed, figures, tmp_path
):
    forecast = reopened(trained.directory / "forecast.nc")
    for source, says in ((scores.attrs["source"], True), ("conv_lstm trained on ERSSTv5", False)):
        plots.plot_scores(scores.assign_attrs(source=source), tmp_path / "scores.png")
        forecast_plots.plot_forecast(
            observed, forecast.assign_attrs(source=source), tmp_path / "maps.png"
        )
        for figure in figures:
            title = figure.get_suptitle()
            assert ("SIMULATED" in title) is says, title
            assert source.split()[-1] in title.replace("\n", " ")
        figures.clear()
    for name in ("scores.png", "maps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size > 10_000
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_score_picture_draws_the_numbers(scores, figures, tmp_path):
    plots.plot_scores(scores, tmp_path / "scores.png")
    rmse, acc = figures[0].axes
    drawn = {line.get_label(): line.get_ydata() for line in rmse.get_lines()}
    np.testing.assert_array_equal(drawn["model"], scores["rmse"].sel(forecast=MODEL))
    np.testing.assert_array_equal(drawn["linear inverse model"], scores["rmse"].sel(forecast="lim"))
    assert len(drawn) == 5
    assert len(acc.get_lines()) == 4  # climatology has no correlation


def test_comma_separated_values_are_written_whole(scores, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    write_csv(scores, path)
    assert path.read_text().count("\n") == 16
    assert list(tmp_path.iterdir()) == [path]
