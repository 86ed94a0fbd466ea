"""A CNN that turns one frame into features at several scales, and the decoder back to the grid."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.models.layers import GridConv, pad_grid, space_to_depth

Pooling = Literal["max", "mean", "stride"]


def stage_shapes(shape: tuple[int, int], stages: int) -> list[tuple[int, int]]:
    """Sizes (lat, lon) before the first stage and after each; odd sizes are rounded up."""
    shapes = [shape]
    for _ in range(stages):
        lat, lon = shapes[-1]
        shapes.append(((lat + 1) // 2, (lon + 1) // 2))
    return shapes


def pool(
    x: Float[Array, "lat lon channel"], kind: Pooling, *, wraps: bool
) -> Float[Array, "lat_half lon_half channel"]:
    """The maximum or mean of 2 x 2 cells; at an odd edge, of the cells that are there."""
    lat, lon, _ = x.shape
    edge = ((0, lat % 2), (0, lon % 2))

    def quarters(y: Array, outside: float) -> Array:
        if wraps:
            y = pad_grid(y, (0, 0), edge[1], wraps=True)
        missing = (y.shape[0] % 2, y.shape[1] % 2)
        y = jnp.pad(y, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=outside)
        return jnp.stack([y[i::2, j::2] for i in (0, 1) for j in (0, 1)])

    if kind == "max":
        return quarters(x, -jnp.inf).max(axis=0)
    return quarters(x, 0.0).sum(axis=0) / quarters(jnp.ones_like(x[..., :1]), 0.0).sum(axis=0)


class EncoderStage(nnx.Module):
    """Convolution, norm, activation, then half the resolution; of one frame."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        norm: Literal["group", "none"],
        pooling: Pooling,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.pooling: Pooling = pooling
        self.wraps = wraps
        wide = 4 * channels if pooling == "stride" else channels
        self.conv = GridConv(wide, out, kernel, wraps=wraps, rngs=rngs)
        self.norm = (
            nnx.GroupNorm(out, num_groups=_groups(out), rngs=rngs) if norm == "group" else None
        )

    def __call__(self, x: Float[Array, "lat lon channel"]) -> Float[Array, "lat_half lon_half out"]:
        if self.pooling == "stride":  # a convolution of 2 x 2 blocks in steps of one block
            x = space_to_depth(x, 2, wraps=self.wraps)
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x[None])[0]  # GroupNorm would take latitude for the batch
        x = nnx.relu(x)
        return x if self.pooling == "stride" else pool(x, self.pooling, wraps=self.wraps)


class Encoder(nnx.Module):
    """One frame to a vector, and the features of each stage on the way."""

    def __init__(
        self,
        channels: int,
        shape: tuple[int, int],
        *,
        widths: list[int],
        kernel: int,
        norm: Literal["group", "none"],
        pooling: Pooling,
        latent: int,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        ins = [channels, *widths]
        self.stages = nnx.List(
            EncoderStage(n, m, kernel, norm=norm, pooling=pooling, wraps=wraps, rngs=rngs)
            for n, m in zip(ins, widths, strict=False)
        )
        lat, lon = stage_shapes(shape, len(widths))[-1]
        self.dense = nnx.Linear(lat * lon * widths[-1], latent, rngs=rngs)

    def __call__(
        self, frame: Float[Array, "lat lon channel"]
    ) -> tuple[Float[Array, " latent"], list[Array]]:
        features = []
        for stage in self.stages:
            frame = stage(frame)
            features.append(frame)
        return self.dense(frame.reshape(-1)), features


class Decoder(nnx.Module):
    """A vector back to the grid; each scale also sees the last frame at that scale."""

    def __init__(
        self,
        latent: int,
        channels: int,
        out: int,
        shape: tuple[int, int],
        *,
        widths: list[int],
        kernel: int,
        wraps: bool,
        rngs: nnx.Rngs,
    ):
        self.shapes = stage_shapes(shape, len(widths))
        lat, lon = self.shapes[-1]
        self.start = nnx.Linear(latent, lat * lon * widths[-1], rngs=rngs)
        # From coarse to fine: what comes up, what the encoder saw there, what goes on up.
        ups = [*widths[::-1], channels]
        self.stages = nnx.List(
            GridConv(ups[i] + ups[i], ups[i + 1], kernel, wraps=wraps, rngs=rngs)
            for i in range(len(widths))
        )
        self.head = GridConv(2 * channels, out, kernel, wraps=wraps, rngs=rngs, zero=True)

    def __call__(
        self,
        vector: Float[Array, "batch latent"],
        frame: Float[Array, "batch lat lon channel"],
        features: list[Array],
    ) -> Float[Array, "batch lat lon out"]:
        x = nnx.relu(self.start(vector))
        lat, lon = self.shapes[-1]
        x = x.reshape(-1, lat, lon, x.shape[-1] // (lat * lon))
        for i, stage in enumerate(self.stages):
            x = nnx.relu(stage(jnp.concatenate([x, features[-1 - i]], axis=-1)))
            lat, lon = self.shapes[-2 - i]
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :lat, :lon]
        return self.head(jnp.concatenate([x, frame], axis=-1))


def _groups(channels: int) -> int:
    return next(n for n in (8, 4, 2, 1) if channels % n == 0)


def encode_frames(
    encoder: Encoder, frames: Float[Array, "batch time lat lon channel"]
) -> tuple[Float[Array, "batch time latent"], list[Array]]:
    """Apply one encoder, with shared weights, to each frame by vmap.

    Batch and time are one mapped axis: mapping over time alone would make a sharded batch gather
    all frames on each device.
    """
    batch, time = frames.shape[:2]
    vectors, features = jax.vmap(encoder)(frames.reshape(batch * time, *frames.shape[2:]))
    return (
        vectors.reshape(batch, time, -1),
        [f.reshape(batch, time, *f.shape[1:]) for f in features],
    )
