"""Imports point one way, and the command line starts without anything heavy."""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from gridcast.imports import uncollected

PACKAGE = Path(__file__).parents[1] / "gridcast"

# Each line may import from itself and from the lines above it.
ORDER = [
    [
        "errors",
        "html",
        "drafts",
        "locks",
        "provenance",
        "scratch",
        "timeaxis",
        "grid",
        "accelerator",
        "hosts",
        "cache",
        "compiled",
        "printing",
        "stages",
        "imports",
        "config",
    ],
    ["sources"],
    ["frames"],
    ["storage", "opening", "cf", "labelling", "references", "models"],
    ["training", "forecasting"],
    ["assembly", "verification"],
    ["preparation"],
    ["resuming", "fitting", "matching", "output", "plots", "long_training", "storing"],
    ["forecast_plots", "reprs"],
    ["run", "series_plots"],
    ["calibrating", "exporting", "report", "accessor", "trained"],
    ["experiment"],
    ["forecaster"],
    ["crossval", "pretraining", "simulation", "judging", "trials", "tuning"],
    ["run_list", "paired", "paired_classes", "class_pairing", "pairing", "doctor"],
    ["arguments", "commands_data", "commands_look", "commands_run", "completion", "cli"],
    ["__init__"],
]
RANK = {name: rank for rank, line in enumerate(ORDER) for name in line}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without `gridcast.`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, source: str, known: set[str]) -> set[str]:
    """Modules of the package that `source` imports, at the top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            # `from gridcast.training import loop` imports a module, or a name from one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in names:
            top, *parts = full.split(".")
            if top != "gridcast":
                continue
            while parts and ".".join(parts) not in known:
                parts.pop()
            found.add(".".join(parts) or "__init__")
    return found - {name}


def wrong_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if RANK[other.split(".")[0]] > RANK[name.split(".")[0]]
    ]


def graph() -> dict[str, set[str]]:
    found = modules()
    return {name: imported(name, path.read_text(), set(found)) for name, path in found.items()}


def test_every_module_has_its_place_in_the_order():
    assert {name.split(".")[0] for name in modules()} == set(RANK)


def test_imports_point_one_way():
    assert wrong_imports(graph()) == []


def test_imports_go_in_no_circle():
    # Names that a package re-exports make it depend on its modules, never they on it.
    list(TopologicalSorter(graph()).static_order())


@pytest.mark.parametrize(
    "line",
    [
        "import gridcast.models.layers",
        "from gridcast.models import layers",
        "from gridcast.models.layers import GridConv",
        "def f():\n    from gridcast.models.layers import GridConv",
    ],
)
def test_an_import_the_wrong_way_is_seen(line):
    found = imported("frames.windows", line, set(modules()))
    assert wrong_imports({"frames.windows": found}) == ["frames.windows imports models.layers"]


HEAVY = ["jax", "flax", "optax", "xarray", "matplotlib", "pooch", "requests", "scipy", "netCDF4"]


def loaded_by(module: str, parts: int = 1) -> set[str]:
    name = f"'.'.join(m.split('.')[:{parts}])"
    code = f"import sys, {module}; print(*{{{name} for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["gridcast", "gridcast.cli"])
def test_the_command_line_starts_without_anything_heavy(module):
    assert not loaded_by(module) & set(HEAVY)


def test_heavy_modules_are_seen_where_they_are_loaded():
    loaded = loaded_by("gridcast.experiment")
    assert {"jax", "xarray"} <= loaded
    # What a forecast does not need it does not wait for.
    assert not loaded & {"matplotlib", "pooch", "requests"}


def test_a_forecast_does_not_read_what_trains():
    loaded, trains = (
        loaded_by("gridcast.trained", parts=2),
        {"experiment", "fitting", "calibrating"},
    )
    assert trains < modules().keys()
    assert "gridcast.run" in loaded
    assert not {f"gridcast.{name}" for name in trains} & loaded


def test_reading_modules_is_not_interrupted_and_leaves_collection_as_it_was(monkeypatch):
    frozen = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # nothing was read
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with uncollected(), contextlib.redirect_stdout(io.StringIO()):
        import this  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
