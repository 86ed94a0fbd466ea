"""What lies beyond the edges of a grid, or of the part of it that a device holds."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from gridcast.accelerator import shards

Margins = tuple[tuple[int, int], tuple[int, int]]


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


def with_edges(
    function: Callable[[Array, Array, Margins], Array],
    x: Float[Array, "batch lat lon channel"],
    other: Array,
    kernel: tuple[int, ...],
    wraps: bool,
    *,
    turned: bool = False,
    of_cells: bool = True,
) -> Array:
    """The function of `x` with what lies across the seam, of `other`, and of the zeros around `x`.

    On a grid that wraps and whose longitudes are shared by devices, each computes its own part
    with the columns that its two neighbours on the circle send it. What XLA makes of a seam by
    itself moves more: 7 messages in place of 2. Zeros at the other edges are left to it.

    Args:
      kernel: height and width; an even one reaches one cell further north and east.
      turned: by half a circle.
      of_cells: the function gives a field; otherwise a sum over all cells, of two fields.
    """

    def reach(n: int) -> tuple[int, int]:
        return (n // 2, (n - 1) // 2) if turned else ((n - 1) // 2, n // 2)

    lat, lon = reach(kernel[0]), reach(kernel[1])
    if not wraps:
        return function(x, other, (lat, lon))
    if shards("lon") == 1:
        return function(pad_grid(x, (0, 0), lon, wraps=True), other, (lat, (0, 0)))

    def part(x: Array, other: Array) -> Array:
        made = function(_between_neighbours(x, *lon), other, (lat, (0, 0)))
        return made if of_cells else jax.lax.psum(made, "lon")

    sector, whole = P(None, None, "lon"), P()
    given, made = ((sector, whole), sector) if of_cells else ((sector, sector), whole)
    mapped = jax.shard_map(
        part, in_specs=given, out_specs=made, axis_names={"lon"}, check_vma=False
    )
    return mapped(x, other)


def _between_neighbours(
    x: Float[Array, "batch lat lon channel"], west: int, east: int
) -> Float[Array, "batch lat lon_wider channel"]:
    """A sector of longitudes between columns of those to its west and east, on a circle."""
    count = jax.lax.axis_size("lon")
    ahead = [(i, (i + 1) % count) for i in range(count)]
    parts = [x]
    if west:
        parts.insert(0, jax.lax.ppermute(x[:, :, -west:], "lon", ahead))
    if east:
        parts.append(jax.lax.ppermute(x[:, :, :east], "lon", [(b, a) for a, b in ahead]))
    return jnp.concatenate(parts, axis=2)
