"""Windows of input frames and target frames, as integer positions in a series."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gridcast.timeaxis import TimeAxis


def positions_at(
    axis: TimeAxis, initial: Int[np.ndarray, " window"], offsets: Int[np.ndarray, " offset"]
) -> Int[np.ndarray, "window offset"]:
    """Position of the frame `offset` steps after each initial one; -1 where the series has none.

    Steps are counted on the calendar, so a frame beyond a gap is never taken for a neighbour.
    """
    position = np.full(axis.steps[-1] + 1, -1)
    position[axis.steps] = np.arange(axis.steps.size)
    asked = axis.steps[initial][:, None] + offsets
    exists = (asked >= 0) & (asked < position.size)
    return np.where(exists, position[np.clip(asked, 0, position.size - 1)], -1)


def whole_windows(
    axis: TimeAxis, inside: Bool[np.ndarray, " time"], inputs: int, leads: int
) -> Int[np.ndarray, " window"]:
    """Initial positions whose every input and target lies in one split, without a gap.

    The initial position is that of the last input frame. A window that would reach into another
    split belongs to neither, so `inputs + leads` steps lie between the targets of two splits
    wherever one of them is trained on.
    """
    initial = np.arange(axis.steps.size)
    frames = positions_at(axis, initial, np.arange(1 - inputs, leads + 1))
    return initial[((frames >= 0) & inside[frames]).all(axis=1)]


def hindcast_windows(
    axis: TimeAxis, inside: Bool[np.ndarray, " time"], inputs: int, leads: int
) -> Int[np.ndarray, " window"]:
    """Initial positions with at least one verification date in the split.

    Inputs may come from before the split: they are observations up to the initial date, as in
    operation. So every lead can be judged on the same verification dates.
    """
    initial = np.arange(axis.steps.size)
    history = positions_at(axis, initial, np.arange(1 - inputs, 1))
    targets = positions_at(axis, initial, np.arange(1, leads + 1))
    verified = ((targets >= 0) & inside[targets]).any(axis=1)
    return initial[verified & (history >= 0).all(axis=1)]


def shuffled(
    initial: Int[np.ndarray, " window"], batch_size: int, seed: int, epoch: int
) -> Int[np.ndarray, "step batch"]:
    """The batches of one epoch, a pure function of (seed, epoch): a resume needs nothing else.

    The last, incomplete batch is left out; other windows fall to it in the next epoch. A split
    smaller than one batch is one batch.
    """
    batch_size = min(batch_size, initial.size)
    order = np.random.default_rng([seed, epoch]).permutation(initial)
    steps = initial.size // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def gather_inputs(
    values: Float[Array, "series ..."], initial: Int[Array, " batch"], inputs: int
) -> Float[Array, "batch time ..."]:
    """The last `inputs` frames up to each initial position; runs on the device."""
    return values[initial[:, None] + jnp.arange(1 - inputs, 1)]


def gather_targets(
    values: Float[Array, "series ..."], initial: Int[Array, " batch"], leads: int
) -> Float[Array, "batch lead ..."]:
    """The `leads` frames after each initial position; runs on the device."""
    return values[initial[:, None] + jnp.arange(1, leads + 1)]
