"""An autoencoder of single frames: a CNN-LSTM's encoder, to be trained before its forecasts."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from gridcast.config.models import CnnLstmConfig
from gridcast.models.decoder import Decoder
from gridcast.models.encoder import Encoder
from gridcast.models.encoding import encode_frames
from gridcast.models.window import Sizes, Window


class Autoencoder(nnx.Module):
    """A frame to its vector and back (Hinton & Salakhutdinov 2006), by way of the vector alone.

    A network for one input and one lead: it gives the first `outputs` channels of the last frame.
    `encoder` is made and named as in `CnnLstm` for the same settings, so its weights fit there.
    """

    def __init__(self, config: CnnLstmConfig, sizes: Sizes, *, rngs: nnx.Rngs):
        grid, wraps = sizes.grid, sizes.wraps
        self.encoder = Encoder(sizes.channels, grid, config, wraps=wraps, rngs=rngs)
        width = self.encoder.width
        self.decoder = Decoder(width, None, sizes.outputs, grid, config, wraps=wraps, rngs=rngs)

    def __call__(self, window: Window) -> Float[Array, "batch 1 lat lon output"]:
        training = window.key is not None
        vectors, _ = encode_frames(self.encoder, window.frames[:, -1:], training=training)
        return self.decoder(vectors[:, -1])[:, None]
