"""Overlapping tiles that cover a grid, and how forecasts made tile by tile become one field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gridcast.errors import ConfigError

Start = tuple[int, int]


def require_fit(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """Raise where patches of `size` are no part of the grid.

    Raises:
      ConfigError: naming both.
    """
    if size[0] > grid[0] or size[1] > grid[1]:
        raise ConfigError(
            f"frames.patches.size is {size[0]} x {size[1]}, larger than the grid\n"
            f"  expected: at most {grid[0]} x {grid[1]} (lat x lon)\n"
            "  fix: a smaller size, or no frames.patches"
        )


def tiles(
    grid: tuple[int, int], size: tuple[int, int], overlap: int, step: int, wraps: bool
) -> list[Start]:
    """First row and first column of each tile; together they cover the grid.

    Args:
      overlap: cells that two neighbours share at least; at most half of the tile's shorter side.
      step: tiles start at multiples of it, where the overlap leaves room for that; the last row
        of tiles, and the last column of a grid with an edge, end with the grid instead.
      wraps: tiles run over the seam of the longitudes: count columns modulo their number.

    Raises:
      ConfigError: a tile larger than the grid.
    """
    require_fit(size, grid)
    rows = _starts(grid[0], size[0], overlap, step, wraps=False)
    columns = _starts(grid[1], size[1], overlap, step, wraps=wraps)
    return [(row, column) for row in rows for column in columns]


def _starts(length: int, size: int, overlap: int, step: int, *, wraps: bool) -> list[int]:
    if size == length:
        return [0]
    stride = (size - overlap) // step * step or size - overlap
    if wraps:
        return list(range(0, length, stride))
    return [*range(0, length - size, stride), length - size]


def blend_weights(
    grid: tuple[int, int], starts: Sequence[Start], size: tuple[int, int], overlap: int, wraps: bool
) -> Float[np.ndarray, "tile lat lon"]:
    """The share of each tile in each of its cells; over all tiles they sum to 1 everywhere.

    From an edge where a neighbour goes on, the outer overlap // 4 cells have no share at all, so
    what a network makes of the missing surroundings stays out of the field; from there the share
    rises linearly until the outer overlap // 4 cells of a neighbour `overlap` cells away begin.
    The edges of the grid itself are no such edges.

    Args:
      starts, the rest: what `tiles` returned for the same settings.
    """
    rows = _shares(grid[0], [row for row, _ in starts], size[0], overlap, wraps=False)
    columns = _shares(grid[1], [column for _, column in starts], size[1], overlap, wraps=wraps)
    return np.stack([np.outer(rows[row], columns[column]) for row, column in starts])


def _shares(
    length: int, starts: Sequence[int], size: int, overlap: int, *, wraps: bool
) -> dict[int, np.ndarray]:
    """Along one axis, by start: ramps at inner edges, divided by their sum in each cell."""
    hidden = overlap // 4
    distance = np.arange(size) + 0.5 - hidden
    ramp = np.maximum(distance / (overlap - 2 * hidden), 0.0)
    ring = wraps and size < length
    total, shares = np.zeros(length), {}
    for start in sorted(set(starts)):
        share = np.ones(size)
        if ring or start > 0:
            share = np.minimum(share, ramp)
        if ring or start + size < length:
            share = np.minimum(share, ramp[::-1])
        shares[start] = share
        total[(start + np.arange(size)) % length] += share
    return {a: share / total[(a + np.arange(size)) % length] for a, share in shares.items()}


def blend(
    values: Float[np.ndarray, "tile *more lat_tile lon_tile channel"],
    starts: Sequence[Start],
    weights: Float[np.ndarray, "tile lat_tile lon_tile"],
    grid: tuple[int, int],
) -> Float[np.ndarray, "*more lat lon channel"]:
    """One field out of tiles that overlap; where a tile has no share it may hold anything.

    Args:
      weights: of `blend_weights`.
    """
    height, width = weights.shape[1:]
    field = np.zeros((*values.shape[1:-3], *grid, values.shape[-1]), values.dtype)
    for (row, column), share, tile in zip(starts, weights[..., None], values, strict=True):
        columns = (column + np.arange(width)) % grid[1]
        # 0 * NaN would be NaN.
        field[..., row : row + height, columns, :] += np.where(share > 0, tile, 0.0) * share
    return field
