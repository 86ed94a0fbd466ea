"""The whole series on the device, which batches are gathered from inside the compiled step."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float, Int

from gridcast.frames.places import Place, take
from gridcast.frames.windows import FrameSeries
from gridcast.models import Trailing


class DeviceSeries(NamedTuple):
    """The whole series, resident on the device; batches are integer positions in it.

    Attributes:
      weight: of each cell and target in the loss, 0 off the mask.
      scale: the loss that counts as 1.
    """

    frames: FrameSeries
    weight: Float[Array, "out_lat out_lon target"]
    scale: Float[Array, "lead target"]

    def trailing_at(self, initial: Int[Array, " batch"], place: Place | None) -> Trailing | None:
        """The mean of the years up to each initial date, where the model starts from it."""
        frames, targets = self.frames, self.weight.shape[-1]
        if frames.trailing is None:
            return None
        means = take(frames.trailing, initial[:, None], place)[:, 0]
        if frames.last_trailing is None:
            return Trailing(means, means[..., :targets])
        return Trailing(means, frames.last_trailing[initial])
