"""What does not change from frame to frame is convolved once: the numbers stay the same."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal
from test_lstm import random, with_weights
from test_models import Case, inputs_of, untrained

from gridcast.config.models import CnnLstmConfig
from gridcast.models import encoding
from gridcast.models.context import additions, convolve_fields
from gridcast.models.encoder import Encoder
from gridcast.models.encoding import encode_frames
from gridcast.models.layers import GridConv
from gridcast.models.window import Context, Window

BATCH, TIME, GRID, FIELDS, LAYERS, OUT = 2, 3, (5, 7), 2, 2, 4


def frames_and_context(known: int = 3) -> tuple[jax.Array, Context]:
    fields, layers = random(BATCH, TIME, *GRID, FIELDS), random(*GRID, LAYERS, seed=1)
    covariates = random(BATCH, TIME, GRID[0], known, seed=2)
    shape = (BATCH, TIME, *GRID)
    channels = [
        fields,
        np.broadcast_to(covariates[:, :, :, None], (*shape, known)),
        np.broadcast_to(layers, (*shape, LAYERS)),
    ]
    whole = jnp.asarray(np.concatenate(channels, axis=-1))
    return whole, Context(jnp.asarray(covariates), jnp.asarray(layers))


def by_scipy(frame: np.ndarray, kernel: np.ndarray, bias: np.ndarray, wraps: bool) -> np.ndarray:
    """One frame in double precision, from its definition."""
    (south, north), (west, east) = (((k - 1) // 2, k // 2) for k in kernel.shape[:2])
    wide = np.pad(frame, ((0, 0), (west, east), (0, 0)), "wrap" if wraps else "constant")
    wide = np.pad(wide, ((south, north), (0, 0), (0, 0))).astype(np.float64)
    return bias + np.stack(
        [
            sum(
                signal.correlate2d(wide[..., c], kernel[..., c, out], "valid")
                for c in range(frame.shape[-1])
            )
            for out in range(kernel.shape[-1])
        ],
        axis=-1,
    )


@pytest.mark.parametrize(
    ("size", "wraps", "known"), [(3, False, 3), (3, True, 3), (2, False, 1), (5, False, 0)]
)
def test_a_convolution_of_the_fields_and_what_the_rest_adds_is_that_of_all_channels(
    size, wraps, known
):
    frames, context = frames_and_context(known)
    channels = frames.shape[-1]
    conv = with_weights(lambda: GridConv(channels, OUT, size, wraps=wraps, rngs=nnx.Rngs(0)))

    @jax.jit
    def found(frames: Any, context: Context) -> Any:
        added = additions(context, conv)
        one = jax.vmap(lambda x, rows: convolve_fields(x, added._replace(rows=rows), conv))
        return jax.vmap(one)(frames[..., :FIELDS], added.rows)

    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    for batch, time in [(0, 0), (1, TIME - 1)]:
        expected = by_scipy(np.asarray(frames[batch, time]), kernel, bias, wraps)
        np.testing.assert_allclose(found(frames, context)[batch, time], expected, atol=1e-5)


def test_a_kernel_wider_than_the_grid_is_applied_to_whole_frames():
    _, context = frames_and_context()
    conv = with_weights(lambda: GridConv(FIELDS + 5, OUT, 9, wraps=False, rngs=nnx.Rngs(0)))
    assert additions(context, conv) is None


@pytest.mark.parametrize(
    ("wraps", "given"),
    [
        (False, {"pooling": "max", "norm": "layer", "kernel": 3}),
        (True, {"pooling": "mean", "norm": "batch", "kernel": 2}),
        (False, {"pooling": "stride", "norm": "none", "kernel": 3}),
        (False, {"pooling": "max", "norm": "none", "kernel": 7}),
    ],
)
def test_an_encoder_that_is_told_the_context_gives_the_same_numbers(wraps, given, monkeypatch):
    monkeypatch.setattr(encoding, "CELLS_AT_A_TIME", 1)  # one window at a time
    frames, context = frames_and_context()
    config = CnnLstmConfig(name="cnn_lstm", channels=[OUT, 5], latent=6, hidden=[3], **given)
    net = with_weights(
        lambda: Encoder(frames.shape[-1], GRID, config, wraps=wraps, rngs=nnx.Rngs(0))
    )
    encode = jax.jit(lambda frames, context: encode_frames(net, frames, context=context))
    expected = encode(frames, None)
    for found, whole in zip(
        jax.tree.leaves(encode(frames, context)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, whole, atol=2e-5)
    # On a CPU it is the context that is read, where it can be: the control.
    other = frames.at[..., FIELDS:].set(0.0)
    same = np.abs(encode(other, context)[0] - expected[0]).max() < 2e-5
    assert same == (given["pooling"] != "stride")


class Seen(nnx.Module):
    """A network that says nothing and keeps what it was shown."""

    def __init__(self) -> None:
        self.windows: list[Window] = nnx.data([])

    def __call__(self, window: Window) -> jax.Array:
        self.windows.append(window)
        return jnp.zeros(window.reference.shape)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_model_tells_its_network_what_the_last_channels_of_its_frames_are(gaps):
    case = Case("cnn_lstm", gaps=gaps)
    model = nnx.clone(untrained(case))
    model.network = Seen()
    model(inputs_of(case))
    (window,) = model.network.windows
    known, layers = window.context
    shape = (*known.shape[:3], window.frames.shape[3])
    expected = [
        np.broadcast_to(known[:, :, :, None], (*shape, known.shape[-1])),
        np.broadcast_to(layers, (*shape, layers.shape[-1])),
    ]
    last = window.frames[..., -window.context.channels :]
    np.testing.assert_array_equal(last, np.concatenate(expected, axis=-1))
