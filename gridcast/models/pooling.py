"""Half the resolution: the maximum or the mean of 2 x 2 cells."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gridcast.models.edges import pad_grid

Pooling = Literal["max", "mean", "stride"]


def pool(
    x: Float[Array, "lat lon channel"], kind: Pooling, *, wraps: bool
) -> Float[Array, "lat_half lon_half channel"]:
    """The maximum or mean of 2 x 2 cells; at an odd edge, of the cells that are there."""

    def blocks(y: Array, outside: float) -> Array:
        if wraps:
            y = pad_grid(y, (0, 0), (0, y.shape[1] % 2), wraps=True)
        missing = (y.shape[0] % 2, y.shape[1] % 2)
        y = jnp.pad(y, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=outside)
        return y.reshape(y.shape[0] // 2, 2, y.shape[1] // 2, 2, -1)

    if kind == "max":
        return largest(blocks(x, -jnp.inf))
    return blocks(x, 0.0).sum(axis=(1, 3)) / blocks(jnp.ones_like(x[..., :1]), 0.0).sum(axis=(1, 3))


@jax.custom_vjp
def largest(
    blocks: Float[Array, "rows 2 columns 2 channel"],
) -> Float[Array, "rows columns channel"]:
    """The largest of each block of 2 x 2 cells. The first one that is has the gradient.

    JAX's own gradient of a maximum goes to what equals it. XLA may compute the values again for
    that comparison, with other roundings, and then loses gradients.
    """
    return _largest(blocks)[0]


def _largest(blocks: Array) -> tuple[Array, tuple[Array, Array]]:
    """The largest; in which row of each column it is, and in which column."""
    north, south = blocks[:, 0], blocks[:, 1]
    larger = jnp.maximum(north, south)
    west, east = larger[:, :, 0], larger[:, :, 1]
    return jnp.maximum(west, east), (south > north, east > west)


def _largest_backward(where: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    # Factors 1 - second and second: what selects or stacks cells is not vectorised on a CPU.
    row, column = (second.astype(gradient.dtype) for second in where)
    start, slope = jnp.array([[1.0, 0.0], [-1.0, 1.0]], gradient.dtype)
    rows = start[:, None, None, None] + slope[:, None, None, None] * row[:, None]
    columns = start[:, None] + slope[:, None] * column[:, None, :, None]
    return (gradient[:, None, :, None] * columns * rows,)


largest.defvjp(_largest, _largest_backward)
