"""One run at a time in a directory, and what a killed one has left is swept."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gridcast.drafts import draft_of, write_text
from gridcast.errors import DataError
from gridcast.locks import LOCK, alone_in

HOLD = """
import sys
from pathlib import Path
from gridcast.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a directory until it is sent a line."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def enter(directory: Path) -> None:
    with alone_in(directory):
        assert (directory / LOCK).exists()


def test_a_second_run_is_refused_and_told_who_is_there(holder, tmp_path, caplog):
    with pytest.raises(DataError) as refused:
        enter(tmp_path)
    for part in (str(tmp_path), f"process {holder.pid} ", socket.gethostname(), "fix: "):
        assert part in str(refused.value)
    holder.communicate("\n")
    enter(tmp_path)  # it has ended
    assert os.listdir(tmp_path) == []
    assert not caplog.records


def test_the_lock_of_a_killed_run_is_taken_over_and_its_drafts_are_swept(holder, tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    for path in (tmp_path / f".forecast.nc.{holder.pid}.tmp", folder / f".step-1.{holder.pid}.tmp"):
        path.mkdir(parents=True)
        (path / "half").write_text("half")
    (tmp_path / ".mine").write_text("not a draft")
    running = tmp_path / f".scores.nc.{os.getppid()}.tmp"
    running.write_text("of a process that goes on")
    holder.kill()
    holder.wait()
    enter(tmp_path)
    assert (
        f"left by process {holder.pid} on '{socket.gethostname()}', which is no more" in caplog.text
    )
    assert sorted(os.listdir(tmp_path)) == sorted([".mine", "checkpoints", running.name])
    assert os.listdir(folder) == []


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"pid": "x"}), "\x00" * 9])
def test_a_damaged_lock_that_nobody_holds_is_no_hindrance(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    enter(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_lock_is_given_back_after_an_error_and_is_held_against_this_process_too(tmp_path):
    def fails() -> None:
        with alone_in(tmp_path):
            with pytest.raises(DataError, match=f"in use by another run: process {os.getpid()}"):
                enter(tmp_path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    enter(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_told_with_its_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file.* cannot be written \(Not a directory\)"):
        enter(tmp_path / "file" / "run")


def test_a_failed_write_names_the_path_and_keeps_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DataError, match=r"a\.txt: cannot be written \(No space left"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert not draft_of(path).exists()
    write_text(path, "new")
    assert path.read_text() == "new"
