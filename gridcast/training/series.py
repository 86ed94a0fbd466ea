"""The whole series on the device, which batches are gathered from inside the compiled step."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float

from gridcast.frames.windows import FrameSeries


class DeviceSeries(NamedTuple):
    """The whole series, resident on the device; batches are integer positions in it.

    Attributes:
      weight: of each cell and target in the loss, 0 off the mask.
      scale: the loss that counts as 1.
    """

    frames: FrameSeries
    weight: Float[Array, "out_lat out_lon target"]
    scale: Float[Array, "lead target"]
