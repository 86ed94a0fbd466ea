"""An experiment as typed, documented settings; every default stands here and only here."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from gridcast.config.bounds import Period, Region, Section

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def _whole(value: object) -> object:
    # Literal compares by equality, and True == 1.
    if type(value) is not int:
        raise PydanticKnownError("int_type")
    return value


Kernel = Annotated[Literal[1, 3, 5, 7], BeforeValidator(_whole)]
Factor = Annotated[Literal[1, 2, 4], BeforeValidator(_whole)]


class DataConfig(Section):
    """Which series is forecast, and from where."""

    name: str | None = Field(
        default=None, description="a data set of the catalog: `gridcast data list`"
    )
    path: str | list[str] | None = Field(
        default=None, description="a NetCDF file, a list of files or a glob, joined along time"
    )
    variable: str | None = Field(
        default=None, description="needed where a file holds several series"
    )
    region: Region | None = Field(
        default=None, description="a box to cut out; default: the whole grid"
    )
    offline: Literal["error", "simulated"] = Field(
        default="error",
        description="what to do when the named data set is neither found nor downloadable",
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> DataConfig:
        if self.name is None and self.path is None:
            raise ValueError("give data.name (see `gridcast data list`) or data.path")
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


class ClimatologyConfig(Section):
    """The seasonal cycle that anomalies are taken against, fitted on training dates only."""

    kind: Literal["harmonics", "monthly", "mean"] = "harmonics"
    harmonics: Annotated[int, Field(ge=1, le=6)] = 3
    trend: bool = Field(default=False, description="also fit a linear trend, and continue it")


class FramesConfig(Section):
    """From a series to what a model sees."""

    inputs: Positive = Field(default=6, description="frames given to the model")
    leads: Positive = Field(default=12, description="forecast 1 to this many steps ahead")
    climatology: ClimatologyConfig = Field(default_factory=ClimatologyConfig)
    scaling: Literal["variable", "cell"] = Field(
        default="variable",
        description="divide anomalies by one standard deviation, or one for each cell",
    )


class SplitsConfig(Section):
    """Dates of training, validation and test, in this order and apart."""

    train: Period
    validation: Period
    test: Period

    @model_validator(mode="after")
    def _in_order(self) -> SplitsConfig:
        names = ("train", "validation", "test")
        for earlier, later in pairwise(names):
            before, after = getattr(self, earlier), getattr(self, later)
            if before.bounds[1] >= after.bounds[0]:
                raise ValueError(
                    f"{earlier} ({before}) must end before {later} ({after}) begins: "
                    "a forecast is judged on years after those it learned from"
                )
        return self


class ConvLstmConfig(Section):
    """Stacked convolutional LSTM cells on a grid coarsened by `downsample`."""

    name: Literal["conv_lstm"]
    base: Literal["damped_persistence", "persistence", "climatology"] = Field(
        default="damped_persistence", description="the reference that the network corrects"
    )
    hidden: list[Positive] = Field(
        default_factory=lambda: [24], description="hidden channels of each cell", min_length=1
    )
    kernel: Kernel = 3
    downsample: Factor = Field(default=2, description="cells of the grid to one of the network")
    dropout: Fraction = 0.0


class CnnLstmConfig(Section):
    """One CNN encoder for every frame, an LSTM over time, a decoder back to the grid."""

    name: Literal["cnn_lstm"]
    base: Literal["damped_persistence", "persistence", "climatology"] = Field(
        default="damped_persistence", description="the reference that the network corrects"
    )
    channels: list[Positive] = Field(
        default_factory=lambda: [16, 32, 32],
        description="channels of each encoder stage; each stage halves the grid",
        min_length=1,
    )
    kernel: Kernel = 3
    norm: Literal["group", "none"] = "group"
    pooling: Literal["max", "mean", "stride"] = "max"
    latent: Positive = Field(default=64, description="length of the vector that a frame becomes")
    hidden: Positive = Field(default=128, description="units of the LSTM")
    dropout: Fraction = 0.0


ModelConfig = Annotated[ConvLstmConfig | CnnLstmConfig, Field(discriminator="name")]


class TrainConfig(Section):
    """How the weights are found."""

    epochs: Positive = 20
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Fraction = Field(default=0.05, description="share of the steps in which the rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="largest norm of the gradient"
    )
    patience: Positive = Field(
        default=5, description="epochs without a better validation before it stops"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class OutputConfig(Section):
    """Where the results go."""

    directory: str | None = Field(
        default=None, description="default: runs/NAME, NAME of the config file"
    )


class Config(Section):
    """One experiment."""

    data: DataConfig
    static: StaticConfig = Field(default_factory=StaticConfig)
    frames: FramesConfig = Field(default_factory=FramesConfig)
    splits: SplitsConfig
    model: ModelConfig
    train: TrainConfig = Field(default_factory=TrainConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)

    def with_directory(self, default: str) -> Config:
        """This config, writing to `default` where it names no directory."""
        if self.output.directory is not None:
            return self
        output = self.output.model_copy(update={"directory": default})
        return self.model_copy(update={"output": output})
