"""Networks, and the forecast model that adds one to a reference."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gridcast.config.schema import CnnLstmConfig, ConvLstmConfig, ModelConfig
from gridcast.grid import Grid
from gridcast.models.cnn_lstm import CnnLstm
from gridcast.models.conv_lstm import ConvLstm


class Fixed(nnx.Variable):
    """An array that the model carries and never trains."""


class ForecastModel(nnx.Module):
    """A reference forecast plus a network's correction: untrained, it is the reference.

    Attributes:
      damping: [lead lat lon channel] factor of the last frame: the reference.
      layers: [lat lon layer] static layers and, last, the mask.
    """

    def __init__(self, network: nnx.Module, damping: np.ndarray, layers: np.ndarray):
        self.network = network
        self.damping = Fixed(jnp.asarray(damping, jnp.float32))
        self.layers = Fixed(jnp.asarray(layers, jnp.float32))

    def __call__(
        self,
        frames: Float[Array, "batch time lat lon channel"],
        season: Float[Array, "batch time 2"],
        key: Array | None = None,
    ) -> Float[Array, "batch lead lat lon channel"]:
        """Scaled anomalies at each lead; 0 off the mask.

        Args:
          frames: scaled anomalies up to the initial date, 0 off the mask.
          season: cosine and sine of each frame's place in its year.
          key: for dropout, in training.
        """
        layers = self.layers[...]
        shape = frames.shape[:-1]
        everything = [
            frames,
            jnp.broadcast_to(season[:, :, None, None, :], (*shape, season.shape[-1])),
            jnp.broadcast_to(layers, (*shape, layers.shape[-1])),
        ]
        correction = self.network(jnp.concatenate(everything, axis=-1), key)
        reference = frames[:, -1, None] * self.damping[...]
        return jnp.where(layers[:, :, -1:] > 0, reference + correction, 0.0)


def _conv_lstm(config, channels, leads, grid: Grid, rngs) -> nnx.Module:
    return ConvLstm(
        channels,
        leads,
        1,
        hidden=config.hidden,
        kernel=config.kernel,
        downsample=config.downsample,
        rate=config.dropout,
        wraps=grid.wraps,
        rngs=rngs,
    )


def _cnn_lstm(config, channels, leads, grid: Grid, rngs) -> nnx.Module:
    return CnnLstm(
        channels,
        leads,
        1,
        grid.shape,
        widths=config.channels,
        kernel=config.kernel,
        norm=config.norm,
        pooling=config.pooling,
        latent=config.latent,
        hidden=config.hidden,
        rate=config.dropout,
        wraps=grid.wraps,
        rngs=rngs,
    )


MODELS: dict[type, Callable[..., nnx.Module]] = {
    ConvLstmConfig: _conv_lstm,
    CnnLstmConfig: _cnn_lstm,
}


def build_model(
    config: ModelConfig,
    grid: Grid,
    *,
    damping: Float[np.ndarray, "lead lat lon channel"],
    layers: Float[np.ndarray, "lat lon layer"],
    seed: int,
) -> ForecastModel:
    """The configured network over its reference.

    Args:
      damping: the reference's factors, which also say how many leads there are.
      layers: scaled static layers, without the mask.
      seed: of the first weights.
    """
    mask = grid.mask[:, :, None].astype(np.float32)
    layers = np.concatenate([layers, mask], axis=-1)
    channels = damping.shape[-1] + 2 + layers.shape[-1]
    network = MODELS[type(config)](config, channels, damping.shape[0], grid, nnx.Rngs(seed))
    return ForecastModel(network, damping, layers)
