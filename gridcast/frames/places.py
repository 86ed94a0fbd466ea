"""Where in the grid each sample of a batch is taken from: patches, turned and mirrored at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from gridcast.frames.tiles import require_fit

# Which component of a vector changes its sign when an axis is mirrored.
_TURNS = {"lat": "north", "lon": "east"}


class Place(NamedTuple):
    """Rows and columns of the grid, in the order in which each sample shows them.

    Attributes:
      signs: factor of each channel: -1 for the component of a vector that a mirror turns round;
        None: 1 for all. Whoever takes the channels multiplies them.
    """

    rows: Int[Array, "batch lat"]
    columns: Int[Array, "batch lon"]
    signs: Float[Array, "batch channel"] | None


def place_at(
    row: Int[Array, " batch"],
    column: Int[Array, " batch"],
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Place:
    """Patches that start at given rows and columns; columns go on over the seam."""
    rows = row[:, None] + jnp.arange(size[0])
    columns = (column[:, None] + jnp.arange(size[1])) % grid[1]
    return Place(rows, columns, None)


def random_place(
    key: Array,
    batch: int,
    *,
    grid: tuple[int, int],
    size: tuple[int, int] | None,
    step: int,
    wraps: bool,
    roll: bool,
    flip: Sequence[Literal["lat", "lon"]],
    vectors: Sequence[Literal["east", "north"] | None],
) -> Place:
    """A place for each sample, drawn at random; all places are equally probable.

    Args:
      grid: (lat, lon) of what is taken from.
      size: (lat, lon) of the patches; None: the whole grid.
      step: patches start at multiples of it, so that a network that coarsens by this factor sees
        the same cells together; and, whatever the step, where they end with the grid.
      wraps: patches narrower than the grid run over the seam of the longitudes.
      roll: the whole grid, too, starts at any multiple of `step`; for grids that wrap.
      flip: axes that are mirrored, each in half of the samples.
      vectors: of each channel: which component of a vector it is.

    Raises:
      ConfigError: a size larger than the grid.
    """
    height, width = size = size or grid
    require_fit(size, grid)
    for_row, for_column, *for_flip = jax.random.split(key, 2 + len(flip))
    row = jax.random.choice(for_row, _flush(grid[0], height, step), (batch,))
    anywhere = roll or (wraps and width < grid[1])
    starts = np.arange(0, grid[1], step) if anywhere else _flush(grid[1], width, step)
    column = jax.random.choice(for_column, starts, (batch,))
    rows, columns, _ = place_at(row, column, grid, size)

    signs = jnp.ones((batch, len(vectors)))
    for axis, for_axis in zip(flip, for_flip, strict=True):
        mirrored = jax.random.bernoulli(for_axis, 0.5, (batch, 1))
        if axis == "lat":
            rows = jnp.where(mirrored, rows[:, ::-1], rows)
        else:
            columns = jnp.where(mirrored, columns[:, ::-1], columns)
        turned = np.array([vector == _TURNS[axis] for vector in vectors])
        signs = jnp.where(mirrored & turned, -signs, signs)
    changes = any(vector == _TURNS[axis] for axis in flip for vector in vectors)
    return Place(rows, columns, signs if changes else None)


def _flush(length: int, size: int, step: int) -> Int[np.ndarray, " start"]:
    """Starts within an axis that does not wrap; the last is flush with its end."""
    return np.array([*range(0, length - size, step), length - size])


def take(
    values: Float[Array, "series lat lon *more"],
    times: Int[Array, "batch time"],
    place: Place | None,
) -> Float[Array, "batch time height width *more"]:
    """Frames at positions in the series, cut out where each sample is; None: the whole grid."""
    if place is None:
        return values[times]
    rows, columns = place.rows[:, None, :, None], place.columns[:, None, None, :]
    return values[times[:, :, None, None], rows, columns]


def take_static(
    values: Shaped[Array, "lat lon *more"], place: Place
) -> Shaped[Array, "batch height width *more"]:
    """What does not change in time, cut out where each sample is."""
    return values[place.rows[:, :, None], place.columns[:, None, :]]


def take_rows(
    values: Float[Array, "series lat known"], times: Int[Array, "batch time"], place: Place | None
) -> Float[Array, "batch time height known"]:
    """What is the same at all longitudes, at positions in the series and each sample's rows."""
    if place is None:
        return values[times]
    return values[times[:, :, None], place.rows[:, None]]
