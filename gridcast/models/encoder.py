"""A CNN that turns one frame into a vector and features at several scales."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.accelerator import shards, space_is_shared
from gridcast.config.models import CnnLstmConfig
from gridcast.models.batch_norm import FRAMES, BatchNorm, Moments
from gridcast.models.layers import Dense, GridConv, segment, space_to_depth
from gridcast.models.norms import Norm
from gridcast.models.pooling import Pooling, pool
from gridcast.models.window import Frozen

# Of the frames that are encoded at once on a CPU.
CELLS_AT_A_TIME = 200_000


def scales(grid: tuple[int, int], blocks: int) -> list[tuple[int, int]]:
    """Sizes (lat, lon) before the first block and after each; odd sizes are rounded up."""
    shapes = [grid]
    for _ in range(blocks):
        lat, lon = shapes[-1]
        shapes.append(((lat + 1) // 2, (lon + 1) // 2))
    return shapes


class EncoderStage(nnx.Module):
    """Convolution, norm, activation, and in a block's last stage half the resolution."""

    def __init__(
        self,
        channels: int,
        out: int,
        config: CnnLstmConfig,
        *,
        halves: bool,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.pooling: Pooling | None = config.pooling if halves else None
        self.wraps = wraps
        wide = 4 * channels if self.pooling == "stride" else channels
        self.conv = GridConv(wide, out, config.kernel, wraps=wraps, rngs=rngs)
        self.norm = BatchNorm(out) if config.norm == "batch" else Norm(config.norm, out, rngs=rngs)

    def __call__(
        self, x: Float[Array, "lat lon channel"], present: Float[Array, ""] | None
    ) -> tuple[Float[Array, "lat_out lon_out out"], Moments | None]:
        if self.pooling == "stride":  # a convolution of 2 x 2 blocks in steps of one block
            x = space_to_depth(x, 2, wraps=self.wraps)
        x, moments = self.conv(x), None
        if isinstance(self.norm, BatchNorm):
            moments = None if present is None else self.norm.moments(x, present)
            x = self.norm(x, moments)
        else:
            x = self.norm(x)
        if self.pooling == "mean":
            return pool(nnx.relu(x), "mean", wraps=self.wraps), moments
        if self.pooling == "max":  # the same in either order, and of a quarter of the cells
            x = pool(x, "max", wraps=self.wraps)
        return nnx.relu(x), moments


class Encoder(nnx.Module):
    """One frame to a vector, through blocks of convolutions (Simonyan & Zisserman 2015).

    Attributes:
      width: length of the vector.
      frozen: its weights stay as they are, and its batch norms use their running moments.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        config: CnnLstmConfig,
        *,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.frozen = False
        self.stages = nnx.List()
        for out in config.channels:
            for i in range(config.convolutions):
                halves = i == config.convolutions - 1
                self.stages.append(
                    EncoderStage(channels, out, config, halves=halves, wraps=wraps, rngs=rngs)
                )
                channels = out
        lat, lon = scales(grid, len(config.channels))[-1]
        self.width = config.latent or lat * lon * channels
        self.dense = (
            Dense(lat * lon * channels, config.latent, rngs=rngs) if config.latent else None
        )

    def __call__(
        self,
        frame: Float[Array, "lat lon channel"],
        present: Float[Array, ""] | None = None,
        *,
        remat: bool = False,
    ) -> tuple[Float[Array, " vector"], list[Array], list[Moments]]:
        """The frame's vector, the features of each block, and in training the batch's moments.

        Where `latent` is null, the vector is the last block's features.

        Args:
          present: 1 or 0, whether the frame counts in the moments of batch norms, over the mapped
            frames; None: batch norms use their running moments.
          remat: whether stages compute what they need for their gradients again.
        """
        features, found = [], []
        for stage in self.stages:
            frame, moments = segment(stage, remat)(frame, present)
            if stage.pooling is not None:
                features.append(frame)
            if moments is not None:
                found.append(moments)
        vector = frame.reshape(-1) if self.dense is None else self.dense.of_field(frame)
        return vector, features, found


def encode_frames(
    encoder: Encoder,
    frames: Float[Array, "batch time lat lon channel"],
    present: Bool[Array, "batch time"] | None = None,
    *,
    training: bool = False,
    remat: bool = False,
) -> tuple[Float[Array, "batch time vector"], list[Array]]:
    """The vector of each frame, and of each window's last one the features of each block.

    In training batch norms take their moments over the frames that are present, and move their
    running ones.
    """
    if not training:
        return _of_some_windows_at_a_time(encoder, frames)
    counts = None
    if not encoder.frozen:
        batch, time = frames.shape[:2]
        counts = jnp.ones(batch * time) if present is None else present.reshape(-1) * 1.0
    vectors, features, moments = _encoded(encoder, frames, counts, remat=remat)
    if moments:
        for stage, found in zip(encoder.stages, moments, strict=True):
            stage.norm.update(found)
    return vectors, features


def _encoded(
    encoder: Encoder,
    frames: Float[Array, "batch time lat lon channel"],
    counts: Float[Array, " frame"] | None = None,
    *,
    remat: bool = False,
) -> tuple[Array, list[Array], list[Moments]]:
    """One encoder, with shared weights, of each frame by vmap.

    Batch and time are one mapped axis: mapping over time alone would make a sharded batch gather
    all frames on each device.
    """
    batch, time = frames.shape[:2]
    encode = functools.partial(encoder, remat=remat)
    mapped = jax.vmap(encode, axis_name=FRAMES, out_axes=(0, 0, None))
    vectors, features, moments = mapped(frames.reshape(batch * time, *frames.shape[2:]), counts)
    last = [f.reshape(batch, time, *f.shape[1:])[:, -1] for f in features]
    return vectors.reshape(batch, time, -1), last, moments


def _of_some_windows_at_a_time(
    encoder: Encoder, frames: Float[Array, "batch time lat lon channel"]
) -> tuple[Array, list[Array]]:
    """On a CPU in parts that stay in its caches; the numbers do not depend on that."""

    def whole(frames: Array) -> tuple[Array, list[Array]]:
        return _encoded(encoder, frames)[:2]

    batch, cells = frames.shape[0], math.prod(frames.shape[1:4])
    # Of a program for any batch there is no number to divide.
    sizes = [n for n in range(1, batch + 1) if batch % n == 0] if isinstance(batch, int) else []
    fitting = [n for n in sizes if n * cells <= CELLS_AT_A_TIME]
    size = max(fitting, default=1)
    if not sizes or size == batch or shards("data") > 1 or space_is_shared():
        return whole(frames)

    def in_parts(frames: Array) -> tuple[Array, list[Array]]:
        parts = frames.reshape(batch // size, size, *frames.shape[1:])
        made = jax.lax.map(whole, parts)
        return jax.tree.map(lambda part: part.reshape(batch, *part.shape[2:]), made)

    return jax.lax.platform_dependent(frames, cpu=in_parts, default=whole)


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: its weights and running moments become `Frozen`."""
    for _, module in nnx.iter_modules(encoder):
        for name, value in list(vars(module).items()):
            if isinstance(value, nnx.Param | nnx.BatchStat):
                setattr(module, name, Frozen(value[...]))
    encoder.frozen = True
