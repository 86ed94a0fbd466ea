"""Series that are odd or wrong: prepared as the plain one would be, or refused with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from fault_suite.outcome import Outcome
from gridcast.config import config_from_dict
from gridcast.errors import GridcastError
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.sources.simulated import simulated_series

NAME = "content"
SETTINGS: dict[str, Any] = {
    "data": {"path": "(in memory)"},
    "frames": {"inputs": 3, "leads": 2, "climatology": {"harmonics": 2}},
    "splits": {"train": [1950, 1958], "validation": [1959, 1960], "test": [1961, 1963]},
    "model": {"name": "conv_lstm", "hidden": [4], "downsample": 2},
}
AT = (2, 11)  # a cell of sea


@dataclass(frozen=True)
class Case:
    """One series.

    Attributes:
      refusal: what the error says; None: it is prepared.
      same: whether what the model is given must then be that of the plain series, bit for bit.
      settings: sections in place of those of SETTINGS.
    """

    name: str
    data: xr.DataArray | xr.Dataset
    refusal: str | None = None
    same: bool = False
    settings: dict[str, Any] | None = None


def ocean() -> xr.DataArray:
    """14 years of a small simulated ocean with land."""
    return simulated_series("ocean", years=14, shape=(9, 18), seed=3)[0]


def run(folder: Path, *, files: bool = True) -> Outcome:
    hows = (None, folder) if files else (None,)
    plain = ocean()
    expected = setup_of(plain, folder, None)
    wrong: list[str] = []
    every = list(cases(plain))
    logging.getLogger("gridcast").setLevel(logging.ERROR)
    for case in every:
        for how in hows:
            if problem := problem_of(case, how, expected):
                wrong.append(f"{case.name}, {'in memory' if how is None else 'file'}: {problem}")
    count = len(hows) * len(every)
    return Outcome(count, count - len(wrong), wrong, _sound(expected) is None)


def setup_of(
    data: xr.DataArray | xr.Dataset, folder: Path | None, settings: dict[str, Any] | None
) -> Setup:
    """Prepared from memory, or from a file in `folder`."""
    config = config_from_dict(deepcopy(SETTINGS) | (settings or {}))
    if folder is None:
        return prepare(config, open_source(config, data))
    path = folder / "content.nc"
    whole = data.to_dataset() if isinstance(data, xr.DataArray) else data
    whole.to_netcdf(path, engine="netcdf4")
    return prepare(config, open_source(config, str(path)))


def problem_of(case: Case, folder: Path | None, expected: Setup) -> str | None:
    """What is wrong with how a case was answered."""
    try:
        setup = setup_of(case.data, folder, case.settings)
    except GridcastError as error:
        if case.refusal is None:
            return f"refused: {str(error).splitlines()[0]}"
        return None if case.refusal in str(error) else f"refused for another reason: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if case.refusal is not None:
        return f"not refused, expected {case.refusal!r}"
    if case.same:
        ours, theirs = setup.arrays.values, expected.arrays.values
        return None if np.array_equal(ours, theirs, equal_nan=True) else "other frames"
    return _sound(setup)


def _sound(setup: Setup) -> str | None:
    """Finite where anything was observed, with weights that are the areas of the cells."""
    grid = setup.fields.inputs[0].grid
    frames, weight = np.asarray(setup.arrays.values), grid.weight
    if setup.config.frames.missing != "mask" and not np.isfinite(frames[:, grid.mask]).all():
        return "frames that are not finite inside the mask"
    if not all(np.isfinite(array).all() for array in setup.head.values()):
        return "a reference that is not finite"
    if np.abs(frames[np.isfinite(frames)]).max(initial=0.0) > 50:
        return "frames more than 50 standard deviations from the mean"
    if abs(weight.sum() - 1) > 1e-6 or (weight < 0).any() or weight[~grid.mask].any():
        return "weights that are no shares of an area"
    return None


def _with(plain: xr.DataArray, change: Callable[[np.ndarray], object]) -> xr.DataArray:
    data = plain.copy(data=plain.values.copy())
    change(data.values)
    return data


def cases(plain: xr.DataArray) -> Iterator[Case]:
    yield from _values(plain)
    yield from _times(plain)
    yield from _places(plain)
    yield from _declarations(plain)


def _values(plain: xr.DataArray) -> Iterator[Case]:
    def put(where: Any, value: float) -> xr.DataArray:
        return _with(plain, lambda values: values.__setitem__(where, value))

    i, j = AT
    always, once, land = (slice(None), i, j), (20, i, j), np.isnan(plain.values)
    missing = "missing inside the mask"
    mask, drop = ({"frames": SETTINGS["frames"] | {"missing": how}} for how in ("mask", "drop"))
    by_cell = {"frames": SETTINGS["frames"] | {"scaling": "cell"}}
    lim = {"model": SETTINGS["model"] | {"base": "lim"}}
    yield Case("an empty frame", put(20, np.nan), missing)
    yield Case("an empty frame, masked", put(20, np.nan), settings=mask)
    yield Case("an empty frame, dropped", put(20, np.nan), settings=drop)
    yield Case("an empty cell", put(always, np.nan))
    yield Case("nothing but empty cells", plain * np.nan, "every cell of the grid is missing")
    changing = put((slice(60, None), i, j), np.nan)
    yield Case("a mask that changes", changing, missing)
    yield Case("a mask that changes, masked", changing, settings=mask)
    frame = _with(plain, lambda v: v.__setitem__(20, np.where(np.isnan(v[20]), np.nan, 15)))
    yield Case("a constant frame", frame)
    for how, settings in (("", None), (", scaled by cell", by_cell), (", LIM", lim)):
        yield Case(f"a constant cell{how}", put(always, 15.0), settings=settings)
        yield Case(f"nothing but constant cells{how}", plain * 0 + 15, settings=settings)
    for value in (np.inf, -np.inf, 1e300):
        data = plain.astype(np.float64).copy()
        data.values[once] = value
        yield Case(f"{value} in one place", data, "infinite on 1951-09-01 at lat -40, lon 220")
    not_declared = "a fill value that is not declared"
    for value in (-999.0, 1e20, -9.99, -99.9, 999.0, 9999.0, -32768.0, 32767.0, 9.96921e36):
        yield Case(f"{value} in one cell", put(always, value), not_declared)
        yield Case(f"{value} as land", put(land, value), not_declared)
    for value in (-999.0, 1e20, -9.99):
        yield Case(f"{value} in one place", put(once, value), not_declared)
    yield Case("0 K as land", (plain + 273.15).fillna(0).assign_attrs(units="K"), "temperatures of")
    for value in (-9.8, 25.0, 30.5):
        yield Case(f"a plain value of {value}", put(once, value))


def _times(plain: xr.DataArray) -> Iterator[Case]:
    times, size = plain["time"].values, plain.sizes["time"]
    shaken = times + np.random.default_rng(0).integers(-9, 9, size).astype("timedelta64[D]")
    yield Case("a date twice", xr.concat([plain, plain[[5]]], "time"), "occur more than once")
    yield Case("dates in disorder", plain[np.random.default_rng(1).permutation(size)], same=True)
    yield Case("irregular dates", plain.assign_coords(time=shaken), "the times are irregular")
    yield Case("one step", plain[[0]], "found 1 time step")
    yield Case("no step", plain[:0], "no time step at all")
    short = {"splits": {"train": ["1950-01", "1958-12"], "validation": ["1959-01", "1959-04"],
                        "test": [1961, 1963]}}  # fmt: skip
    yield Case("fewer steps than a window", plain, "has no window", settings=short)
    yield Case("a gap", plain.drop_isel(time=7), "missing")
    no_date = plain.assign_coords(time=np.where(np.arange(size) == 4, np.datetime64("NaT"), times))
    yield Case("a missing date", no_date, "missing ones")
    yield Case("numbers as dates", plain.assign_coords(time=np.arange(size)), "time holds no dates")
    for calendar in ("360_day", "noleap", "all_leap", "julian", "proleptic_gregorian", "standard"):
        dates = xr.date_range(
            "1950-01-01", periods=size, freq="MS", calendar=calendar, use_cftime=True
        )
        yield Case(f"calendar {calendar}", plain.assign_coords(time=dates), same=True)
    dates = xr.date_range(
        "0850-01-01", periods=size, freq="MS", calendar="proleptic_gregorian", use_cftime=True
    )
    long_ago = {"splits": {"train": ["0850", "0858"], "validation": ["0859", "0860"],
                           "test": ["0861", "0863"]}}  # fmt: skip
    yield Case("the year 850", plain.assign_coords(time=dates), same=True, settings=long_ago)


def _places(plain: xr.DataArray) -> Iterator[Case]:
    lon, (i, j) = plain["lon"].values, AT
    signed = plain.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon")
    yield Case("longitudes -180..180", signed, same=True)
    late = plain.roll(lon=-2, roll_coords=True)
    late = late.assign_coords(lon=np.where(late["lon"] < 30, late["lon"] + 360, late["lon"]))
    yield Case("longitudes 40..380", late, same=True)
    first = plain[:, :, [0]].assign_coords(lon=[lon[0] + 360])
    yield Case("a seam column twice", xr.concat([plain, first], "lon"), same=True)
    differ = xr.concat([plain, (first + 1).fillna(9)], "lon")
    yield Case("two seam columns that differ", differ, "same meridian and differ")
    yield Case("descending latitudes", plain[:, ::-1], same=True)
    roots = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(9)[0]))
    yield Case("Gaussian latitudes", plain.assign_coords(lat=roots))
    yield Case("poles", plain.assign_coords(lat=np.linspace(-90, 90, 9)))
    yield Case("one row", plain[:, [i]])
    yield Case("one column", plain[:, :, [j]])
    for model in ("conv_lstm", "cnn_lstm", "series", "lim"):
        settings = {"model": {"name": model}}
        yield Case(f"one cell, {model}", plain[:, [i], [j]], settings=settings)
    beyond = plain.assign_coords(lat=np.linspace(-95, 95, 9))
    yield Case("latitudes beyond the poles", beyond, "degrees north, -90 to 90")
    radians = plain.assign_coords(
        lat=("lat", np.deg2rad(plain["lat"].values), {"units": "radians"}),
        lon=("lon", np.deg2rad(lon), {"units": "radians"}),
    )
    yield Case("radians", radians, "is in radians")
    missing = np.where(np.arange(9) == 3, np.nan, plain["lat"].values)
    yield Case("a missing latitude", plain.assign_coords(lat=missing), "latitude holds missing")
    yield Case("no latitude", plain[:, :0], "latitude holds missing")
    far = plain.assign_coords(lon=np.where(np.arange(18) == 3, 1e300, lon))
    yield Case("a longitude of 1e300", far, "longitude")
    yield Case("extra dimension of 1", plain.expand_dims(level=[0.0], axis=1), same=True)
    yield Case("extra dimension of 3", plain.expand_dims(member=3), "further dimensions")


def _declarations(plain: xr.DataArray) -> Iterator[Case]:
    kelvin, celsius = {"units": "K"}, {"units": "degC"}
    bare = plain.copy()
    bare.attrs = {}
    yield Case("no units", bare, same=True)
    contradictory = "units are contradictory"
    warm = plain + 273.15
    yield Case("290 degC", warm.assign_attrs(celsius), contradictory)
    yield Case("15 K", plain.assign_attrs(kelvin), contradictory)
    early = xr.DataArray(np.arange(plain.sizes["time"]) < 20, dims="time")
    some = warm.where(early, plain).assign_attrs(celsius)
    yield Case("290 degC in some years", some, "temperatures of -173 to 150")
    some = plain.where(early, warm).assign_attrs(kelvin)
    yield Case("15 K in some years", some, "temperatures of 100 to 423")
    for name in ("a b", "2m_temperature", "ü", "time_bnds", "lat2", "nan", "None"):
        yield Case(f"named {name}", plain.rename(name), same=True)
    yield Case("two variables", xr.Dataset({"a": plain, "b": plain}), "2 variables have")
    beside = xr.Dataset({"sst": plain, "mask": plain[0, :, :].drop_vars("time")})
    yield Case("two variables, one of them still", beside, same=True)
    yield Case("named as a coordinate", plain.rename("forecast_period"), "cannot have the name")
