"""The fields of a foreign forecast, gathered from files block by block, each in its place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from gridcast.errors import DataError
from gridcast.grid import Grid
from gridcast.scratch import room
from gridcast.timeaxis import label


class GatheredFields:
    """What was found so far; large arrays as `gridcast.scratch.room`.

    Attributes:
      there: which forecasts there are.
      values: the mean of the members that have any value; NaN off the mask.
      members: NaN off the mask, and after those that a date has.
    """

    there: Bool[np.ndarray, "window lead"]
    values: Float[np.ndarray, "window lead lat lon"]
    members: Float[np.ndarray, "window lead member lat lon"]

    def __init__(self, windows: int, leads: int, mask: Bool[np.ndarray, "lat lon"]):
        self.mask = mask
        self.there = np.zeros((windows, leads), bool)
        self.values = room((windows, leads, *mask.shape), np.float32)
        self.members = room((windows, leads, 0, *mask.shape), np.float32)

    def put(
        self,
        pairs: Int[np.ndarray, "field 2"],
        values: Float[np.ndarray, "field member lat lon"],
        there: Bool[np.ndarray, "field member"],
    ) -> None:
        """Add fields at windows and leads - 1, those that have a member with any value."""
        for (window, lead), members, some in zip(pairs.tolist(), values, there, strict=True):
            if not some.any():
                continue
            if len(members) > self.members.shape[2]:
                self._widen(len(members))
            self.there[window, lead] = True
            self.values[window, lead] = np.where(self.mask, _mean(members, self.mask), np.nan)
            self.members[window, lead] = np.nan
            self.members[window, lead, : len(members)] = np.where(self.mask, members, np.nan)

    def finish(self) -> None:
        """NaN where there is no forecast."""
        for lead, there in enumerate(self.there.T):
            self.values[~there, lead] = np.nan
            self.members[~there, lead] = np.nan

    def _widen(self, count: int) -> None:
        narrow, known = self.members, self.members.shape[2]
        windows, leads, _, *cells = narrow.shape
        self.members = room((windows, leads, count, *cells), np.float32)
        for lead in range(leads):
            self.members[:, lead, :known] = narrow[:, lead]
            self.members[:, lead, known:] = np.nan


def _mean(
    members: Float[np.ndarray, "member lat lon"], mask: Bool[np.ndarray, "lat lon"]
) -> Float[np.ndarray, "lat lon"]:
    """Over the members that have any value: hindcasts have fewer in some years."""
    there = np.asarray(np.isfinite(members[..., mask]).any(axis=-1))
    total = np.where(there[:, None, None], members, 0.0).sum(axis=0, dtype=float)
    # A box may hold a value where its mean has none: what lacks is said of the whole file.
    return np.where(there.any(), total / max(there.sum(), 1), np.nan).astype(np.float32)


@dataclass
class Lacking:
    """Cells of the mask without a value, in fields that are there.

    Attributes:
      first: number of the first such field, and its row and column.
      fields: how many there are.
    """

    grid: Grid
    first: tuple[int, int, int] | None = None
    fields: int = 0
    cells: Bool[np.ndarray, "lat lon"] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = np.zeros(self.grid.shape, bool)

    def add(
        self,
        numbers: Int[np.ndarray, " field"],
        values: Float[np.ndarray, "field member lat lon"],
        there: Bool[np.ndarray, "field member"],
    ) -> None:
        """Look through some of the fields of a file."""
        lacking = there[..., None, None] & ~np.isfinite(values) & self.grid.mask
        if not lacking.any():
            return
        k, _, row, column = (int(i[0]) for i in np.nonzero(lacking))
        here = (int(numbers[k]), row, column)
        self.first = here if self.first is None else min(self.first, here)
        self.fields += int(lacking.any(axis=(1, 2, 3)).sum())
        self.cells |= lacking.any(axis=(0, 1))

    def require_none(self, times: np.ndarray, origin: str) -> None:
        """Raise where a forecast that is there lacks a value in the mask.

        Args:
          times: that each of the fields is for.
        """
        if self.first is None:
            return
        k, row, column = self.first
        grid = self.grid
        raise DataError(
            f"{origin}: no value in {self.cells.sum()} of {grid.mask.sum()} cells that "
            f"the run forecasts, in {self.fields} of {len(times)} fields; the "
            f"first for {label(times[k])} at lat {grid.lat[row]:g}, lon {grid.lon[column]:g}\n"
            "  expected: values in every cell, so that all are judged on the same\n"
            "  fix: fill its coast, for example: cdo setmisstonn IN OUT"
        )
