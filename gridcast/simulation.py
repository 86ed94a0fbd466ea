"""A long simulated series like a config's data, to train on before the data themselves."""

from __future__ import annotations

import datetime as dt
import logging
import os
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.cf import CONVENTIONS, LATITUDE, LONGITUDE
from gridcast.config import Config
from gridcast.config.models import ReferenceConfig
from gridcast.errors import ConfigError, DataError
from gridcast.frames.fields import AMOUNTS, Fields
from gridcast.frames.splits import Splits
from gridcast.frames.trailing import steps_of
from gridcast.frames.transform import FrameTransform
from gridcast.long_training import experiment_on, require_free, write_experiment
from gridcast.opening import Data, Source, open_source
from gridcast.preparation import complete_series
from gridcast.references import LinearReference, TrainingSeries, linear_inverse_model
from gridcast.references.lim import choose_eofs
from gridcast.references.noise import fit_noise, simulate
from gridcast.sources.netcdf import write_netcdf
from gridcast.sources.units import family
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label

_LAST_YEAR = 9999  # years are written with four digits
_PART = 1024  # dates that are put into physical units at once
_BYTES = 16  # of memory for each value: the anomaly, the value, and copies while it is written
_log = logging.getLogger("gridcast")


def simulate_from(
    config: Config,
    data: Data | None = None,
    *,
    years: int = 1000,
    seed: int = 0,
    output: str | Path | None = None,
) -> Path:
    """Write a long series of a stochastic LIM fitted on the config's training dates.

    Beside the series, NAME.nc, goes the experiment on it, NAME.yaml: the config with the series in
    place of its data and splits, so that a run of it can be fine-tuned on the data (Ham et al.
    2019, Nature 573, 568-572, did so with climate models).

    Args:
      data: in place of what the config names.
      seed: of the noise; one seed gives one series.
      output: NAME.nc; default: beside `output.directory`, with `-simulated` behind its name.

    Returns:
      The path of the series.

    Raises:
      ConfigError: too few or too many years, or an output that cannot be meant.
      DataError: as training raises it, or a LIM whose anomalies grow without end.
    """
    config = config.with_directory("runs/default")
    if output is None:
        path = Path(f"{config.output.directory}-simulated.nc")
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        path = Path(output)
    require_free(path)
    dataset = simulated_dataset(config, open_source(config, data), years, seed)
    axis = TimeAxis.of(dataset["time"].values)
    experiment = experiment_on(config, path, [str(name) for name in dataset.data_vars], axis)
    write_netcdf(dataset, path)
    write_experiment(experiment, path)
    return path


def simulated_dataset(config: Config, source: Source, years: int, seed: int) -> xr.Dataset:
    """All variables of the config, inputs as well as targets, simulated together.

    The LIM is that of the config where it has one (`model.base: lim`), else one of 20 EOFs with an
    operator for each month. Its anomalies are added to the climatology of training, without its
    trend; with `frames.trailing` they are departures from the mean of the years before. Dates are
    those of years without leap days (or of 360 days, as the data), from year 1 on.
    """
    series, axis = complete_series(config, source)
    splits = Splits.by_date(axis, config.splits)
    _require_memory(steps_of(years, axis) * sum(one[0].size for one in series) * _BYTES, years)
    dates = simulated_dates(axis, years)
    fields, training = _training(config, series, axis, splits.train)
    lim, how = _fit(config, training)
    _log.info("simulating %d years of a stochastic linear inverse model: %s", years, how)
    scaled = simulate(fit_noise(lim, training), TimeAxis.of(dates), seed=seed)
    trained = axis.times[splits.train]
    about = (
        f"simulated by a stochastic linear inverse model ({how}, seed {seed}) fitted on "
        f"{source.origin}, {label(trained[0])} to {label(trained[-1])}; not observed"
    )
    dataset = xr.Dataset(attrs={"Conventions": CONVENTIONS, "title": "Simulated series"})
    dataset.attrs |= {"source": about, "history": "simulated by gridcast"}
    for channel, transform in enumerate(fields.inputs):
        grid, name = transform.grid, transform.variable
        if name in dataset:
            name = f"{name}_{channel + 1}"
        values = _physical(_stationary(config, transform, channel), scaled[..., channel], dates)
        coords = {
            "time": ("time", dates, {"standard_name": "time", "axis": "T"}),
            "lat": ("lat", grid.lat, LATITUDE),
            "lon": ("lon", grid.lon, LONGITUDE),
        }
        attributes = {**transform.attributes, "source": about}
        field = xr.DataArray(values, coords, ("time", "lat", "lon"), name, attributes)
        if family(transform.units) == "temperature":
            kind = "difference" if is_difference(field) else "on_scale"
            field.attrs["units_metadata"] = f"temperature: {kind}"
        dataset[name] = field
    return dataset


def simulated_dates(axis: TimeAxis, years: int) -> np.ndarray:
    """`years` years from year 1 on, in steps as long as those of `axis`, in the same months.

    Raises:
      ConfigError: fewer than 1 year or more than 9999.
    """
    if not 1 <= years <= _LAST_YEAR:
        raise ConfigError(f"--years {years}: expected 1 to {_LAST_YEAR}")
    days, date = 365, cftime.DatetimeNoLeap
    if axis.calendar == "360_day":
        days, date = 360, cftime.Datetime360Day
    month = int(axis.dates[0, 1])
    if axis.unit == "year":
        found = [date(year, month, 1) for year in range(1, years + 1, axis.every)]
    elif axis.unit == "month":
        count = range((month - 1) % axis.every, 12 * years, axis.every)
        found = [date(1 + k // 12, 1 + k % 12, 1) for k in count]
    else:
        step = dt.timedelta(**{f"{axis.unit}s": axis.every})
        length = -(dt.timedelta(days=-days * years) // step)
        found = [date(1, 1, 1) + k * step for k in range(length)]
    return np.array(found, dtype=object)


def _training(
    config: Config, series: list[xr.DataArray], axis: TimeAxis, inside: Bool[np.ndarray, " time"]
) -> tuple[Fields, TrainingSeries]:
    """What is fitted on training dates, and the anomalies of all variables that the LIM sees."""
    fields = Fields.fit(config, series, axis, inside)
    arrays = fields.arrays_of(series, axis)
    values = arrays.values if arrays.trailing is None else arrays.values - arrays.trailing
    weight = np.stack([one.grid.weight for one in fields.inputs], axis=-1)
    return fields, TrainingSeries.of(values, axis, inside, weight)


def _fit(config: Config, training: TrainingSeries) -> tuple[LinearReference, str]:
    options = ReferenceConfig(seasonal=True)
    if config.model.base == "lim":
        options = config.model.reference
    how = {"seasonal": options.seasonal, "shrink": options.shrink}
    eofs = options.eofs
    if not isinstance(eofs, int):
        # Validation chooses for a run; here it is not looked at: the last fifth of training does.
        dates = np.flatnonzero(training.inside)
        last = np.zeros_like(training.inside)
        last[dates[-max(1, dates.size // 5) :]] = True
        before = replace(training, inside=training.inside & ~last)
        eofs = choose_eofs(before, last, config.frames.leads, eofs, **how)
    lim = linear_inverse_model(training, 1, eofs, **how)
    assert lim.patterns is not None
    operators = "an operator for each month" if options.seasonal else "one operator"
    if config.frames.trailing is not None:
        operators += f", departures from the mean of {config.frames.trailing} years"
    return lim, f"{len(lim.patterns)} EOFs, {operators}"


def _stationary(config: Config, transform: FrameTransform, channel: int) -> FrameTransform:
    """The transform back, of a climate as in the middle of training and within its bounds."""
    seasonal = transform.climatology
    if seasonal.trend:
        coefficients = seasonal.coefficients[:-1]
        seasonal = replace(seasonal, trend=False, coefficients=coefficients)
    lowest = transform.lowest
    forecast = 1 + sum(one.target for one in config.data.more)
    amounts = config.train.loss == AMOUNTS and channel < forecast
    if lowest is None and (amounts or transform.skew.kind == "log1p"):
        lowest = 0.0  # neither is defined below
    return replace(transform, climatology=seasonal, lowest=lowest)


def _physical(
    transform: FrameTransform, scaled: Float[np.ndarray, "time lat lon"], dates: np.ndarray
) -> Float[np.ndarray, "time lat lon"]:
    values = np.empty(scaled.shape, np.float32)
    for begin in range(0, len(dates), _PART):
        part = slice(begin, begin + _PART)
        values[part] = transform.physical(scaled[part, None], dates[part, None])[:, 0]
    return values


def _require_memory(needed: int, years: int) -> None:
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system says
        return
    if needed > there:
        raise DataError(
            f"{years} simulated years need about {needed / 2**30:.0f} GiB of memory\n"
            f"  found: {there / 2**30:.0f} GiB\n  fix: fewer --years, or a smaller data.region"
        )
