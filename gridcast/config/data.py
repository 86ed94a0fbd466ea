"""Where the data come from, as settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from gridcast.config.bounds import Region, Section, Share

_GIVEN = {"not": {"type": "null"}}
_SOURCED: dict[str, Any] = {
    "anyOf": [{"required": [k], "properties": {k: _GIVEN}} for k in ("name", "path")]
}


class VariableConfig(Section):
    """A series, from where, and how its values are treated."""

    model_config = ConfigDict(json_schema_extra=_SOURCED)

    name: str | None = Field(
        default=None, description="a data set of the catalog: `gridcast data list`"
    )
    path: str | list[str] | None = Field(
        default=None, description="a NetCDF file, a list of files or a glob, joined along time"
    )
    variable: str | None = Field(
        default=None, description="needed where a file holds several series"
    )
    transform: Literal["none", "log1p", "cube_root", "quantile"] = Field(
        default="none", description="for skewed data such as rain; undone in every forecast"
    )
    lowest: float | None = Field(
        default=None, description="no forecast falls below this value, in units of the variable"
    )
    vector: Literal["east", "north"] | None = Field(
        default=None, description="the component of a vector that this is: flips change its sign"
    )
    weight: Share = Field(default=1.0, description="share in the loss, where it is a target")

    @model_validator(mode="after")
    def _has_a_source(self) -> VariableConfig:
        if self.name is None and self.path is None:
            raise ValueError("give a name (see `gridcast data list`) or a path")
        return self


class MoreConfig(VariableConfig):
    """A further variable, interpolated to the grid of the first."""

    target: bool = Field(default=False, description="is forecast too; otherwise only an input")
    mean_over: Region | None = Field(
        default=None, description="its own box, where data.mean_over is given; default: the same"
    )


class DataConfig(VariableConfig):
    """Which series is forecast, and from where; further variables beside it."""

    region: Region | None = Field(
        default=None, description="a box to cut out; default: the whole grid"
    )
    mean_over: Region | None = Field(
        default=None, description="forecast the area mean of this box, an index, not a grid"
    )
    more: list[MoreConfig] = Field(default=[], description="further inputs and targets")
    offline: Literal["error", "simulated"] = Field(
        default="error",
        description="what to do when the named data set is neither found nor downloadable",
    )

    @model_validator(mode="after")
    def _stand_in_has_a_name(self) -> DataConfig:
        if self.offline == "simulated" and self.name is None:
            raise ValueError("data.offline: simulated stands in for data.name, which is not given")
        return self


StaticLayer = Literal["elevation", "land_mask", "position"]


class StaticConfig(Section):
    """Layers that do not change in time, given to the model as extra channels."""

    layers: list[StaticLayer] = Field(
        default_factory=lambda: ["position"],
        description="position is sine and cosine of latitude and longitude",
    )
    path: str | None = Field(
        default=None, description="NetCDF file of elevation; default: `relief` of the catalog"
    )

    @field_validator("layers")
    @classmethod
    def _once_each(cls, value: list[StaticLayer]) -> list[StaticLayer]:
        if len(set(value)) != len(value):
            raise ValueError(f"each layer once, found {value}")
        return value
