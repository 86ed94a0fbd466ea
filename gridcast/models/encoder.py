"""A CNN that turns one frame into features at several scales, and the decoder back to the grid."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.accelerator import space_is_shared
from gridcast.config.models import CnnLstmConfig
from gridcast.models.batch_norm import FRAMES, BatchNorm, Moments
from gridcast.models.layers import Dense, GridConv, segment, space_to_depth
from gridcast.models.norms import Norm
from gridcast.models.pooling import Pooling, pool
from gridcast.models.window import Frozen


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
    """Apply one encoder, with shared weights, to each frame by vmap.

    Batch and time are one mapped axis: mapping over time alone would make a sharded batch gather
    all frames on each device. In training batch norms take their moments over the frames that are
    present, and move their running ones.
    """
    batch, time = frames.shape[:2]
    counts = None
    if training and not encoder.frozen:
        counts = jnp.ones(batch * time) if present is None else present.reshape(-1) * 1.0
    encode = functools.partial(encoder, remat=remat)
    mapped = jax.vmap(encode, axis_name=FRAMES, out_axes=(0, 0, None))
    vectors, features, moments = mapped(frames.reshape(batch * time, *frames.shape[2:]), counts)
    if moments:
        for stage, found in zip(encoder.stages, moments, strict=True):
            stage.norm.update(found)
    return (
        vectors.reshape(batch, time, -1),
        [f.reshape(batch, time, *f.shape[1:]) for f in features],
    )


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: its weights and running moments become `Frozen`."""
    for _, module in nnx.iter_modules(encoder):
        for name, value in list(vars(module).items()):
            if isinstance(value, nnx.Param | nnx.BatchStat):
                setattr(module, name, Frozen(value[...]))
    encoder.frozen = True


class Decoder(nnx.Module):
    """A vector back to the grid.

    Args:
      width: length of the vector.
      channels: of the frame, where each scale also sees the last frame at that scale; None: the
        vector is all there is.
      out: channels given; untrained, they are 0.
    """

    def __init__(
        self,
        width: int,
        channels: int | None,
        out: int,
        grid: tuple[int, int],
        config: CnnLstmConfig,
        *,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.shapes = scales(grid, len(config.channels))
        (lat, lon), kernel = self.shapes[-1], config.kernel
        self.start = Dense(width, lat * lon * config.channels[-1], rngs=rngs)
        # From coarse to fine: what comes up, with what the encoder saw there, and what goes on up.
        ups = [*config.channels[::-1], channels or config.channels[0]]
        ins = [n if channels is None else 2 * n for n in ups]
        self.stages = nnx.List(
            GridConv(ins[i], ups[i + 1], kernel, wraps=wraps, rngs=rngs)
            for i in range(len(config.channels))
        )
        self.head = GridConv(ins[-1], out, kernel, wraps=wraps, rngs=rngs, zero=True)

    def __call__(
        self, vector: Float[Array, "batch vector"], seen: list[Array] | None = None
    ) -> Float[Array, "batch lat lon out"]:
        """The fields. `seen`: the last frame and its features, from fine to coarse."""
        if space_is_shared():
            x = nnx.relu(self.start.to_field(vector, self.shapes[-1]))
        else:
            x = nnx.relu(self.start(vector)).reshape(len(vector), *self.shapes[-1], -1)

        def beside_seen(x: Array, scale: int) -> Array:
            return x if seen is None else jnp.concatenate([x, seen[-1 - scale]], axis=-1)

        for i, stage in enumerate(self.stages):
            x = nnx.relu(stage(beside_seen(x, i)))
            lat, lon = self.shapes[-2 - i]
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :lat, :lon]
        return self.head(beside_seen(x, len(self.stages)))
