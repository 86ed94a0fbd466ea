"""The networks as settings: one section for each, chosen by `model.name`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from gridcast.config.bounds import Fraction, NotNegative, Positive, Section

Widths = Annotated[list[Positive], Field(min_length=1)]


def _whole(value: object) -> object:
    # Literal compares by equality, and True == 1.
    if type(value) is not int:
        raise PydanticKnownError("int_type")
    return value


Kernel = Annotated[Literal[1, 2, 3, 5, 7], BeforeValidator(_whole)]
Factor = Annotated[Literal[1, 2, 4], BeforeValidator(_whole)]
Precision = Literal["float32", "mixed"]
Base = Literal["damped_persistence", "persistence", "climatology", "lim", "analogues"]


class ReferenceConfig(Section):
    """How the reference is fitted that the network corrects, or that is the model."""

    by_month: bool = Field(
        default=False, description="damped persistence: factors for each calendar month"
    )
    eofs: Positive | Annotated[list[Positive], Field(min_length=1)] = Field(
        default=20, description="of lim and analogues; of several, validation chooses one"
    )
    more_eofs: Positive = Field(
        default=5, description="of each input that is not forecast, such as sea-surface height"
    )
    seasonal: bool = Field(default=False, description="lim: an operator for each calendar month")
    shrink: NotNegative = Field(
        default=0.2, description="seasonal lim: how firmly the months are held to the whole year"
    )
    neighbours: Positive = Field(default=10, description="analogues: dates that are averaged")

    def unread(self, base: str) -> list[str]:
        """The settings that differ from their defaults and that this reference does not read."""
        read = {
            "damped_persistence": {"by_month"},
            "lim": {"eofs", "more_eofs", "seasonal", "shrink"},
            "analogues": {"eofs", "neighbours"},
        }.get(base, set())
        changed = {k for k, v in self if v != type(self).model_fields[k].default}
        return sorted(changed - read)


class _OverReference(Section):
    """What stands on a fitted reference."""

    reference: ReferenceConfig = Field(default_factory=ReferenceConfig)

    @model_validator(mode="after")
    def _every_setting_is_read(self) -> _OverReference:
        base = getattr(self, "base", None)
        if base is not None and (unread := self.reference.unread(base)):
            raise ValueError(f"reference.{unread[0]} means nothing to {base}")
        return self


class ReferenceModelConfig(_OverReference):
    """A reference as the model itself, without a network: nothing is trained."""

    name: Base = Field(description="which reference")

    @property
    def base(self) -> Base:
        return self.name


class _Network(_OverReference):
    """What every network has: a reference that it corrects, a size, dropout."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    base: Base = Field(
        default="damped_persistence", description="the reference that the network corrects"
    )
    size: Literal["small", "base", "large"] = Field(
        default="base", description="fills in the widths that are not given"
    )
    dropout: Fraction = Field(default=0.0, description="share of features left out in training")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_size(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(size := value.get("size", "base"), str):
            return {**cls.presets.get(size, {}), **value}
        return value


class _WithLstm(_Network):
    """A stack of LSTM layers over the input window."""

    hidden: Widths = Field(default=[128], description="units of each LSTM layer")
    bidirectional: bool = Field(
        default=False, description="a second LSTM reads each window backwards"
    )
    recurrent_dropout: Fraction = Field(
        default=0.0, description="dropout of the state, one draw for all times (variational)"
    )
    sequence: bool = Field(
        default=False, description="hand on the state after every frame, not only after the last"
    )


class _ConvCells(_Network):
    """Convolutional LSTM cells on a grid coarsened by `downsample`."""

    presets: ClassVar = {
        "small": {"hidden": [12]},
        "base": {"hidden": [24]},
        "large": {"hidden": [48, 48]},
    }
    hidden: Widths = Field(default=[24], description="hidden channels of each cell")
    kernel: Kernel = Field(default=3, description="cells of the side of a convolution's kernel")
    downsample: Factor = Field(default=2, description="cells of the grid to one of the network")
    norm: Literal["group", "layer", "none"] = Field(
        default="none", description="normalisation of each cell's gates"
    )


class ConvLstmConfig(_ConvCells):
    """Stacked convolutional LSTM cells on a grid coarsened by `downsample`."""

    name: Literal["conv_lstm"] = Field(description="which network")


class ConvSeq2SeqConfig(_ConvCells):
    """ConvLSTM cells read the inputs; others, starting from their states, unroll the leads."""

    name: Literal["conv_seq2seq"] = Field(description="which network")
    sampling: Literal["none", "scheduled"] = Field(
        default="none",
        description="scheduled: training shows the decoder true frames at first, then its own",
    )


class CnnLstmConfig(_WithLstm):
    """One CNN encoder for every frame, an LSTM over time, a decoder back to the grid."""

    presets: ClassVar = {
        "small": {"channels": [8, 16, 16], "latent": 32, "hidden": [64]},
        "base": {"channels": [16, 32, 32], "latent": 64, "hidden": [128]},
        "large": {"channels": [32, 64, 64], "latent": 128, "hidden": [256]},
    }
    name: Literal["cnn_lstm"] = Field(description="which network")
    channels: Widths = Field(
        default=[16, 32, 32],
        description="channels of each encoder block; each block halves the grid",
    )
    convolutions: Positive = Field(default=1, description="convolutions in each encoder block")
    kernel: Kernel = Field(default=3, description="cells of the side of a convolution's kernel")
    norm: Literal["batch", "group", "layer", "none"] = Field(
        default="group", description="normalisation after each convolution"
    )
    pooling: Literal["max", "mean", "stride"] = Field(
        default="max", description="how an encoder block halves the grid"
    )
    latent: Positive | None = Field(
        default=64, description="length of the vector that a frame becomes; null: its features"
    )
    encoder_from: str | None = Field(
        default=None, description="a run, or what `gridcast pretrain` wrote: start from its encoder"
    )
    freeze_encoder: bool = Field(default=False, description="train everything but the encoder")

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> CnnLstmConfig:
        if self.freeze_encoder and self.encoder_from is None:
            raise ValueError("freeze_encoder needs model.encoder_from: random weights cannot stay")
        return self


class SeriesConfig(_WithLstm):
    """1-D CNN-LSTM for an index, a station, or each cell of a grid by itself."""

    presets: ClassVar = {
        "small": {"filters": [8], "hidden": [16]},
        "base": {"filters": [32], "hidden": [64]},
        "large": {"filters": [64], "hidden": [128]},
    }
    name: Literal["series"] = Field(description="which network")
    filters: list[Positive] = Field(
        default=[32], description="filters of each convolution over time; [] for none"
    )
    length: Positive = Field(default=3, description="time steps that a filter spans")
    padding: Literal["same", "valid"] = Field(
        default="same", description="valid: no output where the filter reaches past the window"
    )
    pool: Positive = Field(default=1, description="steps over which the maximum is taken")
    hidden: Widths = Field(default=[64], description="units of each LSTM layer")
    dense: list[Positive] = Field(default=[], description="units of each dense layer after it")


ModelConfig = Annotated[
    ConvLstmConfig | ConvSeq2SeqConfig | CnnLstmConfig | SeriesConfig | ReferenceModelConfig,
    Field(discriminator="name"),
]
