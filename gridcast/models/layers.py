"""Layers that know the grid: convolutions that wrap in longitude and never over the poles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from gridcast.accelerator import shards, space_is_shared
from gridcast.models.edges import Margins, pad_grid, with_edges

_LAYOUT = ("NHWC", "HWIO", "NHWC")
CELLS_AT_A_TIME = 50_000


def _convolve(x: Array, kernel: Array, padding: Margins) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)


def conv2d(
    x: Float[Array, "batch lat lon channel"],
    kernel: Float[Array, "height width channel out"],
    bias: Float[Array, " out"],
    wraps: bool,
) -> Float[Array, "batch lat lon out"]:
    """Convolution that keeps the grid's size, and a bias; beyond its edges as `pad_grid` says.

    An even kernel reaches one cell further north and east than south and west.

    Its gradients are spelled as convolutions in the canonical dimension order: inside a loop XLA's
    CPU back end is about 80 times slower on the order that automatic differentiation writes.
    """
    return _conv2d(x, kernel, bias, wraps)


def _conv2d_plain(x: Array, kernel: Array, bias: Array, wraps: bool) -> Array:
    return with_edges(_convolve, x, kernel, kernel.shape[:2], wraps) + bias


def _conv2d_forward(
    x: Array, kernel: Array, bias: Array, wraps: bool
) -> tuple[Array, tuple[Array, Array]]:
    return _conv2d_plain(x, kernel, bias, wraps), (x, kernel)


def _conv2d_backward(
    wraps: bool, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array, Array]:
    x, kernel = saved
    return (
        frame_gradient(gradient, kernel, wraps),
        kernel_gradient(x, gradient, kernel, wraps),
        bias_gradient(gradient),
    )


_conv2d = jax.custom_vjp(_conv2d_plain, nondiff_argnums=(3,))
_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def frame_gradient(
    gradient: Float[Array, "batch lat lon out"],
    kernel: Float[Array, "height width channel out"],
    wraps: bool,
) -> Float[Array, "batch lat lon channel"]:
    """What a gradient of `conv2d` is for its input: a convolution with the kernel turned round."""
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return with_edges(_convolve, gradient, turned, kernel.shape[:2], wraps, turned=True)


def kernel_gradient(
    x: Float[Array, "batch lat lon channel"],
    gradient: Float[Array, "batch lat lon out"],
    kernel: Float[Array, "height width channel out"],
    wraps: bool,
) -> Float[Array, "height width channel out"]:
    """What it is for its kernel: channels play the batch and the batch plays the channels.

    On a CPU some frames at a time: a convolution whose sum runs over more cells is slower there.
    """
    of = functools.partial(_kernel_gradient, kernel.shape)
    return with_edges(of, x, gradient, kernel.shape[:2], wraps, of_cells=False)


def _kernel_gradient(kernel: tuple[int, ...], x: Array, gradient: Array, margins: Margins) -> Array:
    def of(x: Array, gradient: Array) -> Array:
        turned = _convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), margins)
        return turned.transpose(1, 2, 0, 3)

    parts = min(len(gradient), -(-gradient[..., 0].size // CELLS_AT_A_TIME))
    if parts == 1 or shards("data") > 1 or jax.default_backend() != "cpu":
        return of(x, gradient)
    rest = -len(x) % parts

    def part(y: Array) -> Array:
        if rest:
            y = jnp.concatenate([y, jnp.zeros((rest, *y.shape[1:]), y.dtype)])
        return y.reshape(parts, -1, *y.shape[1:])

    parted, none = (part(x), part(gradient)), jnp.zeros(kernel, x.dtype)
    total, _ = jax.lax.scan(lambda total, some: (total + of(*some), None), none, parted)
    return total


def bias_gradient(gradient: Float[Array, "batch lat lon out"]) -> Float[Array, " out"]:
    """And for its bias: a product with ones, several times as fast as a sum on a CPU."""
    if space_is_shared():  # what devices share cannot become one axis
        ones = jnp.ones(gradient.shape[:-1], gradient.dtype)
        return jnp.tensordot(ones, gradient, 3, precision="highest")
    rows = gradient.reshape(-1, gradient.shape[-1])
    return jnp.matmul(jnp.ones(len(rows), rows.dtype), rows, precision="highest")


@functools.cache
def conv2d_frame(wraps: bool) -> Callable[[Array, Array, Array], Array]:
    """`conv2d` of one frame, to be used under `jax.vmap` with a shared kernel and bias.

    vmap alone would form one weight gradient for each frame and add them up; this rule lets the
    mapped axis be the batch of one convolution.
    """

    @custom_vmap
    def convolve(
        x: Float[Array, "lat lon channel"],
        kernel: Float[Array, "height width channel out"],
        bias: Float[Array, " out"],
    ) -> Float[Array, "lat lon out"]:
        return conv2d(x[None], kernel, bias, wraps)[0]

    @convolve.def_vmap
    def _over_frames(
        size: int, mapped: Any, x: Array, kernel: Array, bias: Array
    ) -> tuple[Array, bool]:
        if mapped != [True, False, False]:
            raise NotImplementedError("conv2d_frame maps frames over one shared kernel")
        return conv2d(x, kernel, bias, wraps), True

    return convolve


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
