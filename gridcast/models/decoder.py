"""From the vector of a CNN encoder back to fields on the grid."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.accelerator import space_is_shared
from gridcast.config.models import CnnLstmConfig
from gridcast.models.encoder import scales
from gridcast.models.layers import Dense, GridConv


class Decoder(nnx.Module):
    """A vector back to the grid.

    Args:
      width: length of the vector.
      channels: of the frame, where each scale also sees the last frame at that scale; None: the
        vector is all there is.
      out: channels given; untrained, they are 0.
    """

    def __init__(
        self,
        width: int,
        channels: int | None,
        out: int,
        grid: tuple[int, int],
        config: CnnLstmConfig,
        *,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.shapes = scales(grid, len(config.channels))
        (lat, lon), kernel = self.shapes[-1], config.kernel
        self.start = Dense(width, lat * lon * config.channels[-1], rngs=rngs)
        # From coarse to fine: what comes up, with what the encoder saw there, and what goes on up.
        ups = [*config.channels[::-1], channels or config.channels[0]]
        ins = [n if channels is None else 2 * n for n in ups]
        self.stages = nnx.List(
            GridConv(ins[i], ups[i + 1], kernel, wraps=wraps, rngs=rngs)
            for i in range(len(config.channels))
        )
        self.head = GridConv(ins[-1], out, kernel, wraps=wraps, rngs=rngs, zero=True)

    def __call__(
        self, vector: Float[Array, "batch vector"], seen: list[Array] | None = None
    ) -> Float[Array, "batch lat lon out"]:
        """The fields. `seen`: the last frame and its features, from fine to coarse."""
        if space_is_shared():
            x = nnx.relu(self.start.to_field(vector, self.shapes[-1]))
        else:
            x = nnx.relu(self.start(vector)).reshape(len(vector), *self.shapes[-1], -1)

        def beside_seen(x: Array, scale: int) -> Array:
            return x if seen is None else jnp.concatenate([x, seen[-1 - scale]], axis=-1)

        for i, stage in enumerate(self.stages):
            x = nnx.relu(stage(beside_seen(x, i)))
            lat, lon = self.shapes[-2 - i]
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :lat, :lon]
        return self.head(beside_seen(x, len(self.stages)))
