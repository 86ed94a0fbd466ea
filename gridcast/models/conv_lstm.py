"""ConvLSTM (Shi et al. 2015): an LSTM whose gates are convolutions over the grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.models.layers import GridConv, depth_to_space, dropout, space_to_depth

Carry = tuple[Float[Array, "batch lat lon hidden"], Float[Array, "batch lat lon hidden"]]


class ConvLstmCell(nnx.Module):
    """One time step. All four gates come out of a single convolution."""

    def __init__(self, channels: int, hidden: int, kernel: int, *, wraps: bool, rngs: nnx.Rngs):
        self.hidden = hidden
        self.gates = GridConv(channels + hidden, 4 * hidden, kernel, wraps=wraps, rngs=rngs)

    def __call__(self, carry: Carry, frame: Float[Array, "batch lat lon channel"]) -> Carry:
        h, c = carry
        gates = self.gates(jnp.concatenate([frame, h], axis=-1))
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = nnx.sigmoid(f + 1.0) * c + nnx.sigmoid(i) * jnp.tanh(g)  # +1: start by keeping
        return nnx.sigmoid(o) * jnp.tanh(c), c

    def run(
        self, frames: Float[Array, "time batch lat lon channel"]
    ) -> Float[Array, "time batch lat lon hidden"]:
        """The hidden state after each frame, from a state of zeros."""
        empty = jnp.zeros((*frames.shape[1:4], self.hidden), frames.dtype)

        def step(carry: Carry, frame: Array) -> tuple[Carry, Array]:
            carry = self(carry, frame)
            return carry, carry[0]

        return jax.lax.scan(step, (empty, empty), frames)[1]


class ConvLstm(nnx.Module):
    """Stacked cells on a grid coarsened by `downsample`, and a head for all leads at once.

    [batch time lat lon channel] -> [batch lead lat lon target]. The head starts at zero, so an
    untrained network says nothing.
    """

    def __init__(
        self,
        channels: int,
        leads: int,
        targets: int,
        *,
        hidden: list[int],
        kernel: int,
        downsample: int,
        rate: float,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.leads, self.downsample, self.rate, self.wraps = leads, downsample, rate, wraps
        widths = [channels * downsample**2, *hidden]
        self.cells = nnx.List(
            ConvLstmCell(n, m, kernel, wraps=wraps, rngs=rngs)
            for n, m in zip(widths, hidden, strict=False)
        )
        out = leads * targets * downsample**2
        self.head = GridConv(hidden[-1], out, kernel, wraps=wraps, rngs=rngs, zero=True)

    def __call__(
        self, frames: Float[Array, "batch time lat lon channel"], key: Array | None = None
    ) -> Float[Array, "batch lead lat lon target"]:
        batch, _, lat, lon, _ = frames.shape
        x = space_to_depth(frames, self.downsample, wraps=self.wraps)
        states = jnp.moveaxis(x, 1, 0)
        for cell in self.cells:
            states = cell.run(states)
        last = dropout(states[-1], self.rate, key)
        x = depth_to_space(self.head(last), self.downsample, (lat, lon))
        return jnp.moveaxis(x.reshape(batch, lat, lon, self.leads, -1), 3, 1)
