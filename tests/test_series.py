"""The 1-D network: published layer tables, plain loops in float64, gaps that change nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_lstm import assert_close, in_a_loop, random, with_weights

from gridcast.config.models import SeriesConfig
from gridcast.errors import ConfigError
from gridcast.models.series import SeriesModel, SeriesNetwork, TimeConv, pool_time
from gridcast.models.window import Sizes, Window


def settings(**given: Any) -> SeriesConfig:
    return SeriesConfig(name="series", **given)


TABLES = {
    "index of 128 channels": (
        (
            100,
            128,
            1,
            {"filters": [64], "length": 5, "padding": "valid", "pool": 4, "hidden": [70]},
        ),
        {"conv": (41_024, (96, 64)), "pool": (0, (24, 64)), "lstm": (37_800, (70,))},
        71,
    ),
    "one step of 3 channels": (
        (1, 3, 1, {"filters": [10], "length": 1, "padding": "valid", "hidden": [70]}),
        {"conv": (40, (1, 10)), "pool": (0, (1, 10)), "lstm": (22_680, (70,))},
        71,
    ),
    "classes": (
        (24, 1, 8, {"filters": [32], "pool": 2, "hidden": [128], "dropout": 0.2}),
        {"conv": (128, (24, 32)), "pool": (0, (12, 32)), "lstm": (82_432, (128,))},
        1_032,
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_published_tables_come_out_layer_by_layer(name):
    (time, channels, outputs, given), rows, last = TABLES[name]

    def build(x: Any) -> dict[str, Any]:
        network = SeriesNetwork(channels, time, outputs, settings(**given), rngs=nnx.Rngs(0))
        (conv,) = network.convs
        steps, _ = conv(x)
        pooled, _ = pool_time(steps, None, network.pool)
        modules = {"conv": conv, "pool": None, "lstm": network.lstm, "head": network.head}
        return {
            "weights": {k: nnx.state(m, nnx.Param) for k, m in modules.items() if m is not None},
            "given": {"conv": steps, "pool": pooled, "lstm": network.vector(x)},
            "answer": network(x),
            "all": nnx.state(network, nnx.Param),
        }

    found = jax.eval_shape(build, jax.ShapeDtypeStruct((2, time, channels), jnp.float32))

    def count(tree: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    shapes = {k: v.shape[1:] for k, v in found["given"].items()}
    counts = {k: count(v) for k, v in found["weights"].items()}
    assert {k: (counts.get(k, 0), shapes[k]) for k in shapes} == rows
    assert counts["head"] == last
    assert found["answer"].shape == (2, outputs)
    assert count(found["all"]) == sum(n for n, _ in rows.values()) + last
    if name == "one step of 3 channels":
        assert count(found["all"]) == 22_791


def conv_in_a_loop(
    conv: TimeConv, x: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """([step filter], [step]) of one series [time channel]; what is not present counts as 0."""
    kernel, bias = (np.asarray(p[...], np.float64) for p in (conv.kernel, conv.bias))
    length, before = len(kernel), (len(kernel) - 1) // 2 if conv.same else 0
    steps = len(x) if conv.same else len(x) - length + 1
    out, there = np.zeros((steps, bias.size)), np.zeros(steps, bool)
    for t in range(steps):
        under = [t - before + i for i in range(length)]
        there[t] = present[t] if conv.same else all(present[s] for s in under)
        if there[t]:
            terms = [
                x[s] @ kernel[i] for i, s in enumerate(under) if 0 <= s < len(x) and present[s]
            ]
            out[t] = np.maximum(sum(terms) + bias, 0.0)
    return out, there


@pytest.mark.parametrize("name", ["same, even, pooled", "valid, pooled"])
def test_a_convolution_over_time_equals_a_plain_loop_in_float64(name):
    conv, x = network(name).convs[0], random(3, TIME, CHANNELS, seed=1)
    found, present = jax.jit(lambda conv, *to: conv(*to))(conv, x, GAPS)
    for sample in range(3):
        expected, there = conv_in_a_loop(conv, x[sample].astype(np.float64), GAPS[sample])
        np.testing.assert_allclose(found[sample], expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(present[sample], there)
        assert not there.all() or GAPS[sample].all()


def pool_in_a_loop(x: np.ndarray, present: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    ends = range(len(x), 0, -size)
    groups = [[s for s in range(max(end - size, 0), end) if present[s]] for end in ends][::-1]
    pooled = [x[group].max(axis=0) if group else np.zeros(x.shape[1]) for group in groups]
    return np.array(pooled), np.array([bool(group) for group in groups])


CASES = {
    "same": {"length": 3},
    "same, even, pooled": {"length": 2, "pool": 2},
    "valid, pooled": {"length": 3, "padding": "valid", "pool": 3},
    "no convolution": {"filters": [], "pool": 2},
    "both directions": {"length": 4, "bidirectional": True},
}
CHANNELS, TIME, OUTPUTS = 2, 9, 3


@cache
def network(name: str) -> SeriesNetwork:
    config = settings(**({"filters": [4, 3], "hidden": [3], "dense": [4]} | CASES[name]))
    return with_weights(lambda: SeriesNetwork(CHANNELS, TIME, OUTPUTS, config, rngs=nnx.Rngs(0)))


def in_steps(made: SeriesNetwork, x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The answer for one series in float64."""
    x = x.astype(np.float64)
    for conv in made.convs:
        x, present = conv_in_a_loop(conv, x, present)
    x, present = pool_in_a_loop(x, present, made.pool)
    (layer,) = made.lstm.layers
    backward = (False, True)[: len(layer)]
    both = zip(layer, backward, strict=True)
    vector = np.concatenate([in_a_loop(m, x, present, backward=b)[1] for m, b in both])
    for dense in [*made.dense, made.head]:
        kernel, bias = (np.asarray(p[...], np.float64) for p in (dense.kernel, dense.bias))
        vector = vector @ kernel + bias
        vector = vector if dense is made.head else np.maximum(vector, 0.0)
    return vector


@jax.jit
def run(made: SeriesNetwork, x: Any, present: Any) -> Any:
    """(answers, their gradients to the weights, and to the series)"""
    graph, params = nnx.split(made, nnx.Param)

    def total(params: Any, x: Any) -> Any:
        found = nnx.merge(graph, params)(x, present)
        return jnp.sin(found).sum(), found

    (_, found), by = jax.value_and_grad(total, (0, 1), has_aux=True)(params, x)
    return found, *by


GAPS = np.array([[1] * 9, [0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 1, 1, 1, 1]], bool)


@pytest.mark.parametrize("name", CASES)
def test_a_network_equals_a_plain_loop_in_float64(name):
    x = random(3, TIME, CHANNELS, seed=1)
    found = np.asarray(run(network(name), x, GAPS)[0])
    for sample in range(3):
        expected = in_steps(network(name), x[sample], GAPS[sample])
        np.testing.assert_allclose(found[sample], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_padded_window_is_the_shorter_window(name):
    short = random(3, 6, CHANNELS, seed=2)
    x = np.concatenate([np.full((3, 3, CHANNELS), np.nan, np.float32), short], axis=1)
    present = np.broadcast_to(np.arange(9) >= 3, (3, 9))
    found, by_weights, by_series = run(network(name), x, present)
    assert_close((found, by_weights, by_series[:, 3:]), run(network(name), short, None))
    assert not np.asarray(by_series)[:, :3].any()


def test_pools_are_counted_from_the_end_of_the_window():
    x = np.array([-9.0, -1.0, -7.0, -3.0, -4.0, -2.0, -8.0], np.float32)[None, :, None]
    pooled, present = pool_time(jnp.asarray(x), None, 3)
    np.testing.assert_array_equal(pooled[0, :, 0], [-9.0, -1.0, -2.0])
    assert present is None
    seen = jnp.asarray([[False, False, True, True, True, False, True]])
    pooled, present = pool_time(jnp.asarray(x), seen, 3)
    np.testing.assert_array_equal(pooled[0, :, 0], [0.0, -3.0, -4.0])
    np.testing.assert_array_equal(present[0], [False, True, True])


@pytest.mark.parametrize("length", [4, 6])
def test_a_window_shorter_than_its_valid_filters_is_refused(length):
    config = settings(filters=[2, 2], length=length, padding="valid")
    with pytest.raises(ConfigError, match=r"model.length") as caught:
        SeriesNetwork(1, 6, 1, config, rngs=nnx.Rngs(0))
    least = 2 * (length - 1) + 1
    assert f"frames.inputs of at least {least}" in str(caught.value)
    nnx.eval_shape(lambda: SeriesNetwork(1, least, 1, config, rngs=nnx.Rngs(0)))


GRID = (2, 4)


def window(frames: Any, present: Any = None, key: Any = None) -> Window:
    # SeriesModel looks neither ahead nor at the reference or the truth.
    nothing = jnp.zeros((1, 1, 1, 1, 1))
    return Window(jnp.asarray(frames), present, nothing, nothing, None, 0.0, key)


def sizes(*, whole: bool) -> Sizes:
    return Sizes(3, 0, 6, leads=2, outputs=2, grid=GRID, whole=whole, wraps=False)


def model(*, whole: bool = False, **given: Any) -> SeriesModel:
    config = settings(**({"filters": [4], "hidden": [3]} | given))
    return with_weights(lambda: SeriesModel(config, sizes(whole=whole), rngs=nnx.Rngs(0)))


def frames_with_mask() -> np.ndarray:
    frames = random(2, 6, *GRID, 3, seed=3)
    frames[..., -1] = np.array([[1, 0, 1, 1], [0, 1, 1, 1]])
    return frames


apply = jax.jit(lambda net, frames, present=None, key=None: net(window(frames, present, key)))


@pytest.mark.parametrize("whole", [False, True])
def test_an_untrained_model_says_exactly_zero(whole):
    config = settings(filters=[4], hidden=[3], dense=[5])
    found = jax.jit(
        lambda frames: SeriesModel(config, sizes(whole=whole), rngs=nnx.Rngs(0))(window(frames))
    )(frames_with_mask())
    assert found.shape == ((2, 2, 1, 1, 2) if whole else (2, 2, *GRID, 2))
    assert not np.asarray(found).any()


def test_every_cell_is_forecast_from_its_own_series_with_the_same_weights():
    net, frames = model(sequence=True), frames_with_mask()
    present = np.array([[0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]], bool)
    found = np.asarray(apply(net, frames, present))
    one = jax.jit(net.network.__call__)
    for lat in range(2):
        for lon in range(4):
            alone = one(jnp.asarray(frames[:, :, lat, lon]), jnp.asarray(present))
            expected = np.reshape(alone, (2, 2, 2))
            np.testing.assert_allclose(found[:, :, lat, lon], expected, atol=1e-6)


def test_one_answer_is_made_from_the_mean_over_the_mask():
    net, frames = model(whole=True), frames_with_mask()
    found = np.asarray(apply(net, frames))
    inside = frames[0, 0, :, :, -1] > 0
    series = np.moveaxis(frames[:, :, inside], 2, 1).reshape(-1, 6, 3)
    vectors = net.network.vector(jnp.asarray(series)).reshape(2, inside.sum(), -1)
    expected = net.network.answer(vectors.mean(axis=1))
    np.testing.assert_allclose(found[:, :, 0, 0], np.reshape(expected, (2, 2, 2)), atol=1e-6)


def test_dropout_acts_in_training_only():
    net, frames = model(dropout=0.5, recurrent_dropout=0.2), frames_with_mask()
    plain = apply(model(), frames)
    np.testing.assert_array_equal(apply(net, frames), plain)
    one, again, other = (apply(net, frames, None, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != plain).any()
