"""Convolutions and pooling agree with plain arithmetic and keep to the grid's topology."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.models import convolution
from gridcast.models.convolution import conv2d, conv2d_frame
from gridcast.models.layers import GridConv, depth_to_space, dropout, space_to_depth
from gridcast.models.norms import Norm
from gridcast.models.pooling import pool

SIZES = [(5, 7), (13, 9)]
FEW = [(3, "cpu", True), (5, "cpu", False), (3, "cuda", False), (3, "tpu", False)]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def close(found: object, expected: object, relative: float = 1e-5) -> None:
    """Equal to `relative` of the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array, wraps: bool) -> jax.Array:
    """JAX's own convolution of the grid, repeated round the globe or with zeros beyond its ends."""
    before, after = (len(kernel) - 1) // 2, len(kernel) // 2
    if wraps:
        x = jnp.concatenate([x[:, :, x.shape[2] - before :], x, x[:, :, :after]], axis=2)
    sides = ((before, after), (0, 0) if wraps else (before, after))
    return bias + jax.lax.conv_general_dilated(x, kernel, (1, 1), sides, dimension_numbers=LAYOUT)


def reference(arrays: tuple[jax.Array, ...], gradient: jax.Array, wraps: bool) -> tuple:
    """Its value and its gradients by JAX, in float64."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in arrays]
        value, back = jax.vjp(lambda *a: plain(*a, wraps), *wide)
        return tuple(map(np.asarray, (value, *back(jnp.asarray(gradient, jnp.float64)))))


def example(kernel: int, size: tuple[int, int], batch: int = 2) -> tuple[tuple, jax.Array]:
    arrays = random(batch, *size, 3), random(kernel, kernel, 3, 4, seed=1), random(4, seed=3)
    return arrays, random(batch, *size, 4, seed=2)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_conv2d_and_its_gradients_equal_float64_autodiff(kernel, size, wraps):
    arrays, gradient = example(kernel, size)
    value, back = jax.vjp(lambda *a: conv2d(*a, wraps), *arrays)
    expected = reference(arrays, gradient, wraps)
    for found, exact in zip((value, *back(gradient)), expected, strict=True):
        close(found, exact)
    close(conv2d(*arrays, wraps), expected[0])  # nothing is to be differentiated


@pytest.mark.parametrize(("kernel", "platform", "sum_of_taps"), FEW)
def test_few_channels_are_summed_tap_by_tap_on_a_cpu_alone(kernel, platform, sum_of_taps):
    arrays, _ = example(kernel, (5, 7))
    traced = jax.jit(conv2d, static_argnums=3).trace(*arrays, True)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" not in program) == sum_of_taps


@pytest.mark.parametrize("batch", [12, 13, 25])
def test_gradients_of_more_frames_than_are_taken_at_a_time_equal_it_too(batch, monkeypatch):
    monkeypatch.setattr(convolution, "CELLS_AT_A_TIME", 5 * 35)
    arrays, gradient = example(3, (5, 7), batch)
    found = jax.vjp(lambda *a: conv2d(*a, True), *arrays)[1](gradient)
    for one, exact in zip(found, reference(arrays, gradient, True)[1:], strict=True):
        close(one, exact)


@pytest.mark.parametrize("wraps", [True, False])
def test_conv2d_frame_under_vmap_equals_it_too(wraps):
    arrays, gradient = example(3, (13, 9))
    mapped = jax.vmap(conv2d_frame(wraps), in_axes=(0, None, None))
    value, back = jax.vjp(mapped, *arrays)
    expected = reference(arrays, gradient, wraps)
    for found, exact in zip((value, *back(gradient)), expected, strict=True):
        close(found, exact)


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


def test_the_gradient_of_a_maximum_goes_to_one_cell_of_each_block_by_hand():
    x = jnp.array([[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 2.0]])[..., None]
    gradient = jax.grad(lambda a: (pool(a, "max", wraps=False)[0, :, 0] * jnp.array([7, 9])).sum())(
        x
    )
    np.testing.assert_array_equal(gradient[..., 0], [[0, 7, 9, 0], [0, 0, 0, 0]])


def test_no_gradient_is_lost_where_a_compiler_computes_what_is_pooled_anew():
    norm = Norm("group", 4, rngs=nnx.Rngs(0))
    graph, scales = nnx.split(norm)
    x, w = random(24, 5, 7, 4), random(24, 3, 4, 4, seed=1)

    def loss(scales: nnx.State) -> jax.Array:
        return (
            w * jax.vmap(lambda a: pool(nnx.merge(graph, scales)(a), "max", wraps=True))(x)
        ).sum()

    compiled, plain = jax.jit(jax.grad(loss))(scales), jax.grad(loss)(scales)
    jax.tree.map(close, compiled, plain)


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
