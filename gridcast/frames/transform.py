"""Everything fitted on training dates that turns a labelled series into frames, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.config.schema import FramesConfig
from gridcast.errors import DataError
from gridcast.frames.climatology import Climatology
from gridcast.frames.scaling import Scaler
from gridcast.grid import Grid
from gridcast.timeaxis import TimeAxis, label, season_fields, step_name


def grid_of(series: xr.DataArray) -> Grid:
    """The grid of a canonical series; its mask is where values ever occur.

    Raises:
      DataError: a cell of the mask is missing at some dates, naming dates and cells.
    """
    values = series.values
    present = np.isfinite(values)
    lat, lon = (series[name].values.astype(float) for name in ("lat", "lon"))
    grid = Grid(lat, lon, np.asarray(present.any(axis=0)))
    holes = ~present & grid.mask
    if holes.any():
        time, row, column = (index[0] for index in np.nonzero(holes))
        raise DataError(
            f"values are missing inside the mask: {int(holes.sum())} in all, at "
            f"{int(holes.any(axis=(1, 2)).sum())} of {len(values)} dates and "
            f"{int(holes.any(axis=0).sum())} of {int(grid.mask.sum())} cells; the first at "
            f"{label(series['time'].values[time])}, "
            f"lat {lat[row]:g}, lon {lon[column]:g}\n"
            "  expected: cells with values at every date (ocean), or at none (land)\n"
            "  fix: fill the holes, or cut them out with data.region"
        )
    return grid


@dataclass(frozen=True)
class FrameTransform:
    """Values in physical units <-> scaled anomalies; fitted on training dates only.

    Attributes:
      variable, attributes: name and CF attributes of the series.
      every: units of `climatology.unit` in one step.
    """

    grid: Grid
    climatology: Climatology
    scaler: Scaler
    every: int
    variable: str
    attributes: dict[str, Any]

    @classmethod
    def fit(
        cls,
        series: xr.DataArray,
        axis: TimeAxis,
        inside: Bool[np.ndarray, " time"],
        config: FramesConfig,
    ) -> FrameTransform:
        """Fit climatology and scaler on the dates where `inside` is True."""
        grid = grid_of(series)
        times, values = axis.times[inside], series.values[inside]
        seasonal = config.climatology
        climatology = Climatology.fit(
            values,
            times,
            grid.mask,
            unit=axis.unit,
            kind=seasonal.kind,
            harmonics=seasonal.harmonics,
            trend=seasonal.trend,
        )
        anomaly = values - climatology.at(times)
        # Where nothing varies rounding is left over: scaled, it would look like a signal.
        rounding = np.abs(anomaly).max(axis=0) < 1e-6 * np.abs(values).max(axis=0)
        anomaly[:, rounding] = 0.0
        scaler = Scaler.fit(anomaly, grid.weight, scaling=config.scaling)
        attributes = {k: series.attrs[k] for k in _KEPT if k in series.attrs}
        return cls(grid, climatology, scaler, axis.every, str(series.name), attributes)

    @property
    def units(self) -> str:
        return str(self.attributes.get("units", "1"))

    @property
    def step(self) -> str:
        """One step of the series, in words: "month", "6 hours"."""
        return step_name(self.climatology.unit, self.every)

    def frames(self, series: xr.DataArray) -> Float[np.ndarray, "time lat lon channel"]:
        """Scaled anomalies, 0 off the mask."""
        anomaly = self.scaler.scale(series.values - self.climatology.at(series["time"].values))
        return np.where(self.grid.mask, anomaly, 0.0).astype(np.float32)[..., None]

    def season(self, times: np.ndarray) -> Float[np.ndarray, "time 2"]:
        """Cosine and sine of each date's place in its year."""
        angle = 2 * np.pi * season_fields(times, self.climatology.unit)[0]
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    def physical(
        self, scaled: Float[np.ndarray, "batch lead lat lon"], times: np.ndarray
    ) -> Float[np.ndarray, "batch lead lat lon"]:
        """Values in the units of the series, NaN off the mask.

        Args:
          times: [batch, lead] the date of each field.
        """
        flat, where = np.unique(times.reshape(-1), return_inverse=True)
        seasonal = self.climatology.at(flat)[where.reshape(times.shape)]
        values = self.scaler.unscale(scaled) + seasonal
        return np.where(self.grid.mask, values, np.nan).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, beside `about`."""
        return {
            "lat": self.grid.lat,
            "lon": self.grid.lon,
            "mask": self.grid.mask,
            "climatology": self.climatology.coefficients,
            "deviation": self.scaler.deviation,
        }

    def about(self) -> dict[str, Any]:
        seasonal = self.climatology
        return {
            "variable": self.variable,
            "attributes": self.attributes,
            "grid": str(self.grid),
            "unit": seasonal.unit,
            "every": self.every,
            "climatology": {
                "kind": seasonal.kind,
                "harmonics": seasonal.harmonics,
                "trend": seasonal.trend,
                "middle": seasonal.middle,
            },
        }

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> FrameTransform:
        """The inverse of `arrays` and `about`."""
        return cls(
            Grid(arrays["lat"], arrays["lon"], arrays["mask"]),
            Climatology(
                unit=about["unit"], coefficients=arrays["climatology"], **about["climatology"]
            ),
            Scaler(arrays["deviation"]),
            about["every"],
            about["variable"],
            about["attributes"],
        )


_KEPT = ("units", "units_metadata", "long_name", "standard_name")
