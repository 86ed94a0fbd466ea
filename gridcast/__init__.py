"""Forecasts of gridded time series: NetCDF in, honest forecast out.

The public names, each imported when it is first used: `import gridcast` itself is light. Every
xarray object has its `.gridcast` (`gridcast.accessor`), whichever of the two is imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
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
    from gridcast.experiment import train
    from gridcast.exporting.directory import export_run
    from gridcast.exporting.loading import Exported, load_exported
    from gridcast.forecaster import Forecaster
    from gridcast.grid import Grid
    from gridcast.opening import open
    from gridcast.pretraining import pretrain
    from gridcast.run import Run
    from gridcast.sources.netcdf import open_frames
    from gridcast.sources.simulated import simulated_series
    from gridcast.trained import evaluate
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
    "evaluate": "gridcast.trained",
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
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _WithXarray(MetaPathFinder):
    """Gives xarray objects their `.gridcast` as soon as somebody imports xarray."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "xarray":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("xarray")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                import_module("gridcast.accessor")

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "xarray" in sys.modules:
    import_module("gridcast.accessor")
else:
    sys.meta_path.insert(0, _WithXarray())
