"""The recurrent convolution and its own backward pass equal plain steps, differentiated by JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.models.conv_lstm import ConvLstmCell

TIME, BATCH, GRID, CHANNELS, HIDDEN = 5, 3, (6, 7), 2, 4


def plain_step(p: dict[str, Any], norm: str, wraps: bool, state: Any, frame: Any) -> tuple:
    """The cell as Shi et al. (2015) write it, without peepholes."""
    h, c = state
    x = jnp.concatenate([frame, h], axis=-1)
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="wrap" if wraps else "constant")
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    gates = p["bias"] + jax.lax.conv_general_dilated(
        x, p["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    if norm == "layer":
        mean = gates.mean(-1, keepdims=True)
        deviation = jnp.sqrt(((gates - mean) ** 2).mean(-1, keepdims=True) + 1e-6)
        gates = (gates - mean) / deviation * p["scale"] + p["shift"]
    i, f, g, o = (gates[..., k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
    sigmoid = jax.nn.sigmoid
    c = sigmoid(f + 1) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def plain_layer(p: dict[str, Any], norm: str, wraps: bool, frames: Any, present: Any) -> Any:
    state, every = (jnp.zeros((BATCH, *GRID, HIDDEN), frames.dtype),) * 2, []
    for t in range(len(frames)):
        after = plain_step(p, norm, wraps, state, frames[t])
        there = np.ones(BATCH, bool) if present is None else np.asarray(present[t])
        state = tuple(
            jnp.where(there[:, None, None, None], new, old)
            for new, old in zip(after, state, strict=True)
        )
        every.append(state[0])
    return state, jnp.stack(every)


@pytest.mark.parametrize(
    ("norm", "wraps", "gaps"),
    [pytest.param("none", False, False, marks=pytest.mark.family), ("layer", True, True)],
)
def test_values_and_gradients_equal_plain_steps_in_float64(norm, wraps, gaps):
    rng = np.random.default_rng(0)
    cell = ConvLstmCell(CHANNELS, HIDDEN, 3, norm, wraps=wraps, rngs=nnx.Rngs(0))
    cell.gates.bias[...] = jnp.asarray(rng.normal(size=4 * HIDDEN), jnp.float32)
    if norm == "layer":
        cell.norm.scale[...] = jnp.asarray(rng.normal(size=4 * HIDDEN), jnp.float32)
    frames = jnp.asarray(rng.normal(size=(TIME, BATCH, *GRID, CHANNELS)), jnp.float32)
    # The first frame of one sample, one in the middle of another.
    present = jnp.ones((TIME, BATCH), bool).at[0, 0].set(False).at[2, 1].set(False)
    present = present if gaps else None
    graph, params = nnx.split(cell)
    value, back = jax.vjp(lambda p, x: nnx.merge(graph, p).run(x, present), params, frames)
    gradient = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), value)
    to_params, to_frames = back(gradient)
    names = {"kernel": cell.gates.kernel, "bias": cell.gates.bias}
    found = {"kernel": to_params.gates.kernel, "bias": to_params.gates.bias}
    if norm == "layer":
        names |= {"scale": cell.norm.scale, "shift": cell.norm.bias}
        found |= {"scale": to_params.norm.scale, "shift": to_params.norm.bias}
    with jax.enable_x64(True):
        wide = {k: jnp.asarray(np.asarray(v[...]), jnp.float64) for k, v in names.items()}
        exact, exact_back = jax.vjp(
            lambda p, x: plain_layer(p, norm, wraps, x, present),
            wide,
            jnp.asarray(np.asarray(frames), jnp.float64),
        )
        for_params, for_frames = exact_back(
            jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), gradient)
        )
    # Without a gradient another function runs, which must give the same.
    alone = cell.run(frames, present)
    pairs = [*zip(jax.tree.leaves(value), jax.tree.leaves(exact), strict=True)]
    pairs += [*zip(jax.tree.leaves(alone), jax.tree.leaves(exact), strict=True)]
    pairs += [(to_frames, for_frames), *((found[k][...], for_params[k]) for k in names)]
    for one, other in pairs:
        one, other = np.asarray(one, np.float64), np.asarray(other)
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_a_decoder_steps_as_the_layer_runs():
    cell = ConvLstmCell(CHANNELS, HIDDEN, 3, "group", wraps=True, rngs=nnx.Rngs(0))
    frames = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, *GRID, CHANNELS)), jnp.float32)
    state = (jnp.zeros((1, *GRID, HIDDEN)),) * 2
    for frame in frames:
        state = cell(state, frame)
    np.testing.assert_allclose(state, cell.run(frames, None)[0], rtol=1e-4, atol=1e-6)
