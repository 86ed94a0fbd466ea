"""Reading and writing files of labelled data: with `records`, all that touches NetCDF."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Hashable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridcast.config.bounds import Region
from gridcast.drafts import drafted, drafted_directory, to_disk
from gridcast.errors import ConfigError, DataError
from gridcast.scratch import blocks
from gridcast.sources.axes import TIME, certainty
from gridcast.sources.canonical import canonical
from gridcast.sources.files import engine_of, find_files, unchanged
from gridcast.sources.joining import joined, require_alike
from gridcast.sources.records import write_records

# What xarray and its coders raise where a file holds what cannot be: dates of the year 10^14, too.
_UNREADABLE = OSError, RuntimeError, ValueError, TypeError, EOFError, ArithmeticError, LookupError
Source = str | Path | Sequence[str | Path] | xr.Dataset | xr.DataArray


def open_frames(
    source: Source, *, variable: str | None = None, region: Region | None = None
) -> xr.DataArray:
    """A series in canonical form from a file, a list of files, a glob, or labelled data.

    Several files are put in canonical form one by one, so that they may differ in the order and
    convention of their axes, and joined along time.

    Args:
      source: NetCDF or GRIB files or `.zarr` directories; `*` in a path is expanded.
      variable, region: as in `canonical`.

    Returns:
      float32 [time, lat, lon].

    Raises:
      DataError: a file that is missing, damaged or of another kind, files whose grids, units or
        variables differ or whose dates overlap, and all that `canonical` raises.

    Example:
      >>> import gridcast
      >>> sst, relief = gridcast.simulated_series("ocean", years=4, shape=(9, 18))
      >>> turned = sst.isel(lat=slice(None, None, -1)).rename(lat="latitude", lon="longitude")
      >>> series = gridcast.open_frames(turned)
      >>> series.dims, series.shape, series["lat"].values[:2]
      (('time', 'lat', 'lon'), (48, 9, 18), array([-80., -60.]))
    """
    if isinstance(source, xr.Dataset | xr.DataArray):
        return canonical(source, variable=variable, region=region)
    paths = find_files(source)
    if len(paths) == 1:
        return _read(paths[0], variable, region, series=True)
    pieces = [_read(path, variable, region, series=False) for path in paths]
    for path, piece in zip(paths[1:], pieces[1:], strict=True):
        require_alike(paths[0], pieces[0], path, piece)
    return joined(paths, pieces)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[xr.Dataset]:
    """The data set of one file, not yet read; closed at the end of the `with` block.

    Raises:
      DataError: no such file, not a file of a known kind, written to meanwhile, or damaged, also
        where that shows only when values are read inside the block.
    """
    path = Path(path).expanduser()
    engine = engine_of(path)
    with unchanged(path):
        try:
            with warnings.catch_warnings():
                # Of two fill values both are masked; dates outside 1678..2261 become cftime.
                warnings.simplefilter("ignore", xr.SerializationWarning)
                warnings.filterwarnings("error", "Duplicate dimension names", UserWarning)
                warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated")
                raw = xr.open_dataset(path, engine=engine, cache=False, decode_times=False)
                for variable in raw.variables.values():
                    if variable.attrs.get("calendar") == "360":  # as the IRI Data Library writes it
                        variable.attrs["calendar"] = "360_day"
                coder = xr.coders.CFDatetimeCoder()
                dataset = xr.decode_cf(raw, decode_times=coder, decode_timedelta=False)
        except (*_UNREADABLE, UserWarning) as error:
            raise _damaged(path, error) from error
        with dataset:
            try:
                yield dataset
            except (OSError, RuntimeError) as error:
                raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read ({_first_line(error)})\n"
        "  expected: an undamaged NetCDF file with CF times; this one may be truncated\n"
        f"  fix: copy or download it again, then look at it: ncdump -h {path.name}"
    )


def write_netcdf(dataset: xr.Dataset, path: str | Path) -> None:
    """Write a NetCDF-4 classic file: whole or not at all.

    Fields of three and more dimensions are compressed, all that has a dimension carries checksums;
    nothing is packed. A large data set with a record dimension is written some records at a time.
    A reader never sees half a file: a temporary one beside it takes the name `path` when complete.

    Raises:
      DataError: the folder is missing, full or read-only, or values fit no type of the format.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist\n  fix: create it")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")
    ready, encoding = _storable(dataset, path)
    with drafted(path, size=ready.nbytes) as draft:
        try:
            write_records(ready, draft, encoding)
        except RuntimeError as error:  # how HDF5 says that the disk is full
            raise OSError(_first_line(error)) from error


def write_zarr(dataset: xr.Dataset, path: str | Path) -> None:
    """Write a zarr v3 directory, whole or not at all, with the attributes of the NetCDF file.

    Each field is a chunk of its own. What was written there before is replaced.

    Raises:
      ConfigError: zarr is not installed.
      DataError: the folder is missing, full or read-only, or there is something else already.
    """
    path = Path(path).expanduser()
    if find_spec("zarr") is None:
        raise ConfigError(
            f"{path}: needs zarr, not installed here\n"
            "  fix: pip install 'gridcast[stream]', or a name that ends with .nc"
        )
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist\n  fix: create it")
    if path.exists() and not _ours(path):
        raise DataError(
            f"{path}: there is something else already, not a forecast\n"
            "  fix: another name, or remove it first"
        )
    ready, encoding = _storable(dataset, path)
    kept = ("units", "calendar", "dtype", "_FillValue")
    how = {name: {k: v for k, v in one.items() if k in kept} for name, one in encoding.items()}
    for name, variable in ready.data_vars.items():
        how[name]["chunks"] = (*[1] * (variable.ndim - 2), *variable.shape[-2:])[-variable.ndim :]
    ready.encoding = {}
    with drafted_directory(path) as draft:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The data type")  # of labels, in zarr v3
            ready.to_zarr(draft, mode="w", zarr_format=3, consolidated=False, encoding=how)
        for written in draft.rglob("*"):
            to_disk(written)


def _ours(path: Path) -> bool:
    """Whether a directory is one that `write_zarr` has written."""
    try:
        attributes = json.loads((path / "zarr.json").read_text()).get("attributes", {})
    except (OSError, ValueError):
        return False
    return "gridcast" in str(attributes.get("history", ""))


def _read(path: Path, variable: str | None, region: Region | None, *, series: bool) -> xr.DataArray:
    with opened(path) as dataset:
        return canonical(dataset, variable=variable, region=region, origin=str(path), series=series)


def _storable(dataset: xr.Dataset, path: Path) -> tuple[xr.Dataset, dict[Hashable, dict[str, Any]]]:
    """The data set in types that the classic format has, and how to write each variable."""
    ready = dataset.copy()
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        # Packing and chunks of the file it came from are not wanted; units of time are.
        how = {k: v for k, v in variable.encoding.items() if k in ("units", "calendar", "dtype")}
        kind = variable.dtype.kind
        if kind in "mM" or (kind == "O" and certainty(name, variable, TIME) > 1):
            how = {"dtype": np.float64, **how, "_FillValue": None}
        else:
            dtype = _classic_type(name, variable, path)
            narrow = variable.astype(dtype, copy=False, keep_attrs=True)
            ready[name] = narrow if kind in "biuf" else variable
            holds_nan = kind == "f" and name in dataset.data_vars and _holds_nan(narrow.values)
            how = {"_FillValue": narrow.dtype.type("nan") if holds_nan else None}
            if kind == "f" and variable.ndim >= 3 and variable.size:
                how |= {"zlib": True, "complevel": 1, "shuffle": True}
        if variable.ndim and variable.size and (kind in "biufmM" or "units" in how):
            how |= {"fletcher32": True}  # a flipped bit of a date or a latitude is as bad
        ready[name].encoding = {}
        encoding[name] = how
    return ready, encoding


def _holds_nan(values: np.ndarray) -> bool:
    parts = blocks(len(values), values[:1].nbytes) if values.ndim else [...]
    return any(np.isnan(values[part]).any() for part in parts)


def _classic_type(name: Hashable, variable: xr.Variable, path: Path) -> np.dtype:
    """float32, float64, int8, int16 or int32: the type that holds all values of `variable`.

    Raises:
      DataError: whole numbers beyond 32 bits, or a type without counterpart.
    """
    dtype = variable.dtype
    if dtype.kind == "b":
        return np.dtype("int8")
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return np.dtype("float32") if dtype.itemsize == 2 else dtype
    if dtype.kind == "i" and dtype.itemsize < 8:
        return dtype
    limits = np.iinfo(np.int32)
    if dtype.kind in "iu":
        if not variable.size or (
            variable.values.min() >= limits.min and variable.values.max() <= limits.max
        ):
            return np.dtype("int32")
        raise DataError(
            f"{path}: {name} holds {variable.values.max()}, beyond 32 bits, the largest whole "
            "numbers of NETCDF4_CLASSIC\n  fix: store it as float64"
        )
    if dtype.kind in "SUO":
        return dtype
    raise DataError(f"{path}: {name} is {dtype}, a type that NETCDF4_CLASSIC does not have")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
