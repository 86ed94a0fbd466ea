"""A small experiment as files, the command line in this process or another, and what it left."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

ROOT = Path(__file__).parents[2]
EPOCHS = 12
# Written once, the same whoever writes it.
ENVIRONMENT = {"SOURCE_DATE_EPOCH": "946684800"}
# Lines with seconds, and the record of the run: its configuration names the directory.
VARYING = ("metrics.jsonl", "report.html", "config.yaml", "about.json", "sha256.json")


def write_experiment(folder: Path, **sections: dict[str, Any]) -> Path:
    """Simulated data and a config of a run that takes seconds."""
    from gridcast.sources.simulated import write_simulation

    folder.mkdir(parents=True, exist_ok=True)
    write_simulation(folder / "ocean.nc", kind="ocean", years=14, shape=(9, 18), seed=3)
    settings = {
        "data": {"path": str(folder / "ocean.nc")},
        "frames": {"inputs": 3, "leads": 2},
        "splits": {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
        "model": {"name": "conv_lstm", "hidden": [4], "dropout": 0.1},
        "train": {"epochs": EPOCHS, "batch_size": 4, "patience": EPOCHS},
    }
    for name, values in sections.items():
        settings[name] = settings.get(name, {}) | values
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


def fitted(config: Path, directory: Path) -> Path:
    """A run of which there are checkpoints only: its results take longer than its training."""
    from gridcast.config import load_config
    from gridcast.fitting import fit_setup
    from gridcast.opening import open_source
    from gridcast.preparation import prepare

    loaded = load_config(config)
    fit_setup(prepare(loaded, open_source(loaded)), directory, resume=False)
    return directory


def environment(config: Path) -> dict[str, str]:
    """That of a process: compiled programs are kept, dates are given."""
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(config.with_name("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return {**os.environ, **ENVIRONMENT, **compiled}


def start(config: Path, directory: Path, *options: str) -> subprocess.Popen[str]:
    """`gridcast train` in a process of its own."""
    command = [sys.executable, "-u", str(ROOT / "scripts" / "train.py"), str(config)]
    return subprocess.Popen(
        [*command, f"output.directory={directory}", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(config),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was said."""
    said = process.communicate(timeout=600)[1]
    return process.returncode, said


def command(*arguments: str | Path) -> tuple[int, str]:
    """The command line in this process: exit code and all that was said."""
    from gridcast.cli import main

    said = io.StringIO()
    dates = mock.patch.dict(os.environ, ENVIRONMENT)
    with dates, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main([str(one) for one in arguments])
    return code, said.getvalue()


def refused(code: int, said: str, *named: str) -> str | None:
    """What is wrong with a refusal: it ends with 2, tells what is needed, without a traceback."""
    if code != 2:
        return f"exit code {code}: {said[-300:]!r}"
    if "Traceback" in said or "error: " not in said:
        return f"not told as an error: {said[-300:]!r}"
    missing = [name for name in named if name not in said]
    return f"does not name {missing}: {said[-300:]!r}" if missing else None


def files(directory: Path) -> dict[str, bytes]:
    """All files below a directory under their final names."""
    found = (p for p in directory.rglob("*") if p.is_file())
    names = {str(p.relative_to(directory)): p for p in found}
    return {n: p.read_bytes() for n, p in names.items() if not _draft(n)}


def drafts(directory: Path) -> list[str]:
    """What is left half written."""
    names = (str(p.relative_to(directory)) for p in directory.rglob("*"))
    return sorted(name for name in names if _draft(name))


def _draft(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def strange(directory: Path, whole: Path) -> str | None:
    """What a stopped run shows that the whole run does not: a half or another file."""
    from gridcast.errors import CheckpointError
    from gridcast.training.checkpoints import load, saved

    expected = files(whole)
    for name, content in files(directory).items():
        if name.startswith("checkpoints") or Path(name).name in VARYING:
            continue
        if expected.get(name) != content:
            return f"{name} is not that of the whole run"
    for path in saved(directory / "checkpoints"):
        try:
            load(path)
        except CheckpointError as error:
            return f"half a checkpoint: {error}"
    return None


def differs(directory: Path, whole: Path) -> str | None:
    """What a run that has ended has left otherwise than the whole run."""
    ours, theirs = files(directory), files(whole)
    if ours.keys() != theirs.keys():
        return f"other files: {sorted(ours.keys() ^ theirs.keys())[:5]}"
    wrong = [n for n in ours if Path(n).name not in VARYING and ours[n] != theirs[n]]
    if wrong:
        return f"other bits in {wrong[:5]}"
    left = drafts(directory)
    return f"leftovers: {left[:3]}" if left else None
