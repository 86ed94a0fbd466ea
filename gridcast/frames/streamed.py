"""Frames of a series that stays on the disk: read and scaled as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float32, Float64, Int

from gridcast.frames.transform import FrameTransform
from gridcast.scratch import blocks


@dataclass(frozen=True)
class StreamedFrames:
    """Scaled anomalies [time, lat, lon, variable], float32, used like an array of numpy.

    The first index is a date or an array of dates; `[..., :count]` is of fewer variables, and
    nothing is read for it.

    Attributes:
      transforms, series: of each variable; the series are stored ones of the same dates.
      factor: what is read is multiplied by it, in float64.
    """

    transforms: Sequence[FrameTransform]
    series: Sequence[xr.DataArray]
    factor: Float64[np.ndarray, "lat lon variable"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.series[0].shape, len(self.series))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32 if self.factor is None else np.float64)

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def __mul__(self, factor: Float64[np.ndarray, "lat lon variable"]) -> StreamedFrames:
        assert self.factor is None
        return replace(self, factor=factor)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            dots, count = key
            assert dots is ...
            assert (count.start, count.step, self.factor) == (None, None, None)
            return StreamedFrames(self.transforms[: count.stop], self.series[: count.stop])
        dates, where = np.unique(np.asarray(key) % len(self), return_inverse=True)
        found = np.empty((dates.size, *self.shape[1:]), np.float32)
        self.read(dates, found)
        found = found[where.reshape(np.shape(key))]
        return found if self.factor is None else found * self.factor

    def read(
        self,
        dates: Int[np.ndarray, " date"],
        into: Float32[np.ndarray, "room lat lon variable"],
        rows: slice = slice(None),
    ) -> None:
        """Write the frames of these dates, each of them once and in order, to where `into` begins.

        Anomalies are taken in float64, so many at a time.

        Args:
          rows: of the grid; the others are neither read nor written.
        """
        transforms = [transform.rows(rows) for transform in self.transforms]
        for part in blocks(dates.size, 4 * int(np.prod(self.shape[1:]))):
            for k, (transform, one) in enumerate(zip(transforms, self.series, strict=True)):
                frames = transform.frames(one[dates[part], rows])
                into[: dates.size][part, rows, :, k] = frames[..., 0]
