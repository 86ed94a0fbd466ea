"""Simulated series as labelled data and files: an ocean or rain, its relief, its known limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy
import xarray as xr

from gridcast.errors import DataError
from gridcast.sources.netcdf import opened, write_netcdf
from gridcast.sources.simulated_ocean import OceanSystem
from gridcast.sources.simulated_rain import RainSystem
from gridcast.sources.simulated_relief import check_count

__all__ = [
    "OceanSystem",
    "RainSystem",
    "load_system",
    "simulated_series",
    "write_simulation",
]

KINDS = ("ocean", "rain")
FIRST_YEAR = 1950
LEADS = 12

_TIME = {"standard_name": "time", "axis": "T", "units_metadata": "leap_seconds: none"}
_LAT = {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"}
_LON = {"units": "degrees_east", "standard_name": "longitude", "axis": "X"}
_SST = {
    "units": "degC",
    "units_metadata": "temperature: on_scale",
    "standard_name": "sea_surface_temperature",
    "long_name": "simulated sea-surface temperature, monthly mean",
    "cell_methods": "time: mean",
}
_PRECIP = {
    "units": "mm day-1",
    "standard_name": "lwe_precipitation_rate",
    "long_name": "simulated rain, monthly mean",
    "cell_methods": "time: mean",
}
_ELEVATION = {
    "units": "m",
    "standard_name": "height_above_mean_sea_level",
    "long_name": "simulated land elevation and ocean depth",
}


def simulated_series(
    kind: str, *, years: int = 60, shape: tuple[int, int] = (45, 90), seed: int = 0
) -> tuple[xr.DataArray, xr.DataArray]:
    """The series and the relief that `write_simulation` writes, in memory.

    Args:
      kind: `ocean` or `rain`.
      years: 2 to 300.
      shape: rows and columns of a global grid, at least 3 of each.
      seed: of the planet and of its weather, 0 or larger.

    Returns:
      The series, `sst` (degC, NaN on land) or `precip` (mm day-1, every cell), float32 (time, lat,
      lon), monthly from 1950-01, each month stamped on its first day; its attribute `source` says
      that it is simulated, how and from which seed. Then the elevation in m, float32 (lat, lon),
      negative at sea.

    Raises:
      DataError: an argument outside these bounds.
    """
    return _label(_create(kind, shape, seed), years, seed)


def write_simulation(
    path: str | Path,
    *,
    kind: str,
    years: int = 60,
    shape: tuple[int, int] = (45, 90),
    seed: int = 0,
) -> None:
    """Write a simulated series to `path` and, beside it, its relief and its known limit.

    `NAME.nc` holds `sst` or `precip`, `NAME_relief.nc` holds `elevation`. For the ocean
    `NAME_limit.nc` holds the error of the best possible forecast for leads of 1 to 12 months
    (`expected_error`, `optimal_rmse`) and the system itself, which `load_system` reads.

    Raises:
      DataError: as `simulated_series`, or a file that cannot be written.
    """
    path = Path(path)
    system = _create(kind, shape, seed)
    series, elevation = _label(system, years, seed)
    about = {
        "Conventions": "CF-1.11",
        "title": f"Simulated {kind}",
        "source": series.attrs["source"],
        # No date: one seed gives one file, bit for bit.
        "history": "simulated by gridcast",
    }
    if isinstance(system, OceanSystem):
        limit = _limit(system).assign_attrs(
            {**about, "title": "Limit of predictability of a simulated ocean"}
        )
        write_netcdf(limit, _beside(path, "limit"))
    relief = elevation.to_dataset().assign_attrs({**about, "title": "Relief of a simulated planet"})
    write_netcdf(relief, _beside(path, "relief"))
    write_netcdf(series.to_dataset().assign_attrs(about), path)


def load_system(limit_path: str | Path) -> OceanSystem:
    """The ocean of a `NAME_limit.nc` file; its forecasts equal the original's bit for bit.

    Raises:
      DataError: no such file, or not one that `write_simulation` wrote.
    """
    with opened(limit_path) as dataset:
        file = dataset.load()
    needed = {"elevation", "cell_lat_index", "cell_lon_index", "seasonal_cycle"}
    needed |= {"monthly_amplitude"} | {
        f"{matrix}_{part}" for matrix in ("operator", "noise") for part in ("row", "col", "weight")
    }
    if missing := sorted(needed - set(map(str, file.variables))):
        raise DataError(
            f"{limit_path}: has no {', '.join(missing)}\n"
            "  expected: the NAME_limit.nc that lies beside a simulated ocean"
        )
    relief = file["elevation"].values
    mask = np.zeros(relief.shape, dtype=bool)
    mask[file["cell_lat_index"].values, file["cell_lon_index"].values] = True
    return OceanSystem(
        lat=file["lat"].values,
        lon=file["lon"].values,
        mask=mask,
        relief=relief,
        operator=_matrix(file, "operator"),
        noise_factor=_matrix(file, "noise"),
        monthly_amplitude=file["monthly_amplitude"].values,
        seasonal_cycle=file["seasonal_cycle"].values,
    )


def _create(kind: str, shape: tuple[int, int], seed: int) -> OceanSystem | RainSystem:
    if kind not in KINDS:
        raise DataError(f"no simulation of kind {kind!r}\n  expected: {' or '.join(KINDS)}")
    system = OceanSystem if kind == "ocean" else RainSystem
    return system.create(shape, seed)


def _label(
    system: OceanSystem | RainSystem, years: int, seed: int
) -> tuple[xr.DataArray, xr.DataArray]:
    # Nanosecond dates end in 2262.
    years = check_count("the number of years", years, 2, 300)
    kind, name, attributes = (
        ("ocean", "sst", _SST) if isinstance(system, OceanSystem) else ("rain", "precip", _PRECIP)
    )
    months = np.arange(f"{FIRST_YEAR}-01", f"{FIRST_YEAR + years}-01", dtype="datetime64[M]")
    time = ("time", months.astype("datetime64[ns]"), _TIME)
    rows, columns = system.relief.shape
    source = f"simulated {kind}: grid {rows}x{columns}, {years} years, seed {seed}; not observed"
    place = {"lat": ("lat", system.lat, _LAT), "lon": ("lon", system.lon, _LON)}
    series = xr.DataArray(
        system.simulate(years, seed),
        dims=("time", "lat", "lon"),
        coords={"time": time, **place},
        name=name,
        attrs={**attributes, "source": source},
    )
    elevation = xr.DataArray(
        system.relief,
        dims=("lat", "lon"),
        coords=place,
        name="elevation",
        attrs={**_ELEVATION, "source": source},
    )
    return series, elevation


def _limit(system: OceanSystem) -> xr.Dataset:
    """What `load_system` needs, and the error of the optimal forecast."""
    rows, columns = (index.astype(np.int32) for index in np.nonzero(system.mask))
    error = system.expected_error(LEADS).astype(np.float32)
    rmse = system.optimal_rmse(LEADS).astype(np.float32)
    difference = {"units": "K", "units_metadata": "temperature: difference"}
    variables = {
        "expected_error": (
            ("month", "lead", "lat", "lon"),
            error,
            {
                **difference,
                "long_name": "standard deviation of the optimal forecast's error",
                "comment": "month is the calendar month from which the forecast starts",
            },
        ),
        "optimal_rmse": (
            "lead",
            rmse,
            {**difference, "long_name": "expected_error, root mean square over months and area"},
        ),
        "seasonal_cycle": (
            ("month", "lat", "lon"),
            system.seasonal_cycle,
            {k: v for k, v in _SST.items() if k.startswith("units")}
            | {"long_name": "mean sea-surface temperature of the calendar month"},
        ),
        "elevation": (("lat", "lon"), system.relief, _ELEVATION),
        "cell_lat_index": ("cell", rows, _about("row of each ocean cell, from 0")),
        "cell_lon_index": ("cell", columns, _about("column of each ocean cell, from 0")),
        "monthly_amplitude": (
            "month",
            system.monthly_amplitude,
            _about("factor of the noise that enters in the calendar month"),
        ),
        **_entries(system.operator, "operator", "1", "anomaly of month t + 1 from that of month t"),
        **_entries(system.noise_factor, "noise", "K", "noise from independent standard normals"),
    }
    coordinates = {
        "month": ("month", np.arange(1, 13, dtype=np.int32), _about("calendar month")),
        "lead": ("lead", np.arange(1, LEADS + 1, dtype=np.int32), _about("lead time in months")),
        "lat": ("lat", system.lat, _LAT),
        "lon": ("lon", system.lon, _LON),
    }
    return xr.Dataset(variables, coordinates)


def _entries(
    matrix: scipy.sparse.csr_array, name: str, units: str, meaning: str
) -> dict[str, tuple]:
    """A sparse matrix over ocean cells in coordinate form."""
    entries, entry = matrix.tocoo(), f"{name}_entry"
    row, column = (index.astype(np.int32) for index in entries.coords)
    return {
        f"{name}_row": (entry, row, _about(f"cell to which the {name} weight leads")),
        f"{name}_col": (entry, column, _about(f"cell from which the {name} weight leads")),
        f"{name}_weight": (entry, entries.data, {"units": units, "long_name": meaning}),
    }


def _matrix(file: xr.Dataset, name: str) -> scipy.sparse.csr_array:
    row, column, weight = (file[f"{name}_{part}"].values for part in ("row", "col", "weight"))
    return scipy.sparse.csr_array((weight, (row, column)), shape=(file.sizes["cell"],) * 2)


def _about(long_name: str) -> dict[str, str]:
    return {"units": "1", "long_name": long_name}


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}_{name}.nc")
