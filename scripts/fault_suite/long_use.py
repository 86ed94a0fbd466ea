"""Long use: hundreds of forecasts in one process, of all lengths, dates and data."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np

from fault_suite import small
from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "long use"
FORECASTS, WARM, LOADED = 500, 60, 8
# Of memory, in MiB: what an allocator may keep.
MOST = 24.0


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(folder: Path, forecasts: int = FORECASTS) -> Outcome:
    """Forecast from each date, some beyond the trained leads, from memory and from files."""
    tally = Tally()
    config = small.write_experiment(folder / "experiment", train={"epochs": 1})
    whole = folder / "whole"
    code, said = small.command("train", config, f"output.directory={whole}")
    tally.control(said[-300:] if code else None)
    used(tally, folder, config, whole, forecasts)
    _loads(tally, whole, config.with_name("ocean.nc"))
    return tally.outcome


def used(tally: Tally, folder: Path, config: Path, whole: Path, forecasts: int) -> None:
    """So many forecasts by one run leave the process as it was."""
    import jax

    from gridcast.run import Run
    from gridcast.sources.netcdf import open_frames, write_netcdf

    path = config.with_name("ocean.nc")
    series = open_frames(path)
    trained = Run.load(whole)
    compiled: list[str] = []

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)
    first = trained.forecast(series, start="1961-01")
    at_start: tuple[int, int, float] = (0, 0, 0.0)
    for number in range(forecasts):
        if number == min(WARM, forecasts // 4):
            gc.collect()
            compiled.clear()
            at_start = (_handles(), threading.active_count(), _memory())
        length = series.sizes["time"] - number % 24  # series of all lengths
        date = f"{1959 + number % 3}-{number % 12 + 1:02d}"
        data = str(path) if number % 10 == 0 else series.isel(time=slice(length))
        forecast = trained.forecast(data, start=date, leads=1 + number % 6)
        write_netcdf(forecast, folder / "forecast.nc")
        values = forecast["sst"].values[..., trained.transform.grid.mask]
        tally.case(f"forecast {number}", None if np.isfinite(values).all() else "not finite")
    gc.collect()
    growth = _memory() - at_start[2]
    tally.case("memory", None if growth < MOST else f"{growth:.0f} MiB more")
    more = _handles() - at_start[0]
    tally.case("file handles", None if more <= 0 else f"{more} more")
    more = threading.active_count() - at_start[1]
    tally.case("threads", None if more <= 0 else f"{more} more")
    tally.case("compiled programs", f"{len(compiled)} more" if compiled else None)
    again = trained.forecast(series, start="1961-01")
    tally.case("the first once more", None if again.equals(first) else "other values")


def _loads(tally: Tally, whole: Path, path: Path) -> None:
    """Runs that are loaded, used and left are not kept."""
    from gridcast.run import Run
    from gridcast.sources.netcdf import open_frames

    series, before = open_frames(path), 0.0
    for number in range(2 * LOADED):
        if number == LOADED:
            gc.collect()
            before = _memory()
        Run.load(whole).forecast(series, start="1961-01")
    gc.collect()
    growth = (_memory() - before) / LOADED
    tally.case("runs that are left", None if growth < 3 else f"{growth:.1f} MiB more for each")
