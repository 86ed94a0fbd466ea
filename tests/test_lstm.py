"""LSTM layers against plain loops in float64; gaps that change nothing; variational dropout."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.config.models import SeriesConfig
from gridcast.models.lstm import Lstm, LstmStack


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def in_a_loop(
    lstm: Lstm,
    x: np.ndarray,
    present: np.ndarray | None = None,
    kept: np.ndarray | float = 1.0,
    *,
    backward: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(states [time hidden], last) of one sequence [time feature], in float64."""
    parts = (lstm.from_input.kernel, lstm.from_input.bias, lstm.from_state.kernel)
    to_gates, bias, recurrent = (np.asarray(p[...], np.float64) for p in parts)
    h = c = np.zeros(recurrent.shape[0])
    states = np.zeros((len(x), h.size))
    times = range(len(x))
    for t in reversed(times) if backward else times:
        if present is not None and not present[t]:
            continue
        i, f, g, o = np.split(x[t] @ to_gates + bias + (h * kept) @ recurrent, 4)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(g)
        states[t] = h = sigmoid(o) * np.tanh(c)
    return states, h


def with_weights(build: Callable[[], nnx.Module]) -> Any:
    """The module with random weights, those that would be zero at the start as well."""
    graph, weights, moments = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    seeds = count()

    def weight(p: Any) -> Any:
        scale = 0.5 if p.ndim == 1 else (p.size / p.shape[-1]) ** -0.5
        return jnp.asarray(scale * random(*p.shape, seed=next(seeds)))

    weights = jax.tree.map(weight, weights)
    moments = jax.tree.map(lambda p: 0.5 + jnp.abs(weight(p)), moments)
    return nnx.merge(graph, weights, moments)


def stack(features: int = 3, **settings: Any) -> LstmStack:
    config = SeriesConfig(name="series", **({"hidden": [4, 2]} | settings))
    return with_weights(lambda: LstmStack(features, config, rngs=nnx.Rngs(0)))


X = random(3, 5, 3, seed=1)
# The first sample has a gap, the second begins late, the third is whole.
PRESENT = np.array([[1, 0, 1, 0, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


@jax.jit
def run(layers: LstmStack, x: Any, present: Any = None, key: Any = None) -> Any:
    return layers(x, present, key)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_equals_a_plain_loop_in_float64(bidirectional, gaps):
    layers = stack(bidirectional=bidirectional)
    found = run(layers, X, PRESENT if gaps else None)
    for sample in range(3):
        x, present = X[sample].astype(np.float64), PRESENT[sample] if gaps else None
        for layer in layers.layers:
            read = [
                in_a_loop(m, x, present, backward=b)
                for m, b in zip(layer, (False, True), strict=False)
            ]
            x, last = (np.concatenate(parts, axis=-1) for parts in zip(*read, strict=True))
        np.testing.assert_allclose(found[0][sample], x, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found[1][sample], last, rtol=0, atol=1e-6)


def test_the_backward_layer_ends_at_the_first_frame():
    layers = stack(hidden=[4], bidirectional=True)
    states, last = run(layers, X)
    np.testing.assert_array_equal(last[:, :4], states[:, -1, :4])
    np.testing.assert_array_equal(last[:, 4:], states[:, 0, 4:])
    assert np.abs(states[:, 0, 4:] - states[:, -1, 4:]).max() > 0.01


@pytest.mark.parametrize(("features", "hidden", "count"), [(64, 70, 37_800), (10, 70, 22_680)])
def test_a_layer_has_one_bias_for_each_gate(features, hidden, count):
    lstm = nnx.eval_shape(lambda: Lstm(features, hidden, rngs=nnx.Rngs(0)))
    assert sum(p.size for p in jax.tree.leaves(nnx.state(lstm, nnx.Param))) == count


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_vector_is_the_last_states_or_all_of_them(sequence, bidirectional):
    layers = stack(bidirectional=bidirectional, sequence=sequence)
    (states, last), vector = jax.jit(lambda m, *to: (m(*to), m.vector(*to)))(layers, X, PRESENT)
    assert vector.shape == (3, layers.vector_width(5))
    assert layers.width == (4 if bidirectional else 2)
    np.testing.assert_array_equal(vector, np.reshape(states, (3, -1)) if sequence else last)


@jax.jit
def gradients(layers: LstmStack, x: Any, present: Any) -> Any:
    """(last states, their gradients to the weights, and to the inputs)"""
    graph, params = nnx.split(layers, nnx.Param)

    def total(params: Any, x: Any) -> Any:
        states, last = nnx.merge(graph, params)(x, present)
        return (states**2).sum() + jnp.sin(last).sum(), last

    (_, last), by = jax.value_and_grad(total, (0, 1), has_aux=True)(params, x)
    return last, *by


def assert_close(a: Any, b: Any) -> None:
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        # Sums in another order: a few units in the last place of the large ones.
        np.testing.assert_allclose(ours, theirs, rtol=4e-7, atol=2e-6)


@pytest.mark.parametrize("junk", [0.0, pytest.param(1e4, marks=pytest.mark.family), np.nan])
def test_frames_that_lack_change_nothing_wherever_they_are(junk):
    layers = stack(bidirectional=True)
    present = np.array([0, 0, 1, 0, 1, 1, 0, 1], bool)
    x = np.full((2, 8, 3), junk, np.float32)
    short = x[:, present] = random(2, 4, 3, seed=2)
    last, by_weights, by_inputs = gradients(layers, x, np.stack([present, present]))
    by_inputs = np.asarray(by_inputs)
    assert_close((last, by_weights, by_inputs[:, present]), gradients(layers, short, None))
    assert not by_inputs[:, ~present].any()


def test_recurrent_dropout_is_one_draw_for_all_times():
    layers = stack(hidden=[3], recurrent_dropout=0.4)
    (lstm,) = layers.layers[0]
    found, _ = run(layers, X, None, jax.random.key(3))
    masks = [np.array(m) / 0.6 for m in product((0.0, 1.0), repeat=3)]
    drawn = []
    for sample in range(3):
        loops = [in_a_loop(lstm, X[sample].astype(np.float64), kept=mask)[0] for mask in masks]
        errors = [np.abs(found[sample] - states).max() for states in loops]
        drawn.append(int(np.argmin(errors)))
        assert sorted(errors)[0] < 1e-6 < 1e-3 < sorted(errors)[1]
    assert len(set(drawn)) > 1
    assert not np.array_equal(found, run(layers, X, None, jax.random.key(4))[0])
    np.testing.assert_array_equal(run(layers, X, PRESENT)[0], run(stack(hidden=[3]), X, PRESENT)[0])


def test_dropout_zeroes_and_scales_what_each_layer_gives():
    wide = {"hidden": [40]}
    plain, last = run(stack(**wide), X)
    states, dropped = run(stack(dropout=0.25, **wide), X, None, jax.random.key(0))
    for found, whole in ((states, plain), (dropped, last)):
        np.testing.assert_allclose(found, np.where(found != 0, whole / 0.75, 0.0), atol=1e-6)
    assert np.mean(np.asarray(states) == 0) == pytest.approx(0.25, abs=0.06)
    assert (np.asarray(dropped) == 0).any()
    # The second layer is given what the first layer's dropout has left.
    above, _ = run(stack(dropout=0.25), X, None, jax.random.key(0))
    whole, _ = run(stack(), X)
    assert np.abs(above - np.where(above != 0, whole / 0.75, 0.0)).max() > 1e-3
