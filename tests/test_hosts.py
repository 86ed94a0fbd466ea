"""Several processes train what one trains, and end together when one of them is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import yaml
from conftest import Trained, small_config
from jax.sharding import Mesh

from gridcast import hosts
from gridcast.cli import main
from gridcast.errors import ConfigError
from gridcast.frames.streamed import StreamedFrames
from gridcast.frames.windows import FrameSeries
from gridcast.training.checkpoints import load_newest, saved
from gridcast.training.parallel import AXES, Layout, layout_of
from gridcast.training.shares import own_windows
from gridcast.training.streaming import StreamedSeries

CLI = "import sys; from gridcast.cli import main; sys.exit(main(sys.argv[1:]))"


class Together:
    """Processes on this host that train one config together.

    Args:
      each: further arguments of each process.
      slurm: they are told nothing but what SLURM tells its tasks.
    """

    def __init__(
        self,
        count: int,
        *command: str,
        each: dict[int, str] | None = None,
        slurm: bool = False,
    ):
        def arguments(i: int) -> list[str]:
            here = [] if slurm else [*where, "--process", str(i)]
            return ["--distributed", *here, *filter(None, [(each or {}).get(i)])]

        port = free_port(61440 if slurm else 1024)
        where = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(count)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", CLI, *command, *arguments(i)],
                env=os.environ | (slurm_task(port, i, count) if slurm else {}),
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(count)
        ]

    def ended(self, within: float) -> list[tuple[int, str]]:
        """Exit code and standard error of each."""
        last = time.monotonic() + within
        try:
            said = [one.communicate(timeout=last - time.monotonic())[1] for one in self.processes]
        finally:
            for one in self.processes:
                one.kill()
        return [(one.returncode, text) for one, text in zip(self.processes, said, strict=True)]


def free_port(least: int) -> int:
    """A port of this host that nobody listens at."""
    for port in np.random.default_rng().permutation(np.arange(least, 65536)):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", int(port))):
                return int(port)
    raise AssertionError("no port is free")


def slurm_task(port: int, task: int, tasks: int) -> dict[str, str]:
    """What SLURM sets for a task; JAX makes the port of the number of the job."""
    return {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task),
    }


def config_of(trained: Trained, folder: Path, **train: Any) -> Path:
    """The config of the small run, for a directory of its own."""
    settings = yaml.safe_load(trained.config.read_text())
    settings["train"] |= train
    settings["output"] = {"directory": str(folder / "run")}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def journal(run: Path) -> tuple[list[float], list[float]]:
    """Losses of all steps, and of the validations."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["loss"] for line in lines if "loss" in line]
    return steps, [line["validation_loss"] for line in lines if "validation_loss" in line]


def require_same(found: Path, expected: Path) -> None:
    """Losses of all steps and validations, last weights, and files, but not to the last bit."""
    for ours, theirs in zip(journal(found), journal(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        # The control: there is something to be equal to, and it changes.
        assert len(set(theirs)) == len(theirs) > 1
    one, other = (load_newest(run / "checkpoints") for run in (found, expected))
    assert one.step == other.step
    for name, leaf in other.arrays["weights"].items():
        np.testing.assert_allclose(one.arrays["weights"][name], leaf, rtol=0, atol=1e-4)
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}


@pytest.mark.family
@pytest.mark.parametrize(("count", "slurm"), [(2, True), (4, False)])
def test_processes_learn_what_one_learns_and_one_of_them_writes(
    trained: Trained, tmp_path, count, slurm
):
    config = config_of(trained, tmp_path)
    ended = Together(count, "train", str(config), slurm=slurm).ended(within=300)
    assert [code for code, _ in ended] == [0] * count, ended
    require_same(tmp_path / "run", trained.directory)
    assert "epoch 2 of 2" in ended[0][1]
    assert not any("epoch" in said for _, said in ended[1:])
    with (
        xr.open_dataset(tmp_path / "run" / "forecast.nc") as found,
        xr.open_dataset(trained.directory / "forecast.nc") as expected,
    ):
        np.testing.assert_allclose(found["sst"], expected["sst"], atol=1e-3)


@pytest.mark.family
def test_members_of_an_ensemble_are_gathered_from_the_processes_that_trained_them(
    trained: Trained, tmp_path
):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    assert main(["train", str(config_of(trained, alone, members=2, average=0.9))]) == 0
    config = config_of(trained, shared, members=2, average=0.9)
    ended = Together(2, "train", str(config)).ended(within=300)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "1 members on each" in ended[0][1]
    require_same(shared / "run", alone / "run")


@pytest.mark.family
def test_each_process_reads_its_windows_from_a_store_and_all_learn_what_one_learns(
    trained: Trained, tmp_path
):
    """What a process did not read is NaN for it: used all the same, it would end the training."""
    config, store = config_of(trained, tmp_path), str(tmp_path / "small.zarr")
    assert main(["data", "prepare", str(config), "--output", store]) == 0
    asked = [f"data.path={store}", "frames.storage=stream"]
    ended = Together(3, "train", str(config), *asked).ended(within=300)
    assert [code for code, _ in ended] == [0] * 3, ended
    require_same(tmp_path / "run", trained.directory)


@pytest.fixture(scope="module")
def long(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of several epochs by one process, which nothing interrupts."""
    folder = tmp_path_factory.mktemp("long")
    assert main(["train", str(config_of(trained, folder, **LONG))]) == 0
    return folder


LONG = {"epochs": 12, "patience": 12}


@pytest.mark.family
@pytest.mark.parametrize(
    ("count", "struck", "signum", "then"),
    [
        (2, 1, signal.SIGKILL, 4),
        (4, 0, signal.SIGKILL, 1),
        (2, 1, signal.SIGSTOP, 1),
        (2, 1, signal.SIGTERM, 2),
    ],
)
def test_one_is_struck_all_end_and_others_go_on(
    trained: Trained, long: Path, tmp_path, count, struck, signum, then
):
    config = config_of(trained, tmp_path, **LONG)
    together = Together(count, "train", str(config))
    until = time.monotonic() + 200
    while len(saved(tmp_path / "run" / "checkpoints")) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    victim = together.processes[struck]
    victim.send_signal(signum)
    if signum == signal.SIGSTOP:
        rest = [one for one in together.processes if one is not victim]
        for one in rest:
            one.wait(timeout=60)
        victim.kill()
    ended = together.ended(within=60)
    survivors = [(code, said) for i, (code, said) in enumerate(ended) if i != struck]
    if signum == signal.SIGTERM:
        assert [code for code, _ in ended] == [143] * count, ended
        assert all("stopped by SIGTERM" in said for _, said in ended)
    else:
        assert all(code in (75, -signal.SIGABRT) for code, _ in survivors), ended
        assert all("error: a process of this training was lost" in said for _, said in survivors)
        assert all("--resume" in said and "Traceback" not in said for _, said in survivors)
    assert load_newest(tmp_path / "run" / "checkpoints").step < 12 * STEPS
    if then == 1:
        assert main(["train", str(config), "--resume"]) == 0
    else:
        resumed = Together(then, "train", str(config), "--resume").ended(within=300)
        assert [code for code, _ in resumed] == [0] * then, resumed
    require_same(tmp_path / "run", long / "run")


STEPS = 6


@pytest.mark.family
def test_processes_with_other_settings_are_refused_by_all(trained: Trained, tmp_path):
    config = config_of(trained, tmp_path)
    each = {1: "train.seed=5"}
    ended = Together(2, "train", str(config), each=each).ended(within=120)
    assert [code for code, _ in ended] == [2, 2], ended
    for _, said in ended:
        assert "process 1 has another config than process 0\n  fix: the same config" in said
    assert saved(tmp_path / "run" / "checkpoints") == []


SHIPPED = str(Path(__file__).parents[1] / "configs" / "sst.yaml")


@dataclass(frozen=True)
class Device:
    """Of JAX, as far as it is asked here."""

    process_index: int


def of_processes(*shape: int) -> Layout:
    """Devices data x lat x lon, each of a process of its own."""
    devices = np.array([Device(i) for i in range(int(np.prod(shape)))], object).reshape(shape)
    return Layout(Mesh(devices, AXES))


@dataclass(frozen=True)
class Recorded(StreamedFrames):
    """Frames of ones that keep what was read of them."""

    asked: list[tuple[list[int], slice]] = field(default_factory=list)

    def read(self, dates: np.ndarray, into: np.ndarray, rows: slice = slice(None)) -> None:
        self.asked.append((dates.tolist(), rows))
        into[: dates.size, rows] = 1.0


@pytest.mark.parametrize(
    ("process", "dates", "rows"),
    [
        (0, [9, 10, 11, 19, 20, 21], slice(0, 2)),
        (1, [9, 10, 11, 19, 20, 21], slice(2, 4)),
        # The third window, and the first, which fills up.
        (2, [9, 10, 11, 29, 30, 31], slice(0, 2)),
        (3, [9, 10, 11, 29, 30, 31], slice(2, 4)),
    ],
)
def test_a_process_reads_the_frames_and_rows_of_its_devices(monkeypatch, process, dates, rows):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    frames, values = Recorded([], []), np.zeros((12, 4, 5, 1), np.float32)
    whole = FrameSeries(frames, None, None, np.zeros(0), np.zeros(0))
    series = StreamedSeries(whole, jnp.zeros(0), jnp.zeros(0), 1, 1, of_processes(2, 2, 1))
    every = np.r_[9:12, 19:22, 29:32]
    series._read_own(frames, every, np.array([[10, 20, 30]]), values)
    assert frames.asked == [(dates, rows)]
    read = np.zeros(values.shape[:2], bool)
    read[np.ix_(np.isin(every, dates).nonzero()[0], range(4)[rows])] = True
    np.testing.assert_array_equal(np.isfinite(values).all(axis=(2, 3)), read)


@pytest.mark.parametrize(
    ("layout", "initial", "parts", "own"),
    [
        # Shared whole by a validation, and in two parts by the training.
        (of_processes(2, 1, 1), [[1, 2, 3, 4, 5, 6, 7, 8]], 2, [[3, 4, 5, 6, 7, 8]]),
        (of_processes(2, 1, 1), [[1, 2, 3, 4]], 1, [[3, 4]]),
        # What is not shared is computed everywhere.
        (of_processes(2, 1, 1), [[1], [2]], 1, [[1], [2]]),
        (of_processes(2, 1, 1), [[1, 2]], 2, [[1, 2]]),
        (replace(of_processes(2, 1, 1), apart=True), [[[1, 2]], [[3, 4]]], 1, [[[[3, 4]]]]),
    ],
)
def test_the_windows_of_a_process_are_those_of_its_devices(
    monkeypatch, layout, initial, parts, own
):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert own_windows(layout, np.array(initial), parts).tolist() == own


ADDRESS = ["--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "1"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (ADDRESS, "--coordinator without --distributed"),
        (["--distributed", *ADDRESS[:4]], "and --processes without --process\n"),
        (["--distributed", "--process", "0"], "without --coordinator and --processes\n"),
        (["--distributed", *ADDRESS, "--coordinator", "node1"], "found 'node1'\n"),
        (["--distributed", *ADDRESS, "--process", "2"], "--process: 2 of --processes 2\n"),
        (["--distributed", *ADDRESS, "--dry-run"], "--dry-run without --distributed"),
    ],
)
def test_half_an_address_is_refused(capsys, given, reason):
    assert main(["train", SHIPPED, *given]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "\n  fix: " in said


def alone(code: str) -> subprocess.CompletedProcess:
    """A process by itself, of which no cluster is known."""
    cluster = ("SLURM", "KUBERNETES", "OMPI", "TPU", "JAX_COORDINATOR")
    env = {name: text for name, text in os.environ.items() if not name.startswith(cluster)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_without_a_cluster_an_address_is_asked_for():
    done = alone(f"import sys; sys.argv[1:] = ['train', {SHIPPED!r}, '--distributed']\n{CLI}")
    assert done.returncode == 2
    assert "error: --distributed: found no cluster that JAX knows (SLURM, GKE" in done.stderr
    assert "fix: --coordinator HOST:PORT --processes N --process I" in done.stderr
    assert "Traceback" not in done.stderr


WITNESSED = """
import os
from gridcast import hosts
witness = hosts.Witness()
witness.last_word("two lines\\nof a last word")
{then}
"""


@pytest.mark.parametrize(("then", "said"), [("os.abort()", True), ("witness.dismiss()", False)])
def test_a_process_that_is_ended_from_outside_has_a_last_word(then, said):
    done = alone(WITNESSED.format(then=then))
    assert (done.returncode != 0) == said
    assert ("two lines\nof a last word\n" in done.stderr) == said


def test_all_are_told_who_differs_in_what(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "_gathered", lambda sums: np.stack([sums, sums]))
    hosts.require_same("look", config="a", data="b")
    monkeypatch.setattr(
        hosts, "_gathered", lambda sums: np.stack([sums, sums ^ np.array([0, 1], np.uint32)])
    )
    with pytest.raises(ConfigError, match="process 1 has another data than process 0\n  fix: look"):
        hosts.require_same("look", config="a", data="b")


def test_processes_without_work_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    monkeypatch.setattr(jax, "devices", lambda: [Device(i // 4) for i in range(12)])
    with pytest.raises(
        ConfigError, match=r"1 of 3 processes would have nothing.* 8 \(data\) times 1"
    ):
        layout_of(small_config(), (16, 32), 2, 8, whole=False)
