"""Convolution on the grid, and its gradients: it wraps in longitude and never over the poles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from gridcast.accelerator import shards, space_is_shared
from gridcast.models.edges import Margins, with_edges

_LAYOUT = ("NHWC", "HWIO", "NHWC")
CELLS_AT_A_TIME = 50_000
# Products of numbers that a cell of the output is a sum of: a 3 x 3 kernel over 4 channels.
FEW_TAPS = 36


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


def _sum_of_taps(x: Array, kernel: Array, padding: Margins) -> Array:
    """`_convolve`, spelled as the sum that it is: of few channels a CPU makes it in half the time.

    It becomes one loop with what follows (a bias, an activation, the maximum of a pooling), so that
    nothing at full resolution is written: a third of the time with these.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width, channels = kernel.shape[:3]
    lat, lon = x.shape[1] - height + 1, x.shape[2] - width + 1
    parts = (
        x[:, i : i + lat, j : j + lon, c, None] * kernel[i, j, c]
        for i in range(height)
        for j in range(width)
        for c in range(channels)
    )
    return functools.reduce(jnp.add, parts)


def _conv2d_plain(x: Array, kernel: Array, bias: Array, wraps: bool) -> Array:
    few = kernel[..., 0].size <= FEW_TAPS and x.dtype == jnp.float32 and not space_is_shared()

    def of(x: Array, kernel: Array, padding: Margins) -> Array:
        cpu, others = (functools.partial(way, padding=padding) for way in (_sum_of_taps, _convolve))
        return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=others)

    return with_edges(of if few else _convolve, x, kernel, kernel.shape[:2], wraps) + bias


def _conv2d_forward(
    x: Array, kernel: Array, bias: Array, wraps: bool
) -> tuple[Array, tuple[Array, Array]]:
    # The gradient uses what is made here several times, and XLA would make a sum of taps anew.
    return with_edges(_convolve, x, kernel, kernel.shape[:2], wraps) + bias, (x, kernel)


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
