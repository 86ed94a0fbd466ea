"""Both networks: any grid, exact references when untrained, and the symmetries of the grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.config.schema import CnnLstmConfig, ConvLstmConfig
from gridcast.grid import Grid
from gridcast.models import Fixed, ForecastModel, build_model
from gridcast.models.cnn_lstm import Lstm
from gridcast.models.conv_lstm import ConvLstm
from gridcast.models.encoder import Encoder, encode_frames
from gridcast.references import BASES, TrainingSeries
from gridcast.timeaxis import TimeAxis

SIZES = [(5, 7), (13, 9), (3, 4), (1, 1)]
LEADS = 2
NETWORKS = {
    "conv_lstm": ConvLstmConfig(name="conv_lstm", hidden=[3, 2], downsample=2),
    "conv_lstm_fine": ConvLstmConfig(name="conv_lstm", hidden=[3], downsample=1),
    "cnn_lstm": CnnLstmConfig(name="cnn_lstm", channels=[4, 6], latent=5, hidden=6),
    "cnn_lstm_stride": CnnLstmConfig(
        name="cnn_lstm", channels=[4], latent=5, hidden=6, pooling="stride", norm="none"
    ),
}
NAMES = list(NETWORKS)
CASES = [(name, SIZES[0]) for name in NAMES]
CASES += [(name, size) for size in SIZES[1:] for name in ("conv_lstm", "cnn_lstm")]
# The same networks, for training with dropout.
NETWORKS |= {
    f"{name}_dropout": NETWORKS[name].model_copy(update={"dropout": 0.5})
    for name in ("conv_lstm", "cnn_lstm")
}


def grid(size: tuple[int, int], *, wraps: bool = True) -> Grid:
    mask = np.random.default_rng(1).random(size) < 0.8
    mask[0, 0] = True
    lon = np.arange(size[1]) * (360.0 if wraps else 90.0) / size[1]
    return Grid(np.linspace(-60.0, 60.0, size[0]), lon, mask)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@cache
def untrained(name: str, size: tuple[int, int], *, wraps: bool = True) -> ForecastModel:
    return build_model(
        NETWORKS[name],
        grid(size, wraps=wraps),
        damping=random(LEADS, *size, 1, seed=5),
        layers=random(*size, 2, seed=6),
        seed=0,
    )


@cache
def compiled(name: str, size: tuple[int, int], *, wraps: bool = True) -> Callable:
    """The model as a function of its weights, its fixed arrays, frames, season and a key."""
    graph, *_ = nnx.split(untrained(name, size, wraps=wraps), nnx.Param, Fixed)
    return jax.jit(
        lambda params, fixed, frames, season, key=None: nnx.merge(graph, params, fixed)(
            frames, season, key
        )
    )


def state(name: str, size: tuple[int, int], *, wraps: bool = True) -> tuple:
    """(weights with a head that is not zero, fixed arrays)"""
    _, params, fixed = nnx.split(untrained(name, size, wraps=wraps), nnx.Param, Fixed)
    leaves, tree = jax.tree.flatten(params)
    leaves = [p + 0.3 * random(*p.shape, seed=i) for i, p in enumerate(leaves)]
    return jax.tree.unflatten(tree, leaves), fixed


def inputs(name: str, size: tuple[int, int], batch: int = 3) -> tuple[jax.Array, jax.Array]:
    frames = random(batch, 4, *size, 1, seed=7) * grid(size).mask[:, :, None]
    return jnp.asarray(frames), jnp.asarray(random(batch, 4, 2, seed=8))


@pytest.mark.parametrize("base", list(BASES))
@pytest.mark.parametrize(("name", "size"), CASES)
def test_untrained_model_is_its_reference_bit_for_bit(name, size, base):
    frames, season = inputs(name, size)
    dates = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
    mask = grid(size).mask
    series = random(dates.size, *size, 1, seed=9) * mask[:, :, None]
    training = TrainingSeries(series, TimeAxis.of(dates), np.ones(36, bool), grid(size).weight)
    reference = BASES[base](training, LEADS)
    _, params, fixed = nnx.split(untrained(name, size), nnx.Param, Fixed)
    fixed = jax.tree.map(lambda x: x, fixed)
    fixed["damping"] = fixed["damping"].replace(jnp.asarray(reference.factor))
    found = np.asarray(compiled(name, size)(params, fixed, frames, season))
    assert found.shape == (3, LEADS, *size, 1)
    np.testing.assert_array_equal(found, reference(np.asarray(frames)))
    if base != "climatology":
        assert found.any()


@pytest.mark.parametrize(("name", "size"), CASES)
def test_trained_model_is_finite_on_any_grid_and_zero_off_the_mask(name, size):
    found = np.asarray(compiled(name, size)(*state(name, size), *inputs(name, size)))
    _, fixed = state(name, size)
    mask = grid(size).mask
    assert np.isfinite(found).all()
    assert not found[:, :, ~mask].any()
    reference = np.asarray(inputs(name, size)[0])[:, -1, None] * np.asarray(fixed["damping"][...])
    assert np.abs(found - reference)[:, :, mask].max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_a_share_in_the_forecast(name):
    size = (5, 7)
    params, fixed = state(name, size)
    frames, season = inputs(name, size)
    gradient = jax.grad(lambda p: (compiled(name, size)(p, fixed, frames, season) ** 2).sum())
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(("name", "size"), [("conv_lstm_fine", (5, 7)), ("conv_lstm", (5, 8))])
def test_conv_lstm_does_not_care_where_longitude_starts(name, size):
    def turn(x: jax.Array, by: int, axis: int) -> jax.Array:
        return jnp.roll(x, by, axis)

    by = 3 if name == "conv_lstm_fine" else 4
    frames, season = inputs(name, size)
    for wraps in (True, False):
        params, fixed = state(name, size, wraps=wraps)
        model = compiled(name, size, wraps=wraps)
        straight = model(params, fixed, frames, season)
        # Longitude is the axis before the last of every fixed array, as of the frames.
        turned_fixed = jax.tree.map(lambda x: turn(x, by, -2), fixed)
        turned = model(params, turned_fixed, turn(frames, by, 3), season)
        error = float(jnp.abs(turned - turn(straight, by, 3)).max())
        assert error < 1e-5 if wraps else error > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batch_members_do_not_see_each_other(name):
    size = (5, 7)
    frames, season = inputs(name, size)
    model, arrays = compiled(name, size), state(name, size)
    before = np.asarray(model(*arrays, frames, season))
    after = np.asarray(model(*arrays, frames.at[1].set(9.0), season.at[1].set(-1.0)))
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] != before[1]).any()


@pytest.mark.parametrize("name", NAMES)
def test_forecast_depends_on_every_frame_and_on_their_order(name):
    size = (5, 7)
    frames, season = inputs(name, size)
    model, arrays = compiled(name, size), state(name, size)
    before = np.asarray(model(*arrays, frames, season))
    for time in range(frames.shape[1]):
        after = np.asarray(model(*arrays, frames.at[:, time].mul(2.0), season))
        assert (after != before).any(), f"frame {time}"
    # The last frame stays: it is also the reference's.
    swapped = np.asarray(model(*arrays, frames[:, jnp.array([1, 0, 2, 3])], season))
    assert np.abs(swapped - before).max() > 1e-4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def gated(gates: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, c) after one step, from gates in the order input, forget, cell, output."""
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def convolved(x: np.ndarray, conv, *, wraps: bool) -> np.ndarray:
    """A convolution over [batch lat lon channel] as a sum over kernel cells, in float64."""
    kernel = np.asarray(conv.kernel[...], np.float64)
    edge, (lat, lon) = kernel.shape[0] // 2, x.shape[1:3]
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + np.asarray(conv.bias[...], np.float64)
    for y in range(lat):
        for z in range(lon):
            for dy in range(-edge, edge + 1):
                for dz in range(-edge, edge + 1):
                    row, column = y + dy, (z + dz) % lon if wraps else z + dz
                    if 0 <= row < lat and 0 <= column < lon:
                        out[:, y, z] += x[:, row, column] @ kernel[dy + edge, dz + edge]
    return out


@pytest.mark.parametrize("wraps", [True, False])
def test_conv_lstm_equals_a_plain_loop_in_float64(wraps):
    net = ConvLstm(
        2, LEADS, 1, hidden=[3, 2], kernel=3, downsample=1, rate=0.0, wraps=wraps, rngs=nnx.Rngs(0)
    )
    net.head.kernel[...] = jnp.asarray(random(3, 3, 2, LEADS))
    net.cells[0].gates.bias[...] = jnp.asarray(random(12))
    frames = random(2, 4, 5, 6, 2)
    found = np.asarray(jax.jit(net)(jnp.asarray(frames)))

    sequence = [frames[:, t].astype(np.float64) for t in range(4)]
    for cell, hidden in zip(net.cells, (3, 2), strict=True):
        h = c = np.zeros((2, 5, 6, hidden))
        for t in range(4):
            h, c = gated(
                convolved(np.concatenate([sequence[t], h], -1), cell.gates, wraps=wraps), c
            )
            sequence[t] = h
    expected = np.moveaxis(convolved(sequence[-1], net.head, wraps=wraps), -1, 1)[..., None]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_lstm_equals_a_plain_loop_in_float64():
    lstm = Lstm(3, 4, rngs=nnx.Rngs(0))
    lstm.from_input.bias[...] = jnp.asarray(random(16))
    x = random(2, 5, 3)
    found = np.asarray(jax.jit(lstm)(jnp.asarray(x)))
    to_gates, bias = (
        np.asarray(p[...], np.float64) for p in (lstm.from_input.kernel, lstm.from_input.bias)
    )
    recurrent = np.asarray(lstm.from_state.kernel[...], np.float64)
    h = c = np.zeros((2, 4))
    for t in range(5):
        h, c = gated(x[:, t] @ to_gates + bias + h @ recurrent, c)
        np.testing.assert_allclose(found[:, t], h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_encoder_treats_each_frame_by_itself_with_the_same_weights(norm):
    encoder = Encoder(
        2,
        (5, 7),
        widths=[4, 8],
        kernel=3,
        norm=norm,
        pooling="max",
        latent=5,
        wraps=True,
        rngs=nnx.Rngs(0),
    )
    frames = jnp.asarray(random(2, 3, 5, 7, 2))
    vectors, features = jax.jit(lambda x: encode_frames(encoder, x))(frames)
    one = jax.jit(encoder)
    assert [f.shape for f in features] == [(2, 3, 3, 4, 4), (2, 3, 2, 2, 8)]
    for b, t in [(0, 0), (0, 2), (1, 1)]:
        vector, single = one(frames[b, t])
        np.testing.assert_allclose(vectors[b, t], vector, atol=1e-5)
        for found, expected in zip(features, single, strict=True):
            np.testing.assert_allclose(found[b, t], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["conv_lstm", "cnn_lstm"])
def test_dropout_changes_training_only(name):
    size = (5, 7)
    params, fixed = state(name, size)
    frames, season = inputs(name, size)
    model = compiled(f"{name}_dropout", size)
    without = np.asarray(compiled(name, size)(params, fixed, frames, season))
    np.testing.assert_array_equal(model(params, fixed, frames, season), without)
    one, again, other = (model(params, fixed, frames, season, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != without).any()
