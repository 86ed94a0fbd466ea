"""Patches, rolls and mirrors: every place is drawn, and each value comes from where it says."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gridcast.errors import ConfigError
from gridcast.frames.places import Place, place_at, random_place, take, take_rows, take_static

DRAWS = 400
PLAIN: dict[str, Any] = {
    "grid": (7, 10),
    "size": None,
    "step": 1,
    "wraps": False,
    "roll": False,
    "flip": [],
    "vectors": [None],
}


def drawn(**settings: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    place = random_place(jax.random.key(0), DRAWS, **(PLAIN | settings))
    signs = None if place.signs is None else np.asarray(place.signs)
    return np.asarray(place.rows), np.asarray(place.columns), signs


def starts(indices: np.ndarray) -> set[int]:
    return set(indices[:, 0].tolist())


def test_without_settings_every_place_is_the_whole_grid():
    rows, columns, signs = drawn()
    np.testing.assert_array_equal(rows, np.tile(np.arange(7), (DRAWS, 1)))
    np.testing.assert_array_equal(columns, np.tile(np.arange(10), (DRAWS, 1)))
    assert signs is None


def test_patches_start_at_every_multiple_of_the_step_and_flush_with_the_end():
    rows, columns, _ = drawn(size=(4, 5), step=2)
    assert starts(rows) == {0, 2, 3}
    assert starts(columns) == {0, 2, 4, 5}
    assert (np.diff(rows) == 1).all()
    assert (np.diff(columns) == 1).all()
    assert rows.shape == (DRAWS, 4)
    assert columns.shape == (DRAWS, 5)


def test_rows_and_columns_are_drawn_apart_from_each_other():
    rows, columns, _ = drawn(size=(3, 6), step=2)
    pairs = set(zip(rows[:, 0].tolist(), columns[:, 0].tolist(), strict=True))
    assert pairs == {(row, column) for row in (0, 2, 4) for column in (0, 2, 4)}


def test_all_starts_are_equally_frequent():
    _, columns, _ = drawn(size=(7, 5), step=2)
    counts = np.bincount(columns[:, 0])[[0, 2, 4, 5]]
    # Four starts: 100 expected of each, with a standard deviation of 8.7.
    assert abs(counts - DRAWS / 4).max() < 40


def test_patches_of_a_periodic_grid_run_over_the_seam():
    rows, columns, _ = drawn(size=(4, 6), step=2, wraps=True)
    assert starts(rows) == {0, 2, 3}
    assert starts(columns) == {0, 2, 4, 6, 8}
    assert (np.diff(columns) % 10 == 1).all()
    assert columns.max() < 10


@pytest.mark.parametrize("roll", [False, True])
def test_a_whole_ring_turns_only_where_it_is_rolled(roll: bool):
    rows, columns, _ = drawn(step=2, wraps=True, roll=roll)
    assert starts(rows) == {0}
    assert starts(columns) == ({0, 2, 4, 6, 8} if roll else {0})
    assert all(set(c) == set(range(10)) for c in columns.tolist())


@pytest.mark.parametrize("axis", ["lat", "lon"])
def test_a_mirror_turns_half_of_the_samples_and_their_vector_component(axis: str):
    vectors = ["north", None, "east"]
    rows, columns, signs = drawn(flip=[axis], vectors=vectors)
    turned, still, component = {"lat": (rows, columns, 0), "lon": (columns, rows, 2)}[axis]
    length = turned.shape[1]
    mirrored = turned[:, 0] == length - 1
    ahead = np.tile(np.arange(length), (DRAWS, 1))
    np.testing.assert_array_equal(turned, np.where(mirrored[:, None], ahead[:, ::-1], ahead))
    assert (np.diff(still) == 1).all()
    # 200 expected, with a standard deviation of 10.
    assert abs(mirrored.sum() - DRAWS / 2) < 50
    expected = np.ones((DRAWS, 3))
    expected[mirrored, component] = -1
    np.testing.assert_array_equal(signs, expected)


def test_two_mirrors_are_drawn_apart_from_each_other():
    rows, columns, signs = drawn(flip=["lat", "lon"], vectors=["east", "north"])
    assert signs is not None
    both = 2 * (rows[:, 0] > 0) + (columns[:, 0] > 0)
    assert abs(np.bincount(both) - DRAWS / 4).max() < 40
    np.testing.assert_array_equal(signs[:, 0], np.where(columns[:, 0] > 0, -1, 1))
    np.testing.assert_array_equal(signs[:, 1], np.where(rows[:, 0] > 0, -1, 1))


def test_a_mirror_that_turns_no_component_has_no_signs():
    assert drawn(flip=["lat"], vectors=["east", None])[2] is None


def test_mirroring_keeps_the_divergence_of_a_flow():
    """Divergence is a scalar: it mirrors with the grid only if the right component turns."""
    east, north = np.random.default_rng(0).normal(size=(2, 7, 10))
    divergence = np.gradient(east, axis=1) + np.gradient(north, axis=0)
    flow = jnp.asarray(np.stack([east, north], axis=-1))
    place = random_place(
        jax.random.key(1), 8, **(PLAIN | {"flip": ["lat", "lon"], "vectors": ["east", "north"]})
    )
    assert place.signs is not None
    turned = np.asarray(take_static(flow, place) * place.signs[:, None, None])
    ours = np.gradient(turned[..., 0], axis=2) + np.gradient(turned[..., 1], axis=1)
    np.testing.assert_allclose(ours, take_static(jnp.asarray(divergence), place), atol=1e-5)


def test_a_patch_larger_than_the_grid_is_refused():
    with pytest.raises(ConfigError, match="8 x 5, larger than the grid"):
        drawn(size=(8, 5))


def test_a_patch_that_starts_at_a_tile_goes_on_over_the_seam():
    place = place_at(jnp.array([0, 3]), jnp.array([8, 2]), (7, 10), (2, 4))
    np.testing.assert_array_equal(place.rows, [[0, 1], [3, 4]])
    np.testing.assert_array_equal(place.columns, [[8, 9, 0, 1], [2, 3, 4, 5]])
    assert place.signs is None


@pytest.fixture(scope="module")
def place() -> Place:
    settings = {"size": (4, 6), "wraps": True, "flip": ["lat", "lon"]}
    return random_place(jax.random.key(2), 3, **(PLAIN | settings))


TIMES = jnp.array([[4, 0], [2, 2], [1, 3]])


def test_values_are_taken_from_their_time_row_and_column(place: Place):
    values = jax.random.normal(jax.random.key(3), (5, 7, 10, 2))
    known = values[:, :, 0]
    frames = jax.jit(take)(values, TIMES, place)
    rows = jax.jit(take_rows)(known, TIMES, place)
    static = jax.jit(take_static)(values[0], place)
    assert frames.shape == (3, 2, 4, 6, 2)
    assert rows.shape == (3, 2, 4, 2)
    for b, t, i, j in np.ndindex(3, 2, 4, 6):
        row, column = place.rows[b, i], place.columns[b, j]
        np.testing.assert_array_equal(frames[b, t, i, j], values[TIMES[b, t], row, column])
        np.testing.assert_array_equal(static[b, i, j], values[0, row, column])
        np.testing.assert_array_equal(rows[b, t, i], known[TIMES[b, t], row])


def test_without_a_place_the_whole_grid_is_taken():
    values = jax.random.normal(jax.random.key(3), (5, 7, 10, 2))
    np.testing.assert_array_equal(take(values, TIMES, None), np.asarray(values)[TIMES])
    known = values[:, :, 0]
    np.testing.assert_array_equal(take_rows(known, TIMES, None), np.asarray(known)[TIMES])


def test_what_has_no_channels_is_taken_too(place: Place):
    values = jax.random.normal(jax.random.key(3), (5, 7, 10))
    with_channel = take(values[..., None], TIMES, place)
    np.testing.assert_array_equal(take(values, TIMES, place), with_channel[..., 0])
    assert take_static(values[0] > 0, place).dtype == bool


def test_the_gradient_counts_how_often_each_value_is_taken(place: Place):
    gradient = jax.grad(lambda v: take(v, TIMES, place).sum())(jnp.zeros((5, 7, 10)))
    counts = np.zeros((5, 7, 10))
    for b, t, i, j in np.ndindex(3, 2, 4, 6):
        counts[TIMES[b, t], place.rows[b, i], place.columns[b, j]] += 1
    np.testing.assert_array_equal(gradient, counts)


def test_the_same_key_draws_the_same_places_also_when_compiled():
    settings = PLAIN | {"size": (4, 6), "wraps": True, "flip": ["lat"], "vectors": ["north"]}
    draw = partial(random_place, batch=16, **settings)
    once, again = draw(jax.random.key(5)), jax.jit(draw)(jax.random.key(5))
    other = draw(jax.random.key(6))
    assert jax.tree.all(jax.tree.map(np.array_equal, once, again))
    assert not np.array_equal(once.columns, other.columns)
