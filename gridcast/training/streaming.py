"""Frames of a series that stays on the disk, brought to the device for some steps at a time.

The order of the batches is a permutation made of (seed, epoch), streamed or not, and the place in
it is the number of the step. So a resumed training goes on with the same window, whatever reads it,
and a loader with a state of its own (grain) would have nothing to add: one thread asks tensorstore,
which reads with several, for the frames of the next stretches while the device computes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from gridcast.frames.streamed import StreamedFrames
from gridcast.frames.windows import FrameSeries
from gridcast.hosts import several
from gridcast.training.parallel import ONE_DEVICE, Layout
from gridcast.training.patch_rows import PatchRows
from gridcast.training.series import DeviceSeries, Stretch
from gridcast.training.shares import own_rows, own_windows

# Bytes of the frames of one stretch; of a step that needs more, those of the step.
STRETCH = 2**24
# Stretches that are read before they are asked for.
AHEAD = 2


class StreamedSeries(NamedTuple):
    """As `DeviceSeries`, but only the frames that the steps of a stretch need are on the device.

    Each stretch has its dates once, and its batches are positions among these: what the step
    gathers are the same numbers as from the whole series.

    Attributes:
      frames: of the whole series; `values` are `StreamedFrames`.
      past, ahead: frames that a window has before and after its initial position.
      layout, parts: of what lies on which device, and of a batch. Of several processes, each reads
        what its own devices need.
      patches: the rows that windows need; None: all. What is not read is NaN: were it used, the
        steps would not be finite.
    """

    frames: FrameSeries
    weight: Float[Array, "out_lat out_lon target"]
    scale: Float[Array, "lead target"]
    past: int
    ahead: int
    layout: Layout = ONE_DEVICE
    parts: int = 1
    patches: PatchRows | None = None

    def stretches(
        self,
        batches: Int[np.ndarray, "*member step batch"],
        first: int,
        most: int | None = None,
        begun: int | None = None,
    ) -> Iterator[Stretch]:
        """As `DeviceSeries.stretches`, read ahead; as many steps as fit, at most `most`."""
        steps = batches.shape[-2]
        room = self._room(batches, most)
        cuts = self._cuts(batches, first, most or steps, room)
        ready = most or max(last - left for left, last in cuts)
        needed = None if self.patches is None else self.patches(batches, begun)
        read = partial(self._stretch, batches, needed, ready, room)
        waiting: deque[Future[Stretch]] = deque()
        with ThreadPoolExecutor(1, "frames") as reader:
            try:
                for cut in cuts[:AHEAD]:
                    waiting.append(reader.submit(read, *cut))
                for k in range(len(cuts)):
                    began = time.perf_counter()
                    stretch = waiting.popleft().result()
                    waited = time.perf_counter() - began
                    if k + AHEAD < len(cuts):
                        cut = cuts[k + AHEAD]
                        waiting.append(reader.submit(read, *cut))
                    yield stretch._replace(waited=waited)
            finally:
                reader.shutdown(wait=True, cancel_futures=True)

    def _room(self, batches: np.ndarray, most: int | None) -> int:
        """Frames that every stretch has room for, so that one compiled program serves all."""
        values = self.frames.values
        windows = batches.size // batches.shape[-2]
        least = min(len(values), windows * (self.past + 1 + self.ahead))
        enough = len(values) if most is None else min(len(values), most * least)
        frame = 4 * int(np.prod(values.shape[1:]))
        return int(np.clip(STRETCH // frame, least, enough))

    def _cuts(self, batches: np.ndarray, first: int, most: int, room: int) -> list[tuple[int, int]]:
        """From which step to which each stretch goes."""
        cuts, left, dates = [], first, np.zeros(0, int)
        for step in range(first, batches.shape[-2]):
            more = np.union1d(dates, self._dates(batches, step, step + 1))
            if step > left and (more.size > room or step - left == most):
                cuts.append((left, step))
                left, more = step, self._dates(batches, step, step + 1)
            dates = more
        return [*cuts, (left, batches.shape[-2])]

    def _dates(self, batches: np.ndarray, left: int, right: int) -> Int[np.ndarray, " date"]:
        """The positions of all frames of some steps, in order."""
        return self._around(batches[..., left:right, :])

    def _around(self, initial: Int[np.ndarray, "..."]) -> Int[np.ndarray, " date"]:
        return np.unique(np.unique(initial)[:, None] + np.arange(-self.past, self.ahead + 1))

    def _stretch(
        self,
        batches: Int[np.ndarray, "*member step batch"],
        needed: Int[np.ndarray, "*member step batch 2"] | None,
        ready: int,
        room: int,
        left: int,
        right: int,
    ) -> Stretch:
        dates = self._dates(batches, left, right)
        frames, put = self.frames.values, jnp.asarray
        assert isinstance(frames, StreamedFrames)
        values = np.zeros((room, *frames.shape[1:]), np.float32)
        if several():
            put = np.asarray  # each process has other parts of it, which `layout` puts together
            self._read_own(frames, dates, batches[..., left:right, :], values)
        elif needed is not None:
            self._read_patches(
                frames, dates, batches[..., left:right, :], needed[..., left:right, :, :], values
            )
        else:
            frames.read(dates, values)
        known = np.zeros((room, *self.frames.known.shape[1:]), np.float32)
        known[: dates.size] = self.frames.known[dates]
        month = np.ones(room, self.frames.month.dtype)
        month[: dates.size] = self.frames.month[dates]
        positions = np.zeros(room, batches.dtype)
        positions[: dates.size] = dates
        # Windows keep their order: neighbours in the series are neighbours among these dates.
        table = np.searchsorted(dates, batches[..., left:right, :])
        filler = np.repeat(table[..., :1, :], ready - (right - left), axis=-2)
        table = np.concatenate([table, filler], axis=-2).astype(batches.dtype)
        few = FrameSeries(put(values), None, None, put(known), put(month))
        series = DeviceSeries(few, self.weight, self.scale, put(positions))
        return Stretch(series, jnp.asarray(table), 0, right - left)

    def _read_patches(
        self,
        frames: StreamedFrames,
        dates: Int[np.ndarray, " date"],
        initial: Int[np.ndarray, "*member step batch"],
        rows: Int[np.ndarray, "*member step batch 2"],
        into: Float32[np.ndarray, "room lat lon variable"],
    ) -> None:
        """Of each window's dates the rows of its patch."""
        into.fill(np.nan)
        for window, (first, last) in zip(initial.reshape(-1), rows.reshape(-1, 2), strict=True):
            begin, end = np.searchsorted(dates, [window - self.past, window + self.ahead + 1])
            frames.read(dates[begin:end], into[begin:end], slice(int(first), int(last)))

    def _read_own(
        self,
        frames: StreamedFrames,
        dates: Int[np.ndarray, " date"],
        initial: Int[np.ndarray, "*member step batch"],
        into: Float32[np.ndarray, "room lat lon variable"],
    ) -> None:
        """Of these dates' frames, what the devices of this process compute with."""
        own = np.isin(dates, self._around(own_windows(self.layout, initial, self.parts)))
        found = np.full((int(own.sum()), *into.shape[1:]), np.nan, np.float32)
        frames.read(dates[own], found, own_rows(self.layout, into.shape[1]))
        into.fill(np.nan)
        into[: dates.size][own] = found
