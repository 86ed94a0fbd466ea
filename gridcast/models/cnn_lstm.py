"""CNN-LSTM: one CNN encoder for every frame, an LSTM over time, a decoder back to the grid."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.models.encoder import Decoder, Encoder, Pooling, encode_frames
from gridcast.models.layers import dropout


class Lstm(nnx.Module):
    """A long short-term memory (Hochreiter & Schmidhuber 1997), forget bias of one."""

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = hidden
        self.from_input = nnx.Linear(features, 4 * hidden, rngs=rngs)
        recurrent = nnx.initializers.orthogonal()
        self.from_state = nnx.Linear(
            hidden, 4 * hidden, use_bias=False, kernel_init=recurrent, rngs=rngs
        )

    def __call__(self, x: Float[Array, "batch time feature"]) -> Float[Array, "batch time hidden"]:
        # What comes from the inputs needs no state: one product for all times.
        driven = jnp.moveaxis(self.from_input(x), 1, 0)
        empty = jnp.zeros((x.shape[0], self.hidden), x.dtype)

        def step(carry: tuple[Array, Array], drive: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = carry
            i, f, g, o = jnp.split(drive + self.from_state(h), 4, axis=-1)
            c = nnx.sigmoid(f + 1.0) * c + nnx.sigmoid(i) * jnp.tanh(g)
            h = nnx.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jnp.moveaxis(jax.lax.scan(step, (empty, empty), driven)[1], 0, 1)


class CnnLstm(nnx.Module):
    """[batch time lat lon channel] -> [batch lead lat lon target]; untrained it says zero."""

    def __init__(
        self,
        channels: int,
        leads: int,
        targets: int,
        shape: tuple[int, int],
        *,
        widths: list[int],
        kernel: int,
        norm: Literal["group", "none"],
        pooling: Pooling,
        latent: int,
        hidden: int,
        rate: float,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.leads, self.rate = leads, rate
        self.encoder = Encoder(
            channels,
            shape,
            widths=widths,
            kernel=kernel,
            norm=norm,
            pooling=pooling,
            latent=latent,
            wraps=wraps,
            rngs=rngs,
        )
        self.lstm = Lstm(latent, hidden, rngs=rngs)
        self.decoder = Decoder(
            hidden,
            channels,
            leads * targets,
            shape,
            widths=widths,
            kernel=kernel,
            wraps=wraps,
            rngs=rngs,
        )

    def __call__(
        self, frames: Float[Array, "batch time lat lon channel"], key: Array | None = None
    ) -> Float[Array, "batch lead lat lon target"]:
        batch, _, lat, lon, _ = frames.shape
        vectors, features = encode_frames(self.encoder, frames)
        state = dropout(self.lstm(vectors)[:, -1], self.rate, key)
        x = self.decoder(state, frames[:, -1], [f[:, -1] for f in features])
        return jnp.moveaxis(x.reshape(batch, lat, lon, self.leads, -1), 3, 1)
