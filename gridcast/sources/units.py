"""Units of the fields that gridcast knows: their spellings, and conversion between them."""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float

from gridcast.errors import DataError

# Every known unit has one spelling here; `spelling` brings the others to it.
_WORDS = {
    "d": ("day", "days"),
    "h": ("hr", "hrs", "hour", "hours"),
    "s": ("sec", "secs", "second", "seconds"),
    "month": ("mon", "months"),
    "m": ("meter", "meters", "metre", "metres"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "km": ("kilometer", "kilometers", "kilometre", "kilometres"),
    "K": ("k", "kelvin", "kelvins", "degk", "deg_k", "degree_k", "degrees_k", "degree_kelvin",
          "degrees_kelvin", "kelvin_scale"),
    "degC": ("c", "degc", "deg_c", "degree_c", "degrees_c", "degreec", "degreesc", "celsius",
             "degree_celsius", "degrees_celsius", "deg_celsius", "°c", "celsius_scale"),
    "1": ("", "none", "unitless", "dimensionless", "-"),
}  # fmt: skip
_SPELLINGS = {other: word for word, others in _WORDS.items() for other in (word.lower(), *others)}
_SPELLINGS |= {"deg c": "degC", "degrees celsius": "degC", "degree celsius": "degC", "deg k": "K"}

_LENGTHS = {"mm": 1.0, "kg m-2": 1.0, "cm": 10.0, "m": 1000.0, "km": 1e6}
_RATES = {
    "mm d-1": 1.0,
    "kg m-2 d-1": 1.0,
    "mm h-1": 24.0,
    "kg m-2 h-1": 24.0,
    "mm s-1": 86400.0,
    "kg m-2 s-1": 86400.0,
    "cm d-1": 10.0,
    "m d-1": 1e3,
    "m s-1": 8.64e7,
}
_MONTHLY = {"mm month-1": 1.0, "kg m-2 month-1": 1.0, "cm month-1": 10.0}


def spelling(units: str) -> str:
    """The one spelling of `units` that this module compares: `mm/day`, `mm day**-1` -> `mm d-1`.

    Units it does not know come back with only their notation made equal.
    """
    text = units.strip().lower()
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    numerator, *denominators = text.replace("**", "").replace("^", "").split("/")
    terms = [(term, 1) for term in re.split(r"[\s.·*]+", numerator) if term]
    for part in denominators:
        terms += [(term, -1) for term in re.split(r"[\s.·*()]+", part) if term]
    words = []
    for term, sign in terms:
        match = re.fullmatch(r"(.*?[^\d+-])([+-]?\d+)?", term)
        if match is None:
            words.append(term)
            continue
        power = sign * int(match[2] or 1)
        words.append(_SPELLINGS.get(match[1], match[1]) + ("" if power == 1 else str(power)))
    return " ".join(word for word in words if word != "1")


def squared(units: str) -> str:
    """The unit of a square: of a quotient the whole of it, `(mm/day)2`, not its last part."""
    if units == "1":
        return units
    return f"{units}2" if units.isalpha() else f"({units})2"


def family(units: str) -> str:
    """`temperature`, `length`, `rate` (rain, per time), or `other`."""
    name = spelling(units)
    if name in ("K", "degC"):
        return "temperature"
    if name in _LENGTHS:
        return "length"
    return "rate" if name in _RATES or name in _MONTHLY else "other"


def same_units(a: str, b: str) -> bool:
    """Whether two spellings name one unit: `degC` and `degree_Celsius`, `mm/day` and `mm d-1`."""
    return spelling(a) == spelling(b)


def convert(
    values: Float[np.ndarray, ...],
    from_units: str,
    to_units: str,
    days_per_step: float | int | np.ndarray | None = None,
    *,
    difference: bool = False,
) -> Float[np.ndarray, ...]:
    """`values` in other units; a new array of the same dtype.

    Knows K and degC, lengths (1 kg m-2 of water is 1 mm), and rates of rain.

    Args:
      days_per_step: days that one step lasts, needed between a rate and a total (mm, mm/month);
        an array, to be broadcast against `values`, where months differ in length.
      difference: temperatures are anomalies, so that K and degC are the same.

    Raises:
      DataError: units that cannot be converted into each other, or `days_per_step` is missing.
    """
    old, new = spelling(from_units), spelling(to_units)
    if old == new:
        return values.copy()
    if {old, new} == {"K", "degC"}:
        shift = 0.0 if difference else 273.15 if new == "K" else -273.15
        return (values + np.float64(shift)).astype(values.dtype)
    if old in _LENGTHS and new in _LENGTHS:
        return (values * np.float64(_LENGTHS[old] / _LENGTHS[new])).astype(values.dtype)
    factors = []
    for name, shown in ((old, from_units), (new, to_units)):
        if name in _RATES:
            factors.append(_RATES[name])
            continue
        total = {**_LENGTHS, **_MONTHLY}.get(name)
        if total is None:
            raise DataError(
                f"found units {from_units!r}, expected {to_units!r}: no conversion is known\n"
                "  known: K and degC; mm, cm, m, kg m-2; mm/day, mm/month, kg m-2 s-1, m/s\n"
                f"  fix: convert the data to {to_units!r} before"
            )
        if name in _MONTHLY and old in _MONTHLY and new in _MONTHLY:
            days_per_step = 1.0 if days_per_step is None else days_per_step
        if days_per_step is None:
            raise DataError(
                f"found units {from_units!r}, expected {to_units!r}: {shown!r} is a total, and how "
                "many days it covers is not known\n"
                "  fix: give days_per_step, or convert the data before"
            )
        factors.append(total / np.asarray(days_per_step, dtype=np.float64))
    return (values * (factors[0] / factors[1])).astype(values.dtype)
