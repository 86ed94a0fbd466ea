"""Convolutions and pooling agree with plain arithmetic and keep to the grid's topology."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.models.encoder import pool
from gridcast.models.layers import (
    GridConv,
    conv2d,
    conv2d_frame,
    depth_to_space,
    dropout,
    space_to_depth,
)
from gridcast.models.norms import Norm

SIZES = [(5, 7), (13, 9)]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def close(found: object, expected: object, relative: float = 1e-5) -> None:
    """Equal to `relative` of the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def reference(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple:
    """Value and gradients of JAX's own convolution, differentiated by JAX, in float64."""
    with jax.enable_x64(True):
        value, back = jax.vjp(
            lambda a, k: jax.lax.conv_general_dilated(
                a, k, (1, 1), "VALID", dimension_numbers=LAYOUT
            ),
            jnp.asarray(x, jnp.float64),
            jnp.asarray(kernel, jnp.float64),
        )
        return tuple(map(np.asarray, (value, *back(jnp.asarray(gradient, jnp.float64)))))


def example(kernel: int, size: tuple[int, int]) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, k = random(2, *size, 3), random(kernel, kernel, 3, 4, seed=1)
    return x, k, random(2, size[0] - kernel + 1, size[1] - kernel + 1, 4, seed=2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_conv2d_and_both_gradients_equal_float64_autodiff(kernel, size):
    x, k, gradient = example(kernel, size)
    value, back = jax.vjp(conv2d, x, k)
    for found, expected in zip((value, *back(gradient)), reference(x, k, gradient), strict=True):
        close(found, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_conv2d_frame_under_vmap_equals_it_too(kernel, size):
    x, k, gradient = example(kernel, size)
    value, back = jax.vjp(jax.vmap(conv2d_frame, in_axes=(0, None)), x, k)
    for found, expected in zip((value, *back(gradient)), reference(x, k, gradient), strict=True):
        close(found, expected)


def test_gradient_of_the_shared_kernel_is_the_sum_over_frames():
    x, k, gradient = example(3, (5, 7))
    shared = jax.vjp(jax.vmap(conv2d_frame, in_axes=(0, None)), x, k)[1](gradient)[1]
    single = [jax.vjp(conv2d, x[i : i + 1], k)[1](gradient[i : i + 1])[1] for i in range(2)]
    close(shared, single[0] + single[1])


def grid_conv(*, wraps: bool, kernel: int = 3) -> GridConv:
    conv = GridConv(2, 3, kernel, wraps=wraps, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.array([1.0, 2.0, 3.0])
    return conv


def test_grid_conv_turns_with_a_grid_that_wraps_and_only_with_it():
    x = random(2, 5, 8, 2)
    turned = jnp.roll(x, 3, axis=2)
    wraps, ends = grid_conv(wraps=True), grid_conv(wraps=False)
    close(wraps(turned), jnp.roll(wraps(x), 3, axis=2))
    assert jnp.abs(ends(turned) - jnp.roll(ends(x), 3, axis=2)).max() > 0.1


@pytest.mark.parametrize("wraps", [True, False])
def test_nothing_crosses_the_poles(wraps):
    conv = grid_conv(wraps=wraps)
    impulse = jnp.zeros((1, 6, 8, 2)).at[0, 0, 0].set(1.0)
    reached = jnp.abs(conv(impulse) - conv(0 * impulse)).max(axis=(0, 3)) > 0
    expected = np.zeros((6, 8), bool)
    expected[:2, [0, 1, 7] if wraps else [0, 1]] = True
    np.testing.assert_array_equal(reached, expected)


def test_beyond_the_poles_there_is_nothing():
    conv, x = grid_conv(wraps=True), random(1, 5, 8, 2)
    wider = jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
    close(conv(wider)[:, 2:-2], conv(x), 1e-6)


def test_grid_conv_on_a_ring_narrower_than_its_kernel_sees_the_ring_repeated():
    conv, x = grid_conv(wraps=True, kernel=7), random(1, 4, 3, 2)
    close(conv(x), conv(jnp.tile(x, (1, 1, 3, 1)))[:, :, :3])


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_grid_conv_keeps_the_size_as_same_padding_does(kernel):
    conv, x = grid_conv(wraps=False, kernel=kernel), random(2, 5, 8, 2)
    same = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (1, 1), "SAME", dimension_numbers=LAYOUT
    )
    close(conv(x), same + conv.bias[...], 1e-6)


def test_a_kernel_of_two_by_two_reaches_north_and_east_by_hand():
    conv = GridConv(1, 1, 2, wraps=True, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.array([[1.0, 10.0], [100.0, 1000.0]])[:, :, None, None]
    x = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, :, :, None]
    expected = [[5421, 6532, 4613], [54, 65, 46]]
    np.testing.assert_array_equal(conv(x)[0, :, :, 0], expected)


def test_grid_conv_of_one_frame_under_vmap_is_that_of_the_batch():
    conv, x = grid_conv(wraps=True), random(4, 5, 7, 2)
    close(jax.vmap(conv)(x), conv(x), 1e-6)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("size", [(5, 7), (13, 9), (3, 4), (1, 1)])
def test_depth_to_space_undoes_space_to_depth(size, block, wraps):
    x = random(2, 3, *size, 2)
    coarse = space_to_depth(x, block, wraps=wraps)
    assert coarse.shape == (2, 3, -(-size[0] // block), -(-size[1] // block), 2 * block**2)
    np.testing.assert_array_equal(depth_to_space(coarse, block, size), x)


def test_space_to_depth_keeps_neighbours_together():
    x = jnp.arange(16.0).reshape(4, 4, 1)
    coarse = np.asarray(space_to_depth(x, 2, wraps=False))
    np.testing.assert_array_equal(coarse[0, 1], [2, 3, 6, 7])


NINE = jnp.arange(1.0, 10.0).reshape(3, 3, 1)


@pytest.mark.parametrize(
    ("kind", "wraps", "expected"),
    [
        ("max", False, [[5, 6], [8, 9]]),
        ("mean", False, [[3, 4.5], [7.5, 9]]),
        ("max", True, [[5, 6], [8, 9]]),
        ("mean", True, [[3, 3.5], [7.5, 8]]),
    ],
)
def test_pooling_of_three_by_three_cells_by_hand(kind, wraps, expected):
    np.testing.assert_array_equal(pool(NINE, kind, wraps=wraps)[..., 0], expected)
    # All below zero: what is not there must not count as zero.
    lowest = pool(-NINE, kind, wraps=wraps)[..., 0]
    by_hand = {"max": [[-1, -1 if wraps else -3], [-7, -7 if wraps else -9]]}
    np.testing.assert_array_equal(lowest, by_hand.get(kind, -np.array(expected)))


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (5, 1)])
def test_pooling_of_a_thin_grid_and_its_gradient_are_finite(size, kind):
    x = random(*size, 2)
    value, gradient = jax.value_and_grad(lambda a: pool(a, kind, wraps=False).sum())(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = jnp.ones((100, 100))
    out = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(out).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert dropout(x, 0.25, None) is x


def plain_norm(x: np.ndarray, kind: str, groups: int) -> np.ndarray:
    """A frame normalised in float64, one group or one cell after the other."""
    x = x.astype(np.float64)
    out = np.empty_like(x)
    size = x.shape[-1] // groups
    parts = {
        "group": [np.s_[:, :, g * size : (g + 1) * size] for g in range(groups)],
        "layer": [np.s_[i, j, :] for i, j in np.ndindex(x.shape[:2])],
    }
    for part in parts[kind]:
        out[part] = (x[part] - x[part].mean()) / np.sqrt(x[part].var() + 1e-6)
    return out


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (6, 2), (7, 1)])
@pytest.mark.parametrize("kind", ["group", "layer"])
def test_a_norm_equals_float64_and_treats_a_frame_as_in_a_batch(kind, channels, groups):
    norm = Norm(kind, channels, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = random(channels, seed=1), random(channels, seed=2)
    x = 3.0 * random(2, 3, 4, 5, channels) + 2.0
    batch = jax.jit(norm)(x)
    assert batch.shape == x.shape
    for i, j in [(0, 0), (0, 2), (1, 1)]:
        expected = plain_norm(np.asarray(x[i, j]), kind, groups)
        expected = expected * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
        close(batch[i, j], expected)
        close(norm(x[i, j]), batch[i, j], 1e-6)


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_a_norm_of_one_value_everywhere_and_its_gradient_are_finite(kind):
    norm, x = Norm(kind, 8, rngs=nnx.Rngs(0)), jnp.full((2, 1, 1, 8), 3.0)
    assert not norm(x).any()
    assert np.isfinite(jax.grad(lambda a: (norm(a) ** 2).sum())(x)).all()


def test_without_a_norm_nothing_changes_and_nothing_is_trained():
    norm, x = Norm("none", 6, rngs=nnx.Rngs(0)), random(2, 3, 4, 6)
    assert norm(x) is x
    assert not jax.tree.leaves(nnx.state(norm, nnx.Param))
