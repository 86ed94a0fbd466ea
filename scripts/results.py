"""Train the shipped configs and write README's tables of results.

    python scripts/results.py           # trains everything anew
    python scripts/results.py --reuse   # trains only what has no finished run of its config

Runs lie in runs/results/NAME. The tables go between the markers `<!-- results:begin -->` and
`<!-- results:end -->` of README.md, all numbers, the machine and the versions into
scripts/results.json. A data set that is neither here nor can be downloaded is skipped and noted;
simulated data never stand in.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr
from benchmarks.machine import processor
from readme_tables import between_markers
from results_tables import Done, Group, made_on, table

from gridcast.accelerator import device_name
from gridcast.config import Config, load_config
from gridcast.drafts import write_text
from gridcast.errors import ConfigError, DataError, GridcastError
from gridcast.experiment import run_training
from gridcast.opening import open_source

GROUPS = (
    Group(
        "Tasman Sea, OISST daily 0.25 degree", ("tasman_cnn_lstm", "tasman"), (1, 2, 3, 5, 7, 10)
    ),
    Group(
        "Tropical Pacific (30S-30N, 120E-70W), ERSSTv5 monthly",
        ("sst_cnn_lstm", "sst", "tropical_pacific"),
        (1, 2, 3, 6, 9, 12),
    ),
    Group("Global ocean (60S-64N), ERSSTv5 monthly", ("global_sst",), (1, 2, 3, 6, 9, 12)),
    Group("Nino3.4, the index by itself, ERSSTv5", ("nino34",), (1, 3, 6, 9, 12)),
    Group("Nino3.4 from maps of SST and sea-surface height", ("nino34_basin",), (1, 3, 6, 9, 12)),
    Group("El Nino, neutral or La Nina, ERSSTv5", ("enso_phase",), (1, 2, 3, 4, 5, 6)),
    Group("Rain over Australia, GPCP monthly", ("rain_gpcp",), (1, 2, 3)),
    Group("Terciles of rain, Bale Mountains, CHIRPS", ("rain_chirps",), (1, 2, 3), "rpss"),
)
ROOT = Path(__file__).parents[1]
_log = logging.getLogger("gridcast")


class NotHere(DataError):  # noqa: N818  (no mistake of anyone's)
    """The data of a config are neither here nor can be downloaded."""


def done(path: Path, directory: Path, *, reuse: bool) -> Done:
    """The run of a config, trained unless a finished one of the same settings is to be used.

    Raises:
      NotHere: its data are not found.
    """
    config = load_config(path, ["data.offline=error"])
    output = config.output.model_copy(update={"directory": str(directory)})
    config = config.model_copy(update={"output": output})
    about = directory / "results.json"
    if not (reuse and _finished(directory, config)):
        try:
            open_source(config)
        except DataError as error:
            raise NotHere(str(error)) from error
        _log.info("%s", path)
        began = time.perf_counter()
        run_training(config)
        seconds = round(time.perf_counter() - began, 1)
        write_text(about, json.dumps({"seconds": seconds, **machine()}, indent=1))
    made = directory / "scores.nc"
    # A run that this script did not make says nothing of its time.
    timed = about.exists() and about.stat().st_mtime >= made.stat().st_mtime
    known = json.loads(about.read_text()) if timed else {"seconds": None}
    with xr.open_dataset(made, decode_timedelta=False) as scores:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        return Done(str(shown), config, scores.load(), known)


def _finished(directory: Path, config: Config) -> bool:
    if not ((directory / "scores.nc").exists() and (directory / "config.yaml").exists()):
        return False
    without = {"output": True, "tune": True, "crossval": True, "data": {"offline"}}
    was = load_config(directory / "config.yaml").model_dump(exclude=without)
    return was == config.model_dump(exclude=without)


def machine() -> dict[str, Any]:
    """What the numbers were made on."""
    packages = ("gridcast", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "date": dt.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device_name(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in packages},
    }


def _numbers(scores: xr.Dataset) -> dict[str, Any]:
    """All scores without a map, with None for NaN."""
    kept = [n for n, one in scores.data_vars.items() if not {"lat", "lon"} & set(one.dims)]
    return json.loads(
        json.dumps(scores[kept].drop_vars(["lat", "lon"], errors="ignore").to_dict()),
        parse_constant=lambda _: None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reuse", action="store_true", help="take finished runs as they are")
    parser.add_argument("--configs", nargs="+", type=Path, help="these alone, not those above")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--json", type=Path, default=ROOT / "scripts" / "results.json")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        write(arguments)
    except GridcastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write(arguments: argparse.Namespace) -> None:
    between_markers(arguments.readme.read_text(), "")  # before hours are spent
    files = {name: ROOT / "configs" / f"{name}.yaml" for group in GROUPS for name in group.configs}
    groups = GROUPS
    if arguments.configs:
        files = {path.stem: path.resolve() for path in arguments.configs}
        groups = tuple(Group(name, (name,)) for name in files)
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise ConfigError(f"there is no {', '.join(missing)}")
    texts, every = [], {}
    for group in groups:
        runs, notes = [], []
        for name in group.configs:
            try:
                runs.append(done(files[name], arguments.runs / name, reuse=arguments.reuse))
                every[name] = runs[-1]
            except NotHere as error:
                notes.append(f"`{name}`: skipped, its data were not found.")
                _log.warning("%s is skipped: %s", name, error)
        head = table(group, runs) if runs else f"**{group.title}**"
        texts.append("\n\n".join([head, *notes]))
    tables = "\n\n".join([*texts, made_on(list(every.values()))])
    kept = {
        n: {"config": r.path, **r.about, "scores": _numbers(r.scores)} for n, r in every.items()
    }
    write_text(arguments.json, json.dumps(kept, indent=1) + "\n")
    write_text(arguments.readme, between_markers(arguments.readme.read_text(), tables))
    print(tables)


if __name__ == "__main__":
    sys.exit(main())
