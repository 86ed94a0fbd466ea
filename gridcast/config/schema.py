"""An experiment as typed, documented settings; every default stands here and beside, only once."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from gridcast.config.bounds import (
    Period,
    Positive,
    Region,
    Section,
)
from gridcast.config.data import DataConfig, StaticConfig
from gridcast.config.frames import FramesConfig, TargetConfig
from gridcast.config.models import (
    CnnLstmConfig,
    ConvLstmConfig,
    ConvSeq2SeqConfig,
    ModelConfig,
    ReferenceModelConfig,
)
from gridcast.config.streaming import obstacle
from gridcast.config.training import ParallelConfig, TrainConfig
from gridcast.config.tuning import TuneConfig


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


class CrossvalConfig(Section):
    """Blocks of years left out in turn, for `gridcast crossval`."""

    folds: Annotated[int, Field(ge=3)] = Field(
        default=5, description="blocks that the years are cut into"
    )
    buffer: Positive | None = Field(
        default=None,
        description="steps left out on both sides of a block; default: inputs + leads",
    )


class VerificationConfig(Section):
    """Scores beyond those that are always made."""

    thresholds: list[float] = Field(
        default=[], description="events above these values are scored: CSI and FSS"
    )
    neighbourhood: list[Annotated[int, Field(ge=1)]] = Field(
        default=[1, 3, 5], description="cells of the side of the squares of the FSS, odd numbers"
    )

    boxes: dict[str, Region] = Field(
        default={}, description="scored by themselves, and their means as indices: {name: box}"
    )

    @field_validator("neighbourhood")
    @classmethod
    def _odd(cls, value: list[int]) -> list[int]:
        if any(n % 2 == 0 for n in value):
            raise ValueError(f"a square around a cell has an odd side, found {value}")
        return value


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
    target: TargetConfig = Field(default_factory=TargetConfig)
    splits: SplitsConfig
    model: ModelConfig
    train: TrainConfig = Field(default_factory=TrainConfig)
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    crossval: CrossvalConfig = Field(default_factory=CrossvalConfig)
    tune: TuneConfig = Field(default_factory=TuneConfig)
    verification: VerificationConfig = Field(default_factory=VerificationConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        for wrong, message in _contradictions(self):
            if wrong:
                raise ValueError(message)
        if self.frames.storage == "stream" and self.unstreamed is not None:
            raise ValueError(f"frames.storage: stream: {self.unstreamed}")
        return self

    @property
    def unstreamed(self) -> str | None:
        """Why the series cannot be read from the disk as it is needed, and the nearest fix."""
        return obstacle(self.data, self.frames, self.target, self.model, self.train.loss)

    def with_directory(self, default: str) -> Config:
        """This config, writing to `default` where it names no directory."""
        if self.output.directory is not None:
            return self
        output = self.output.model_copy(update={"directory": default})
        return self.model_copy(update={"output": output})


def _contradictions(config: Config) -> list[tuple[bool, str]]:
    """What no single section can see, with what to do about it."""
    target, train, model, frames = config.target, config.train, config.model, config.frames
    classes, amounts = target.classes is not None, train.loss == "bernoulli_gamma"
    normal = train.loss in ("crps", "mse_crps")
    augmented = frames.augment.roll or frames.augment.flip
    space = config.parallel.spatial
    untrained = isinstance(model, ReferenceModelConfig)
    forecast = [config.data, *(variable for variable in config.data.more if variable.target)]
    return [
        (
            classes and train.loss is not None,
            f"target.classes is trained with cross-entropy, found train.loss: {train.loss}\n  "
            "fix: no train.loss",
        ),
        (
            amounts and model.base != "climatology",
            f"train.loss: bernoulli_gamma corrects the climatology, found model.base: "
            f"{model.base}\n  fix: model.base: climatology",
        ),
        (
            amounts and any(variable.transform != "none" for variable in forecast),
            "train.loss: bernoulli_gamma is for amounts as they are\n  fix: data.transform: none",
        ),
        (
            train.start_from is not None and getattr(model, "encoder_from", None) is not None,
            "train.start_from brings all weights, and model.encoder_from those of the encoder\n  "
            "fix: one of them",
        ),
        (
            isinstance(model, ConvSeq2SeqConfig) and (classes or amounts),
            "model.name: conv_seq2seq feeds its forecasts back, and probabilities are no frames\n  "
            "fix: conv_lstm or cnn_lstm, or values and another train.loss",
        ),
        (
            isinstance(model, ConvSeq2SeqConfig) and target.mean_over is not None,
            "model.name: conv_seq2seq gives fields\n  fix: no target.mean_over, or another model",
        ),
        (
            untrained and (train.members > 1 or train.start_from is not None or amounts),
            f"model.name: {model.name} is fitted, not trained\n  fix: no train.members, "
            "train.start_from or train.loss: bernoulli_gamma, or a network",
        ),
        (
            normal and any(variable.transform != "none" for variable in forecast),
            f"train.loss: {train.loss} is a normal distribution of values as they are\n  "
            "fix: data.transform: none",
        ),
        (
            isinstance(model, ConvSeq2SeqConfig) and (normal or frames.trailing is not None),
            "model.name: conv_seq2seq feeds its forecasts back as frames: no standard deviation "
            "and no frames.trailing\n  fix: conv_lstm or cnn_lstm",
        ),
        (
            amounts and frames.trailing is not None,
            "train.loss: bernoulli_gamma corrects the climatology\n  fix: no frames.trailing",
        ),
        (
            model.base in ("lim", "analogues") and bool(frames.patches or augmented),
            f"model.base: {model.base} needs the whole grid as it is\n  fix: no frames.patches, "
            "frames.augment.roll or flip, or model.base: damped_persistence",
        ),
        (
            model.base in ("lim", "analogues") and frames.augment.noise > 0,
            f"model.base: {model.base} would start from the noise\n  fix: no frames.augment.noise, "
            "or model.base: damped_persistence",
        ),
        (
            target.mean_over is not None and len(forecast) > 1,
            "target.mean_over gives one answer, of the first variable\n  fix: target: false in "
            "data.more",
        ),
        (
            target.mean_over is not None and frames.patches is not None,
            "target.mean_over needs the whole grid\n  fix: no frames.patches",
        ),
        (
            classes and bool(frames.augment.flip) and any(v.vector for v in forecast),
            "flips change the sign of a vector's component, and its classes with it\n  fix: no "
            "frames.augment.flip, or no target.classes",
        ),
        (
            frames.least > frames.inputs,
            f"frames.least: {frames.least} observed frames of {frames.inputs} inputs",
        ),
        (
            bool(frames.augment.roll or frames.augment.flip or frames.patches)
            and config.data.mean_over is not None,
            "data.mean_over leaves one cell: nothing to roll, flip or cut\n  fix: leave out "
            "frames.patches and frames.augment",
        ),
        (
            space and not isinstance(model, ConvLstmConfig | ConvSeq2SeqConfig | CnnLstmConfig),
            f"parallel.lat and lon share the grid of a network over it, found model.name: "
            f"{model.name}\n  fix: parallel.data, or conv_lstm or cnn_lstm",
        ),
        (
            space and bool(frames.patches or augmented),
            "parallel.lat and lon share the whole grid as it is\n  fix: parallel.data, or no "
            "frames.patches, frames.augment.roll or flip",
        ),
        (
            space and bool(target.mean_over or config.data.mean_over),
            "parallel.lat and lon share a grid, and a mean over a box has none\n  fix: "
            "parallel.data, or no mean_over",
        ),
        (
            space and isinstance(model, CnnLstmConfig) and model.latent is None,
            "parallel.lat and lon: no device has a whole frame, which model.latent: null hands on\n"
            "  fix: parallel.data, or a number for model.latent",
        ),
        (
            space and model.base == "analogues",
            "parallel.lat and lon: model.base: analogues needs whole frames\n  fix: parallel.data, "
            "or another model.base",
        ),
        (
            any(m.mean_over for m in config.data.more) and config.data.mean_over is None,
            "data.more: mean_over goes with data.mean_over\n  fix: give both or none",
        ),
    ]
