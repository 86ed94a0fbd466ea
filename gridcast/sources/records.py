"""A NetCDF file written record after record, so that no more than some of them are in memory."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr
from xarray.conventions import encode_cf_variable

from gridcast.scratch import blocks


def write_records(
    dataset: xr.Dataset, path: Path, encoding: dict[Hashable, dict[str, Any]]
) -> None:
    """Write a data set, in parts along its record dimension where it is larger than a block.

    The file is the same: its header is made of all dates, its values are the same bits.

    Args:
      encoding: as for `Dataset.to_netcdf`.
    """
    record = next(iter(dataset.encoding.get("unlimited_dims", ())), None)
    size = dataset.sizes.get(record, 0)
    first, *more = blocks(size, dataset.nbytes // max(size, 1)) if size else [slice(None)]
    if not more:
        _write(dataset, path, encoding)
        return
    # As numbers: the units of time follow from all dates, not from those of a part.
    numbers, encoding = dataset.copy(), dict(encoding)
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "mMO" and record in variable.dims:
            dated = xr.Variable(variable.dims, variable.values, variable.attrs, encoding[name])
            numbers[name] = encode_cf_variable(dated, name=name)
            numbers[name].encoding = {}
            encoding[name] = {"_FillValue": None}
    beginning = numbers.isel({record: first})
    beginning.encoding = {"unlimited_dims": {record}}
    _write(beginning, path, encoding)
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_maskandscale(False)
        for part in more:
            for name, variable in numbers.variables.items():
                if record in variable.dims:
                    at = tuple(part if dim == record else slice(None) for dim in variable.dims)
                    file[str(name)][at] = variable[at].values


def _write(dataset: xr.Dataset, path: Path, encoding: dict[Hashable, dict[str, Any]]) -> None:
    dataset.to_netcdf(path, format="NETCDF4_CLASSIC", engine="netcdf4", encoding=encoding)
