"""Normalisation of features sample by sample: no statistics that a batch or a run would share."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-6


class Norm(nnx.Module):
    """Mean zero and variance one within each sample, then a trained scale and bias by channel.

    "layer": over the channels of each cell (Ba et al. 2016). "group": over all cells and the
    channels of one group, as many groups as divide the channels out of 8, 4, 2 and 1 (Wu & He
    2018). "none": what comes in goes out, and nothing is trained.

    One frame and the same frame in a batch give the same answer, which flax's GroupNorm does not:
    it takes the first axis for the batch whatever the rank.
    """

    def __init__(self, kind: Literal["group", "layer", "none"], channels: int, *, rngs: nnx.Rngs):
        self.kind: Literal["group", "layer", "none"] = kind
        self.groups = next(n for n in (8, 4, 2, 1) if channels % n == 0)
        if kind != "none":
            self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (channels,)))
            self.bias = nnx.Param(nnx.initializers.zeros(rngs.params(), (channels,)))

    def __call__(
        self, x: Float[Array, "*batch lat lon channel"]
    ) -> Float[Array, "*batch lat lon channel"]:
        if self.kind == "none":
            return x
        full = x.astype(jnp.float32)
        if self.kind == "layer":
            normal = _standardised(full, (-1,))
        else:
            grouped = full.reshape(*x.shape[:-1], self.groups, -1)
            normal = _standardised(grouped, (-4, -3, -1)).reshape(x.shape)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


def _standardised(x: Array, axes: tuple[int, ...]) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(variance + EPSILON)
