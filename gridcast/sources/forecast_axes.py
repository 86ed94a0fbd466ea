"""From what date, and for what date, each field of a forecast file was made."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from gridcast.errors import DataError
from gridcast.sources.dates import read_dates
from gridcast.sources.leads import WHOLE_MONTHS, Leads, step_text
from gridcast.timeaxis import Unit


@dataclass(frozen=True)
class Role:
    """How a coordinate of a forecast is recognised: by CF standard name, else by usual names."""

    word: str
    standard_name: str
    names: tuple[str, ...]


INITIAL = Role(
    "initial date",
    "forecast_reference_time",
    ("forecast_reference_time", "init", "init_time", "initial_time", "initialization_time",
     "start", "start_date", "s", "reftime"),
)  # fmt: skip
LEAD = Role(
    "lead",
    "forecast_period",
    ("forecast_period", "lead", "lead_time", "leadtime", "prediction_timedelta", "step", "l",
     *WHOLE_MONTHS),
)  # fmt: skip
VALID = Role("valid date", "time", ("verifying_time", "valid_time", "time"))
MEMBER = Role("member", "realization", ("realization", "member", "ensemble", "number", "m"))


@dataclass(frozen=True)
class ForecastDates:
    """The steps of all fields of a variable, as texts: "2000-01" is a step of one month.

    Attributes:
      dims: the dimensions that dates lie along.
      initial: the step of the initial date; valid: the step that is forecast.
      begins: the initial date begins the first step that is forecast, so the last one that the
        forecast knew is the step before. Otherwise it knew the step of its initial date.
    """

    dims: tuple[Hashable, ...]
    initial: Shaped[np.ndarray, "..."]
    valid: Shaped[np.ndarray, "..."]
    begins: bool

    def __str__(self) -> str:
        first, last = (np.unique(one)[[0, -1]] for one in (self.initial, self.valid))
        knew = "the step before" if self.begins else "its own step"
        return (
            f"from {first[0]} to {first[1]}, each forecast knowing {knew}, "
            f"for {last[0]} to {last[1]}"
        )


def forecast_dates(
    dataset: xr.Dataset,
    dims: Sequence[Hashable],
    unit: Unit,
    every: int,
    *,
    begins: bool | None = None,
    origin: str = "the forecast",
) -> ForecastDates:
    """The dates of a variable with the dimensions `dims`, those of place and member left out.

    The valid date is what the file says it is, else initial date plus lead: in months on the
    calendar, a half month (NMME: 0.5, 1.5, ...) being that which begins with the whole number.
    `forecastMonth` and `leadtime_month` (ECMWF) decide before any valid date: 1 is the first whole
    month after the initial date. A mean that is stamped with the end of its month, as in cfgrib's
    `valid_time`, counts for the month of the stamp: give `forecastMonth` or `verifying_time`.

    Args:
      unit, every: the step, as of a TimeAxis.
      begins: as in ForecastDates; default: so for leads of half steps, for ECMWF's months, and
        where the month or year of an initial date is itself forecast.

    Raises:
      DataError: no initial date, neither lead nor valid date, units that are no length of time, or
        dimensions that are none of these.
    """
    lead = find(dataset, dims, LEAD)
    initial = find(dataset, dims, INITIAL) or _time_beside(dataset, dims, lead)
    valid = find(dataset, dims, VALID, (initial, lead))
    if initial is None or (lead is None and valid is None):
        raise _unknown(dataset, dims, INITIAL if initial is None else LEAD, origin)
    sizes = {d: dataset.sizes[d] for d in dims}
    further = {d for d in dims if sizes[d] > 1} - {*dataset[initial].dims}
    whole = lead is not None and str(lead).lower() in WHOLE_MONTHS
    dated = valid is not None and not whole and further <= {*dataset[valid].dims}
    second = valid if dated else lead
    if second is None or not further <= {*dataset[second].dims}:
        raise _too_many(further - ({*dataset[second].dims} if second else set()), sizes, origin)

    def over(name: Hashable, values: np.ndarray) -> np.ndarray:
        """The values of a coordinate over all dimensions."""
        one = dataset[name].variable
        return xr.Variable(one.dims, values.reshape(one.shape)).set_dims(sizes).values

    starts = _dates(dataset[initial].variable, origin)
    leads = None
    if lead is not None:
        leads = Leads.of(dataset[lead].variable, str(lead), origin)
    began = step_text(starts, unit)
    if dated:
        assert valid is not None
        told = over(valid, step_text(_dates(dataset[valid].variable, origin), unit))
    elif leads is None:
        units = dataset[lead].attrs.get("units", "")
        raise DataError(
            f"{origin}: {lead} has the units {units!r}\n"
            "  expected: months, days, hours or another length of time\n"
            f"  fix: ncatted -a units,{lead},o,c,months FILE"
        )
    else:
        began = leads.initial_steps(starts, unit)
        places = (over(n, np.arange(dataset[n].size)) for n in (initial, lead))
        told = leads.valid_steps(starts, unit, origin)[tuple(places)]
    known = over(initial, began)
    if begins is None:
        in_half = leads is not None and leads.in_half(unit, every, starts)
        same = unit in ("year", "month") and bool((told == known).any())
        begins = whole or in_half or same
    return ForecastDates(tuple(dims), known, told, begins)


def find(
    dataset: xr.Dataset,
    dims: Sequence[Hashable],
    role: Role,
    taken: Sequence[Hashable | None] = (),
) -> Hashable | None:
    """The coordinate of this role along some of `dims` or none, the best known name first."""
    ranks: list[tuple[tuple[bool, int], str]] = []
    for name, variable in dataset.variables.items():
        if name in taken or not {*variable.dims} <= {*dims}:
            continue
        standard = str(variable.attrs.get("standard_name", "")).lower() == role.standard_name
        short = str(name).lower()
        if standard or short in role.names:
            order = role.names.index(short) if short in role.names else len(role.names)
            ranks.append(((not standard, order), str(name)))
    return min(ranks)[1] if ranks else None


def _time_beside(
    dataset: xr.Dataset, dims: Sequence[Hashable], lead: Hashable | None
) -> Hashable | None:
    """`time` is the initial date where leads have a dimension of their own."""
    if lead is None or dataset[lead].ndim != 1:
        return None
    for name, variable in dataset.variables.items():
        if str(name).lower() == "time" and variable.ndim < 2 and {*variable.dims} <= {*dims}:
            return None if variable.dims == dataset[lead].dims else name
    return None


def _dates(coordinate: xr.Variable, origin: str) -> np.ndarray:
    flat = xr.Variable("date", coordinate.values.reshape(-1), coordinate.attrs)
    return read_dates(flat, origin)


def _too_many(left: set[Hashable], sizes: dict[Hashable, int], origin: str) -> DataError:
    names = [d for d in sizes if d in left]
    return DataError(
        f"{origin}: further dimensions: {', '.join(f'{d} ({sizes[d]})' for d in names)}\n"
        "  expected: initial date, lead or valid date, member, latitude, longitude\n"
        f"  fix: select one, for example ds.isel({names[0]}=0), and save that"
    )


def _unknown(dataset: xr.Dataset, dims: Sequence[Hashable], role: Role, origin: str) -> DataError:
    found = [str(name) for name, v in dataset.variables.items() if {*v.dims} <= {*dims}]
    return DataError(
        f"{origin}: no {role.word} among {', '.join(found) or 'no coordinate at all'}\n"
        f"  expected: standard_name {role.standard_name!r}, or a name such as "
        f"{', '.join(role.names[1:4])}\n"
        f"  fix: ncatted -a standard_name,NAME,o,c,{role.standard_name} FILE"
    )
