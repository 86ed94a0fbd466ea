"""The command line: exit codes, where text goes, light imports, and `gridcast data`."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import gridcast
from gridcast.cli import main
from gridcast.errors import TrainingError

CONFIG = """\
data: {name: ersst-v5}
splits: {train: [1950, 1990], validation: [1991, 2000], test: [2001, 2012]}
model: {name: conv_lstm}
"""


@pytest.fixture
def run(capsys):
    """Runs a command; gives the exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def calls(monkeypatch):
    """Stands in for what does the work: records what the command line asks of it."""
    calls: list[tuple] = []
    stand_in = types.ModuleType("gridcast.experiment")
    stand_in.run_training = lambda config, *, resume: calls.append((config, resume))  # type: ignore
    stand_in.dry_run = lambda config: f"would write {config.output.directory}"  # type: ignore
    trained = types.ModuleType("gridcast.trained")
    trained.run_forecast = lambda *a: calls.append(a) or Path("out.nc")  # type: ignore
    trained.run_evaluation = lambda *a: calls.append(a) or "a table"  # type: ignore
    for name, module in (("experiment", stand_in), ("trained", trained)):
        monkeypatch.setitem(sys.modules, f"gridcast.{name}", module)
        monkeypatch.setattr(gridcast, name, module, raising=False)
    return calls


def test_importing_the_command_line_imports_nothing_heavy():
    heavy = [
        "jax",
        "flax",
        "xarray",
        "numpy",
        "matplotlib",
        "pooch",
        "requests",
        "pydantic",
        "tqdm",
    ]
    code = f"import sys, gridcast.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_takes_overrides_before_and_after_options(run, calls, config):
    for arguments in (
        ["train.epochs=3", "train.seed=7", "--resume"],
        ["--resume", "train.epochs=3", "train.seed=7"],
        ["train.epochs=3", "--resume", "train.seed=7"],
    ):
        assert run("train", config, *arguments)[0] == 0
        settings, resume = calls.pop()
        assert (settings.train.epochs, settings.train.seed, resume) == (3, 7, True)
    assert run("train", config)[0] == 0
    settings, resume = calls.pop()
    assert (settings.train.epochs, resume) == (20, False)


def test_a_run_is_named_after_its_config_unless_told_otherwise(run, calls, config):
    assert run("train", config, "--dry-run")[1] == "would write runs/small\n"
    assert run("train", config, "--dry-run", "output.directory=x")[1] == "would write x\n"
    assert calls == []


def test_forecast_and_evaluate_pass_on_what_was_given(run, calls):
    assert run("forecast", "runs/a")[:2] == (0, "out.nc\n")
    assert calls.pop() == ("runs/a", None, None, None, None)
    run("forecast", "runs/a", "--data", "x.nc", "y.nc", "--leads", "3", "--start", "2010-12",
        "--output", "z.nc")  # fmt: skip
    assert calls.pop() == ("runs/a", ["x.nc", "y.nc"], 3, "2010-12", "z.nc")
    assert run("evaluate", "runs/a", "--data", "x.nc")[:2] == (0, "a table\n")
    assert calls.pop() == ("runs/a", ["x.nc"], {}, False)
    run("evaluate", "runs/a", "--forecast", "cfs=b.nc", "--forecast", "ecmwf.nc", "--regrid")
    assert calls.pop() == ("runs/a", None, {"cfs": "b.nc", "ecmwf": "ecmwf.nc"}, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["trian", "x"], "invalid choice: 'trian'"),
        (["train", "no/such.yaml"], "error: no/such.yaml: there is no such file"),
        (["train", "x.yaml", "--wrong"], "unknown arguments: --wrong"),
        (["forecast", "x", "extra"], "unknown arguments: extra"),
        (["forecast", "x", "--leads", "0"], "at least 1, found '0'"),
        (["data", "get", "erst-v5"], "did you mean: ersst-v5"),
        (["data", "simulate", "--grid", "45by90", "o.nc"], "such as 45x90, found '45by90'"),
        (["data", "simulate", "--grid", "0x90", "o.nc"], "found '0x90'"),
        (["data", "simulate", "--years", "-1", "o.nc"], "at least 1, found '-1'"),
    ],
)
def test_a_mistake_ends_with_code_2_and_words_not_a_traceback(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_a_mistake_in_a_config_names_the_line(run, config):
    Path(config).write_text(CONFIG + "train: {learing_rate: 1}\n")
    code, _, err = run("train", config)
    assert code == 2
    assert err.startswith(f"error: {config}:4: unknown key train.learing_rate\n  did you mean: ")


def test_errors_inside_a_command_keep_their_meaning(run, calls, config, monkeypatch):
    def fail(error):
        def raise_it(*arguments, **options):
            raise error

        monkeypatch.setattr(sys.modules["gridcast.experiment"], "run_training", raise_it)

    fail(TrainingError("the loss is nan"))
    assert run("train", config) == (2, "", "error: the loss is nan\n")
    fail(KeyboardInterrupt())
    assert run("train", config)[0] == 130
    fail(ZeroDivisionError("a bug"))  # a bug keeps its traceback
    with pytest.raises(ZeroDivisionError):
        main(["train", config])


def test_the_version_is_the_package_s(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("gridcast 0.")


def test_the_list_says_what_is_here_and_what_is_not(run, monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRIDCAST_DATA", str(tmp_path))
    for year in (1, 2):
        (tmp_path / f"sst_ersstv5_{year}.nc").touch()
    code, out, _ = run("data", "list")
    rows = {line.split()[0]: line for line in out.splitlines() if line[0] != " "}
    assert code == 0
    assert rows["ersst-v5"].split(maxsplit=3) == [
        "ersst-v5",
        "sst",
        "degC",
        f"2 files in {tmp_path}",
    ]
    assert rows["relief"].endswith("no, data get")
    assert rows["oisst-v2.1-daily"].endswith("no, see page")


def test_get_says_where_the_file_is_and_whom_to_cite(run, monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path))
    file = tmp_path / "ersst-v5" / "sst.mnmean.nc"
    file.parent.mkdir()
    file.touch()
    code, out, _ = run("data", "get", "ersst-v5")
    assert (code, out.splitlines()[0]) == (0, str(file))
    assert "cite: Huang et al. 2017" in out


@pytest.mark.parametrize("command", ["train", "forecast", "evaluate"])
def test_each_script_is_its_command(command):
    script = Path(__file__).parents[1] / "scripts" / f"{command}.py"
    done = subprocess.run([sys.executable, script, "-h"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"usage: gridcast {command}" in done.stdout
