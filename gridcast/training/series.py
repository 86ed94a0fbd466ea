"""The series that batches are gathered from inside the compiled step: all of it on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gridcast.frames.windows import FrameSeries


class DeviceSeries(NamedTuple):
    """A series, or the frames of some batches, on the device; batches are integer positions in it.

    Attributes:
      weight: of each cell and target in the loss, 0 off the mask.
      scale: the loss that counts as 1.
      positions: of each frame in the whole series; None: these are all.
    """

    frames: FrameSeries
    weight: Float[Array, "out_lat out_lon target"]
    scale: Float[Array, "lead target"]
    positions: Int[Array | np.ndarray, " series"] | None = None

    def position(self, frame: Int[Array, ""]) -> Int[Array, ""]:
        """Of one frame, in the whole series."""
        return frame if self.positions is None else jnp.asarray(self.positions)[frame]

    def stretches(
        self,
        batches: Int[np.ndarray, "*member step batch"],
        first: int,
        most: int | None = None,
        begun: int | None = None,
    ) -> Iterator[Stretch]:
        """Steps that run in one compiled call, one stretch after the other.

        Args:
          first: the first step that is asked for; the last is that of `batches`.
          most: steps of a stretch; None: all of them at once.
          begun: steps of training taken before the epoch that `batches` are of; None: it is no
            training. Of no account where all frames are there.
        """
        steps, table = batches.shape[-2], jnp.asarray(batches)
        for left in range(first, steps, most or steps):
            yield Stretch(self, table, left, min(left + (most or steps), steps))


class Stretch(NamedTuple):
    """Steps to take in one call.

    Attributes:
      batches: positions in `series`; the rows from `first` to `last` (excluded) are asked for.
      waited: seconds that were spent waiting for its frames.
    """

    series: DeviceSeries
    batches: Int[Array, "*member step batch"]
    first: int
    last: int
    waited: float = 0.0
