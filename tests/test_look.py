"""`gridcast runs`, `doctor` and `--json`: what is told is what is there, and nothing breaks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from gridcast import doctor
from gridcast.cli import main
from gridcast.printing import strict_json
from gridcast.training.checkpoints import saved

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys) -> Command:
    """Runs a command; gives the exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """A directory with an intact run, to which broken ones can be added."""
    shutil.copytree(trained.directory, tmp_path / "runs" / "good")
    return tmp_path / "runs"


def parsed(out: str) -> dict[str, Any]:
    """The one JSON object on standard output; NaN and a second line are errors."""

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no JSON")

    assert out.count("\n") == 1
    return json.loads(out, parse_constant=refuse)


def test_json_has_no_nan():
    assert strict_json({"a": [1.5, float("nan")], "b": (float("inf"), None, "NaN", True, 3)}) == (
        '{"a": [1.5, null], "b": [null, null, "NaN", true, 3]}'
    )


def test_runs_tells_the_skill_that_the_scores_hold(run, runs):
    code, out, err = run("runs", runs, "--json")
    assert (code, err) == (0, "")
    (found,) = parsed(out)["runs"]
    assert (found["state"], found["broken"]) == ("finished", False)
    assert (found["model"], found["data"]) == ("conv_lstm over climatology", "sea.nc")
    with xr.open_dataset(runs / "good" / "scores.nc", decode_timedelta=False) as scores:
        for which, position in (("first", 0), ("last", -1)):
            skill = scores["skill"].isel(lead=position)
            best = str(skill["reference"].values[int(skill.values.argmin())])
            assert found[which]["lead"] == int(skill["lead"])
            assert found[which]["reference"] == best
            assert found[which]["skill"] == pytest.approx(float(skill.min()), rel=1e-5)
    code, out, _ = run("runs", runs)
    (line,) = [line for line in out.splitlines() if "good" in line]
    assert f"1: {found['first']['skill']:+.3f} ({found['first']['reference']})" in line
    assert run("runs", runs / "good")[1] == out  # a run itself may be named


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_checkpoints(path: Path) -> None:
    for checkpoint in saved(path / "checkpoints"):
        flip_a_byte(checkpoint / "best.npz")


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no checkpoint": (lambda p: shutil.rmtree(p / "checkpoints"), "broken: no checkpoint in"),
    "flipped": (spoil_checkpoints, "is damaged: sha256"),
    "no numbers": (
        lambda p: (p / "scores.csv").write_text("forecast,lead,skill_vs_lim\nmodel,one,two\n"),
        "broken: ValueError",
    ),
    "other columns": (lambda p: (p / "scores.csv").write_text("a,b\n1,2\n"), "broken: KeyError"),
    "no skill": (lambda p: (p / "scores.csv").write_text("forecast,lead\nmodel,1\n"), "broken: "),
    "binary": (lambda p: (p / "scores.csv").write_bytes(b"\xff\xfe\x00" * 50), "broken: "),
    "unjudged": (lambda p: (p / "scores.csv").unlink(), "trained, not judged"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_broken_run_is_listed_as_such_beside_the_others(run, runs, name):
    shutil.copytree(runs / "good", runs / "other")
    spoil, said = SPOILED[name]
    spoil(runs / "other")
    code, out, _ = run("runs", runs, "--json")
    good, other = parsed(out)["runs"]
    assert (code, good["state"], other["directory"]) == (0, "finished", str(runs / "other"))
    assert said in other["state"]
    assert other["broken"] == ("broken" in said or "damaged" in said)
    assert run("runs", runs)[0] == 0


def test_a_training_that_was_stopped_shows_its_epoch(run, runs):
    for checkpoint in saved(runs / "good" / "checkpoints"):
        about = json.loads((checkpoint / "about.json").read_text())
        about["position"]["finished"] = False
        (checkpoint / "about.json").write_text(json.dumps(about))
        sums = json.loads((checkpoint / "sha256.json").read_text())
        sums["about.json"] = subprocess.check_output(
            ["sha256sum", checkpoint / "about.json"], text=True
        ).split()[0]
        (checkpoint / "sha256.json").write_text(json.dumps(sums))
    (found,) = parsed(run("runs", runs, "--json")[1])["runs"]
    assert found["state"] == "epoch 2 of 2"


def test_no_runs_and_no_directory(run, tmp_path):
    assert run("runs", tmp_path)[:2] == (0, f"no runs in {tmp_path}\n")
    assert parsed(run("runs", tmp_path, "--json")[1]) == {"runs": []}
    code, out, err = run("runs", tmp_path / "absent")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'absent'}: No such file or directory\n")


def test_runs_are_listed_without_jax(runs):
    code = (
        "import sys; from gridcast.cli import main; main(sys.argv[1:]);"
        "print([m for m in ('jax', 'flax', 'xarray', 'pydantic') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "good" in done.stdout


def test_a_healthy_machine_is_told_so(run, monkeypatch):
    monkeypatch.setenv("AN_UNRELATED_TOKEN", "hunter2")
    code, out, err = run("doctor", "--json")
    found = parsed(out)
    assert (code, found["healthy"]) == (0, True), found
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["packages"] == states["devices"] == states["gridcast"] == "ok"
    assert "hunter2" not in out + err
    packages = next(c["found"] for c in found["checks"] if c["name"] == "packages")
    assert f"xarray {xr.__version__}" in packages


@pytest.mark.parametrize("raised", ["ImportError('no libgone.so')", "OSError('half a file')"])
def test_a_broken_package_is_exit_code_1_and_no_traceback(tmp_path, raised):
    """Before anything else could stumble over it."""
    for name in ("jax", "pooch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise {raised}\n")
    paths = [str(tmp_path), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    code = "import sys; from gridcast.cli import main; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = parsed(done.stdout)
    broken = {c["name"]: c for c in found["checks"] if c["state"] == "broken"}
    assert not found["healthy"]
    assert {"package jax", "package pooch", "devices", "gridcast"} <= set(broken)
    assert raised.split("'")[1] in broken["package jax"]["found"]
    assert broken["package jax"]["fix"] == "pip install 'jax>=0.10'"


def checked(name: str) -> doctor.Check:
    return next(check for check in doctor.examine_one(name) if check.name == name)


def test_data_directories_that_are_none_and_damaged_downloads_are_broken(monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDCAST_DATA", str(tmp_path))
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    assert checked("data").state == "warning"  # none here: that can be
    (tmp_path / "sst_ersstv5_1.nc").touch()
    assert checked("data").state == "ok"
    monkeypatch.setenv("GRIDCAST_DATA", str(tmp_path / "absent"))
    assert (checked("data").state, "absent" in checked("data").found) == ("broken", True)


def test_a_scratch_folder_that_cannot_be_written_to_is_broken(monkeypatch, tmp_path):
    assert checked("disk, scratch").state == "ok"
    monkeypatch.setattr("gridcast.scratch.folder_of_files", lambda: "/proc")
    assert checked("disk, scratch").state == "broken"


def test_evaluate_as_json_holds_the_scores_and_null_where_there_is_none(run, runs, monkeypatch):
    with xr.open_dataset(runs / "good" / "scores.nc", decode_timedelta=False) as file:
        scores = file.load()
    asked = []
    monkeypatch.setattr("gridcast.trained.judged", lambda *a: asked.append(a) or [scores])
    code, out, err = run("evaluate", runs / "good", "--json", "--data", "x.nc")
    assert (code, err, asked) == (0, "", [(str(runs / "good"), ["x.nc"], {}, False)])
    (found,) = parsed(out)["scores"]
    assert found["leads"] == [1, 2, 3]
    assert found["dates"] == 48
    assert found["units"]["rmse"] == "degC"
    assert found["rmse"]["model"] == scores["rmse"].sel(forecast="model").values.tolist()
    assert found["acc"]["climatology"] == [None, None, None]
    assert found["skill"]["lim"] == scores["skill"].sel(reference="lim").values.tolist()
    assert len(found["rmse_difference_interval"]["lim"][2]) == 2
    assert "RMSE" in found["verdict"]


def test_data_list_as_json_names_the_files(run, monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRIDCAST_DATA", str(tmp_path))
    file = tmp_path / "sst_ersstv5_1.nc"
    file.touch()
    code, out, err = run("data", "list", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in parsed(out)["data"]}
    assert rows["ersst-v5"]["files"] == [str(file)]
    assert rows["relief"]["files"] == []
