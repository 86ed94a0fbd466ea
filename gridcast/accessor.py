"""`data.gridcast` on every xarray DataArray and Dataset, from the import of this module on.

It is imported as soon as both gridcast and xarray are, so that `import gridcast` stays light. What
needs more than xarray is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from gridcast.errors import DataError

if TYPE_CHECKING:
    from gridcast.plots import Picture

NAME = "gridcast"
_FORECAST = "forecast_period"


class Accessor:
    """A series, a forecast or scores, as gridcast sees them; the data are never changed."""

    def __init__(self, data: xr.Dataset | xr.DataArray):
        self._data = data

    def anomaly(
        self,
        period: Sequence[str | int],
        *,
        variable: str | None = None,
        kind: Literal["harmonics", "monthly", "mean"] = "harmonics",
        harmonics: int = 3,
        trend: bool = False,
    ) -> xr.DataArray:
        """Departures from the seasonal cycle of `period`, in canonical form.

        Args:
          period: first and last date of the climatology, both included; it has to be given: a
            climatology of all dates knows the years that a forecast is judged on.
          variable: needed where there are several series.
          kind, harmonics, trend: as `frames.climatology` in a config.

        Returns:
          float32 (time, lat, lon), in the units of the series: on the grid of `gridcast.open`,
          where latitude ascends and longitude is 0..360.

        Raises:
          ConfigError: `period` is no pair of dates.
          DataError: the data hold no series, or no date of the period.
        """
        from gridcast.frames.anomaly import anomaly

        series = self._series(variable)
        return anomaly(series, period, kind=kind, harmonics=harmonics, trend=trend)

    def plot(
        self,
        *,
        date: str | None = None,
        variable: str | None = None,
        observed: xr.Dataset | xr.DataArray | None = None,
    ) -> Picture:
        """A figure of what is held, which a notebook shows by itself; `savefig` writes it.

        Of a series: a map of one date, or the curve of a single cell. Of a forecast: the first and
        the longest lead from the last initial date. Of scores: the main two by lead, beside the
        references.

        Args:
          date: of a series, YYYY, YYYY-MM or YYYY-MM-DD; default: its last.
          variable: of a series, where there are several.
          observed: of a forecast, the series that it was made from: it is drawn beside, and the
            changes below.

        Raises:
          DataError: none of these, or an argument that does not belong to it.
        """
        held = self._kind
        _require_read(held, date=date, variable=variable, observed=observed)
        if held == "scores":
            from gridcast.plots import scores_figure

            return scores_figure(self._dataset)
        if held == "forecast":
            from gridcast.forecast_plots import forecast_figure

            known = None if observed is None else self._observed(observed)
            return forecast_figure(self._dataset, known)
        from gridcast.series_plots import series_figure

        return series_figure(self._series(variable), date)

    def __repr__(self) -> str:
        from gridcast.reprs import as_text

        heading, _, rows = self._told()
        return as_text(heading, rows)

    def _repr_html_(self) -> str:
        from gridcast import reprs

        heading, source, rows = self._told()
        if self._kind == "scores":
            return reprs.card(heading, source, rows, reprs.scores_table(self._dataset))
        if self._kind == "forecast":
            return reprs.card(heading, source, rows, reprs.picture(self.plot(), heading))
        return reprs.card(heading, source, rows)

    def _told(self) -> tuple[str, str, Any]:
        """A heading, where the data are from, and names with values."""
        from gridcast import reprs

        source = str(self._data.attrs.get("source", ""))
        if self._kind == "scores":
            return "gridcast scores", source, [("source", source)]
        if self._kind == "forecast":
            return "gridcast forecast", source, reprs.forecast_rows(self._dataset)
        try:
            series = self._series(None)
        except DataError as error:  # a repr says what it can
            return "no series for gridcast", source, [("found", str(error))]
        return "series", str(series.attrs.get("source", source)), reprs.series_rows(series)

    @property
    def _kind(self) -> Literal["series", "forecast", "scores"]:
        if _FORECAST in self._data.dims:
            return "forecast"
        return "scores" if "headline" in self._data.attrs else "series"

    @property
    def _dataset(self) -> xr.Dataset:
        if isinstance(self._data, xr.Dataset):
            return self._data
        return self._data.to_dataset(name=self._data.name or "values", promote_attrs=False)

    def _series(self, variable: str | None) -> xr.DataArray:
        from gridcast.sources.netcdf import open_frames

        if self._kind != "series":
            raise DataError(
                f"these are no series but {self._kind}\n  expected: values over time, lat and lon"
            )
        return open_frames(self._data, variable=variable)

    def _observed(self, observed: xr.Dataset | xr.DataArray) -> xr.DataArray:
        """The series on the grid of the forecast, with its initial date.

        Raises:
          DataError: another grid, or without this date.
        """
        from gridcast.frames.transform import grid_of
        from gridcast.matching import in_units
        from gridcast.sources.netcdf import open_frames
        from gridcast.timeaxis import label

        name = str(next(iter(self._dataset.data_vars))).removesuffix("_probability")
        holds = isinstance(observed, xr.Dataset) and name in observed
        series = open_frames(observed, variable=name if holds else None)
        theirs, ours = grid_of(series), self._dataset
        initial = ours["forecast_reference_time"].values[-1]
        same = theirs.shape == (ours.sizes["lat"], ours.sizes["lon"])
        if not same or initial not in series["time"].values:
            raise DataError(
                f"observed is no series that the forecast from {label(initial)} was made from\n"
                f"  found: {theirs}, {label(series['time'].values[0])} to "
                f"{label(series['time'].values[-1])}\n"
                "  fix: give the data that `predict` was given"
            )
        units = next(iter(ours.data_vars.values())).attrs.get("units", "1")
        moved = series if "category" in ours.dims else in_units(series, units)
        return moved.assign_coords(lat=ours["lat"], lon=ours["lon"])


def _require_read(held: str, **given: object) -> None:
    """Raise where an argument would be ignored."""
    belongs = {"series": {"date", "variable"}, "forecast": {"observed"}}.get(held, set())
    wrong = [name for name, value in given.items() if value is not None and name not in belongs]
    if wrong:
        raise DataError(f"{wrong[0]} means nothing to a {held}\n  fix: leave it out")


xr.register_dataset_accessor(NAME)(Accessor)
xr.register_dataarray_accessor(NAME)(Accessor)
