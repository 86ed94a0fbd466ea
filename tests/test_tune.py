"""The search of settings: the test stays unseen, and the better settings win."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import same_bits, small_config

import gridcast
from gridcast import tuning
from gridcast.cli import main
from gridcast.config import Config, load_config
from gridcast.config.schema import OutputConfig, TuneConfig
from gridcast.crossval import forecast_block
from gridcast.errors import ConfigError, DataError, TrainingError
from gridcast.frames.splits import Splits
from gridcast.judging import Years, folds_of, moved
from gridcast.opening import Source, open_source
from gridcast.preparation import complete_series
from gridcast.timeaxis import TimeAxis
from gridcast.trials import most_inputs, trials_of
from gridcast.tuning import tune
from gridcast.verification.scores import score

CLIMATOLOGY, DAMPED, LIM = ({"name": n} for n in ("climatology", "damped_persistence", "lim"))
SMALL = {"name": "conv_lstm", "hidden": [2], "downsample": 4}
REFERENCES = {"model": [CLIMATOLOGY, DAMPED, LIM]}
# One fold, fitted on 1950 to July 1956 and judged on 1959 and 1960: the quickest search.
QUICK = {"how": "ahead", "folds": 1}


def config_of(directory: Path | None = None, **sections: Any) -> Config:
    """A climatology that a search may leave: quick, as nothing is trained."""
    own: dict[str, Any] = {"model": CLIMATOLOGY, "tune": {"search": REFERENCES}}
    if directory is not None:
        own["output"] = {"directory": str(directory)}
    return small_config(**(own | sections))


def numbers(made: xr.Dataset) -> list[np.ndarray]:
    """All but the seconds."""
    return [made[name].values for name in ("trial", "score", "fold_score", "ratio")]


def corrupted(series: xr.DataArray, first: str, last: str) -> xr.DataArray:
    """Finite junk on these dates."""
    junk = series.copy(deep=True)
    dates = junk.sel(time=slice(first, last))
    values = np.random.default_rng(0).uniform(-100, 100, dates.shape)
    junk.loc[{"time": slice(first, last)}] = np.where(np.isfinite(dates), values, np.nan)
    return junk


# ---------------------------------------------------------------- which years


def years_of(axis: TimeAxis, dates: np.ndarray) -> tuple[int, int]:
    """The first and last step of True dates, which lie together."""
    steps = axis.steps[dates]
    assert np.array_equal(steps, np.arange(steps[0], steps[-1] + 1))
    return int(steps[0]), int(steps[-1])


def test_blocks_are_of_training_years_with_buffers(ocean):
    config = config_of()
    years = Years.of(config, open_source(config, ocean), inputs=3)
    # 1950-1952, 1953-1955 and 1956-1958, with 3 inputs + 2 leads between them.
    assert years.axis.times.size == 9 * 12
    assert [years_of(years.axis, fold.test) for fold in years.folds] == [
        (4, 35),  # three inputs and a lead of two months: the fifth month is the first
        (36, 71),
        (72, 107),
    ]
    assert [years_of(years.axis, fold.validation) for fold in years.folds] == [
        (41, 71),
        (77, 107),
        (36, 66),
    ]
    assert [years_of(years.axis, fold.train) for fold in years.folds] == [
        (77, 107),
        (0, 30),
        (0, 30),
    ]


def test_ahead_steps_back_from_the_validation_by_its_length(ocean):
    config = config_of(tune={"search": REFERENCES, "how": "ahead", "folds": 2})
    years = Years.of(config, open_source(config, ocean), inputs=3)
    # Judged 1957-1958 after validation on 1955-1956, then 1959-1960 after 1957-1958.
    assert years.axis.times.size == 11 * 12
    assert [years_of(years.axis, fold.test) for fold in years.folds] == [(84, 107), (108, 131)]
    assert [years_of(years.axis, fold.validation) for fold in years.folds] == [(60, 78), (84, 102)]
    assert [years_of(years.axis, fold.train) for fold in years.folds] == [(0, 54), (0, 78)]


@pytest.mark.parametrize("how", ["blocks", "ahead"])
def test_the_longest_window_of_any_trial_sets_buffers_and_the_first_judged_date(ocean, how):
    config = config_of(tune={"search": {"frames.inputs": [3, 9]}, "how": how})
    assert most_inputs(config) == 9
    axis = TimeAxis.of(ocean["time"].values[: 108 if how == "blocks" else 132])
    folds = folds_of(config, axis, inputs=9)
    assert len(folds) == 3
    for fold in folds:
        train, validation, judged = (
            axis.steps[dates] for dates in (fold.train, fold.validation, fold.test)
        )
        assert judged[0] >= 9 + 2 - 1
        for one, other in ((train, judged), (validation, judged), (train, validation)):
            assert np.abs(one[:, None] - other).min() > 9 + 2
    assert how == "ahead" or folds[0].test.argmax() == 10


def test_folds_keep_their_dates_where_gaps_are_treated(ocean):
    gaps = ocean.isel(time=np.r_[0:40, 43:168])
    for missing in ("drop", "mask"):
        config = config_of(frames={"missing": missing})
        years = Years.of(config, open_source(config, gaps), inputs=3)
        _, axis = complete_series(config, years.source)
        for fold in years.folds:
            there = moved(fold, years.axis, axis)
            for name in ("train", "validation", "test"):
                before = years.axis.times[getattr(fold, name)]
                np.testing.assert_array_equal(axis.times[getattr(there, name)], before)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tune": {"search": REFERENCES, "folds": 12}}, "fewer tune.folds"),
        ({"tune": {"search": REFERENCES, "folds": 5, "how": "ahead"}}, "expected: more than 12"),
        (
            {"tune": {"search": REFERENCES, "how": "ahead"}, "crossval": {"buffer": 30}},
            "smaller crossval.buffer",
        ),
    ],
)
def test_too_few_years_are_refused(ocean, tmp_path, settings, reason):
    with pytest.raises(DataError, match=reason):
        tune(config_of(tmp_path, **settings), ocean)


# ---------------------------------------------------------------- the test is not seen


class Reached(Exception):  # noqa: N818  (no error)
    """In place of training."""


def stop(config: Config, source: Source, splits: Splits, directory: Path) -> Any:
    raise Reached(source, splits)


@pytest.mark.parametrize(
    ("how", "unseen", "seen"), [("blocks", "1959", "1958-12"), ("ahead", "1961", "1960-12")]
)
def test_what_is_trained_on_ends_before_the_test(ocean, tmp_path, monkeypatch, how, unseen, seen):
    config = config_of(tmp_path, tune={"search": REFERENCES, "how": how})
    monkeypatch.setattr(tuning, "forecast_block", stop)
    with pytest.raises(Reached) as reached:
        tune(config, ocean)
    source, splits = reached.value.args
    last = source.series[0]["time"].values[-1]
    assert last == np.datetime64(f"{seen}-01")
    assert splits.test.size == source.series[0]["time"].size

    def digest(first: str) -> str:
        junk = corrupted(ocean, first, "1963")
        return Years.of(config, open_source(config, junk), inputs=3).digest

    clean = Years.of(config, open_source(config, ocean), inputs=3).digest
    assert digest(unseen) == clean
    assert digest(seen) != clean  # the control: one month more


def test_no_value_of_the_test_changes_the_table(ocean, tmp_path):
    search = {"search": {"model": [LIM]}, **QUICK}

    def made(name: str, series: xr.DataArray) -> xr.Dataset:
        return tune(config_of(tmp_path / name, model=LIM, tune=search), series)

    clean, junk = made("clean", ocean), made("junk", corrupted(ocean, "1961", "1963"))
    assert same_bits(numbers(clean), numbers(junk))
    files = [(tmp_path / name / "best.yaml").read_text() for name in ("clean", "junk")]
    assert files[0] == files[1]
    # The control: one month more.
    other = made("other", corrupted(ocean, "1960-12", "1963"))
    assert not np.array_equal(clean["score"], other["score"])


# ---------------------------------------------------------------- the command


@dataclass(frozen=True)
class Searched:
    """What `gridcast tune` left behind, and said."""

    config: Config
    directory: Path
    said: str


@pytest.fixture(scope="module")
def searched(ocean, tmp_path_factory) -> Searched:
    folder = tmp_path_factory.mktemp("tune")
    ocean.to_netcdf(folder / "sea.nc")
    search = {"search": REFERENCES, "how": "ahead", "folds": 5}
    config = config_of(folder / "made", data={"path": str(folder / "sea.nc")}, tune=search)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["tune", str(path), "tune.folds=2"]) == 0
    config = load_config(path, ["tune.folds=2"])
    return Searched(config, folder / "made", said.getvalue())


def test_the_command_writes_the_table_and_a_config_that_loads(searched):
    lines = searched.said.splitlines()
    assert lines[0].split() == ["score", "lead", "1", "lead", "2", "seconds", "settings"]
    mine = [line for line in lines if line.endswith("(the config's own)")]
    assert len(mine) == 1
    assert 'model={"name": "climatology"}' in mine[0]
    assert "mean over 2 folds (ahead) and 2 leads of MSE / that of damped" in lines[-1]
    with (searched.directory / "tune.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    assert sorted(row["trial"] for row in rows) == ["1", "2", "3"]
    for row, line in zip(rows, lines[1:], strict=False):
        assert float(line.split()[0]) == pytest.approx(float(row["score"]), abs=1e-4)
        assert float(line.split()[1]) == pytest.approx(float(row["ratio_lead_1"]), abs=1e-4)
        assert row["model"] in line
    best = load_config(searched.directory / "best.yaml")
    assert best.output.directory is None
    assert rows[0]["model"] == f'{{"name": "{best.model.name}"}}' != rows[-1]["model"]
    changed = {"model", "output"}
    assert best.model_dump(exclude=changed) == searched.config.model_dump(exclude=changed)
    kept = list((searched.directory / "trials").iterdir())
    assert [path.suffix for path in kept] == [".json"] * 3


def test_what_was_tried_is_not_tried_again(searched, ocean, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "forecast_block", stop)
    config, rows = searched.config, searched.directory / "tune.csv"
    before = rows.read_text()
    tune(config)
    assert rows.read_text() == before
    # Fewer trials are skipped as well; another setting, fold or value is something new.
    assert tune(config.model_copy(update={"tune": of(config, {"model": [LIM]})})).sizes == {
        "trial": 2,
        "fold": 2,
        "lead": 2,
    }
    for tuning_of in (of(config, {"train.epochs": [9]}), of(config, REFERENCES, folds=3)):
        with pytest.raises(Reached):
            tune(config.model_copy(update={"tune": tuning_of}))
    junk = corrupted(ocean, "1955-03", "1955-03")
    with pytest.raises(Reached):
        tune(config, junk)
    tune(config, ocean)
    half = shutil.copytree(searched.directory, tmp_path / "half") / "trials"
    next(half.glob("*.json")).write_text('{"seconds": 1')
    with pytest.raises(Reached):
        tune(config.model_copy(update={"output": OutputConfig(directory=str(half.parent))}))


def of(config: Config, search: dict[str, list[Any]], **settings: Any) -> TuneConfig:
    return config.tune.model_copy(update={"search": search, **settings})


# ---------------------------------------------------------------- the score


def test_scores_are_relative_to_damped_persistence_of_the_same_fold(searched):
    made = tune(searched.config)  # all is kept
    damped = made.sel(trial=2)
    assert damped["model"].item() == '{"name": "damped_persistence"}'
    np.testing.assert_allclose(damped["fold_score"], 1, rtol=1e-6)
    np.testing.assert_allclose(damped["ratio"], 1, rtol=1e-6)
    assert float(made["score"].sel(trial=1)) > 1.1  # the climatology it began with
    assert np.all(np.diff(made["score"]) >= 0)
    np.testing.assert_allclose(made["score"], made["ratio"].mean("lead"))
    np.testing.assert_allclose(made["score"], made["fold_score"].mean("fold"))
    np.testing.assert_array_less(1e-3, made["fold_score"].std("fold")[made["trial"] != 2])


@pytest.mark.family
def test_a_fold_scores_as_the_main_job_does_on_the_same_dates(ocean, tmp_path):
    sections = {"model": SMALL, "train": {"epochs": 2}}
    search = {"search": {"train.epochs": [2]}, **QUICK}
    made = tune(config_of(tmp_path / "tune", tune=search, **sections), ocean)
    assert made.sizes["trial"] == 1
    splits = {
        "train": ["1950-01", "1956-07"],  # the buffers of five months
        "validation": ["1957-01", "1958-07"],
        "test": ["1959-01", "1960-12"],
    }
    config = config_of(tmp_path / "run", splits=splits, **sections)
    run, hindcast = forecast_block(
        config,
        open_source(config, ocean),
        Splits.by_date(TimeAxis.of(ocean["time"].values), config.splits),
        tmp_path / "run",
    )
    scores = score(hindcast, run.fields, {}, config.verification)[0]
    skill = scores["skill"].sel(reference="damped_persistence")
    np.testing.assert_allclose(made["ratio"].values[0], 1 - skill, rtol=1e-4)
    assert np.abs(skill).max() > 1e-3  # it has learned something, good or bad


def test_a_poor_climatology_of_a_trial_does_not_flatter_it(ocean, tmp_path):
    """Its own damped persistence is as poor: relative to that it would score 1."""
    search = {"search": {"frames.climatology.kind": ["mean"]}, **QUICK}
    made = tune(config_of(tmp_path, model=DAMPED, tune=search), ocean)
    assert made["trial"].values.tolist() == [1, 2]
    assert float(made["score"][0]) == pytest.approx(1)
    assert float(made["score"][1]) > 1.1


@pytest.mark.parametrize(
    ("sections", "near"),
    [({"target": {"classes": {}}}, 1e-5), ({"train": {"epochs": 1, "loss": "crps"}}, 0.1)],
)
def test_probabilities_are_relative_to_climatology(ocean, tmp_path, sections, near):
    search = {"search": {"model": [DAMPED]}, **QUICK}
    made = tune(config_of(tmp_path, tune=search, **sections), ocean)
    # Deviations of a forecast are calibrated on the validation, those of the reference are not.
    assert float(made["score"].sel(trial=1)) == pytest.approx(1, abs=near)
    assert float(made["score"].sel(trial=2)) < 0.95
    word = "RPS" if "target" in sections else "CRPS"
    assert f" {word} / that of climatology" in made["score"].attrs["long_name"]


@pytest.mark.family
def test_a_training_that_breaks_off_is_last_and_the_search_goes_on(ocean, tmp_path):
    search = {"search": {"model": [SMALL], "train.learning_rate": [1.0e30]}, **QUICK}
    made = tune(config_of(tmp_path, tune=search), ocean)
    assert made["trial"].values.tolist() == [1, 2]
    assert np.isinf(made["score"].sel(trial=2))
    assert "failed" in tuning.table(made).splitlines()[2]
    with pytest.raises(TrainingError, match=r"no trial could be trained: .* no longer finite"):
        tune(config_of(tmp_path, model=SMALL, train={"learning_rate": 1e30}, tune=search), ocean)


# ---------------------------------------------------------------- which trials


def test_all_combinations_are_tried_after_the_own_settings():
    search = {"train.epochs": [3, 5], "train.clip": [0.5, 1.0, 0.5]}
    trials = trials_of(config_of(tune={"search": search}))
    assert [tuple(t.chosen.values()) for t in trials] == [(3, 1.0), (3, 0.5), (5, 0.5), (5, 1.0)]
    assert [(t.config.train.epochs, t.config.train.clip) for t in trials] == [
        tuple(t.chosen.values()) for t in trials
    ]


def test_of_too_many_combinations_some_are_drawn_with_the_seed():
    search = {"train.epochs": list(range(1, 11)), "train.seed": list(range(10))}

    def drawn(**train: int) -> list[str]:
        settings = {"search": search, "trials": 12}
        return [str(t) for t in trials_of(config_of(tune=settings, train=train))]

    first = drawn()
    assert len(set(first)) == len(first) == 12
    assert first[0] == "train.epochs=3, train.seed=0"
    assert first == drawn()
    assert first[1:] != drawn(seed=1)[1:]


def test_a_size_brings_its_own_widths():
    search = {"model.size": ["small", "large"]}
    trials = trials_of(config_of(model={"name": "conv_lstm"}, tune={"search": search}))
    # `small_config` gives hidden: [4], which stays; without it the size decides.
    assert [t.config.model.hidden for t in trials] == [[4], [4], [4]]  # type: ignore[union-attr]
    free = config_of(model={"name": "cnn_lstm"}, tune={"search": search})
    assert [t.config.model.channels for t in trials_of(free)] == [  # type: ignore[union-attr]
        [16, 32, 32],
        [8, 16, 16],
        [32, 64, 64],
    ]


def test_combinations_that_contradict_themselves_are_left_out(caplog):
    search = {
        "model.base": ["persistence", "damped_persistence"],
        "model.reference.by_month": [True, False],
    }
    config = config_of(model={**SMALL, "base": "damped_persistence"}, tune={"search": search})
    trials = trials_of(config)
    assert len(trials) == 3
    assert "left out" in caplog.text
    assert "model.base=persistence, model.reference.by_month=true" in caplog.text


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({}, r"tune.search names no setting"),
        (
            {"train.learing_rate": [0.1]},
            r"tune.search: train.learing_rate=0.1\n  unknown key train.learing_rate\n"
            r"    did you mean: train.learning_rate",
        ),
        ({"train.epochs": [3, -1]}, r"train.epochs=-1\n  train.epochs: expected at least 1"),
        ({"train.learning_rate": ["1e-3"]}, r"expected a number, found text '1e-3'\n    fix:"),
        ({"train.epochs.more": [3]}, r"train.epochs.more: epochs is not a section"),
        ({"model.hidden": [[4]]}, r"unknown key model.hidden"),
        ({"frames.leads": [3]}, r"frames.leads=3 changes what is judged, or how \(frames.leads\)"),
        ({"train.loss": ["crps"]}, r"train.loss=\"?crps\"? changes .*\(measure\)"),
        ({"splits.train": [[1951, 1958]]}, r"changes what is judged, or how \(splits\)"),
        ({"crossval.folds": [4]}, r"crossval.folds=4 changes what is judged, or how\n"),
        ({"data.region": [{"lat": [-30, 30]}]}, r"changes what is judged, or how \(data\)"),
    ],
)
def test_a_key_or_value_that_cannot_be_tried_is_named(search, reason, tmp_path, ocean):
    with pytest.raises(ConfigError, match=reason):
        tune(config_of(tmp_path, tune={"search": search}), ocean)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["train", "a trial"])
def test_weights_that_may_know_the_judged_years_are_refused(place, tmp_path, ocean):
    search: dict[str, Any] = {"train.epochs": [1]}
    train: dict[str, Any] = {"start_from": "runs/other"}
    if place == "a trial":
        search, train = {"train.start_from": ["runs/other"]}, {}
    config = config_of(tmp_path, model=SMALL, train=train, tune={"search": search})
    reason = r"train\.start_from: runs/other may have learned from .* in a search of settings"
    with pytest.raises(ConfigError, match=f"(?s){reason}"):
        tune(config, ocean)
    assert list(tmp_path.iterdir()) == []


def test_two_blocks_are_too_few():
    with pytest.raises(ConfigError, match="how: blocks needs folds: 3 or more"):
        config_of(tune={"folds": 2})
    assert config_of(tune={"folds": 2, "how": "ahead"}).tune.folds == 2


def test_the_function_is_public():
    assert gridcast.tune is tune
