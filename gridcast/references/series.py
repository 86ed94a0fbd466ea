"""What a reference may be fitted on: scaled anomalies on training dates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from gridcast.frames.fields import Fields, months_of
from gridcast.frames.windows import ArrayLike, positions_at
from gridcast.sources.store import in_memory, row_bands
from gridcast.timeaxis import TimeAxis


@dataclass(frozen=True)
class TrainingSeries:
    """What a reference may be fitted on.

    Attributes:
      values: scaled anomalies of the targets, 0 off the mask and where nothing was observed; the
        whole series, of which `inside` may be used. Of stored series they are `StreamedFrames`.
      inside: True on training dates with observations.
      weight: relative cell area, 0 off the mask, summing to 1 for each target.
      seen: where there were observations; None: everywhere.
      state: scaled anomalies of all that a forecast may start from, 0 where nothing was observed;
        None: `values`.
      state_weight: relative cell area of each variable of it.
      state_seen: when each variable of it was observed at all.
    """

    values: Float[ArrayLike, "time lat lon channel"]
    axis: TimeAxis
    inside: Bool[np.ndarray, " time"]
    weight: Float[np.ndarray, "lat lon channel"]
    seen: Bool[np.ndarray, "time lat lon channel"] | None = None
    state: Float[np.ndarray, "time state_lat state_lon variable"] | None = None
    state_weight: Float[np.ndarray, "state_lat state_lon variable"] | None = None
    state_seen: Bool[np.ndarray, "time variable"] | None = None

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "time lat lon channel"],
        axis: TimeAxis,
        inside: Bool[np.ndarray, " time"],
        weight: Float[np.ndarray, "lat lon channel"],
        state: Float[np.ndarray, "time state_lat state_lon variable"] | None = None,
        state_weight: Float[np.ndarray, "state_lat state_lon variable"] | None = None,
    ) -> TrainingSeries:
        """From scaled anomalies that are NaN where nothing was observed."""
        known: np.ndarray | None = None
        if state is not None and state_weight is not None:
            known = np.any(np.isfinite(state) & (state_weight > 0), axis=(1, 2))
            state = np.nan_to_num(state)
        seen = np.isfinite(values)
        if seen.all():
            return cls(values, axis, inside, weight, None, state, state_weight, known)
        observed = (seen & (weight > 0)).any(axis=(1, 2, 3))
        filled = np.where(seen, values, 0.0)
        inside = inside & observed
        return cls(filled, axis, inside, weight, seen, state, state_weight, known)

    @property
    def start(self) -> Float[np.ndarray, "time state_lat state_lon variable"]:
        """What a forecast starts from."""
        return self.values if self.state is None else self.state

    @property
    def start_weight(self) -> Float[np.ndarray, "state_lat state_lon variable"]:
        return self.weight if self.state_weight is None else self.state_weight

    @cached_property
    def season(self) -> Int[np.ndarray, " time"]:
        """Calendar month (1 to 12) of the step after each date: the season of a forecast."""
        return months_of(self.axis.times_at(self.axis.steps + 1))

    @property
    def months(self) -> int:
        """By how many calendar months a step goes on; 0 where the season stays."""
        return self.axis.every if self.axis.unit == "month" else 0

    def pairs(self, lead: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (initial, verifying) of training frames `lead` steps apart."""
        initial = np.flatnonzero(self.inside)
        later = positions_at(self.axis, initial, np.array([lead]))[:, 0]
        usable = (later >= 0) & self.inside[later]
        return initial[usable], later[usable]


def training_bands(
    fields: Fields,
    answers: Sequence[xr.DataArray],
    axis: TimeAxis,
    inside: Bool[np.ndarray, " time"],
    *,
    plain: bool = False,
) -> Iterator[tuple[Fields, TrainingSeries]]:
    """Stored targets, some rows at a time, from south to north: all rows together are the grid.

    Args:
      fields: of the whole grid; those of the rows are handed out.
      plain: as in `Fields.scaled`.
    """
    for rows in row_bands(answers[0]):
        cut = fields.rows(rows)
        read = [in_memory(one[:, rows]) for one in answers]
        yield cut, TrainingSeries.of(cut.scaled(read, plain=plain), axis, inside, cut.weight)
