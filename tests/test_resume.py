"""A run that is stopped, in any way and at any moment, ends as if it had not been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import same_bits

from gridcast.cli import main
from gridcast.sources.simulated import write_simulation
from gridcast.training.checkpoints import Checkpoint, load_newest

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
EPOCHS = 30


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A small experiment as files: simulated data, and a config without an output directory."""
    folder = tmp_path_factory.mktemp("experiment")
    write_simulation(folder / "ocean.nc", kind="ocean", years=14, shape=(9, 18), seed=3)
    settings = {
        "data": {"path": str(folder / "ocean.nc")},
        "frames": {"inputs": 3, "leads": 2},
        "splits": {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
        "model": {"name": "conv_lstm", "hidden": [4], "dropout": 0.1},
        "train": {"epochs": EPOCHS, "batch_size": 4, "patience": EPOCHS},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))
    return folder / "small.yaml"


class Job:
    """`scripts/train.py` in a process of its own."""

    def __init__(self, config: Path, directory: Path, *options: str):
        self.directory = directory
        arguments = [str(config), f"output.directory={directory}", *options]
        # Compiling is most of the time of so small a run, and the same in all of them.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(config.with_name("compiled")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(TRAIN), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | cache,
        )

    def steps(self) -> int:
        """Steps of the newest checkpoint, 0 without one."""
        names = [path.name for path in (self.directory / "checkpoints").glob("step-*")]
        return max((int(name.removeprefix("step-")) for name in names), default=0)

    def stop(self, signum: int, *, after: int, wait: float = 0.0) -> tuple[int, str]:
        """Send a signal `wait` seconds after a checkpoint with more than `after` steps."""
        limit = time.monotonic() + 120
        while self.steps() <= after and self.process.poll() is None:
            assert time.monotonic() < limit, "no checkpoint within two minutes"
            time.sleep(0.002)
        time.sleep(wait)
        self.process.send_signal(signum)
        return self.end()

    def ended(self) -> Path:
        """The directory of a run that must end well."""
        if self.process.returncode is None:
            code, said = self.end()
            assert code == 0, said
        return self.directory

    def end(self) -> tuple[int, str]:
        """Exit code and what was said."""
        said = self.process.communicate(timeout=240)[1]
        return self.process.returncode, said


def finished(directory: Path) -> Checkpoint:
    found = load_newest(directory / "checkpoints")
    assert found.about["position"]["finished"]
    return found


def unfinished(directory: Path) -> int:
    """Steps of a run that still has some to go: otherwise stopping it showed nothing."""
    found = load_newest(directory / "checkpoints")
    assert not found.about["position"]["finished"], "the run ended before it was stopped"
    return found.step


def require_same(found: Path, expected: Path) -> None:
    ours, theirs = finished(found), finished(expected)
    assert ours.step == theirs.step
    assert ours.about["position"] == theirs.about["position"]
    assert ours.arrays.keys() == theirs.arrays.keys()
    for group in theirs.arrays:
        for name, array in theirs.arrays[group].items():
            assert np.array_equal(ours.arrays[group][name], array), f"{group} {name}"
    assert (found / "scores.csv").read_bytes() == (expected / "scores.csv").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory) -> Job:
    """A run that nobody stops; it goes on beside the tests until they wait for its end."""
    return Job(config, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.family
def test_a_run_stopped_three_ways_ends_with_the_bits_of_an_uninterrupted_one(
    config, uninterrupted, tmp_path
):
    directory = tmp_path / "run"
    code, said = Job(config, directory).stop(signal.SIGKILL, after=0)
    assert code == -signal.SIGKILL
    killed = unfinished(directory)
    code, said = Job(config, directory, "--resume").stop(signal.SIGINT, after=killed)
    assert code == 130
    assert "--resume" in said
    assert "Traceback" not in said
    interrupted = unfinished(directory)
    assert interrupted > killed
    code, said = Job(config, directory, "--resume").stop(signal.SIGTERM, after=interrupted)
    assert code == 143
    assert f"resumed at step {interrupted}" in said
    assert unfinished(directory) > interrupted
    Job(config, directory, "--resume").ended()
    require_same(directory, uninterrupted.ended())
    assert (directory / "forecast.nc").exists()


@pytest.mark.family
def test_resume_without_a_checkpoint_or_with_other_settings_says_so(
    config, uninterrupted, tmp_path, capsys
):
    before = finished(uninterrupted.ended())
    arguments = ["train", str(config), "--resume"]
    assert main([*arguments, f"output.directory={tmp_path / 'none'}"]) == 2
    assert capsys.readouterr().err.startswith("error: nothing to resume")
    assert main([*arguments, f"output.directory={uninterrupted.directory}", "train.seed=1"]) == 2
    assert "other settings in: train" in capsys.readouterr().err
    assert same_bits(finished(uninterrupted.directory).arrays, before.arrays)


@pytest.mark.slow
def test_kills_at_five_random_moments_change_nothing(config, uninterrupted, tmp_path):
    moments, before, options = random.Random(0), 0, []
    directory = tmp_path / "run"
    for _ in range(5):
        job = Job(config, directory, *options)
        code, _ = job.stop(signal.SIGKILL, after=before, wait=moments.uniform(0.0, 0.15))
        assert code == -signal.SIGKILL
        before, options = unfinished(directory), ["--resume"]
    Job(config, directory, "--resume").ended()
    require_same(directory, uninterrupted.ended())
