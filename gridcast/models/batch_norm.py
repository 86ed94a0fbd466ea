"""Batch normalisation inside a mapped encoder: statistics over all frames of a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# The mapped axis, batch and time as one, over which the statistics are taken.
FRAMES = "frames"
MOMENTUM = 0.9
EPSILON = 1e-5


class Moments(NamedTuple):
    """Mean and variance (divided by n, not n - 1) of each channel."""

    mean: Float[Array, " channel"]
    variance: Float[Array, " channel"]


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of one frame under `jax.vmap` over FRAMES.

    In training the moments are those of the batch and `update` lets the running ones follow them;
    otherwise the running ones are used.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))

    def moments(self, x: Float[Array, "lat lon channel"], present: Float[Array, ""]) -> Moments:
        """Moments over the cells of all mapped frames, of which those with `present` 0 are not."""
        count = jax.lax.psum(present, FRAMES) * x.shape[0] * x.shape[1]

        def mean(y: Array) -> Array:
            return jax.lax.psum(jnp.where(present > 0, y, 0.0).sum(axis=(0, 1)), FRAMES) / count

        x = x.astype(jnp.float32)
        middle = mean(x)
        return Moments(middle, mean((x - middle) ** 2))

    def __call__(
        self, x: Float[Array, "lat lon channel"], moments: Moments | None = None
    ) -> Float[Array, "lat lon channel"]:
        """Normalised by `moments`; None: by the running ones."""
        mean, variance = moments or (self.mean[...], self.variance[...])
        normal = (x - mean) * jax.lax.rsqrt(variance + EPSILON)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)

    def update(self, moments: Moments) -> None:
        """Move the running moments a tenth of the way; not to be called under `jax.vmap`."""

        def moved(old: nnx.BatchStat, new: Array) -> nnx.BatchStat:
            # Not in place: the variable may belong to the caller, outside `jax.grad`.
            return nnx.BatchStat(MOMENTUM * old[...] + (1 - MOMENTUM) * new)

        self.mean = moved(self.mean, moments.mean)
        self.variance = moved(self.variance, moments.variance)
