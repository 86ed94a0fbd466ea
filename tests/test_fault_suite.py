"""The quick parts of `scripts/faults.py`, and a few kills of whole runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from fault_suite import crashes, disk
from fault_suite.tally import Tally

from gridcast.training import checkpoints
from gridcast.training.checkpoints import Checkpoint

pytestmark = pytest.mark.skipif(not hasattr(crashes.os, "fork"), reason="kills forked processes")


def example(step: int) -> Checkpoint:
    return Checkpoint(step, {}, {"weights": {"w": np.full(9, float(step))}})


@pytest.mark.family
def test_a_kill_at_any_operation_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    tally = Tally()
    crashes.every_operation(tally, tmp_path, ["a checkpoint of the same step"])
    assert tally.outcome.wrong == []
    assert tally.cases > 15


def test_a_failed_operation_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    tally = Tally()
    disk.every_part(tally, tmp_path, ["a checkpoint of the same step", "the lock"], [28])
    assert tally.outcome.wrong == []
    assert tally.cases > 10


def test_a_checkpoint_that_was_about_to_be_replaced_is_read_and_gets_its_name_back(tmp_path):
    checkpoints.save(tmp_path, example(3))
    (tmp_path / "step-00000003").rename(tmp_path / ".before-step-00000003.tmp")
    assert checkpoints.load_newest(tmp_path).step == 3
    checkpoints.save(tmp_path, example(4))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000003", "step-00000004"]


def test_a_reader_looks_again_where_a_run_has_replaced_what_it_read(tmp_path, monkeypatch, caplog):
    checkpoints.save(tmp_path, example(1))
    load, calls = checkpoints.load, []

    def replaced_meanwhile(path: Path) -> Checkpoint:
        calls.append(path.name)
        if len(calls) == 1:
            for step in (2, 3):
                checkpoints.save(tmp_path, example(step))
        return load(path)

    monkeypatch.setattr(checkpoints, "load", replaced_meanwhile)
    assert checkpoints.load_newest(tmp_path).step == 3
    assert calls == ["step-00000001", "step-00000003"]
    assert not caplog.records


@pytest.mark.family
def test_runs_killed_at_random_moments_end_with_the_bits_of_a_whole_one(tmp_path):
    tally = Tally()
    crashes.killed_runs(tally, tmp_path, 3)
    assert tally.outcome.wrong == []
