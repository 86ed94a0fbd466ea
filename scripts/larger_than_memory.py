"""Whether a series four times as large as the memory allowed is prepared, trained and verified.

    python scripts/larger_than_memory.py                 # 4 GiB of data in 1 GiB of memory
    python scripts/larger_than_memory.py --memory 1536   # 6 GiB in 1.5 GiB

A made-up sea is written as yearly NetCDF files, prepared by `gridcast data prepare`, and trained on
for one epoch, forecast and verified by `gridcast train`, each in a process of its own. Its peak of
resident memory, with the files that are mapped into it, is held against the limit; the climatology
of the run against least squares in numpy over the files, on every tenth row. What is found is
printed as JSON; the exit code is 1 where something is not kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

ROOT = Path(__file__).parents[1]
ROWS, COLUMNS, FIRST, RATIO = 360, 720, 1981, 4
CONFIG = """\
data: {{path: '{files}'}}
frames: {{inputs: 1, leads: 1, climatology: {{harmonics: 2}}, patches: {{size: [64, 64]}}}}
splits: {{train: [{first}, {train}], validation: ['{last}-01', '{last}-02'],
  test: ['{last}-04', '{last}-05']}}
model: {{name: conv_lstm, hidden: [4], downsample: 4}}
static: {{layers: []}}
train: {{epochs: 1, batch_size: 4}}
output: {{directory: {directory}}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", type=int, default=1024, help="MiB that a process may take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="gridcast-") as folder:
        found = show(Path(folder), arguments.memory)
    print(json.dumps(found, indent=2))
    return int(not found["kept"])


def show(folder: Path, memory: int) -> dict[str, Any]:
    """Make, prepare, train, compare."""
    count = memory * RATIO * 2**20 // (4 * ROWS * COLUMNS) + 1
    # In a process of its own: a child's peak begins with what its parent holds.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        dates = pool.submit(write_sea, folder, count).result()
    last = int(str(dates[-1])[:4]) - 1
    config, store = folder / "large.yaml", folder / "large.zarr"
    names = {"files": folder / "sea.*.nc", "directory": folder / "run"}
    config.write_text(CONFIG.format(first=FIRST, train=last - 1, last=last, **names))
    commands = {
        "prepare": ["data", "prepare", str(config), "--output", str(store)],
        "train": ["train", str(config), f"data.path={store}", "frames.storage=stream"],
    }
    size = dates.size * ROWS * COLUMNS * 4 / 2**20
    found: dict[str, Any] = {"series_MiB": round(size), "limit_MiB": memory}
    for name, command in commands.items():
        found[name] = measured(command)
    found["climatology_differs_by"] = difference(folder, dates, last)
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    found["epoch"] = {k: json.loads(lines[-1])[k] for k in ("step", "seconds", "waited")}
    inside = all(found[name]["peak_MiB"] < memory for name in commands)
    close = found["climatology_differs_by"] < 1e-6
    return found | {"kept": inside and close and size >= RATIO * memory}


def write_sea(folder: Path, count: int) -> np.ndarray:
    """Yearly files of a seasonal cycle, anomalies that last for weeks, and land."""
    rng = np.random.default_rng(0)
    lat = np.linspace(-89.75, 89.75, ROWS)
    lon = np.linspace(0.25, 359.75, COLUMNS)
    land = np.kron(rng.random((ROWS // 20, COLUMNS // 20)) < 0.3, np.ones((20, 20))) > 0
    times = np.datetime64(f"{FIRST}-01-01", "ns") + np.arange(count) * np.timedelta64(1, "D")
    anomaly = np.zeros((ROWS // 10, COLUMNS // 10))
    year = times.astype("datetime64[Y]").astype(int) + 1970
    for one in np.unique(year):
        dates = times[year == one]
        values = np.empty((dates.size, ROWS, COLUMNS), np.float32)
        for field, day in zip(values, (dates - dates[0]).astype("timedelta64[D]"), strict=True):
            anomaly = 0.95 * anomaly + 0.3 * rng.normal(size=anomaly.shape)
            season = 5.0 * np.sin(np.deg2rad(lat)) * np.cos(2 * np.pi * day.astype(int) / 365.25)
            field[:] = 15.0 + season[:, None] + np.kron(anomaly, np.ones((10, 10)))
            field[land] = np.nan
        coords = {"time": dates, "lat": lat, "lon": lon}
        sea = xr.DataArray(values, coords, ("time", "lat", "lon"), "sst", {"units": "degC"})
        sea.to_netcdf(folder / f"sea.{one}.nc")
    return times


def measured(command: list[str]) -> dict[str, float]:
    """Run `gridcast`, and what it took: seconds, and MiB of resident memory at its peak."""
    began = time.perf_counter()
    code = "import sys; from gridcast.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *command], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"gridcast {' '.join(command)} ended with {process.returncode}")
    kibibytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), "peak_MiB": round(kibibytes / 1024, 1)}


def difference(folder: Path, dates: np.ndarray, last: int) -> float:
    """The largest, in degC, between the run's climatology and least squares of all training dates.

    Both at each date of a year.
    """
    train = dates[dates < np.datetime64(f"{last}-01-01")]
    files = sorted(folder.glob("sea.*.nc"))
    rows = [xr.open_dataset(path)["sst"][:, ::10].values for path in files]
    values = np.concatenate(rows)[: train.size].astype(np.float64)
    from gridcast.run import Run  # later: it takes memory

    fitted = Run.load(folder / "run").transform.climatology
    terms = fitted.terms(train)
    sea = np.isfinite(values[0])
    own = np.linalg.lstsq(terms, values[:, sea], rcond=None)[0]
    theirs = fitted.coefficients[:, ::10][:, sea]
    return float(np.abs(terms[-366:] @ (own - theirs)).max())


if __name__ == "__main__":
    sys.exit(main())
