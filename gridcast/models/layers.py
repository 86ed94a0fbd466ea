"""Layers that know the grid, and what stands around them in the networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.accelerator import space_is_shared
from gridcast.models.convolution import conv2d, conv2d_frame
from gridcast.models.edges import pad_grid


class GridConv(nnx.Module):
    """A convolution that keeps the grid's size: of a batch, or of one frame under `jax.vmap`."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        wraps: bool,
        rngs: nnx.Rngs,
        zero: bool = False,
    ):
        start = nnx.initializers.zeros if zero else nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(start(rngs.params(), (kernel, kernel, channels, out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out))
        self.wraps = wraps

    def __call__(self, x: Float[Array, "*batch lat lon channel"]) -> Array:
        kernel, bias = self.weights(x.dtype)
        if x.ndim == 3:
            return conv2d_frame(self.wraps)(x, kernel, bias)
        return conv2d(x, kernel, bias, self.wraps)

    def weights(self, dtype: Any) -> tuple[Array, Array]:
        """Kernel and bias, in the precision of what they are to be applied to."""
        return self.kernel[...].astype(dtype), self.bias[...].astype(dtype)


class Dense(nnx.Linear):
    """A product and a bias, in the precision of what it is given."""

    def __call__(self, x: Float[Array, "*batch feature"]) -> Array:
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def of_field(self, field: Float[Array, "*batch lat lon channel"]) -> Array:
        """Of all numbers of a field; they become one vector only where one device has them all."""
        if not space_is_shared():
            return self(field.reshape(*field.shape[:-3], -1))
        kernel = self.kernel[...].astype(field.dtype).reshape(*field.shape[-3:], -1)
        y = jnp.tensordot(field, kernel, 3)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)

    def to_field(
        self, x: Float[Array, "batch feature"], shape: tuple[int, int]
    ) -> Float[Array, "batch lat lon channel"]:
        """A field of `shape` = (lat, lon), of which each device makes its part."""
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype).reshape(x.shape[-1], *shape, -1), 1)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype).reshape(y.shape[1:])


def space_to_depth(
    x: Float[Array, "*batch lat lon channel"], block: int, *, wraps: bool
) -> Float[Array, "*batch lat_coarse lon_coarse channel_wide"]:
    """Blocks of block x block cells become channels; sizes that do not divide are padded."""
    *batch, lat, lon, channel = x.shape
    x = pad_grid(x, (0, -lat % block), (0, -lon % block), wraps=wraps)
    rows, columns = x.shape[-3] // block, x.shape[-2] // block
    x = x.reshape(*batch, rows, block, columns, block, channel)
    n = len(batch)
    x = x.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4)
    return x.reshape(*batch, rows, columns, block * block * channel)


def depth_to_space(
    x: Float[Array, "*batch lat_coarse lon_coarse channel_wide"],
    block: int,
    shape: tuple[int, int],
) -> Float[Array, "*batch lat lon channel"]:
    """The inverse of `space_to_depth`, cut to `shape` = (lat, lon)."""
    *batch, rows, columns, wide = x.shape
    channel = wide // block**2
    x = x.reshape(*batch, rows, columns, block, block, channel)
    n = len(batch)
    x = x.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4)
    x = x.reshape(*batch, rows * block, columns * block, channel)
    return x[..., : shape[0], : shape[1], :]


def segment(function: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """With `remat`, nothing inside is held for the backward pass, which computes it again.

    Chen et al. (2016).
    """
    return jax.checkpoint(function) if remat else function


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero a share `rate` of the values and scale up the rest; without a key, nothing happens."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)
