"""What takes long is told: by stage, compiling apart, time left; and events for TensorBoard."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import small_config
from flax import nnx

import gridcast
from gridcast import stages
from gridcast.assembly import model_of
from gridcast.cli import main
from gridcast.compiled import compiling_seconds
from gridcast.errors import ConfigError
from gridcast.models.window import Frozen
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.training import progress
from gridcast.training.events import Events, require_writer


class Clock:
    """Seconds that pass when told to, and how many of them were spent compiling."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.now = self.compiled = 0.0
        for module in (stages, progress):
            patch.setattr(module.time, "perf_counter", lambda: self.now)
        patch.setattr(stages, "compiling_seconds", lambda: self.compiled)

    def run(self, seconds: float, compiling: float = 0.0) -> None:
        self.now += seconds
        self.compiled += compiling


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_each_second_is_in_one_stage_and_compiling_is_a_stage(clock):
    @stages.stage("inner")
    def inner() -> None:
        clock.run(2.0, compiling=0.5)

    @stages.stage("failing")
    def fail() -> None:
        clock.run(5.0)
        raise ZeroDivisionError

    inner()  # outside: nothing is counted
    with stages.timed() as times:
        clock.run(1.0)
        with stages.stage("outer"):
            clock.run(3.0, compiling=2.0)
            inner()
            clock.run(4.0)
        with pytest.raises(ZeroDivisionError):
            fail()
        inner()
        clock.run(0.01)
    seconds = {"other": 1.01, "compiling": 3.0, "outer": 5.0, "inner": 3.0, "failing": 5.0}
    assert times.seconds == pytest.approx(seconds)
    assert str(times).startswith("time: other 1.0 s, compiling 3.0 s, outer 5.0 s, inner 3.0 s")
    assert str(times).endswith("; 17.0 s in all")


def test_compiling_is_measured_and_what_runs_again_is_not_compiled():
    before = compiling_seconds()
    double = jax.jit(lambda x: 2 * x + 0.125)
    double(np.ones(3, np.float32)).block_until_ready()
    once = compiling_seconds()
    assert once > before
    double(np.ones(3, np.float32)).block_until_ready()
    assert compiling_seconds() == once


def test_time_left_is_that_of_the_pace_after_the_first_call(clock):
    bar = progress.Bar(100, 20)
    clock.run(50.0)  # compiles
    bar.update(8)
    assert bar.remaining == ""
    clock.run(4.0)
    bar.update(8)
    clock.run(4.0)  # validation
    assert bar.remaining == "; about 01:04 left"  # 8 seconds for 8 steps, and 64 are left
    for _ in range(8):
        bar.update(8)
    assert bar.remaining == ""
    bar.close()


def test_a_training_says_what_took_long(trained):
    assert "epoch 1 of 2: " in trained.said
    assert trained.said.count("the training step was ") == 1
    line = trained.said.splitlines()[-1]
    assert line.startswith("time: ")
    told = {name: float(spent) for name, spent in re.findall(r"(\w+) ([\d.]+) s\b", line)}
    assert {"training", "compiling", "verification"} <= set(told)  # of the others it takes none
    whole = float(re.findall(r"([\d.]+) s in all", line)[0])
    assert sum(told.values()) == pytest.approx(whole, abs=0.05 * 15)


def test_a_loaded_run_has_drawn_no_weights_and_lacks_none(trained, monkeypatch):
    built, draw = [], nnx.eval_shape

    def shapes_of(network):
        built.append(draw(network))
        return built[-1]

    monkeypatch.setattr(nnx, "eval_shape", shapes_of)
    run = gridcast.load_run(trained.directory)
    assert [run.model.network] == built
    leaves = jax.tree.leaves(nnx.state(run.model))
    assert len(leaves) > 5
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "conv_lstm", "dropout": 0.1, "norm": "group"},
        {"name": "conv_seq2seq"},
        {"name": "cnn_lstm", "size": "small", "norm": "batch", "dropout": 0.1},
        {"name": "series", "size": "small", "recurrent_dropout": 0.1},
        {"name": "lim", "reference": {"eofs": 3}},
    ],
    ids=lambda model: model["name"],
)
def test_all_that_a_network_lacks_without_weights_is_in_a_checkpoint(ocean, model):
    config = small_config(model=model)
    setup = prepare(config, open_source(config, ocean))
    built = model_of(config, setup.fields, setup.layers, setup.head, weights=False)
    *saved, rest = nnx.split_state(nnx.state(built), nnx.Param, nnx.BatchStat, Frozen, ...)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(rest))
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(saved)]
    drawn = nnx.state(setup.model(), (nnx.Param, nnx.BatchStat))
    assert sorted(map(str, shapes)) == sorted(
        str((leaf.shape, leaf.dtype)) for leaf in jax.tree.leaves(drawn)
    )


def events_in(folder: Path) -> list:
    """Every event: TFRecords of a length, its checksum, the record and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_tensorboard_shows_the_numbers_of_the_metrics(bench, tmp_path, caplog):
    caplog.set_level("INFO", logger="gridcast")
    bench.fit(tmp_path / "metrics.jsonl", epochs=2, tensorboard=True)
    first, last = (m for m in caplog.messages if m.startswith("epoch "))
    assert re.search("; about [0-9:]+ left$", first)
    assert "left" not in last
    written = {
        (value.tag, event.step): value.simple_value
        for event in events_in(tmp_path / "tensorboard")
        for value in event.summary.value
    }
    expected = {}
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        before = "epoch/" if "validation_loss" in record else ""
        for name in record.keys() - {"step", "epoch"}:
            expected[before + name, record["step"]] = float(np.float32(record[name]))
    assert written == expected
    assert {("loss", 1), ("gradient_norm", 26), ("epoch/validation_loss", 26)} <= set(written)


def test_what_a_resumed_training_writes_again_is_forgotten_and_nan_has_no_point(tmp_path):
    events = Events(tmp_path, 7)
    events.write({"step": 8, "epoch": 1, "loss": 0.5, "gradient_norm": float("nan")})
    events.close()
    found = events_in(tmp_path / "tensorboard")
    assert [event.step for event in found if event.HasField("session_log")] == [8]
    assert [v.tag for event in found for v in event.summary.value] == ["loss"]


def test_without_the_package_the_fix_is_told(monkeypatch):
    config = gridcast.Config.model_fields["train"].get_default(call_default_factory=True)
    asked = config.model_copy(update={"tensorboard": True})
    require_writer(asked)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_writer(config)  # the control: nobody asks for it
    with pytest.raises(ConfigError, match=r'pip install "gridcast\[tensorboard\]"'):
        require_writer(asked)


def completions(tmp_path: Path, line: str) -> tuple[set[str], str]:
    """What a shell would offer at the end of a line, and the modules that were imported for it."""
    out = tmp_path / "completions"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    code = "from gridcast.cli import main; main([])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True)
    return {text.strip() for text in out.read_text().splitlines()}, done.stderr


def test_a_shell_completes_commands_settings_and_data_sets_without_jax(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("model: {name: cnn_lstm}\n")
    offered, imported = completions(tmp_path, "gridcast co")
    assert offered == {"config", "compare", "completion"}
    assert "pydantic" not in imported
    offered, imported = completions(tmp_path, f"gridcast train {config} model.l")
    assert offered == {"model.latent="}  # of this model alone
    assert "pydantic" in imported  # the control: what is imported is seen
    assert "jax" not in {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    offered, _ = completions(tmp_path, "gridcast data get ersst")
    assert offered == {"ersst-v5"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_code_names_gridcast(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "gridcast" in capsys.readouterr().out
