"""Every frame of a batch through one encoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gridcast.accelerator import shards, space_is_shared
from gridcast.models.batch_norm import FRAMES, Moments
from gridcast.models.context import Additions, additions
from gridcast.models.encoder import Encoder
from gridcast.models.window import Context

# Of the frames that are encoded at once on a CPU.
CELLS_AT_A_TIME = 200_000


def encode_frames(
    encoder: Encoder,
    frames: Float[Array, "batch time lat lon channel"],
    present: Bool[Array, "batch time"] | None = None,
    *,
    context: Context | None = None,
    training: bool = False,
    remat: bool = False,
) -> tuple[Float[Array, "batch time vector"], list[Array]]:
    """The vector of each frame, and of each window's last one the features of each block.

    In training batch norms take their moments over the frames that are present, and move their
    running ones.

    Args:
      context: as of `Window`.
    """
    if not training:
        return _for_forecasts(encoder, frames, context)
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
    added: Additions | None = None,
    *,
    remat: bool = False,
) -> tuple[Array, list[Array], list[Moments]]:
    """One encoder, with shared weights, of each frame by vmap.

    Batch and time are one mapped axis: mapping over time alone would make a sharded batch gather
    all frames on each device.
    """
    batch, time = frames.shape[:2]

    def encode(frame: Array, count: Array | None, rows: Array | None) -> tuple[Any, ...]:
        more = None if added is None else added._replace(rows=rows)
        return encoder(frame, count, more, remat=remat)

    def one_axis(x: Array) -> Array:
        return x.reshape(batch * time, *x.shape[2:])

    rows = None if added is None else one_axis(added.rows)
    mapped = jax.vmap(encode, axis_name=FRAMES, out_axes=(0, 0, None))
    vectors, features, moments = mapped(one_axis(frames), counts, rows)
    last = [f.reshape(batch, time, *f.shape[1:])[:, -1] for f in features]
    return vectors.reshape(batch, time, -1), last, moments


def _for_forecasts(
    encoder: Encoder,
    frames: Float[Array, "batch time lat lon channel"],
    context: Context | None,
) -> tuple[Array, list[Array]]:
    """On a CPU in parts that stay in its caches, what does not change from frame to frame once."""

    def whole(frames: Array, context: Context | None) -> tuple[Array, list[Array]]:
        return _encoded(encoder, frames)[:2]

    def in_parts(frames: Array, context: Context | None) -> tuple[Array, list[Array]]:
        first, added = encoder.stages[0], None
        # A forecast in one part has the bits of an exported program for any batch.
        if context is not None and first.pooling != "stride" and _size(frames) != frames.shape[0]:
            added = additions(context, first.conv)
        if context is None or added is None:
            return _by_parts(lambda frames: whole(frames, None), frames)
        still, fields = added.still, frames.shape[-1] - context.channels

        def part(frames: Array, rows: Array) -> tuple[Array, list[Array]]:
            return _encoded(encoder, frames, added=Additions(rows, still))[:2]

        return _by_parts(part, frames[..., :fields], added.rows)

    if shards("data") > 1 or space_is_shared():
        return whole(frames, context)
    return jax.lax.platform_dependent(frames, context, cpu=in_parts, default=whole)


def _by_parts(function: Callable[..., Any], frames: Array, *others: Array) -> Any:
    """`function` of some windows, then of others; what it gives, of all of them.

    Each part is read while the one before is computed: XLA would put the reading into the loops
    that use it, and a CPU's loops with a moving start are not vectorised.
    """
    batch, size = frames.shape[0], _size(frames)
    if size == batch:
        return function(frames, *others)
    count = batch // size
    parts = [x.reshape(count, size, *x.shape[1:]) for x in (frames, *others)]

    def step(part: list[Array], following: Array) -> tuple[list[Array], Any]:
        return [x[following] for x in parts], function(*part)

    following = jnp.minimum(jnp.arange(1, count + 1), count - 1)
    _, made = jax.lax.scan(step, [x[0] for x in parts], following)
    return jax.tree.map(lambda part: part.reshape(batch, *part.shape[2:]), made)


def _size(frames: Array) -> int:
    """How many windows are encoded at a time; of a program for any batch all of them."""
    batch, cells = frames.shape[0], math.prod(frames.shape[1:4])
    if not isinstance(batch, int):
        return batch
    sizes = [n for n in range(1, batch + 1) if batch % n == 0]
    return max((n for n in sizes if n * cells <= CELLS_AT_A_TIME), default=1)
