"""ConvLSTM (Shi et al. 2015): an LSTM whose gates are convolutions over the grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.config.models import ConvLstmConfig, ConvSeq2SeqConfig
from gridcast.models.conv_scan import recurrent_convolution
from gridcast.models.layers import Dense, GridConv, depth_to_space, dropout, segment, space_to_depth
from gridcast.models.norms import Norm
from gridcast.models.window import Sizes, Window

Carry = tuple[Float[Array, "batch lat lon hidden"], Float[Array, "batch lat lon hidden"]]
# Of several cells; each may have its own width.
Carries = list[tuple[Float[Array, "batch lat lon _"], Float[Array, "batch lat lon _"]]]


class ConvLstmCell(nnx.Module):
    """One time step. All four gates come out of a single convolution, normalised where asked."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        kernel: int,
        norm: Literal["group", "layer", "none"],
        *,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.gates = GridConv(channels + hidden, 4 * hidden, kernel, wraps=wraps, rngs=rngs)
        self.norm = Norm(norm, 4 * hidden, rngs=rngs)

    def __call__(self, carry: Carry, frame: Float[Array, "batch lat lon channel"]) -> Carry:
        gates = self.gates(jnp.concatenate([frame, carry[0]], axis=-1))
        return _update(self.norm, gates, carry, None)

    def run(
        self,
        frames: Float[Array, "time batch lat lon channel"],
        present: Bool[Array, "time batch"] | None,
    ) -> tuple[Carry, Float[Array, "time batch lat lon hidden"]]:
        """The state after the last frame, and h after each, from a state of zeros.

        A frame that is not present leaves the state as it was.
        """
        graph, norm = nnx.split(self.norm)

        def update(norm: Any, gates: Array, carry: Carry, there: Array | None) -> Carry:
            return _update(nnx.merge(graph, norm), gates, carry, there)

        kernel, bias = self.gates.weights(frames.dtype)
        return recurrent_convolution(update, self.gates.wraps, kernel, bias, norm, frames, present)


def _update(norm: Norm, gates: Array, carry: Carry, there: Array | None) -> Carry:
    """The state after a frame; the one before where the frame is not there. c is float32."""
    h, c = carry
    gates = norm(gates.astype(jnp.float32))
    # sigmoid(x) = (1 + tanh(x / 2)) / 2: one tanh for all four gates. +1: start by keeping.
    hidden = c.shape[-1]
    kind = jnp.arange(4 * hidden) // hidden
    half = jnp.where(kind == 2, 1.0, 0.5)
    squashed = jnp.tanh(gates * half + jnp.where(kind == 1, 0.5, 0.0))
    # Without the barrier XLA computes them anew for each use, four times over in the gradient.
    i, f, g, o = jnp.split(jax.lax.optimization_barrier(squashed), 4, axis=-1)
    later_c = 0.5 * ((1.0 + f) * c + (1.0 + i) * g)
    later_h = (0.5 * (1.0 + o) * jnp.tanh(later_c)).astype(h.dtype)
    if there is None:
        return later_h, later_c
    there = there[:, None, None, None]
    return jnp.where(there, later_h, h), jnp.where(there, later_c, c)


def stack_cells(
    channels: int, config: ConvLstmConfig | ConvSeq2SeqConfig, *, wraps: bool, rngs: nnx.Rngs
) -> list[ConvLstmCell]:
    """Cells of the configured widths, each reading the one before; the first reads `channels`."""
    widths = [channels, *config.hidden]
    return [
        ConvLstmCell(n, m, config.kernel, config.norm, wraps=wraps, rngs=rngs)
        for n, m in zip(widths, config.hidden, strict=False)
    ]


def read_frames(
    cells: Iterable[ConvLstmCell],
    frames: Float[Array, "batch time lat lon channel"],
    present: Bool[Array, "batch time"] | None,
    *,
    remat: bool,
) -> Carries:
    """The state (h, c) of each cell after the last frame."""
    sequence = jnp.moveaxis(frames, 1, 0)
    by_time = None if present is None else present.T
    states = []
    for cell in cells:
        state, sequence = segment(cell.run, remat)(sequence, by_time)
        states.append(state)
    return states


class ConvLstm(nnx.Module):
    """Stacked cells on a grid coarsened by `downsample`, and a head for all leads at once.

    The head is a convolution; for a whole window it is a dense layer on the mean of the last
    hidden state over the cells of the mask. It starts at zero, so an untrained network says
    nothing.
    """

    def __init__(self, config: ConvLstmConfig, sizes: Sizes, *, rngs: nnx.Rngs):
        self.leads, self.whole, self.wraps = sizes.leads, sizes.whole, sizes.wraps
        self.remat = sizes.remat
        self.downsample, self.rate = config.downsample, config.dropout
        block = config.downsample**2
        cells = stack_cells(sizes.channels * block, config, wraps=sizes.wraps, rngs=rngs)
        self.cells = nnx.List(cells)
        last, out = config.hidden[-1], sizes.leads * sizes.outputs
        if sizes.whole:
            zeros = nnx.initializers.zeros
            self.head = Dense(last, out, kernel_init=zeros, rngs=rngs)
        else:
            self.head = GridConv(
                last, out * block, config.kernel, wraps=sizes.wraps, rngs=rngs, zero=True
            )

    def __call__(self, window: Window) -> Float[Array, "batch lead out_lat out_lon output"]:
        batch, _, lat, lon, _ = window.frames.shape
        frames = space_to_depth(window.frames, self.downsample, wraps=self.wraps)
        h, _ = read_frames(self.cells, frames, window.present, remat=self.remat)[-1]
        h = dropout(h, self.rate, window.key)
        if self.whole:
            cells = self._mask_cells(window)
            # A patch of the grid may lie off the mask altogether.
            mean = (h * cells).sum((1, 2)) / jnp.maximum(cells.sum((1, 2)), 1.0)
            return self.head(mean).reshape(batch, self.leads, 1, 1, -1)
        x = depth_to_space(self.head(h), self.downsample, (lat, lon))
        return jnp.moveaxis(x.reshape(batch, lat, lon, self.leads, -1), 3, 1)

    def _mask_cells(self, window: Window) -> Float[Array, "batch lat_coarse lon_coarse 1"]:
        """How many cells of the mask lie in each coarse one; none in what pads the grid."""
        mask = window.frames[:, -1, :, :, -1:]
        return space_to_depth(mask, self.downsample, wraps=False).sum(axis=-1, keepdims=True)
