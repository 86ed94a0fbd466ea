"""Settings of training, and of the devices that it is spread over."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gridcast.config.bounds import Fraction, NotNegative, Positive, Section, Share
from gridcast.config.models import Precision


class TrainConfig(Section):
    """How the weights are found."""

    epochs: Positive = Field(default=20, description="passes over the training windows, at most")
    batch_size: Positive = Field(default=16, description="windows in one step")
    loss: (
        Literal["mse", "mae", "huber", "balanced_mse", "bernoulli_gamma", "crps", "mse_crps"] | None
    ) = Field(
        default=None,
        description="default: mse for values, cross-entropy for classes; crps and mse_crps "
        "forecast a mean and a standard deviation",
    )
    learning_rate: Share = Field(
        default=1e-3, description="at its highest: it rises at first and falls to the end"
    )
    warmup: Fraction = Field(default=0.05, description="share of the steps in which the rate rises")
    weight_decay: NotNegative = Field(default=1e-4, description="decoupled from the gradient")
    l1: NotNegative = Field(
        default=0.0, description="times the sum of absolute weights, in the loss"
    )
    l2: NotNegative = Field(
        default=0.0, description="times the sum of squared weights, in the loss"
    )
    clip: Share = Field(default=1.0, description="largest norm of the gradient")
    patience: Positive = Field(
        default=5, description="epochs without a better validation before it stops"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="of first weights, batches and dropout"
    )
    members: Positive = Field(
        default=1, description="networks trained side by side, from seeds one apart, as one model"
    )
    bootstrap: Positive | None = Field(
        default=None,
        description="each member draws its training years with replacement, in blocks of so many",
    )
    average: Fraction = Field(
        default=0.0, description="decay per step of a moving average of the weights; 0: none"
    )
    precision: Precision = Field(
        default="float32",
        description="mixed: the network computes in bfloat16, also in forecasts; its weights, "
        "sums over time and the loss stay float32",
    )
    accumulate: Positive = Field(
        default=1, description="parts of a batch that are computed one after the other"
    )
    remat: bool = Field(
        default=False,
        description="compute what lies between layers again in the backward pass: less memory",
    )
    tensorboard: bool = Field(
        default=False, description="the numbers of metrics.jsonl also as TensorBoard events"
    )
    start_from: str | None = Field(default=None, description="a run whose weights to start from")

    @model_validator(mode="after")
    def _equal_parts(self) -> TrainConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate parts a batch into equal parts, found {self.accumulate} of "
                f"batch_size {self.batch_size}"
            )
        return self


class ParallelConfig(Section):
    """The devices that share a training. They change the time and memory it takes, nothing else."""

    data: Positive | Literal["auto"] = Field(
        default="auto",
        description="devices that share each batch, or the members; auto: all, one for each window "
        "of a batch at most",
    )
    lat: Positive = Field(
        default=1, description="bands of latitudes, each on devices of its own, for large grids"
    )
    lon: Positive = Field(default=1, description="and sectors of longitudes")

    @property
    def spatial(self) -> bool:
        return self.lat * self.lon > 1
