"""Forecasts of gridded time series: NetCDF in, honest forecast out.

The public names, each imported when it is first used: `import gridcast` itself is light. With the
first of them every xarray object has its `.gridcast` (`gridcast.accessor`).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gridcast.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GridcastError,
    TrainingError,
)

if TYPE_CHECKING:
    from gridcast.config import Config, load_config
    from gridcast.crossval import cross_validate
    from gridcast.experiment import evaluate, train
    from gridcast.exporting.directory import export_run
    from gridcast.exporting.loading import Exported, load_exported
    from gridcast.forecaster import Forecaster
    from gridcast.grid import Grid
    from gridcast.opening import open
    from gridcast.pretraining import pretrain
    from gridcast.run import Run
    from gridcast.sources.netcdf import open_frames
    from gridcast.sources.simulated import simulated_series
    from gridcast.tuning import tune

    load_run = Run.load
    __version__: str

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "Exported",
    "Forecaster",
    "Grid",
    "GridcastError",
    "Run",
    "TrainingError",
    "__version__",
    "cross_validate",
    "evaluate",
    "export_run",
    "load_config",
    "load_exported",
    "load_run",
    "open",
    "open_frames",
    "pretrain",
    "simulated_series",
    "train",
    "tune",
]

_MODULES = {
    "Config": "gridcast.config",
    "Exported": "gridcast.exporting.loading",
    "Forecaster": "gridcast.forecaster",
    "Grid": "gridcast.grid",
    "cross_validate": "gridcast.crossval",
    "Run": "gridcast.run",
    "evaluate": "gridcast.experiment",
    "export_run": "gridcast.exporting.directory",
    "load_config": "gridcast.config",
    "load_exported": "gridcast.exporting.loading",
    "open": "gridcast.opening",
    "open_frames": "gridcast.sources.netcdf",
    "pretrain": "gridcast.pretraining",
    "simulated_series": "gridcast.sources.simulated",
    "train": "gridcast.experiment",
    "tune": "gridcast.tuning",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gridcast")
    if name == "load_run":
        return __getattr__("Run").load
    if name not in _MODULES:
        raise AttributeError(f"module 'gridcast' has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name]), name)
    _register_accessor()
    return found


def _register_accessor() -> None:
    """Give xarray objects their `.gridcast`, if anybody has any."""
    if "xarray" in sys.modules:
        import_module("gridcast.accessor")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_register_accessor()
