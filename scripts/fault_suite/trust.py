"""What comes from others runs no code and reaches nothing; what goes to others tells no secrets."""

from __future__ import annotations

import ast
import getpass
import hashlib
import json
import logging
import os
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import gridcast
from fault_suite.outcome import Outcome
from gridcast.config import config_from_dict, load_config
from gridcast.errors import GridcastError
from gridcast.experiment import run_training
from gridcast.run import Run
from gridcast.sources import catalog
from gridcast.sources.netcdf import write_netcdf
from gridcast.sources.simulated import simulated_series
from gridcast.training import checkpoints

NAME = "trust"
SECRET = "hunter2-do-not-tell"
MARKUP = "<blink>"  # of a page, where what is not ours is not escaped
PACKAGE = Path(gridcast.__file__).parent
_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "np.fromfile"}
# They ask git for the revision and start a witness, by commands that nothing read has a part in.
_COMMANDS = {"provenance.py", "hosts.py"}
_MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "subprocess", "tarfile"}


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def run(folder: Path) -> Outcome:
    logging.getLogger("gridcast").setLevel(logging.ERROR)
    answers = [*code_of_package(), *poisoned(folder), *escapes(folder), *told(folder)]
    wrong = [f"{name}: {problem}" for name, problem in answers if problem is not None]
    return Outcome(len(answers), len(answers) - len(wrong), wrong, _poison_works(folder))


def _poison_works(folder: Path) -> bool:
    marker = folder / "control"
    pickle.loads(pickle.dumps(Poison(marker)))
    return marker.exists()


def code_of_package() -> Iterator[tuple[str, str | None]]:
    """Every module: nothing that runs what it reads."""
    for path in sorted(PACKAGE.rglob("*.py")):
        allowed = {"subprocess"} if path.name in _COMMANDS else set()
        found = [name for name in unsafe(path.read_text()) if name not in allowed]
        yield path.name, ", ".join(found) or None


def unsafe(source: str) -> list[str]:
    """Calls and imports in a source text that run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [str(node.module)]
            found += [name for name in modules if name.split(".")[0] in _MODULES]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            told = {word.arg: ast.unparse(word.value) for word in node.keywords}
            loads = name in ("np.load", "numpy.load") and told.get("allow_pickle") != "False"
            unsafe_yaml = name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
            if name in _CALLS or loads or unsafe_yaml or told.get("shell") == "True":
                found.append(f"line {node.lineno}: {name}")
    return found


def poisoned(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Checkpoints and configs that would run code."""
    arrays = {"best": {"a": np.zeros(3)}, "weights": {"a": np.zeros(3)}}
    for group in arrays:
        directory, marker = folder / f"poisoned-{group}", folder / f"marker-{group}"
        path = checkpoints.save(directory, checkpoints.Checkpoint(1, {}, arrays))
        checkpoints.load(path)
        content = np.empty(1, object)
        content[0] = Poison(marker)
        np.savez(path / f"{group}.npz", allow_pickle=True, a=content)
        _seal(path)
        yield f"a pickle in {group}.npz", _refused(checkpoints.load, path) or _absent(marker)
    marker = folder / "marker-yaml"
    for tag in ("object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir"):
        config = folder / "poisoned.yaml"
        config.write_text(f"data: !!python/{tag} [{marker}]\n")
        yield f"a config with {tag}", _refused(load_config, config) or _absent(marker)


def escapes(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Names that lead out of where they belong."""
    arrays = {"best": {"a": np.zeros(3)}}
    secret = folder / "outside.npz"
    np.savez(secret, a=np.ones(3))
    for number, name in enumerate(("../../outside.npz", str(secret), "a/b.npz", "..")):
        path = checkpoints.save(folder / f"escape{number}", checkpoints.Checkpoint(1, {}, arrays))
        digest = hashlib.sha256(secret.read_bytes()).hexdigest()
        sums = json.loads((path / "sha256.json").read_text()) | {name: digest}
        (path / "sha256.json").write_text(json.dumps(sums))
        yield f"a checkpoint with {name}", _refused(checkpoints.load, path)
    for name in ("../outside", "/etc", "..", "ersst-v5/../../outside", ""):
        yield f"the data set {name!r}", _refused(catalog.locate, name)
    for entry in catalog.catalog().values():
        inside = all("/" not in p and ".." not in p for p in entry.patterns)
        address = entry.download is None or re.fullmatch(r"https://[^?#]+/[\w.-]+", entry.download)
        yield f"the entry {entry.name}", None if inside and address else "leads elsewhere"


def told(folder: Path) -> Iterator[tuple[str, str | None]]:
    """A whole run with nothing to train: what its files say of the machine and of who ran it."""
    home = folder / "home" / "alice"
    home.mkdir(parents=True)
    data = home / f"sea{MARKUP}.nc"
    write_netcdf(
        simulated_series("ocean", years=14, shape=(9, 18))[0].drop_attrs().to_dataset(), data
    )
    directory = home / "run"
    os.environ["GRIDCAST_TEST_SECRET"] = SECRET
    try:
        config = config_from_dict(
            {
                "data": {"path": str(data)},
                "frames": {"inputs": 2, "leads": 2},
                "splits": {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
                "model": {"name": "climatology"},
                "output": {"directory": str(directory)},
            }
        )
        run_training(config)
        forecast = Run.load(directory).forecast(str(data))
        write_netcdf(forecast, directory / "another.nc")
    finally:
        del os.environ["GRIDCAST_TEST_SECRET"]
    words = {SECRET, str(folder), "alice", getpass.getuser(), socket.gethostname()}
    words |= {str(Path.home()), os.getcwd()}
    words = {word for word in words if len(word) > 4}  # pixels spell the shorter ones
    # These two are what repeats the run: they say where the data are as the user said it.
    of_user = {"config.yaml", "about.json"}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in of_user):
        found = [word for word in words if word in _text(path)]
        yield f"the output {path.name}", f"tells {', '.join(found)}" if found else None
    page = (directory / "report.html").read_text()
    named, raw = escape(data.name) in page, MARKUP in page
    yield "markup in a name", "it is in the report" if raw else None if named else "no name told"
    about = json.loads(next(directory.rglob("about.json")).read_text())
    del about["config"]
    found = [word for word in words if word in json.dumps(about)]
    yield "the output about.json", f"tells {', '.join(found)}" if found else None
    written = config.model_dump()["data"]["path"]
    kept = load_config(directory / "config.yaml").data.path
    yield "the output config.yaml", None if kept == written else "another path than the user's"


def _text(path: Path) -> str:
    """What a file says: bytes as text, of compressed NetCDF the attributes and texts as well."""
    content = path.read_bytes().decode("latin-1")
    if path.suffix != ".nc":
        return content
    with xr.open_dataset(path) as dataset:
        return (
            content
            + str(dataset.attrs)
            + "".join(
                str(v.attrs) + (str(v.values) if v.dtype.kind in "OUS" else "")
                for v in dataset.variables.values()
            )
        )


def _seal(path: Path) -> None:
    """Checksums that fit, as somebody who means harm would give."""
    files = [p for p in path.iterdir() if p.name != "sha256.json"]
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (path / "sha256.json").write_text(json.dumps(sums))


def _refused(load: Callable[[Any], Any], what: Any) -> str | None:
    try:
        load(what)
    except GridcastError:
        return None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def _absent(marker: Path) -> str | None:
    return "its code was run" if marker.exists() else None
