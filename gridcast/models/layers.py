"""Layers that know the grid: convolutions that wrap in longitude and never over the poles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolve(x: Array, kernel: Array, padding: Any = "VALID") -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv2d(
    x: Float[Array, "batch lat lon channel"], kernel: Float[Array, "height width channel out"]
) -> Float[Array, "batch lat_out lon_out out"]:
    """Convolution without padding.

    Its gradients are spelled as convolutions in the canonical dimension order: inside a loop XLA's
    CPU back end is about 80 times slower on the order that automatic differentiation writes.
    """
    return _convolve(x, kernel)


def _conv2d_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _conv2d_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    height, width = kernel.shape[:2]
    margin = ((height - 1, height - 1), (width - 1, width - 1))
    to_x = _convolve(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2), margin)
    # Channels play the batch and the batch plays the channels.
    to_kernel = _convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3))
    return to_x, to_kernel.transpose(1, 2, 0, 3)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@custom_vmap
def conv2d_frame(
    x: Float[Array, "lat lon channel"], kernel: Float[Array, "height width channel out"]
) -> Float[Array, "lat_out lon_out out"]:
    """`conv2d` of one frame, to be used under `jax.vmap` with a shared kernel.

    vmap alone would form one weight gradient for each frame and add them up; this rule lets the
    mapped axis be the batch of one convolution.
    """
    return conv2d(x[None], kernel)[0]


@conv2d_frame.def_vmap
def _map_over_frames(size: int, mapped: Any, x: Array, kernel: Array) -> tuple[Array, bool]:
    if not mapped[0] or mapped[1]:
        raise NotImplementedError("conv2d_frame maps frames over one shared kernel")
    return conv2d(x, kernel), True


def pad_grid(
    x: Float[Array, "*batch lat lon channel"],
    lat: tuple[int, int],
    lon: tuple[int, int],
    *,
    wraps: bool,
) -> Float[Array, "*batch lat_padded lon_padded channel"]:
    """Zeros beyond the first and last latitude; the other side of the seam where longitude wraps.

    A periodic grid narrower than the margin is repeated as often as it takes.
    """
    batch = [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [*batch, (0, 0), lon, (0, 0)], mode="wrap" if wraps else "constant")
    return jnp.pad(x, [*batch, lat, (0, 0), (0, 0)])


class GridConv(nnx.Module):
    """A convolution that keeps the grid's size: of a batch, or of one frame under `jax.vmap`.

    An even kernel reaches one cell further north and east than south and west.
    """

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
        kernel = self.kernel[...]
        edges = ((kernel.shape[0] - 1) // 2, kernel.shape[0] // 2)
        x = pad_grid(x, edges, edges, wraps=self.wraps)
        convolve = conv2d_frame if x.ndim == 3 else conv2d
        return convolve(x, kernel) + self.bias[...]


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


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero a share `rate` of the values and scale up the rest; without a key, nothing happens."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)
