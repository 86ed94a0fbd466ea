"""From a config, or data at hand, to canonical series on one grid and on the same dates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from gridcast.config import Config
from gridcast.config.bounds import Region
from gridcast.config.data import MoreConfig, VariableConfig
from gridcast.errors import ConfigError, DataError
from gridcast.frames.fields import variables
from gridcast.frames.transform import grid_of
from gridcast.sources import catalog
from gridcast.sources.box import box_mean
from gridcast.sources.files import find_files
from gridcast.sources.netcdf import open_frames, opened
from gridcast.sources.regrid import align_dates, to_grid
from gridcast.sources.simulated import FIRST_YEAR, simulated_series
from gridcast.sources.static import open_elevation
from gridcast.sources.store import about_store, open_store
from gridcast.stages import stage
from gridcast.storage import streams
from gridcast.timeaxis import TimeAxis

IN_MEMORY = "(in memory)"
Labelled = str | Path | list[str] | xr.Dataset | xr.DataArray
SIMULATED_SEED = 0
_log = logging.getLogger("gridcast")


def open(
    source: Labelled | Sequence[str | Path],
    *,
    variable: str | None = None,
    region: Mapping[str, Any] | Region | None = None,
) -> xr.DataArray:
    """A series in memory, in canonical form, from wherever it is.

    Args:
      source: the name of a data set of the catalog, as `gridcast data list` tells; or as in
        `open_frames`: a file, a list of files, a glob, a zarr store, labelled data, which are not
        changed.
      variable: needed where there are several series.
      region: a box to cut out: {"lat": [-30, 30], "lon": [120, 290]}.

    Returns:
      float32 (time, lat, lon): time and latitude ascend, longitude is 0..360.

    Raises:
      ConfigError: `region` is no box.
      DataError: the data are not found or cannot be used.

    Example:
      >>> import gridcast
      >>> simulated, relief = gridcast.simulated_series("ocean", years=4, shape=(9, 18))
      >>> sst = gridcast.open(simulated, region={"lat": [-30, 30]})
      >>> sst.shape, round(float(sst.gridcast.anomaly((1950, 1953)).mean()), 3)
      ((48, 3, 18), 0.0)
    """
    box = None
    if region is not None:
        try:
            box = Region.model_validate(region)
        except ValueError as error:
            raise ConfigError(
                f"region is no box: {region!r}\n"
                "  expected: south < north and west < east in degrees, such as "
                "{'lat': [-30, 30], 'lon': [120, 290]}"
            ) from error
    if isinstance(source, str) and source in catalog.catalog():
        entry = catalog.entry(source)
        source = [str(path) for path in catalog.locate(entry)]
    return open_frames(source, variable=variable, region=box)


@dataclass(frozen=True)
class Source:
    """Canonical series, the relief below them, and where all come from.

    Attributes:
      series: as `gridcast.frames.fields.variables` orders them, on one grid and the same dates;
        NaN off the mask and where nothing was observed.
      elevation: m on any grid, or None where no static layer needs it.
      origin: one line for `source` attributes; says "simulated" if the series is.
    """

    series: list[xr.DataArray]
    elevation: xr.DataArray | None
    origin: str


Data = Labelled | Source


@stage("opening")
def open_source(config: Config, data: Data | None = None) -> Source:
    """Find and read the configured variables.

    Args:
      data: in place of what the config names, holding all variables; a Source is returned as it is.

    Raises:
      DataError: the data are not found or cannot be used.
    """
    if isinstance(data, Source):
        return data
    first, origin, elevation = _first(config, data)
    if config.data.mean_over is not None:
        first = box_mean(first, config.data.mean_over)
    series = [first]
    axis = TimeAxis.of(first["time"].values)
    for variable in variables(config)[1:]:
        assert isinstance(variable, MoreConfig)
        one = _further(variable, data)
        box = variable.mean_over or config.data.mean_over
        if config.data.mean_over is not None and box is not None:
            moved = box_mean(one, box).assign_coords(lat=first["lat"], lon=first["lon"])
        else:
            moved = to_grid(one, grid_of(first))
        series.append(align_dates(moved, axis))
    if elevation is None and {"elevation", "land_mask"} & set(config.static.layers):
        elevation = open_elevation(config.static.path or catalog.locate("relief")[0])
    return Source(series, elevation, origin)


def _first(config: Config, data: Labelled | None) -> tuple[xr.DataArray, str, xr.DataArray | None]:
    """The first variable, where it is from, and the relief if that is simulated as well."""
    settings = config.data
    if data is None and settings.path == IN_MEMORY:
        raise DataError(
            "this run was trained on data in memory, which are not here\n"
            "  fix: give the data: run.forecast(dataset), or --data PATH on the command line"
        )
    if data is not None or settings.path is not None:
        source = settings.path if data is None else data
        assert source is not None
        variable = settings.variable
        if variable is None and settings.more and data is not None:
            found = _name(settings)
            variable = found if found in _names_in(data) else None
        if streams(config, source):
            series = _streamed(source, variable, settings.region)
        else:
            series = open_frames(source, variable=variable, region=settings.region)
        found = series.attrs.get("source")
        if isinstance(source, xr.Dataset | xr.DataArray):
            origin = str(found or source.attrs.get("source") or "data in memory")
        else:
            origin = str(found or _file_names(source))
        return series, origin, None
    if config.frames.storage == "stream":
        raise DataError(
            "frames.storage: stream reads a training store, and there is no data.path\n"
            "  fix: gridcast data prepare CONFIG, then data.path: what it has written"
        )
    entry = catalog.entry(str(settings.name))
    try:
        paths = catalog.locate(entry)
    except catalog.DataNotFound as error:
        if settings.offline != "simulated":
            raise
        return _stand_in(config, entry, error)
    series = open_frames(paths, variable=settings.variable, region=settings.region)
    return series, entry.title, None


def _streamed(source: Labelled, variable: str | None, region: Region | None) -> xr.DataArray:
    """The series of a training store, not yet read.

    Raises:
      DataError: data that are none, or a store of another box.
    """
    if not isinstance(source, str | Path):
        what = "several files" if isinstance(source, list) else "data in memory"
        raise DataError(
            f"frames.storage: stream reads one training store, found {what}\n"
            "  fix: gridcast data prepare CONFIG, or frames.storage: memory"
        )
    series = open_store(source, variable)
    cut = None if region is None else region.model_dump(mode="json")
    found = (about_store(source) or {}).get("region")
    if cut is not None and cut != found:
        raise DataError(
            f"{source}: holds {'the whole grid' if found is None else f'the box {found}'}\n"
            f"  expected: data.region, {cut}\n"
            "  fix: gridcast data prepare CONFIG writes a store of it"
        )
    return series


def _file_names(source: str | Path | list[str]) -> str:
    """What results say of where the data are from: other people's folders are nobody's business."""
    names = [Path(path).name for path in ([source] if isinstance(source, str | Path) else source)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _further(variable: VariableConfig, data: Labelled | None) -> xr.DataArray:
    """From the data at hand if they hold it, otherwise from where the config says."""
    if data is not None and (name := _name(variable)) in _names_in(data):
        return open_frames(data, variable=name)
    if variable.path == IN_MEMORY:
        raise DataError(
            f"the variable {variable.variable} was in memory in training, and is not here\n"
            "  fix: give a data set that holds all variables"
        )
    if variable.path is not None:
        return open_frames(variable.path, variable=variable.variable)
    entry = catalog.entry(str(variable.name))
    return open_frames(catalog.locate(entry), variable=variable.variable)


def _name(variable: VariableConfig) -> str | None:
    """The name under which a variable is looked for in data that hold several."""
    if variable.variable is None and variable.name is not None:
        return catalog.entry(variable.name).variables[0]
    return variable.variable


def _names_in(data: Labelled) -> set[str]:
    if isinstance(data, xr.DataArray):
        return {str(data.name)}
    if isinstance(data, xr.Dataset):
        return set(map(str, data.data_vars))
    names = set()
    for path in find_files(data):
        with opened(path) as dataset:
            names |= set(map(str, dataset.data_vars))
    return names


def _stand_in(
    config: Config, entry: catalog.DataSet, error: DataError
) -> tuple[xr.DataArray, str, xr.DataArray]:
    """Simulated data in place of a data set that is out of reach: asked for by the config only."""
    if entry.stand_in is None:
        raise ConfigError(
            f"data.offline: simulated has no stand-in for {entry.name}\n  {error}"
        ) from error
    if config.data.more:
        raise ConfigError(
            f"data.offline: simulated has one variable only, data.more asks for others\n  {error}"
        ) from error
    last = int(config.splits.test.last[:4])
    series, elevation = simulated_series(
        entry.stand_in, years=max(2, last - FIRST_YEAR + 1), seed=SIMULATED_SEED
    )
    origin = str(series.attrs["source"])
    _log.warning("SIMULATED DATA: %s is out of reach, this run uses: %s", entry.name, origin)
    return open_frames(series, region=config.data.region), origin, elevation
