"""What a model is given and what it is to forecast, as settings."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gridcast.config.bounds import NotNegative, Period, Positive, Region, Section


class ClimatologyConfig(Section):
    """The seasonal cycle that anomalies are taken against, fitted on training dates only."""

    kind: Literal["harmonics", "monthly", "mean"] = Field(
        default="harmonics", description="waves of a year, a mean of each month, or one mean"
    )
    harmonics: Annotated[int, Field(ge=1, le=6)] = Field(
        default=3, description="waves of a year, a half, a third, ..., so many"
    )
    trend: bool = Field(default=False, description="also fit a linear trend, and continue it")
    period: Period | None = Field(
        default=None, description="base period within the training dates; default: all of them"
    )


class PatchesConfig(Section):
    """Train on random patches of the grid; forecast in overlapping tiles of the same size."""

    size: tuple[Positive, Positive] = Field(
        strict=False, description="latitudes and longitudes of a patch"
    )
    overlap: Positive = Field(default=16, description="cells that two neighbouring tiles share")

    @model_validator(mode="after")
    def _overlap_fits(self) -> PatchesConfig:
        if 2 * self.overlap > min(self.size):
            raise ValueError(f"overlap may be at most half of {min(self.size)}, the patch's side")
        return self


class AugmentConfig(Section):
    """Changes of training windows under which the laws of nature stay the same."""

    noise: NotNegative = Field(
        default=0.0, description="standard deviation added to the inputs, in scaled units"
    )
    roll: bool = Field(
        default=False,
        description="turn the whole grid, static layers and all, by a random longitude (periodic "
        "grids); for cnn_lstm: a ConvLSTM is the same at every longitude already",
    )
    flip: list[Literal["lat", "lon"]] = Field(
        default=[], description="mirror at random; vector components change sign"
    )


class FramesConfig(Section):
    """From a series to what a model sees."""

    inputs: Positive = Field(default=6, description="frames given to the model")
    leads: Positive = Field(default=12, description="forecast 1 to this many steps ahead")
    missing: Literal["error", "drop", "mask"] = Field(
        default="error",
        description="dates or values that lack: refuse them, use no window that needs them, or "
        "use windows with a mask",
    )
    least: Positive = Field(
        default=1, description="fewest observed frames of a window, where missing is mask"
    )
    climatology: ClimatologyConfig = Field(default_factory=ClimatologyConfig)
    trailing: Positive | None = Field(
        default=None,
        description="years before the initial date whose mean anomaly the forecast starts from and "
        "is damped towards, where the climate drifts; default: the climatology",
    )
    storage: Literal["memory", "stream", "auto"] = Field(
        default="memory",
        description="where the series is in training: in memory, or read as it is needed from what "
        "`gridcast data prepare` wrote; auto: by its size",
    )
    scaling: Literal["variable", "cell"] = Field(
        default="variable",
        description="divide anomalies by one standard deviation, or one for each cell",
    )
    known: list[Literal["season", "insolation"]] = Field(
        default=["season"], description="what is known in advance of every date, as inputs"
    )
    patches: PatchesConfig | None = None
    augment: AugmentConfig = Field(default_factory=AugmentConfig)


class ClassesConfig(Section):
    """Classes of the target: terciles of each cell and month, or given thresholds."""

    kind: Literal["terciles", "thresholds"] = Field(
        default="terciles", description="terciles of each cell and month, or the thresholds below"
    )
    thresholds: list[float] = Field(
        default=[], description="ascending, in units of the variable; n of them make n + 1 classes"
    )
    of: Literal["anomaly", "value"] = Field(
        default="anomaly", description="what is compared with the thresholds"
    )
    names: list[str] = Field(default=[], description="of the classes, from low to high")

    @model_validator(mode="after")
    def _consistent(self) -> ClassesConfig:
        if self.kind == "terciles" and self.thresholds:
            raise ValueError("terciles have no thresholds; use kind: thresholds")
        if self.kind == "thresholds" and not self.thresholds:
            raise ValueError("give thresholds, for example [20]")
        if sorted(set(self.thresholds)) != self.thresholds:
            raise ValueError(f"thresholds must ascend, found {self.thresholds}")
        if self.names and len(self.names) != self.count:
            raise ValueError(f"expected {self.count} names, found {len(self.names)}")
        return self

    @property
    def count(self) -> int:
        return 3 if self.kind == "terciles" else len(self.thresholds) + 1

    @property
    def labels(self) -> list[str]:
        if self.names:
            return self.names
        if self.kind == "terciles":
            return ["below", "near", "above"]
        inner = [f"{a:g} to {b:g}" for a, b in pairwise(self.thresholds)]
        return [f"below {self.thresholds[0]:g}", *inner, f"above {self.thresholds[-1]:g}"]


class TargetConfig(Section):
    """What is forecast of the series, where it is not the field itself."""

    mean_over: Region | None = Field(
        default=None, description="one answer for a whole window: the area mean over this box"
    )
    classes: ClassesConfig | None = Field(
        default=None, description="forecast probabilities of classes instead of values"
    )
