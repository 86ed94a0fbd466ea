"""All variables of an experiment: what goes in, what is to come out, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.config import Config
from gridcast.config.data import VariableConfig
from gridcast.frames.classes import Classes, threshold_edges
from gridcast.frames.known import known_fields
from gridcast.frames.streamed import StreamedFrames
from gridcast.frames.trailing import trailing_mean
from gridcast.frames.transform import FrameTransform
from gridcast.frames.windows import ArrayLike, FrameSeries
from gridcast.sources.box import box_mean
from gridcast.sources.store import stored
from gridcast.timeaxis import TimeAxis, season_fields

AMOUNTS = "bernoulli_gamma"
# Losses of a mean and a standard deviation.
NORMAL = ("crps", "mse_crps")


def variables(config: Config) -> list[VariableConfig]:
    """The variables in the order of their channels: the first, further targets, other inputs."""
    more = sorted(config.data.more, key=lambda variable: not variable.target)
    return [config.data, *more]


@dataclass(frozen=True)
class Fields:
    """Fitted on training dates only.

    Attributes:
      inputs: of each variable that the model sees; the targets come first, where they are fields.
      targets: of each variable that is forecast, on the grid of the answer.
      plain: the targets without skew transforms: for references and scores.
      classes: of the targets, or None.
    """

    config: Config
    inputs: tuple[FrameTransform, ...]
    targets: tuple[FrameTransform, ...]
    plain: tuple[FrameTransform, ...]
    classes: Classes | None

    @classmethod
    def fit(
        cls,
        config: Config,
        series: Sequence[xr.DataArray],
        axis: TimeAxis,
        inside: Bool[np.ndarray, " time"],
    ) -> Fields:
        """Fit on the dates where `inside` is True; `series` as `variables` orders them."""
        settings = variables(config)
        frames = config.frames
        inputs = tuple(
            FrameTransform.fit(one, axis, inside, frames, variable)
            for one, variable in zip(series, settings, strict=True)
        )
        answers = target_series(config, series)
        targets = inputs[: len(answers)]
        if config.target.mean_over is not None:
            targets = (FrameTransform.fit(answers[0], axis, inside, frames, config.data),)
        plain = tuple(
            target
            if target.skew.kind == "none"
            else FrameTransform.fit(one, axis, inside, frames, variable, skewed=False)
            for one, variable, target in zip(answers, settings, targets, strict=False)
        )
        draft = cls(config, inputs, targets, plain, None)
        if config.target.classes is None:
            return draft
        scaled = draft.scaled(answers)[inside]
        months = months_of(axis.times[inside])
        edges = None
        if config.target.classes.kind == "thresholds":
            edges = threshold_edges(config.target.classes, targets, axis.times[inside])
        mask = np.logical_or.reduce([target.grid.mask for target in targets])
        classes = Classes.fit(config.target.classes, scaled, months, mask, edges)
        return cls(config, inputs, targets, plain, classes)

    @property
    def whole(self) -> bool:
        """Whether there is one answer for a window, not a field."""
        return self.config.target.mean_over is not None

    @property
    def normal(self) -> bool:
        """Whether forecasts are a mean and a standard deviation."""
        return self.config.train.loss in NORMAL

    @property
    def target_mask(self) -> Bool[np.ndarray, "lat lon target"]:
        return np.stack([target.grid.mask for target in self.targets], axis=-1)

    @property
    def weight(self) -> Float[np.ndarray, "lat lon target"]:
        """Relative cell area, 0 off the mask of each target; each sums to 1."""
        return np.stack([target.grid.weight for target in self.targets], axis=-1)

    def scaled(
        self, answers: Sequence[xr.DataArray], *, plain: bool = False
    ) -> Float[ArrayLike, "time lat lon target"]:
        """The targets as scaled anomalies, 0 off the mask, NaN where not observed.

        Of stored series they are made as they are asked for.
        """
        return _scaled(self.plain if plain else self.targets, answers)

    def rows(self, rows: slice) -> Fields:
        """Of some rows of the grid only; without classes."""
        inputs, targets, plain = (
            tuple(transform.rows(rows) for transform in group)
            for group in (self.inputs, self.targets, self.plain)
        )
        return Fields(self.config, inputs, targets, plain, None)

    def arrays_of(
        self, series: Sequence[xr.DataArray], axis: TimeAxis, after: np.ndarray | None = None
    ) -> FrameSeries:
        """What the model takes of a series.

        Args:
          series: as `variables` orders them.
          after: dates beyond the series, of which the model needs what is known in advance.
        """
        values = _scaled(self.inputs, series)
        answers = target_series(self.config, series)
        last = self.scaled(answers) if self.whole else None
        targets = None
        if self.classes is not None:
            targets = self.observed_classes(answers, axis)
        elif self.config.train.loss == AMOUNTS:
            targets = np.stack([one.values for one in answers], axis=-1)
            targets = np.where(self.target_mask, targets, 0.0).astype(np.float32)
        dates = axis.times if after is None else np.concatenate([axis.times, after])
        known = known_fields(
            self.config.frames.known,
            dates,
            self.inputs[0].climatology.unit,
            self.inputs[0].grid.lat,
        )
        trailing = last_trailing = None
        if (years := self.config.frames.trailing) is not None:
            trailing = trailing_mean(values, axis, years)
            last_trailing = None if last is None else trailing_mean(last, axis, years)
        months = months_of(dates)
        return FrameSeries(values, last, targets, known, months, trailing, last_trailing)

    def observed_classes(
        self, answers: Sequence[xr.DataArray], axis: TimeAxis
    ) -> Float[np.ndarray, "time lat lon target"]:
        """The class of each cell and date, from 0; NaN where not observed."""
        assert self.classes is not None
        settings = self.config.target.classes
        assert settings is not None
        if settings.of == "value" and settings.kind == "thresholds":
            values = np.stack([one.values for one in answers], axis=-1)
            number = sum((values > edge).astype(np.float32) for edge in settings.thresholds)
            number = np.where(np.isnan(values), np.nan, number)
        else:
            number = self.classes.classify(self.scaled(answers), months_of(axis.times))
        return np.where(self.target_mask, number, 0.0).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, beside `about`."""
        groups = {"inputs": self.inputs, "targets": self.targets, "plain": self.plain}
        found = {
            f"{group}/{i}/{name}": array
            for group, transforms in groups.items()
            for i, transform in enumerate(transforms)
            for name, array in transform.arrays().items()
        }
        if self.classes is not None:
            found |= {f"classes/{k}": v for k, v in self.classes.arrays().items()}
        return found

    def about(self) -> dict[str, Any]:
        return {
            name: [transform.about() for transform in getattr(self, name)]
            for name in ("inputs", "targets", "plain")
        }

    @classmethod
    def restore(
        cls, config: Config, arrays: dict[str, np.ndarray], about: dict[str, Any]
    ) -> Fields:
        """The inverse of `arrays` and `about`."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        def transforms(group: str) -> tuple[FrameTransform, ...]:
            return tuple(
                FrameTransform.restore(part(f"{group}/{i}/"), one)
                for i, one in enumerate(about[group])
            )

        classes = None
        if config.target.classes is not None:
            classes = Classes.restore(config.target.classes, part("classes/"))
        return cls(
            config, transforms("inputs"), transforms("targets"), transforms("plain"), classes
        )


def _scaled(
    transforms: Sequence[FrameTransform], series: Sequence[xr.DataArray]
) -> Float[ArrayLike, "time lat lon variable"]:
    if stored(series[0]):
        return StreamedFrames(transforms, series)
    pairs = zip(transforms, series, strict=True)
    return np.concatenate([transform.frames(one) for transform, one in pairs], axis=-1)


def target_series(config: Config, series: Sequence[xr.DataArray]) -> list[xr.DataArray]:
    """The series that are forecast: the first ones, or the area mean of the first."""
    if config.target.mean_over is not None:
        return [box_mean(series[0], config.target.mean_over)]
    count = 1 + sum(variable.target for variable in config.data.more)
    return list(series[:count])


def months_of(times: np.ndarray) -> Int[np.ndarray, " time"]:
    """Calendar months, 1 to 12."""
    return season_fields(times, "month")[1]
