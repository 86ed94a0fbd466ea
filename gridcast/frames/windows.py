"""Windows of input frames and target frames, as integer positions in a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.frames.places import Place, take
from gridcast.timeaxis import TimeAxis

# Of numpy on the host, of jax on the device.
ArrayLike = Any


class Trailing(NamedTuple):
    """Mean scaled anomalies of the years up to the initial date.

    Attributes:
      frames: of the variables; targets: of the targets.
    """

    frames: Float[ArrayLike, "batch lat lon variable"]
    targets: Float[ArrayLike, "batch out_lat out_lon target"]


class FrameSeries(NamedTuple):
    """Arrays of one series as a model takes them; batches are integer positions in it.

    Attributes:
      values: scaled anomalies, 0 off the mask; NaN where not observed.
      last: the targets as scaled anomalies, which the reference takes; None: the first variables.
      targets: what the loss compares with, classes for example; None: as `last`.
      known: known in advance; may go on after the last frame.
      month: calendar month of each date of `known`, 1 to 12.
      trailing: the mean of the years up to each date, of `values` and of `last`; None: forecasts
        start from the climatology.
    """

    values: Float[ArrayLike, "series lat lon variable"]
    last: Float[ArrayLike, "series out_lat out_lon target"] | None
    targets: Float[ArrayLike, "series out_lat out_lon target"] | None
    known: Float[ArrayLike, "dates lat known"]
    month: Int[ArrayLike, " dates"]
    trailing: Float[ArrayLike, "series lat lon variable"] | None = None
    last_trailing: Float[ArrayLike, "series out_lat out_lon target"] | None = None

    def answers(self, count: int) -> Float[ArrayLike, "series out_lat out_lon target"]:
        """The targets, `count` of them, as scaled anomalies."""
        return self.values[..., :count] if self.last is None else self.last

    def trailing_at(
        self, initial: Int[ArrayLike, " batch"], count: int, place: Place | None = None
    ) -> Trailing | None:
        """The mean of the years up to each initial date, where forecasts start from it.

        Args:
          count: of the targets.
          place: where in the grid each sample is taken from, on the device; None: the whole grid.
        """
        if self.trailing is None:
            return None
        means = self.trailing[initial]
        if place is not None:
            means = take(self.trailing, initial[:, None], place)[:, 0]
        ends = means[..., :count] if self.last_trailing is None else self.last_trailing[initial]
        return Trailing(means, ends)


@dataclass(frozen=True)
class Observed:
    """Which frames hold any observation, for records with gaps.

    Attributes:
      inputs: of the first variable; targets: of any target.
      least: fewest observed input frames of a window; the last one always has to be.
    """

    inputs: Bool[np.ndarray, " time"]
    targets: Bool[np.ndarray, " time"]
    least: int

    def enough(self, history: Int[np.ndarray, "window input"]) -> Bool[np.ndarray, " window"]:
        """Whether the inputs at these positions (-1: before the record) suffice."""
        seen = (history >= 0) & self.inputs[history]
        return seen[:, -1] & (seen.sum(axis=1) >= self.least)


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
    axis: TimeAxis,
    inside: Bool[np.ndarray, " time"],
    inputs: int,
    leads: int,
    observed: Observed | None = None,
) -> Int[np.ndarray, " window"]:
    """Initial positions whose every input and target lies in one split, without a gap.

    The initial position is that of the last input frame. A window that would reach into another
    split belongs to neither, so `inputs + leads` steps lie between the targets of two splits
    wherever one of them is trained on.

    Args:
      observed: where gaps are masked; then inputs and targets may lack, within its bounds.
    """
    initial = np.arange(axis.steps.size)
    frames = positions_at(axis, initial, np.arange(1 - inputs, leads + 1))
    usable = (frames >= 0) & inside[frames]
    if observed is None:
        return initial[usable.all(axis=1)]
    usable |= (frames >= 0) & ~(observed.inputs | observed.targets)[frames]
    return initial[
        usable.all(axis=1)
        & observed.enough(frames[:, :inputs])
        & observed.targets[frames[:, inputs:]].any(axis=1)
    ]


def hindcast_windows(
    axis: TimeAxis,
    inside: Bool[np.ndarray, " time"],
    inputs: int,
    leads: int,
    observed: Observed | None = None,
) -> Int[np.ndarray, " window"]:
    """Initial positions with at least one verification date in the split.

    Inputs may come from before the split: they are observations up to the initial date, as in
    operation. So every lead can be judged on the same verification dates.
    """
    initial = np.arange(axis.steps.size)
    history = positions_at(axis, initial, np.arange(1 - inputs, 1))
    targets = positions_at(axis, initial, np.arange(1, leads + 1))
    verified = (targets >= 0) & inside[targets]
    usable = (history >= 0).all(axis=1)
    if observed is not None:
        verified &= observed.targets[targets]
        usable &= observed.enough(history)
    return initial[verified.any(axis=1) & usable]


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
