"""Everything fitted on training dates that turns one labelled series into frames, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from gridcast.config.bounds import Period
from gridcast.config.data import VariableConfig
from gridcast.config.frames import FramesConfig
from gridcast.errors import ConfigError
from gridcast.frames.climatology import Climatology
from gridcast.frames.scaling import Scaler, mean_square
from gridcast.frames.skew import Skew
from gridcast.grid import Grid
from gridcast.sources.store import MASK, row_bands, stored
from gridcast.timeaxis import TimeAxis, step_name

_KEPT = ("units", "units_metadata", "long_name", "standard_name")


@dataclass(frozen=True)
class FrameTransform:
    """Values in physical units <-> scaled anomalies; fitted on training dates only.

    Attributes:
      skew: applied to the values before anomalies are taken.
      lowest: what no physical value falls below, or None.
      variable, attributes: name and CF attributes of the series.
      every: units of `climatology.unit` in one step.
    """

    grid: Grid
    climatology: Climatology
    scaler: Scaler
    skew: Skew
    lowest: float | None
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
        variable: VariableConfig,
        *,
        skewed: bool = True,
    ) -> FrameTransform:
        """Fit skew, climatology and scaler on the dates where `inside` is True.

        Args:
          series: canonical; NaN off the mask and where nothing was observed.
          skewed: False leaves the variable's transform out.
        """
        grid = grid_of(series)
        based = _base_period(config.climatology.period, axis, inside)
        kind = variable.transform if skewed else "none"
        parts = [
            _fit_rows(series[:, rows], axis, inside, based, grid.mask[rows], config, kind)
            for rows in row_bands(series)
        ]
        # Of several parts the skew has nothing fitted: `gridcast.config.streaming`.
        skew, climatology, square = parts[0]
        if len(parts) > 1:
            cells = [part.climatology.coefficients for part in parts]
            climatology = replace(climatology, coefficients=np.concatenate(cells, axis=1))
            square = np.concatenate([part.square for part in parts])
        scaler = Scaler.of(square, grid.weight, config.scaling)
        attributes = {k: series.attrs[k] for k in _KEPT if k in series.attrs}
        return cls(
            grid,
            climatology,
            scaler,
            skew,
            variable.lowest,
            axis.every,
            str(series.name),
            attributes,
        )

    def rows(self, rows: slice) -> FrameTransform:
        """Of some rows of the grid only; the skew has nothing fitted."""
        cut = [part.rows(rows) for part in (self.grid, self.climatology, self.scaler)]
        return replace(self, grid=cut[0], climatology=cut[1], scaler=cut[2])

    @property
    def units(self) -> str:
        return str(self.attributes.get("units", "1"))

    @property
    def step(self) -> str:
        """One step of the series, in words: "month", "6 hours"."""
        return step_name(self.climatology.unit, self.every)

    @property
    def linear(self) -> bool:
        """Whether a physical anomaly is the scaled one times a deviation."""
        return self.skew.kind == "none" and self.lowest is None

    def frames(self, series: xr.DataArray) -> Float[np.ndarray, "time lat lon 1"]:
        """Scaled anomalies, 0 off the mask, NaN where nothing was observed."""
        values = self.skew.forward(series.values)
        anomaly = self.scaler.scale(values - self.climatology.at(series["time"].values))
        return np.where(self.grid.mask, anomaly, 0.0).astype(np.float32)[..., None]

    def physical(
        self, scaled: Float[np.ndarray, "batch lead lat lon"], times: np.ndarray
    ) -> Float[np.ndarray, "batch lead lat lon"]:
        """Values in the units of the series, NaN off the mask.

        Args:
          times: [batch, lead] the date of each field.
        """
        values = self.skew.inverse(self.scaler.unscale(scaled) + self.normal(times))
        return self.masked(values)

    def masked(
        self, values: Float[np.ndarray, "batch lead lat lon"]
    ) -> Float[np.ndarray, "batch lead lat lon"]:
        """Physical values, none below the lowest, NaN off the mask."""
        if self.lowest is not None:
            values = np.maximum(values, self.lowest)
        return np.where(self.grid.mask, values, np.nan).astype(np.float32)

    def normal(self, times: np.ndarray) -> Float[np.ndarray, "batch lead lat lon"]:
        """The climatology at dates [batch, lead]."""
        flat, where = np.unique(times.reshape(-1), return_inverse=True)
        return self.climatology.at(flat)[where.reshape(times.shape)]

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps, beside `about`."""
        return {
            "lat": self.grid.lat,
            "lon": self.grid.lon,
            "mask": self.grid.mask,
            "climatology": self.climatology.coefficients,
            "deviation": self.scaler.deviation,
            **{f"skew_{name}": array for name, array in self.skew.arrays().items()},
        }

    def about(self) -> dict[str, Any]:
        seasonal = self.climatology
        return {
            "variable": self.variable,
            "attributes": self.attributes,
            "grid": str(self.grid),
            "unit": seasonal.unit,
            "every": self.every,
            "skew": self.skew.kind,
            "lowest": self.lowest,
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
        skew = {k.removeprefix("skew_"): v for k, v in arrays.items() if k.startswith("skew_")}
        return cls(
            Grid(arrays["lat"], arrays["lon"], arrays["mask"]),
            Climatology(
                unit=about["unit"], coefficients=arrays["climatology"], **about["climatology"]
            ),
            Scaler(arrays["deviation"]),
            Skew.restore(about["skew"], skew),
            about["lowest"],
            about["every"],
            about["variable"],
            about["attributes"],
        )


class _OfRows(NamedTuple):
    """What is fitted for each cell by itself."""

    skew: Skew
    climatology: Climatology
    square: Float[np.ndarray, "lat lon"]


def _fit_rows(
    series: xr.DataArray,
    axis: TimeAxis,
    inside: Bool[np.ndarray, " time"],
    based: Bool[np.ndarray, " training"],
    mask: Bool[np.ndarray, "lat lon"],
    config: FramesConfig,
    skewed: Literal["none", "log1p", "cube_root", "quantile"],
) -> _OfRows:
    times, raw = axis.times[inside], series[np.flatnonzero(inside)].values
    skew = Skew.fit(skewed, raw, mask)
    values = skew.forward(raw)
    seasonal = config.climatology
    climatology = Climatology.fit(
        values[based],
        times[based],
        mask,
        unit=axis.unit,
        kind=seasonal.kind,
        harmonics=seasonal.harmonics,
        trend=seasonal.trend,
    )
    anomaly = values - climatology.at(times)
    # Where nothing varies rounding is left over: scaled, it would look like a signal.
    rounding = _largest(anomaly) < 1e-6 * _largest(values)
    anomaly[:, rounding] = np.where(np.isnan(anomaly[:, rounding]), np.nan, 0.0)
    return _OfRows(skew, climatology, mean_square(anomaly, mask))


def grid_of(series: xr.DataArray) -> Grid:
    """The grid of a canonical series; its mask is where values ever occur."""
    lat, lon = (series[name].values.astype(float) for name in ("lat", "lon"))
    if stored(series):
        return Grid(lat, lon, series[MASK].values)
    return Grid(lat, lon, np.asarray(np.isfinite(series.values).any(axis=0)))


def _largest(values: Float[np.ndarray, "time lat lon"]) -> Float[np.ndarray, "lat lon"]:
    return np.fmax.reduce(np.abs(values), axis=0)


def _base_period(
    period: Period | None, axis: TimeAxis, inside: Bool[np.ndarray, " time"]
) -> Bool[np.ndarray, " training"]:
    """Which of the training dates the climatology is fitted on."""
    if period is None:
        return np.ones(int(inside.sum()), bool)
    based = axis.inside(*period.bounds)[inside]
    if not based.any():
        raise ConfigError(
            f"frames.climatology.period ({period}) holds no training date\n"
            "  fix: a period within splits.train"
        )
    return based
