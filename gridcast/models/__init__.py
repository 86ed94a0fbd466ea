"""The networks by name, and the forecast model that adds one to a reference."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.config.models import (
    CnnLstmConfig,
    ConvLstmConfig,
    ConvSeq2SeqConfig,
    ModelConfig,
    Precision,
    ReferenceModelConfig,
    SeriesConfig,
)
from gridcast.models.cnn_lstm import CnnLstm
from gridcast.models.conv_lstm import ConvLstm
from gridcast.models.conv_seq2seq import ConvSeq2Seq
from gridcast.models.forecast_model import ForecastModel, Inputs
from gridcast.models.heads import Head
from gridcast.models.series import SeriesModel
from gridcast.models.window import Fixed, Sizes, Window

__all__ = [
    "MODELS",
    "Fixed",
    "ForecastModel",
    "Inputs",
    "NoCorrection",
    "build_model",
    "without_network",
]


class NoCorrection(nnx.Module):
    """In place of a network, where the reference itself is the model."""

    def __call__(self, window: Window) -> Float[Array, "batch lead out_lat out_lon output"]:
        return jnp.zeros_like(window.reference)


MODELS: dict[type, Callable[..., nnx.Module]] = {
    ConvLstmConfig: ConvLstm,
    ConvSeq2SeqConfig: ConvSeq2Seq,
    CnnLstmConfig: CnnLstm,
    SeriesConfig: SeriesModel,
    ReferenceModelConfig: lambda config, sizes, rngs: NoCorrection(),
}


def without_network(model: ForecastModel) -> ForecastModel:
    """The same model without its network: its reference."""
    return ForecastModel(
        NoCorrection(),
        model.head,
        np.asarray(model.layers[...]),
        np.asarray(model.target_mask[...]) > 0,
        sizes=model.sizes,
        variables=model.variables,
        gaps=model.gaps,
        precision=model.precision,
    )


def build_model(
    config: ModelConfig,
    head: Head,
    *,
    variables: int,
    known: int,
    layers: Float[np.ndarray, "lat lon layer"],
    mask: Bool[np.ndarray, "lat lon"],
    target_mask: Bool[np.ndarray, "out_lat out_lon target"],
    inputs: int,
    leads: int,
    patch: tuple[int, int] | None,
    gaps: bool,
    whole: bool,
    wraps: bool,
    seed: int,
    precision: Precision = "float32",
    remat: bool = False,
    network: Callable[..., nnx.Module] | None = None,
    weights: bool = True,
) -> ForecastModel:
    """The configured network over its reference.

    Args:
      variables, known: how many there are, of inputs and of what is known in advance.
      layers: scaled static layers, without the mask.
      patch: size of the pieces of the grid that the network works on; None: the whole grid.
      seed: of the first weights.
      precision: as of `ForecastModel`; remat: as of `Sizes`.
      network: in place of the configured one, for the same settings.
      weights: False: shapes in place of the network's arrays, for those of a checkpoint; drawing
        first ones takes a second.
    """
    layers = np.concatenate([layers, mask[:, :, None].astype(np.float32)], axis=-1)
    sizes = Sizes(
        channels=variables * (2 if gaps else 1)
        + (target_mask.shape[-1] if whole else 0)
        + known
        + layers.shape[-1],
        ahead=known + layers.shape[-1],
        inputs=inputs,
        leads=leads,
        outputs=target_mask.shape[-1] * head.width,
        grid=patch or mask.shape,
        whole=whole,
        wraps=wraps and (patch is None or patch[1] == mask.shape[1]),
        remat=remat,
    )

    def drawn() -> nnx.Module:
        return (network or MODELS[type(config)])(config, sizes, rngs=nnx.Rngs(seed))

    built = drawn() if weights else nnx.eval_shape(drawn)
    return ForecastModel(
        built,
        head,
        layers,
        target_mask,
        sizes=sizes,
        variables=variables,
        gaps=gaps,
        precision=precision,
    )
