"""Sequence-to-sequence ConvLSTM: cells that read the inputs, and others that unroll the leads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.config.models import ConvSeq2SeqConfig
from gridcast.errors import ConfigError
from gridcast.models.conv_lstm import Carries, read_frames, stack_cells
from gridcast.models.layers import GridConv, depth_to_space, dropout, segment, space_to_depth
from gridcast.models.window import Sizes, Window


class ConvSeq2Seq(nnx.Module):
    """Encoder and decoder of ConvLSTM cells (Shi et al. 2015) with weights of their own.

    The decoder starts from the encoder's states. At each lead it is given the frame before, the
    last observed one and then its own forecasts, with what is known in advance; one head for all
    leads, which starts at zero, turns its state into the correction of the reference.

    Dropout leaves out the same features of the last cell at all leads.

    Raises:
      ConfigError: one answer for a whole window is asked for, where this network gives fields.
    """

    def __init__(self, config: ConvSeq2SeqConfig, sizes: Sizes, *, rngs: nnx.Rngs):
        if sizes.whole:
            raise ConfigError(
                "model.name is conv_seq2seq and target.mean_over asks for one value\n"
                "  expected: a forecast of fields, which conv_seq2seq feeds back lead by lead\n"
                "  fix: model.name: conv_lstm or cnn_lstm, or no target.mean_over"
            )
        self.outputs, self.wraps, self.remat = sizes.outputs, sizes.wraps, sizes.remat
        self.downsample, self.rate = config.downsample, config.dropout
        self.scheduled = config.sampling == "scheduled"
        block = config.downsample**2
        read, decoded = (block * n for n in (sizes.channels, sizes.outputs + sizes.ahead))
        self.encoder = nnx.List(stack_cells(read, config, wraps=sizes.wraps, rngs=rngs))
        self.decoder = nnx.List(stack_cells(decoded, config, wraps=sizes.wraps, rngs=rngs))
        self.head = GridConv(
            config.hidden[-1],
            sizes.outputs * block,
            config.kernel,
            wraps=sizes.wraps,
            rngs=rngs,
            zero=True,
        )

    def __call__(self, window: Window) -> Float[Array, "batch lead lat lon output"]:
        """The correction at each lead.

        Scheduled sampling (Bengio et al. 2015): in training each sample, at each lead, is shown
        the truth of the lead before with probability `truth_rate`, in the cells where it is known.
        The first `outputs` channels of the frames must be what is forecast.
        """
        _, _, lat, lon, _ = window.frames.shape
        frames = space_to_depth(window.frames, self.downsample, wraps=self.wraps)
        mask = window.frames[:, -1, :, :, -1:]
        drop, coins = (None, None) if window.key is None else jax.random.split(window.key)
        truth = shown = None
        if self.scheduled and window.truth is not None and coins is not None:
            truth = window.truth
            shown = jax.random.bernoulli(coins, window.truth_rate, truth.shape[:2])

        def step(
            state: tuple[Carries, Array], lead: tuple[Array, Array, Array | None, Array | None]
        ) -> tuple[tuple[Carries, Array], Array]:
            (carries, before), (ahead, reference, truth, shown) = state, lead
            x = jnp.concatenate([before.astype(ahead.dtype), ahead], axis=-1)
            x = space_to_depth(x, self.downsample, wraps=self.wraps)
            after = []
            for cell, carry in zip(self.decoder, carries, strict=True):
                after.append(cell(carry, x))
                x = after[-1][0]
            x = self.head(dropout(x, self.rate, drop))
            correction = depth_to_space(x, self.downsample, (lat, lon))
            frame = reference + correction
            if truth is not None and shown is not None:
                known = shown[:, None, None, None] & ~jnp.isnan(truth)
                frame = jnp.where(known, truth, frame)
            return (after, jnp.where(mask > 0, frame, 0.0)), correction

        start = read_frames(self.encoder, frames, window.present, remat=self.remat)
        last = window.frames[:, -1, :, :, : self.outputs].astype(window.reference.dtype)
        leads = jax.tree.map(
            lambda x: jnp.moveaxis(x, 1, 0), (window.ahead, window.reference, truth, shown)
        )
        step = segment(step, self.remat)
        return jnp.moveaxis(jax.lax.scan(step, (start, last), leads)[1], 0, 1)
