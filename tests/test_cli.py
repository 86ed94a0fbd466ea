"""The command line from end to end: train, forecast, evaluate, mistakes, and no data at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gridcast
from gridcast.cli import main

ROOT = Path(__file__).parents[1]

# The stand-in of ersst-v5 is a global ocean of 45 x 90 cells; this box keeps the test small.
OFFLINE = """\
data: {name: ersst-v5, region: {lat: [-20, 20], lon: [150, 220]}, offline: simulated}
frames: {inputs: 2, leads: 2}
splits: {train: [1950, 1954], validation: [1955, 1956], test: [1957, 1958]}
model: {name: conv_lstm, hidden: [4]}
train: {epochs: 1}
"""


@pytest.fixture
def run(capsys):
    """Runs a command; gives the exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def unreachable(monkeypatch, tmp_path) -> None:
    """No data on this machine, and no network."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("GRIDCAST_DATA", str(empty))
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # A refused connection is taken for a passing failure: do not wait for it to pass.
    monkeypatch.setattr("gridcast.sources.download.time.sleep", lambda seconds: None)


def reopened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, decode_timedelta=False) as dataset:
        return dataset.load()


def everything_in(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_train_leaves_every_file_that_the_readme_lists(trained):
    names = {p.name for p in trained.directory.iterdir()}
    readme = (ROOT / "README.md").read_text()
    for name in (
        "forecast.nc",
        "scores.csv",
        "scores.nc",
        "scores.png",
        "hindcast.nc",
        "forecast.png",
        "observations.nc",
        "report.html",
        "checkpoints",
        "metrics.jsonl",
        "config.yaml",
    ):
        assert name in names
        assert name in readme
    assert not [name for name in names if name.startswith(".")]


def test_train_says_what_it_does_and_how_good_the_forecast_is(trained):
    for text in (
        "180 dates, 1950-01-01 to 1964-12-01, every month",
        "9 x 18 cells",
        "train: 1950-01-01 to 1958-12-01, 108 dates, 103 windows",
        "test: 1961-01-01 to 1964-12-01, 48 dates",
        "epoch 2 of 2",
        "RMSE degC",
        "damped persistence",
        "48 verification dates",
        "The model's RMSE is below every reference at",
        str(trained.directory),
    ):
        assert text in trained.said


def test_simulated_data_are_called_simulated_in_every_result(trained):
    for name in ("forecast.nc", "hindcast.nc", "scores.nc"):
        assert "simulated" in reopened(trained.directory / name).attrs["source"]
    assert "simulated ocean" in (trained.directory / "scores.csv").read_text()
    assert "simulated ocean" in trained.said


def test_a_dry_run_says_what_would_happen_and_writes_nothing(run, trained, tmp_path):
    before = everything_in(trained.directory)
    code, out, _ = run("train", "--dry-run", trained.config, "frames.leads=2")
    assert code == 0
    for text in ("104 windows", "9 x 18 cells", "parameters", "MiB", "nothing was written"):
        assert text in out
    assert f"would write to {trained.directory}" in out
    assert everything_in(trained.directory) == before
    fresh = tmp_path / "fresh"
    code, out, _ = run("train", "--dry-run", trained.config, f"output.directory={fresh}")
    assert code == 0
    assert not fresh.exists()
    (memory,) = re.findall(r"memory: \d+ MiB on the device while training", out)
    assert memory in trained.said  # training says the same, before its first step
    assert trained.said.index(memory) < trained.said.index("epoch 1 of")


def test_a_dry_run_finds_what_training_would_stumble_over(run, trained):
    code, _, err = run("train", "--dry-run", trained.config, "splits.test=[1990, 1999]")
    assert code == 2
    assert err.startswith("error: the data hold no date of splits.test")
    code, _, err = run("train", "--dry-run", trained.config, "frames.leads=30")
    assert code == 2
    assert "splits.validation has no window" in err


def test_forecast_writes_into_the_run_and_prints_the_path(run, trained):
    code, out, _ = run("forecast", trained.directory, "--start", "1963-06", "--leads", "4")
    path = trained.directory / "forecast_1963-06-01.nc"
    assert (code, out.strip()) == (0, str(path))
    forecast = reopened(path)
    path.unlink()
    dates = forecast["time"].dt.strftime("%Y-%m").values.tolist()
    assert dates == [["1963-07", "1963-08", "1963-09", "1963-10"]]


def test_forecast_takes_other_data(run, trained, tmp_path):
    newer = tmp_path / "newer.nc"
    reopened(trained.data).isel(time=slice(0, 120), lat=slice(None, None, -1)).to_netcdf(newer)
    output = tmp_path / "forecast.nc"
    code, *_ = run("forecast", trained.directory, "--data", newer, "--output", output)
    assert code == 0
    assert reopened(output)["time"].values[0, 0] == np.datetime64("1960-01-01")


def test_evaluate_prints_the_table_and_writes_the_scores_again(run, trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained.directory, copy)
    files = ("scores.nc", "scores.csv", "scores.png")
    for name in files:
        (copy / name).unlink()
    code, out, _ = run("evaluate", copy)
    assert code == 0
    assert "damped persistence" in out
    assert "48 verification dates" in out
    assert all((copy / name).is_file() for name in files)
    before, after = (reopened(d / "scores.nc") for d in (trained.directory, copy))
    xr.testing.assert_allclose(before, after)


@pytest.mark.parametrize("command", ["forecast", "evaluate"])
def test_a_directory_that_is_no_run_is_refused(run, command, tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        code, out, err = run(command, directory)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert str(directory) in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--start", "1949"], "the data hold no date in 1949"),
        (["--start", "yesterday"], "start is no date: 'yesterday'"),
        (["--data", "absent.nc"], "absent.nc"),
        (["--output", "absent/forecast.nc"], "absent"),
        (["--leads", "0"], "at least 1"),
        (["--leads", "many"], "'many'"),
    ],
)
def test_mistakes_in_a_forecast_end_with_two_and_a_reason(
    run, trained, arguments, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = everything_in(trained.directory)
    code, out, err = run("forecast", trained.directory, *arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert "Traceback" not in err
    assert everything_in(trained.directory) == before


def test_mistakes_in_a_config_end_with_two_and_name_file_line_and_nearest_key(
    run, trained, tmp_path
):
    config = tmp_path / "bad.yaml"
    config.write_text(trained.config.read_text().replace("learning_rate", "learing_rate"))
    code, out, err = run("train", config)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {config}:5: ")
    assert "train.learning_rate" in err
    assert "Traceback" not in err
    code, _, err = run("train", trained.config, "train.epochs=many")
    assert code == 2
    assert "train.epochs=many" in err


def test_data_that_are_not_there_end_with_two(run, trained, tmp_path):
    code, _, err = run(
        "train", trained.config, "data.path=absent.nc", f"output.directory={tmp_path / 'run'}"
    )
    assert code == 2
    assert "absent.nc" in err
    assert "Traceback" not in err


def test_nothing_to_resume_ends_with_two(run, trained, tmp_path):
    absent = tmp_path / "run"
    code, _, err = run("train", "--resume", trained.config, f"output.directory={absent}")
    assert code == 2
    assert "nothing to resume" in err
    assert not absent.exists()


@pytest.mark.family
def test_training_over_an_earlier_run_says_so_and_replaces_it(run, trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained.directory, copy)
    code, _, err = run(
        "train", trained.config, f"output.directory={copy}", "train.epochs=1", "train.seed=5"
    )
    assert code == 0
    assert f"{copy} holds an earlier run, which is replaced" in err
    assert "earlier run" not in trained.said  # the control: the first training says nothing
    ours, theirs = (gridcast.load_run(d) for d in (copy, trained.directory))
    assert (ours.config.train.seed, theirs.config.train.seed) == (5, 0)
    assert len(list((copy / "checkpoints").glob("step-*"))) >= 1
    assert "seed: 5" in (copy / "config.yaml").read_text()


@pytest.mark.family
def test_without_data_and_network_a_config_may_ask_for_a_simulated_stand_in(
    run, unreachable, tmp_path
):
    config, directory = tmp_path / "offline.yaml", tmp_path / "run"
    config.write_text(OFFLINE)
    code, _, err = run("train", config, f"output.directory={directory}")
    assert code == 0, err
    assert "SIMULATED DATA: ersst-v5 is out of reach" in err
    for name in ("forecast.nc", "hindcast.nc", "scores.nc"):
        assert "simulated" in reopened(directory / name).attrs["source"]
    for line in (directory / "scores.csv").read_text().splitlines()[1:]:
        assert "simulated" in line
    # The later commands, too, and they say it again.
    code, out, err = run("forecast", directory)
    assert code == 0
    assert "SIMULATED DATA" in err
    assert "simulated" in reopened(Path(out.strip())).attrs["source"]


def test_without_data_and_network_a_run_stops_with_the_address_and_the_command(
    run, unreachable, tmp_path
):
    config, directory = tmp_path / "offline.yaml", tmp_path / "run"
    config.write_text(OFFLINE)
    for options in ([], ["--dry-run"]):
        code, out, err = run(
            "train", config, f"output.directory={directory}", "data.offline=error", *options
        )
        assert (code, out) == (2, "")
        assert "https://downloads.psl.noaa.gov/" in err
        assert "gridcast data get ersst-v5" in err
        assert "SIMULATED" not in err
        assert "Traceback" not in err


def test_the_scripts_call_the_same_commands(trained, tmp_path):
    """One of them for good; the others are the same line with another word."""
    for name in ("train", "forecast", "evaluate"):
        assert f'main(["{name}", *sys.argv[1:]])' in (ROOT / "scripts" / f"{name}.py").read_text()
    output = tmp_path / "forecast.nc"
    command = [sys.executable, "-W", "error", str(ROOT / "scripts" / "forecast.py")]
    done = subprocess.run(
        [*command, str(trained.directory), "--output", str(output)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(output)), done.stderr
    first, second = (reopened(p)["sst"].values for p in (trained.directory / "forecast.nc", output))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_the_public_names_are_there_and_importing_them_is_light():
    for name in gridcast.__all__:
        assert getattr(gridcast, name) is not None
        assert name in dir(gridcast)
    assert gridcast.load_run == gridcast.Run.load
    assert issubclass(gridcast.DataError, gridcast.GridcastError)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gridcast.nothing  # type: ignore[attr-defined]
    code = (
        "import sys, gridcast; print([m for m in ('jax', 'xarray', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.family
def test_a_run_trained_on_data_in_memory_asks_for_them(ocean, tmp_path):
    run = gridcast.train(
        dataset=ocean,
        data={"region": {"lat": [-45, 45], "lon": [0, 360]}},
        frames={"inputs": 2, "leads": 1},
        splits={"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
        model={"name": "conv_lstm", "hidden": [2]},
        train={"epochs": 1},
        output={"directory": str(tmp_path / "run")},
    )
    assert "simulated" in run.origin
    assert run.forecast(ocean).sizes["lat"] == 5
    with pytest.raises(gridcast.DataError, match="data in memory"):
        run.forecast()
    with pytest.raises(gridcast.ConfigError, match="not both"):
        gridcast.train("configs/sst.yaml", ocean, train={"epochs": 1})
