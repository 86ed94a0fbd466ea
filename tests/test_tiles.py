"""Tiles cover every grid, and blending them leaves no trace of where they were cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcast.errors import ConfigError
from gridcast.frames.tiles import blend, blend_weights, tiles


class Case(NamedTuple):
    grid: tuple[int, int]
    size: tuple[int, int]
    overlap: int
    step: int
    wraps: bool

    @property
    def starts(self) -> list[tuple[int, int]]:
        return tiles(*self)

    @property
    def weights(self) -> np.ndarray:
        return blend_weights(self.grid, self.starts, self.size, self.overlap, self.wraps)

    def cut(self, field: np.ndarray) -> np.ndarray:
        """[... lat lon channel] -> [tile ... lat lon channel], cell by cell."""
        height, width = self.size
        return np.stack(
            [
                field[..., row : row + height, :, :].take(
                    range(column, column + width), axis=-2, mode="wrap"
                )
                for row, column in self.starts
            ]
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    grid = draw(st.tuples(st.integers(2, 60), st.integers(2, 60)))
    size = draw(st.tuples(st.integers(2, grid[0]), st.integers(2, grid[1])))
    overlap = draw(st.integers(1, min(size) // 2))
    return Case(grid, size, overlap, draw(st.sampled_from([1, 2, 3, 4, 8])), draw(st.booleans()))


def depth_of(case: Case, tile: int) -> np.ndarray:
    """Cells between each cell of a tile and its nearest edge that is not the grid's."""
    (row, column), (height, width) = case.starts[tile], case.size
    depth = np.full(case.size, 10**6)
    i, j = np.arange(height)[:, None], np.arange(width)[None]
    ring = case.wraps and width < case.grid[1]
    if row > 0:
        depth = np.minimum(depth, i)
    if row + height < case.grid[0]:
        depth = np.minimum(depth, height - 1 - i)
    if ring or column > 0:
        depth = np.minimum(depth, j)
    if ring or column + width < case.grid[1]:
        depth = np.minimum(depth, width - 1 - j)
    return depth


def test_tiles_along_one_axis_by_hand():
    # Stride 8 - 3 = 5, of which 4 is a multiple of 2; the last ends with the grid.
    assert tiles((13, 8), (8, 8), 3, 2, False) == [(0, 0), (4, 0), (5, 0)]
    # On the ring 16 would start where 0 does: 12 + 8 reaches round to 4.
    assert tiles((8, 16), (8, 8), 3, 2, True) == [(0, 0), (0, 4), (0, 8), (0, 12)]
    assert tiles((8, 16), (8, 8), 3, 2, False) == [(0, 0), (0, 4), (0, 8)]
    # A step wider than what the overlap leaves gives way.
    assert tiles((12, 8), (8, 8), 4, 8, False) == [(0, 0), (4, 0)]


@pytest.mark.parametrize("wraps", [False, True])
def test_a_tile_as_large_as_the_grid_is_alone_and_has_the_whole_share(wraps: bool):
    case = Case((6, 10), (6, 10), 2, 4, wraps)
    assert case.starts == [(0, 0)]
    np.testing.assert_array_equal(case.weights, np.ones((1, 6, 10)))


@pytest.mark.parametrize(("size", "found"), [((7, 4), "7 x 4"), ((4, 11), "4 x 11")])
def test_a_tile_larger_than_the_grid_is_refused(size: tuple[int, int], found: str):
    with pytest.raises(ConfigError, match=f"{found}, larger than the grid\n  expected: at most 6"):
        tiles((6, 10), size, 2, 1, False)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_neighbours_share_the_overlap_and_start_at_steps(case: Case):
    starts = case.starts
    assert len(set(starts)) == len(starts)
    for axis in (0, 1):
        length, size = case.grid[axis], case.size[axis]
        ring = axis == 1 and case.wraps and size < length
        along = sorted({start[axis] for start in starts})
        assert along[0] == 0
        after = [*along[1:], along[0] + length] if ring else along[1:]
        assert all(b - a <= size - case.overlap for a, b in zip(along, after, strict=False))
        assert ring or along[-1] + size == length
        if size - case.overlap >= case.step:
            assert all(a % case.step == 0 for a in (along if ring else along[:-1]))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_shares_are_a_partition_of_unity_and_blended_cut_outs_are_the_field(case: Case):
    weights = case.weights
    assert (weights >= 0).all()
    total = np.zeros(case.grid)
    for (row, column), share in zip(case.starts, weights, strict=True):
        for i, j in np.ndindex(*case.size):
            total[row + i, (column + j) % case.grid[1]] += share[i, j]
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-14)
    field = np.random.default_rng(1).normal(size=(2, *case.grid, 3))
    blended = blend(case.cut(field), case.starts, weights, case.grid)
    np.testing.assert_allclose(blended, field, rtol=1e-14, atol=1e-14)


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_junk_near_the_inner_edges_of_tiles_changes_nothing(case: Case, junk: float):
    field = np.random.default_rng(1).normal(size=(*case.grid, 1)).astype(np.float32)
    clean = case.cut(field)
    dirty = clean.copy()
    for tile in range(len(dirty)):
        dirty[tile, depth_of(case, tile) < case.overlap // 4] = junk
    assert clean.dtype == np.float32
    ours = blend(dirty, case.starts, case.weights, case.grid)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, blend(clean, case.starts, case.weights, case.grid))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_cell_behind_the_hidden_rim_has_a_share(case: Case):
    weights = case.weights
    for tile in range(len(weights)):
        np.testing.assert_array_equal(weights[tile] > 0, depth_of(case, tile) >= case.overlap // 4)


def test_the_share_rises_linearly_between_the_hidden_rims():
    # Cells 0 to 15 and 8 to 23 share 8, of which 2 are hidden on each side.
    case = Case((24, 1), (16, 1), 8, 1, False)
    first, second = case.weights[:, :, 0]
    rise = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    np.testing.assert_allclose(first, [1] * 8 + rise[::-1], atol=1e-15)
    np.testing.assert_allclose(second, rise + [1] * 8, atol=1e-15)


def test_neighbours_that_share_more_than_the_overlap_share_its_middle_by_halves():
    # Cells 0 to 15 and 2 to 17: ramps of four cells behind two hidden ones, then 1 + 1.
    case = Case((18, 1), (16, 1), 8, 1, False)
    first, second = case.weights[:, :, 0]
    rise = [0, 0, 1 / 9, 3 / 11, 5 / 13, 7 / 15]
    np.testing.assert_allclose(second, [*rise, *[1 / 2] * 2, *[1 - a for a in rise[::-1]], 1, 1])
    np.testing.assert_allclose(first, second[::-1])


def test_the_seam_is_a_place_like_any_other():
    # With a length that the stride divides, every tile's shares are the same.
    weights = Case((8, 24), (8, 12), 4, 1, True).weights
    assert len(weights) == 3
    np.testing.assert_allclose(weights, np.broadcast_to(weights[0], weights.shape), atol=1e-15)
    assert (weights[:, :, [0, -1]] == 0).all()


def test_a_quarter_degree_globe_is_blended_by_tiles_of_256():
    case = Case((720, 1440), (256, 256), 32, 4, True)
    field = np.random.default_rng(0).normal(size=(*case.grid, 1)).astype(np.float32)
    blended = blend(case.cut(field), case.starts, case.weights, case.grid)
    np.testing.assert_allclose(blended, field, rtol=1e-6, atol=1e-7)
