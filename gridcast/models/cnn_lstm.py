"""CNN-LSTM: one CNN encoder for every frame, LSTM layers over time, a decoder back to the grid."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.config.models import CnnLstmConfig
from gridcast.models.decoder import Decoder
from gridcast.models.encoder import Encoder, freeze
from gridcast.models.encoding import encode_frames
from gridcast.models.layers import Dense
from gridcast.models.lstm import LstmStack
from gridcast.models.window import Sizes, Window


class CnnLstm(nnx.Module):
    """What the LSTM makes of the encoded frames, decoded for all leads at once.

    The decoder also sees the last frame at each scale. For one answer to a whole window it is a
    dense layer. Its last layer starts at zero, so an untrained network says nothing.
    """

    def __init__(self, config: CnnLstmConfig, sizes: Sizes, *, rngs: nnx.Rngs):
        self.leads, self.remat = sizes.leads, sizes.remat
        wraps, outputs = sizes.wraps, sizes.leads * sizes.outputs
        self.encoder = Encoder(sizes.channels, sizes.grid, config, wraps=wraps, rngs=rngs)
        self.lstm = LstmStack(self.encoder.width, config, rngs=rngs)
        width = self.lstm.vector_width(sizes.inputs)
        self.decoder = (
            Dense(width, outputs, kernel_init=nnx.initializers.zeros, rngs=rngs)
            if sizes.whole
            else Decoder(width, sizes.channels, outputs, sizes.grid, config, wraps=wraps, rngs=rngs)
        )
        if config.freeze_encoder:
            freeze(self.encoder)

    def __call__(self, window: Window) -> Float[Array, "batch lead out_lat out_lon output"]:
        frames, present, key = window.frames, window.present, window.key
        vectors, features = encode_frames(
            self.encoder,
            frames,
            present,
            context=window.context,
            training=key is not None,
            remat=self.remat,
        )
        vector = self.lstm.vector(vectors, present, key)
        if isinstance(self.decoder, Decoder):
            numbers = self.decoder(vector, [frames[:, -1], *features])
        else:
            numbers = self.decoder(vector)[:, None, None]
        return jnp.moveaxis(numbers.reshape(*numbers.shape[:3], self.leads, -1), 3, 1)
