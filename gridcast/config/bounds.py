"""What settings are made of: numbers within bounds, dates, periods and regions."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """A part of the configuration: unknown keys and silent type changes are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
# What `parse_date` takes, and bare years, for `gridcast config schema`.
_LONG = "(0[13578]|1[02])(-(0[1-9]|[12][0-9]|3[01]))?"
_SHORT = "(0[2469]|11)(-(0[1-9]|[12][0-9]|30))?"
_WRITTEN = {
    "anyOf": [
        {"type": "integer", "minimum": 1000, "maximum": 9999},
        {"type": "string", "pattern": f"^[0-9]{{4}}(-({_LONG}|{_SHORT}))?$"},
    ]
}
Date = Annotated[str, Field(description="YYYY, YYYY-MM or YYYY-MM-DD"), WithJsonSchema(_WRITTEN)]


def parse_date(text: str) -> tuple[int, int | None, int | None]:
    """Read `YYYY`, `YYYY-MM` or `YYYY-MM-DD`; any calendar, so day 30 of February may exist.

    Raises:
      ValueError: not in one of these forms, or a month or day that no calendar has.
    """
    parts = text.split("-")
    forms = "expected YYYY, YYYY-MM or YYYY-MM-DD"
    if parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 4:
        forms += f", for example {'-'.join([parts[0].zfill(4), *parts[1:]])}"
    if len(parts) > 3 or len(parts[0]) != 4 or any(len(part) != 2 for part in parts[1:]):
        raise ValueError(f"{text!r} is not a date; {forms}")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a date; {forms}")
    year = int(parts[0])
    month = int(parts[1]) if len(parts) > 1 else None
    day = int(parts[2]) if len(parts) > 2 else None
    if month is not None and not 1 <= month <= 12:
        raise ValueError(f"{text!r} is not a date: there is no month {month}")
    # 30 February exists in the 360_day calendar, 31 April in none.
    longest = 30 if month == 2 else 31 if month is None else _month_length(month)
    if day is not None and not 1 <= day <= longest:
        raise ValueError(f"{text!r} is not a date: month {month} has no day {day}")
    return year, month, day


def _month_length(month: int) -> int:
    after = dt.date(2001 + month // 12, month % 12 + 1, 1)
    return (after - dt.timedelta(days=1)).day


class Period(Section):
    """First and last date, both included: `[1950, 1994]` or `[1982-01, 2006-12]`."""

    first: Date
    last: Date

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError(f"expected [first, last], found {len(value)} values")
            value = {"first": value[0], "last": value[1]}
        if isinstance(value, dict):
            # A bare year reads as a whole number in YAML, and means a year here.
            return {k: str(v) if type(v) is int else v for k, v in value.items()}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A section, or a pair in its place."""
        section = handler.resolve_ref_schema(handler(core_schema))
        about = {name: section.pop(name) for name in ("title", "description")}
        pair = {"type": "array", "items": _WRITTEN, "minItems": 2, "maxItems": 2}
        return about | {"anyOf": [pair, section]}

    @field_validator("first", "last")
    @classmethod
    def _is_date(cls, value: str) -> str:
        parse_date(value)
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Period:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"first date {self.first} is after last date {self.last}")
        return self

    @property
    def bounds(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Inclusive (year, month, day) bounds; `1994` ends with its last day."""
        year, month, day = parse_date(self.first)
        first = (year, month or 1, day or 1)
        year, month, day = parse_date(self.last)
        return first, (year, month or 12, day or 31)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


class Region(Section):
    """A box in degrees; `lon` may cross longitude 0 (`[-30, 40]`) or 180 (`[120, 290]`)."""

    lat: tuple[float, float] = Field(
        default=(-90.0, 90.0), strict=False, description="south, north"
    )
    lon: tuple[float, float] = Field(default=(0.0, 360.0), strict=False, description="west, east")

    @model_validator(mode="after")
    def _in_order(self) -> Region:
        south, north = self.lat
        west, east = self.lon
        if not -90 <= south < north <= 90:
            raise ValueError(f"lat needs south < north within -90..90, found {[south, north]}")
        if not (-360 <= west < east <= 720 and east - west <= 360):
            raise ValueError(f"lon needs west < east, at most 360 apart, found {[west, east]}")
        return self
