"""The notebooks: each runs, uses public names only, and the ten lines are ten."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

import gridcast
from gridcast.accessor import Accessor

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.py"))
FIRST = "first_forecast"


def code_of(name: str) -> list[str]:
    """The lines of code of a notebook: no text, no comment, no empty line."""
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def unknown_names(source: str) -> Iterator[str]:
    """What is asked of gridcast, its Forecaster or the accessor, and is not there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gridcast"):
            yield str(node.module)  # a notebook shows the public names
        if not isinstance(node, ast.Attribute):
            continue
        of = node.value
        if isinstance(of, ast.Name) and of.id == "gridcast":
            if node.attr not in gridcast.__all__ or not hasattr(gridcast, node.attr):
                yield f"gridcast.{node.attr}"
        elif getattr(of, "attr", "") == "gridcast" and not hasattr(Accessor, node.attr):
            yield f".gridcast.{node.attr}"
        elif getattr(of, "id", "") == "forecaster" and not hasattr(gridcast.Forecaster, node.attr):
            yield f"forecaster.{node.attr}"


def test_there_are_four_notebooks_in_cells_with_text_first():
    assert len(NOTEBOOKS) == 4
    for name in NOTEBOOKS:
        kinds = re.findall(r"^# %%(.*)$", (FOLDER / f"{name}.py").read_text(), re.MULTILINE)
        assert kinds[0] == " [markdown]", name
        assert set(kinds) == {"", " [markdown]"}, name


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_uses_public_names_only(name):
    assert list(unknown_names((FOLDER / f"{name}.py").read_text())) == []


def test_a_name_that_is_not_there_is_seen():
    source = "gridcast.opn(x); y.gridcast.anomalies(); forecaster.guess(); gridcast.open(x)"
    found = list(unknown_names(source))
    assert set(found) == {"gridcast.opn", ".gridcast.anomalies", "forecaster.guess"}


def test_the_first_forecast_takes_ten_lines_and_readme_has_the_same():
    lines = code_of(FIRST)
    assert len(lines) == 10
    assert ";" not in "".join(lines)
    assert max(map(len, lines)) <= 100
    section = (ROOT / "README.md").read_text().split("\n## In notebooks\n")[1].split("\n## ")[0]
    block = section.split("```python\n")[1].split("```")[0]
    assert [line for line in block.splitlines() if line.strip()] == lines


def execute(name: str, folder: Path) -> str:
    """Run a notebook as a plain script, warnings of gridcast's own being errors."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    return done.stdout


@pytest.mark.family
def test_the_first_forecast_is_one(tmp_path):
    execute(FIRST, tmp_path)
    with xr.open_dataset(tmp_path / "forecast.nc") as forecast:
        assert forecast["sst"].sizes["forecast_period"] == 6
        assert forecast["time"].dt.strftime("%Y-%m").values[0, 0] == "1980-01"


@pytest.mark.family
def test_a_file_of_ones_own_gives_a_forecast_in_its_units(tmp_path):
    said = execute("own_file", tmp_path)
    assert "there is no variable 'sst'; found tos_k" in said
    with xr.open_dataset(tmp_path / "forecast.nc") as forecast:
        assert forecast["tos_k"].attrs["units"] == "K"
        assert 265 < float(forecast["tos_k"].min()) < float(forecast["tos_k"].max()) < 310
    assert (tmp_path / "runs" / "theirs" / "report.html").is_file()


@pytest.mark.family
def test_the_notebook_on_skill_refuses_leaks_and_measures_one(tmp_path):
    said = execute("any_good", tmp_path)
    assert "must end before" in said
    gained = re.search(r"gained by looking: (-?[\d.]+) %", said)
    assert gained is not None
    assert float(gained[1]) > 0
    told = re.findall(r"skill +(-?[\d.]+), +(-?[\d.]+) to +(-?[\d.]+): (.*)", said)
    assert len(told) == 4 * 6
    for skill, low, high, word in told:
        assert float(low) <= float(skill) <= float(high)
        expected = "better" if float(low) > 0 else "worse" if float(high) < 0 else "may be chance"
        assert word == expected or "0.000" in (low, high, "-0.000")


@pytest.mark.family
def test_the_notebook_on_rain_compares_relief_and_judges_terciles(tmp_path):
    said = execute("rain_and_relief", tmp_path)
    assert len(re.findall(r"relief: RMSE [\d.]+ and [\d.]+ mm/day", said)) == 2
    assert re.search(r"RPSS at leads 1 and 2: -?[\d.]+ and -?[\d.]+", said)
    assert said.count("% ->") >= 3
