"""Damaged files, odd content, mistaken configs and poisoned checkpoints: a fast part of the suite.

The whole of it: `python scripts/faults.py files content config trust`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import faults
from fault_suite import config as configs
from fault_suite import content, files, trust
from fault_suite.outcome import Outcome
from fault_suite.reader import Reader, Reading, judged, read

from gridcast.cli import main
from gridcast.config import load_config
from gridcast.errors import ConfigError, DataError
from gridcast.sources.netcdf import open_frames, opened, write_netcdf


@pytest.fixture(scope="module")
def reader():
    with Reader() as reader:
        yield reader


@pytest.mark.family
@pytest.mark.parametrize("name", files.KINDS)
def test_a_damaged_file_is_refused_by_name_or_read_right(reader, name, tmp_path):
    path, kind = tmp_path / "a.nc", files.KINDS[name]
    kind.write(files.series(), path)
    whole, sound = path.read_bytes(), reader(path)
    assert sound.kind == "read"
    flips = list(files.flipped(whole, kind))
    rng = np.random.default_rng(0)
    chosen = [flips[i] for i in rng.choice(len(flips), 12, replace=False)]
    for about, damaged in [*list(files.truncated(whole))[::7], *chosen]:
        path.write_bytes(damaged)
        assert judged(reader(path), path, sound) is None, about


def test_the_count_that_kept_the_c_library_busy_for_minutes_is_refused_at_once(tmp_path):
    path = tmp_path / "a.nc"
    files.KINDS["classic"].write(files.series(), path)
    open_frames(path)
    whole = bytearray(path.read_bytes())
    count = whole.index(b"_FillValue") + 16  # name, padding and type; then how many values follow
    assert whole[count : count + 4] == b"\0\0\0\1"
    whole[count] = 0xFF
    path.write_bytes(whole)
    with pytest.raises(DataError, match="is damaged or cut off: a list of 42781900"):
        open_frames(path)


def test_a_date_that_no_calendar_reaches_is_a_damaged_file(tmp_path):
    path = tmp_path / "a.nc"
    data = files.series()
    days, units = np.arange(12) * 30, {"units": "days since 2000-01-01"}
    data.assign_coords(time=("time", days, units)).to_netcdf(path)
    open_frames(path)
    days[3] = 2**56
    data.assign_coords(time=("time", days, units)).to_netcdf(path)
    with pytest.raises(DataError, match=f"{path}: cannot be read"):
        open_frames(path)


def test_no_byte_of_a_written_coordinate_can_be_another_one_unseen(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(files.series(), path)
    sound, whole = read(str(path)), path.read_bytes()
    for name in ("lat", "lon"):
        begin = whole.index(files.series()[name].values.astype("<f8").tobytes())
        for byte in range(8):
            damaged = bytearray(whole)
            damaged[begin + 8 + byte] ^= 1
            path.write_bytes(damaged)
            reading = read(str(path))
            assert reading.kind == "refused"
            assert judged(reading, path, sound) is None


def test_what_is_no_netcdf_file_or_changes_is_refused_by_name(tmp_path):
    answers = dict(files.others(tmp_path))
    assert len(answers) >= 17
    assert {name: problem for name, problem in answers.items() if problem} == {}


def test_a_file_that_nobody_touches_may_be_read_and_one_written_to_may_not(tmp_path):
    path = tmp_path / "a.nc"
    write_netcdf(files.series(), path)
    with opened(path) as data:
        data.load()
    with pytest.raises(DataError, match="was written to while it was read"), opened(path):
        os.utime(path, ns=(1, 1))


def test_a_reader_that_dies_or_hangs_is_noticed_and_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.nc"
    write_netcdf(files.series(), path)
    with Reader(20.0) as reader:
        sound = reader(path)
        assert sound.kind == "read"
        os.kill(reader._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(reader, "_limit", 0.1)
        assert reader(path).kind == "hung"
        monkeypatch.setattr(reader, "_limit", 20.0)
        assert reader(path) == sound
        os.kill(reader._process.pid, signal.SIGKILL)
        assert reader(path).kind == "died"
        assert reader(path) == sound


@pytest.mark.parametrize(
    ("reading", "problem"),
    [
        (Reading("refused", "/a.nc: cannot be read"), None),
        (Reading("refused", "cannot be read"), "an error without the file"),
        (Reading("read", "values 1; time 2"), None),
        (Reading("read", "values 2; time 2"), "read otherwise: values 2"),
        (Reading("raised", "KeyError"), "raised: KeyError"),
        (Reading("died", "exit code -11"), "died: exit code -11"),
    ],
)
def test_readings_are_judged(reading, problem):
    found = judged(reading, Path("/a.nc"), Reading("read", "values 1; time 2"))
    assert found is None if problem is None else found.startswith(problem)


def test_the_command_ends_with_two_for_a_damaged_file(trained, tmp_path, capsys):
    path = tmp_path / "cut.nc"
    whole = trained.data.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    options = [f"data.path={path}", f"output.directory={tmp_path / 'run'}"]
    assert main(["train", str(trained.config), "--dry-run", *options]) == 2
    said = capsys.readouterr().err
    assert f"error: {path}: " in said
    assert "Traceback" not in said


def test_odd_content_is_prepared_like_the_plain_series_or_refused(tmp_path):
    plain = content.ocean()
    expected = content.setup_of(plain, None, None)
    assert content._sound(expected) is None
    for case in list(content.cases(plain))[::4]:
        assert content.problem_of(case, None, expected) is None, case.name


def field(values: np.ndarray, units: str = "mm/day") -> xr.DataArray:
    return files.series(values.shape[0], 2, 2)["sst"].copy(data=values).assign_attrs(units=units)


def test_habitual_fill_values_are_values_where_others_are_near():
    rain = np.linspace(0, 105, 48, dtype=np.float32).reshape(12, 2, 2)
    rain[3, 1, 1] = 99.9
    open_frames(field(rain))
    rain[3] = [[0, 1], [2, 999]]  # once may be
    open_frames(field(rain, "1"))
    rain[4, 1, 1] = 999
    with pytest.raises(DataError, match="holds 999 "):
        open_frames(field(rain, "1"))
    cold = np.linspace(-30, 30, 48, dtype=np.float32).reshape(12, 2, 2)
    cold[3, 1, 1] = -9.99
    open_frames(field(cold, "degC"))
    cold[:, 1, 1] = -9.99  # a cell that never holds anything else
    with pytest.raises(DataError, match=r"holds -9\.99 "):
        open_frames(field(cold, "degC"))


def test_cells_that_are_always_zero_are_noted(caplog):
    values = np.random.default_rng(0).normal(15, 1, (12, 2, 2)).astype(np.float32)
    open_frames(field(values))
    assert "always 0" not in caplog.text
    values[:, 0, 0] = 0
    open_frames(field(values))
    assert "1 of 4 cells are always 0" in caplog.text


def test_mutants_of_the_shipped_configs_are_accepted_or_refused_with_line_and_key(tmp_path):
    wrong: list[str] = []
    assert configs.mutated(tmp_path, 40, wrong, prepared=0) >= 40
    assert wrong == []


def test_configs_made_to_hang_are_refused(tmp_path):
    path = tmp_path / "bomb.yaml"
    for name, text in configs.bombs_of():
        if name != "10 MB":
            path.write_bytes(text)
            with configs.time_limit(60), pytest.raises(ConfigError) as caught:
                load_config(path)
            assert configs.placed(path, caught.value), name


def test_nothing_that_is_read_is_run(tmp_path):
    assert trust._poison_works(tmp_path)
    answers = [*trust.code_of_package(), *trust.poisoned(tmp_path), *trust.escapes(tmp_path)]
    assert [answer for answer in answers if answer[1] is not None] == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from subprocess import run",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=L)",
        "f('ls', shell=True)",
    ],
)
def test_code_that_runs_what_it_reads_is_seen(source):
    assert trust.unsafe(source)
    assert not trust.unsafe("np.load(path, allow_pickle=False); yaml.safe_load(text)")


def test_the_results_of_a_run_name_its_data_by_their_file_only(trained):
    with xr.open_dataset(trained.directory / "forecast.nc") as forecast:
        text = f"{forecast.attrs} {[v.attrs for v in forecast.variables.values()]}"
    assert str(trained.data.parent) not in text


def test_the_table_and_the_exit_code_say_what_is_wrong(monkeypatch, capsys):
    good, bad = Outcome(3, 3, [], True), Outcome(3, 2, ["a: read otherwise"], True)
    void = Outcome(3, 3, [], False)
    for outcome, code, row in (
        (good, 0, "| one | 3 | 3 | 0 |"),
        (bad, 1, "| one | 3 | 2 | 1 |"),
        (void, 1, "| one | 3 | 3 | 0, no control |"),
    ):
        monkeypatch.setattr(faults, "find_classes", lambda o=outcome: {"one": lambda folder: o})
        assert faults.main([]) == code
        assert row in capsys.readouterr().out
    monkeypatch.undo()
    assert {"files", "content", "config", "trust"} <= set(faults.find_classes())
