"""Scores of distributions and of ensembles follow from the labelled series and forecasts."""

from __future__ import annotations

import logging
import operator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scores.probability as oracle
import xarray as xr
from conftest import small_config
from scipy.stats import norm

from gridcast import plots
from gridcast.frames.transform import grid_of
from gridcast.labelling import label_forecast
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.run import Run
from gridcast.verification import by_name
from gridcast.verification.class_scores import of_terciles
from gridcast.verification.comparison import beside
from gridcast.verification.distributions import uncertain
from gridcast.verification.hindcast import Hindcast, joined
from gridcast.verification.metrics import Pairs
from gridcast.verification.scores import score
from gridcast.verification.tables import table, write_csv
from gridcast.verification.terciles import Terciles

LEADS = 2
TRAINED, TESTED = slice("1950", "1957"), slice("1960", "1963")
SPLITS = {"train": [1950, 1957], "validation": [1958, 1959], "test": [1960, 1963]}
REFERENCES = ["climatology", "persistence", "damped_persistence", "lim", "damped_trailing"]
# Of a distribution: with 200 ranks, each of the 10 bins of a PIT histogram holds 20.
QUANTILES = 199


@dataclass(frozen=True)
class Case:
    """A LIM that says how sure it is, beside two ensembles, and the labelled series it is of.

    "drawn" is the model's own distribution as quantiles in no order, "few" has four members.
    """

    run: Run
    setup: Setup
    alone: Hindcast
    judged: Hindcast
    scores: xr.Dataset
    file: xr.Dataset
    few: xr.DataArray
    anomaly: xr.DataArray
    weights: xr.DataArray


@pytest.fixture(scope="module")
def case(ocean) -> Case:
    config = small_config(
        splits=SPLITS, model={"name": "lim"}, train={"loss": "crps"}, frames={"trailing": 3}
    )
    setup = prepare(config, open_source(config, ocean))
    run = Run(Path(), config, setup.fields, setup.model(), "", 96)
    alone = run.hindcast_of(setup.series, setup.axis, setup.splits)
    file = label_forecast(run.fields, alone.made, setup.axis, alone.initial, run.attributes)
    rng = np.random.default_rng(1)
    shift = norm.ppf(rng.permutation(np.arange(1, QUANTILES + 1) / (QUANTILES + 1)))
    spread = file["sst_standard_deviation"]
    drawn = file["sst"] + spread * xr.DataArray(shift.astype(np.float32), dims="number")
    few = file["sst"] + xr.DataArray(
        rng.normal(0.1, 0.3, (4, *file["sst"].shape)).astype(np.float32),
        dims=("realization", *file["sst"].dims),
    )
    others = {"drawn": labelled(drawn), "few": labelled(few)}
    judged = beside(alone, run.fields, setup.axis, others)
    seasonal = run.transform.climatology.at(ocean["time"].values)
    weights = xr.DataArray(grid_of(ocean).weight, dims=("lat", "lon"))
    return Case(
        run,
        setup,
        alone,
        judged,
        scores_of(judged, run),
        file,
        few,
        (ocean - seasonal).astype(np.float64),
        weights,
    )


def labelled(members: xr.DataArray) -> xr.Dataset:
    return members.assign_attrs(units="degC").to_dataset(name="sst")


def scores_of(hindcast: Hindcast, run: Run) -> xr.Dataset:
    return score(hindcast, run.fields, {"source": "a test"}, run.config.verification)[0]


def verifying(case: Case, values: xr.DataArray, lead: int) -> xr.DataArray:
    """Forecasts for the test dates, by these dates."""
    one = values.isel(forecast_period=lead - 1).swap_dims(forecast_reference_time="time")
    return one.sel(time=case.anomaly.sel(time=TESTED)["time"])


def pooled(case: Case, values: xr.DataArray) -> float:
    return float(values.weighted(case.weights).mean())


def edges_of(case: Case) -> list[xr.DataArray]:
    """Lower and upper tercile of the training anomalies of each cell and month, by labels."""
    training = case.anomaly.sel(time=TRAINED).groupby("time.month")
    return [training.quantile(k / 3, skipna=False, keep_attrs=False) for k in (1, 2)]


# ---------------------------------------------------------------- distributions


def test_deviations_of_references_are_their_errors_on_training_dates(case):
    training, deviations = case.anomaly.sel(time=TRAINED), case.alone.deviations
    assert list(deviations) == ["model", *REFERENCES]
    sea = case.run.transform.grid.mask
    for lead in range(1, LEADS + 1):
        later = training.isel(time=slice(lead, None))
        before = training.isel(time=slice(None, -lead))
        zero, same = 0.0 * later.values, before.values
        slope = (before.values * later.values).sum(axis=0) / (before.values**2).sum(axis=0)
        for name, made in (
            ("climatology", zero),
            ("persistence", same),
            ("damped_persistence", slope * same),
        ):
            expected = np.sqrt(((made - later.values) ** 2).mean(axis=0))
            found = deviations[name][5, lead - 1, :, :, 0]
            np.testing.assert_allclose(found[sea], expected[sea], rtol=1e-4, err_msg=name)
        spread = case.file["sst_standard_deviation"].values[:, lead - 1]
        np.testing.assert_allclose(
            deviations["model"][:, lead - 1, sea, 0], spread[:, sea], rtol=1e-6
        )


def test_damped_persistence_around_the_trailing_mean_is_a_regression_of_departures(case):
    """From the mean of the three years up to each date; before the record nothing departs."""
    anomaly, hindcast = np.nan_to_num(case.anomaly.values), case.alone
    mean = np.stack([anomaly[max(0, t - 35) : t + 1].sum(axis=0) / 36 for t in range(168)])
    departure, sea = anomaly - mean, case.run.transform.grid.mask
    training = departure[:96]
    for lead in range(1, LEADS + 1):
        before, later = training[:-lead, sea], training[lead:, sea]
        slope = (before * later).sum(axis=0) / (before**2).sum(axis=0)
        initial = hindcast.initial
        expected = mean[initial][:, sea] + slope * departure[initial][:, sea]
        found = hindcast.forecasts["damped_trailing"][:, lead - 1, sea, 0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        error = np.sqrt(((slope * before - later) ** 2).mean(axis=0))
        found = hindcast.deviations["damped_trailing"][3, lead - 1, sea, 0]
        np.testing.assert_allclose(found, error, rtol=1e-3)


def test_each_reference_is_fitted_once(case, monkeypatch):
    fits: list[str] = []

    def counted(name, fit):
        def count(*arguments):
            fits.append(name)
            return fit(*arguments)

        return count

    for name, fit in by_name.REFERENCES.items():
        monkeypatch.setitem(by_name.REFERENCES, name, counted(name, fit))
    trailing = counted("damped_trailing", by_name.damped_persistence)
    monkeypatch.setattr(by_name, "damped_persistence", trailing)
    again = case.run.hindcast_of(case.setup.series, case.setup.axis, case.setup.splits)
    assert sorted(fits) == sorted(REFERENCES)
    for name in REFERENCES:
        np.testing.assert_array_equal(again.forecasts[name], case.alone.forecasts[name])
        np.testing.assert_array_equal(again.deviations[name], case.alone.deviations[name])


def test_quantiles_of_the_models_own_distribution_score_as_the_model(case):
    ours, theirs = (case.scores.sel(forecast=name) for name in ("model", "drawn"))
    np.testing.assert_allclose(theirs["crps"], ours["crps"], rtol=3e-3)
    np.testing.assert_allclose(theirs["crps_skill"], ours["crps_skill"], atol=3e-3)
    np.testing.assert_allclose(theirs["spread_error_ratio"], ours["spread_error_ratio"], rtol=0.02)
    np.testing.assert_allclose(theirs["rpss"], ours["rpss"], atol=3e-3)
    # Between the quantiles k and k + 1 of 199 lies one rank; 20 of the 200 are one bin of 10.
    ranks = theirs["rank_share"].values.reshape(LEADS, 10, 20).sum(axis=-1)
    np.testing.assert_allclose(ranks, ours["pit_share"], atol=1e-3)
    shares = ours["pit_share"]
    assert (shares.max("pit") > shares.min("pit") + 0.02).all()  # flat ones would agree anyhow


# ---------------------------------------------------------------- ensembles


def test_an_ensemble_of_another_system_scores_as_the_package_scores_says(case):
    """Of the values, by labels: what is taken off both sides changes no score."""
    found = case.scores.sel(forecast="few")
    climate = case.scores["crps"].sel(forecast="climatology")
    for lead in range(1, LEADS + 1):
        members = verifying(case, case.few, lead)
        came = case.setup.series[0].sel(time=TESTED)
        here = found.sel(lead=lead)
        for name, method in (("crps", "ecdf"), ("fair_crps", "fair")):
            crps = oracle.crps_for_ensemble(
                members, came, "realization", method=method, preserve_dims="all"
            )
            assert float(here[name]) == pytest.approx(pooled(case, crps), rel=1e-5)
        assert float(here["crps_skill"]) == pytest.approx(
            1 - float(here["crps"] / climate.sel(lead=lead)), rel=1e-9
        )
        spread = np.sqrt(pooled(case, members.var("realization", ddof=1) * 5 / 4))
        rmse = np.sqrt(pooled(case, (members.mean("realization") - came) ** 2))
        assert float(here["spread"]) == pytest.approx(spread, rel=1e-4)
        assert float(here["rmse"]) == pytest.approx(rmse, rel=1e-4)
        assert float(here["spread_error_ratio"]) == pytest.approx(spread / rmse, rel=1e-4)
        ranks = oracle.rank_histogram(
            members.fillna(0.0), came.fillna(0.0), "realization", weights=case.weights
        )
        np.testing.assert_allclose(here["rank_share"][:5], ranks, rtol=1e-4)
        assert np.isnan(here["rank_share"][5:]).all()
    assert case.scores["rank"].values.tolist() == list(range(QUANTILES + 1))
    counts = case.scores["members"].to_series()
    assert counts[counts > 0].to_dict() == {"drawn": QUANTILES, "few": 4}


def test_rows_are_there_for_what_they_are_about(case):
    ensembles = ["drawn", "few"]
    for name in ("crps", "fair_crps", "crps_skill", "spread", "spread_error_ratio", "rpss"):
        assert np.isfinite(case.scores[name]).all(), name
    ranks, pit = case.scores["rank_share"], case.scores["pit_share"]
    known = np.isfinite(ranks.isel(lead=0, rank=0))
    assert ranks["forecast"].values[known].tolist() == ensembles
    np.testing.assert_allclose(ranks.sum("rank").sel(forecast=ensembles), 1.0)
    assert np.isnan(pit.sel(forecast=ensembles)).all()
    np.testing.assert_allclose(pit.drop_sel(forecast=ensembles).sum("pit"), 1.0)
    normal = case.scores.drop_sel(forecast=ensembles)
    np.testing.assert_array_equal(normal["fair_crps"], normal["crps"])
    few = case.scores.sel(forecast="few")
    assert (few["fair_crps"] < few["crps"] - 0.01).all()
    # The control: a run by itself has no ranks, the ensembles change none of its rows.
    alone = scores_of(case.alone, case.run)
    assert not {"rank_share", "fair_crps", "members"} & set(alone)
    for name in ("rmse", "crps", "spread", "pit_share", "rps", "rpss", "share"):
        np.testing.assert_array_equal(alone[name], normal[name], err_msg=name)


def test_a_system_of_fewer_leads_leaves_the_scores_of_these_as_they_are(case):
    first = case.few.isel(forecast_period=[0])
    judged = beside(case.alone, case.run.fields, case.setup.axis, {"few": labelled(first)})
    found, expected = scores_of(judged, case.run), case.scores.drop_sel(forecast="drawn")
    assert found["lead"].values.tolist() == [1]
    for name in ("rmse", "crps", "fair_crps", "rps", "rpss", "share"):
        np.testing.assert_array_equal(found[name], expected[name].sel(lead=[1]), err_msg=name)


def test_the_table_and_the_comma_separated_values_show_the_crps(case, tmp_path):
    lines = table(case.scores).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("CRPS degC"))
    rows = {line[:24].strip(): line[24:].split() for line in lines[start + 1 : start + 9]}
    for name in ("few", "model", "climatology"):
        numbers = [f"{v:.3f}" for v in case.scores["crps"].sel(forecast=name).values]
        assert rows[name] == numbers
    assert "anomaly persistence" in rows  # these are no classes, though there are terciles
    assert not any(line.startswith("RPSS") for line in lines)
    write_csv(case.scores, tmp_path / "scores.csv")
    head, *rest = (tmp_path / "scores.csv").read_text().splitlines()
    assert {"crps", "fair_crps", "crps_skill", "rps", "rpss"} <= set(head.split(","))
    assert len(rest) == 8 * LEADS


# ---------------------------------------------------------------- terciles


def test_terciles_are_those_of_each_month_of_training(case):
    terciles, edges = case.alone.terciles, edges_of(case)
    assert terciles is not None
    sea = case.run.transform.grid.mask
    training = case.anomaly.sel(time=TRAINED)
    months = case.file["time"].dt.month.values
    for k, lead in ((0, 0), (7, 1), (20, 0)):
        month = int(months[k, lead])
        low, high = (edge.sel(month=month).values for edge in edges)
        found = terciles.edges[terciles.row[k, lead], ..., 0]
        np.testing.assert_allclose(found[:, sea], [low[sea], high[sea]], atol=1e-5)
        came = training.values[training["time"].dt.month.values == month]
        classes = (came <= low, (came > low) & (came <= high), came > high)
        odds = np.stack([(one.sum(axis=0) + 0.5) / (8 + 1.5) for one in classes])
        found = terciles.odds[terciles.row[k, lead], ..., 0]
        np.testing.assert_allclose(found[:, sea], odds[:, sea], rtol=1e-5)


def test_scores_of_terciles_follow_from_brier_scores_at_their_edges(case):
    """The RPS is the sum of the Brier scores of exceeding each edge (Murphy 1971)."""
    training, came = case.anomaly.sel(time=TRAINED), case.anomaly.sel(time=TESTED)
    month, sea = came["time"].dt.month, case.weights > 0
    seasonal = case.setup.series[0].sel(time=TESTED) - came
    for lead in range(1, LEADS + 1):
        mean, deviation, members = (
            verifying(case, values, lead)
            for values in (case.file["sst"], case.file["sst_standard_deviation"], case.few)
        )
        expected = {"model": 0.0, "few": 0.0, "climatology": 0.0}
        for classes_above, edge in zip((2, 1), edges_of(case), strict=True):
            often = (training.groupby("time.month") > edge).groupby("time.month").sum()
            odds = (often + 0.5 * classes_above) / (8 + 1.5)
            edge = edge.sel(month=month)
            above = (came > edge).where(sea)
            chance = xr.apply_ufunc(norm.sf, edge, mean - seasonal, deviation)
            expected["model"] += pooled(case, (chance - above) ** 2)
            expected["climatology"] += pooled(case, (odds.sel(month=month) - above) ** 2)
            brier = oracle.brier_score_for_ensemble(
                members - seasonal - edge,
                came - edge,
                "realization",
                0.0,
                preserve_dims="all",
                fair_correction=False,
                event_threshold_operator=operator.gt,
            )
            expected["few"] += pooled(case, brier.squeeze())
        for name, rps in expected.items():
            here = case.scores.sel(forecast=name, lead=lead)
            assert float(here["rps"]) == pytest.approx(rps, rel=2e-4), name
            skill = 1 - rps / expected["climatology"]
            assert float(here["rpss"]) == pytest.approx(skill, abs=3e-4), name


def test_reliability_adds_up_to_what_was_forecast_and_what_came(case):
    came, sea = case.anomaly.sel(time=TESTED), case.weights > 0
    low, high = (edge.sel(month=came["time"].dt.month) for edge in edges_of(case))
    found = case.scores
    assert found["category"].values.tolist() == ["below", "near", "above"]
    np.testing.assert_allclose(found["share"].sum("bin"), 1.0)
    often = (found["observed_frequency"] * found["share"]).sum("bin")
    for category, here in (("below", came <= low), ("above", came > high)):
        frequency = pooled(case, here.where(sea))
        np.testing.assert_allclose(often.sel(category=category), frequency, rtol=1e-4)
    # Of four members only five probabilities, and each of them is one that was forecast.
    told = found["forecast_probability"].sel(forecast="few").values
    assert np.unique(np.round(told[np.isfinite(told)], 6)).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_sure_and_right_forecast_has_all_skill_and_climatology_none(case):
    hindcast = case.alone
    right = np.nan_to_num(hindcast.observed)
    forecasts = hindcast.forecasts | {"model": right}
    deviations = hindcast.deviations | {"model": np.zeros_like(right)}
    found = scores_of(replace(hindcast, forecasts=forecasts, deviations=deviations), case.run)
    np.testing.assert_allclose(found["rpss"].sel(forecast="model"), 1.0)
    np.testing.assert_allclose(found["rpss"].sel(forecast="climatology"), 0.0)
    assert (found["rpss"].sel(forecast="damped_persistence") < 0.9).all()


def test_what_a_month_without_training_dates_would_say_is_left_out(case, caplog):
    hindcast = case.alone
    assert hindcast.terciles is not None
    lacking = hindcast.terciles.edges.copy()
    lacking[6] = np.nan
    terciles = replace(hindcast.terciles, edges=lacking)
    with caplog.at_level(logging.INFO, "gridcast"):
        found = scores_of(replace(hindcast, terciles=terciles), case.run)
    assert "the training dates hold no month [7]" in caplog.text
    assert not {"rps", "rpss", "share", "category"} & set(found.variables)
    np.testing.assert_array_equal(found["crps"], scores_of(hindcast, case.run)["crps"])
    # Only dates that are judged need them.
    winter = hindcast.verified & (hindcast.months != 7)
    assert "rpss" in scores_of(replace(hindcast, terciles=terciles, verified=winter), case.run)
    january = np.arange(24) % 12 == 0
    grid = hindcast.terciles.edges.shape[2:4]
    alone = Terciles.fit(
        np.random.default_rng(0).normal(size=(2, *grid, 1)).astype(np.float32),
        np.ones(2, int),
        np.ones(grid, bool),
        np.where(january, 1, 2)[:, None],
    )
    assert np.isnan(alone.edges[1:]).all()
    assert np.isfinite(alone.edges[0]).all()


def test_a_lead_without_observations_has_no_terciles(case):
    blank = case.alone.observed.copy()
    blank[:, 1] = np.nan
    hindcast, weight = replace(case.alone, observed=blank), case.run.transform.grid.weight

    def told(one: Hindcast):
        pairs = {
            name: Pairs(values[..., 0], one.observed[..., 0], one.verified, weight, gaps=True)
            for name, values in one.forecasts.items()
        }
        return uncertain(one, pairs, 0)

    assert of_terciles(hindcast, told(hindcast), 0) == {}
    assert "rpss" in of_terciles(case.alone, told(case.alone), 0)


def test_joined_hindcasts_keep_the_terciles_of_each_fold(case):
    one = case.alone
    assert one.terciles is not None
    early, late = np.arange(20), np.arange(20, one.initial.size)
    warmer = replace(one.terciles, edges=one.terciles.edges + 1.0)

    def cut(windows: np.ndarray, terciles: Terciles) -> Hindcast:
        names = ("initial", "made", "verified", "observed", "normal", "steps", "months")
        return replace(
            one,
            **{name: getattr(one, name)[windows] for name in names},
            forecasts={name: values[windows] for name, values in one.forecasts.items()},
            deviations={name: values[windows] for name, values in one.deviations.items()},
            terciles=replace(terciles, row=terciles.row[windows]),
        )

    again = joined([cut(early, one.terciles), cut(late, one.terciles)])
    found, expected = (scores_of(hindcast, case.run) for hindcast in (again, one))
    for name in ("rmse", "crps", "rps", "rpss", "share"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    both = joined([cut(early, one.terciles), cut(late, warmer)]).terciles
    assert both is not None
    usual = one.terciles.edges[one.terciles.row]
    np.testing.assert_array_equal(both.edges[both.row][early], usual[early])
    np.testing.assert_array_equal(both.edges[both.row][late], usual[late] + 1.0)


def test_the_picture_of_reliability_has_a_row_for_each_system(case, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    plots.plot_reliability(case.scores, tmp_path / "reliability.png")
    plots.plot_reliability(scores_of(case.alone, case.run), tmp_path / "reliability.png")
    beside_others, alone = figures
    titles = [panel.get_title() for panel in beside_others.axes]
    names = ("below", "near", "above")
    assert titles == [f"{s}: {name}" for s in ("model", "drawn", "few") for name in names]
    assert [panel.get_title() for panel in alone.axes] == list(names)
    drawn = beside_others.axes[8].get_lines()[1]
    found = case.scores.sel(forecast="few", category="above", lead=1)
    some = found["share"] > 0
    np.testing.assert_array_equal(drawn.get_xdata(), found["forecast_probability"][some])
    np.testing.assert_array_equal(drawn.get_ydata(), found["observed_frequency"][some])
