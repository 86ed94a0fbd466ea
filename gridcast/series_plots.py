"""Pictures of a series itself: a map of one date, or the curve of a single cell."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection

from gridcast.forecast_plots import date_axis, draw_map, edges, map_panels, on_axis
from gridcast.frames.transform import grid_of
from gridcast.matching import last_position
from gridcast.plots import Picture, entitle, with_units
from gridcast.sources.values import is_difference
from gridcast.timeaxis import TimeAxis, label

_COAST = "#404040"


def series_figure(series: xr.DataArray, date: str | None = None) -> Picture:
    """A map of one date, or of a single cell the curve of all dates.

    Anomalies have diverging colours, white at 0. What has no data is grey, with a line along the
    cells that have; a global map is cut where there are the fewest data, so that no ocean is.

    Args:
      series: canonical.
      date: YYYY, YYYY-MM or YYYY-MM-DD: the last date within it; default: the last of all.

    Raises:
      DataError: no such date, or no value at all.
    """
    axis, grid = TimeAxis.of(series["time"].values), grid_of(series)
    text = with_units(str(series.name), str(series.attrs["units"]))
    if grid.mask.size == 1:
        figure, title = _curve(series, axis, text), str(series.name)
    else:
        position = last_position(axis, date)
        exact = {"year": 4, "month": 7}.get(axis.unit)
        title = f"{series.name}, {label(axis.times[position])[:exact]}"
        figure = _map(turned(series), position, text)
    entitle(figure, title, str(series.attrs.get("source", "")))
    return figure


def turned(field: xr.DataArray) -> xr.DataArray:
    """A global field beginning at the meridian with the fewest data; others as they are."""
    grid = grid_of(field)
    start = grid.emptiest
    return field.roll(lon=-start).assign_coords(lon=grid.turned(start).lon) if start else field


def _map(series: xr.DataArray, position: int, text: str) -> Picture:
    field = series.isel(time=position)
    known = field.values[np.isfinite(field.values)]
    if is_difference(series):
        span = float(np.percentile(np.abs(known), 99)) if known.size else 0.0
        colours, limits = "RdBu_r", (-(span or 1.0), span or 1.0)
    else:
        low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
        colours, limits = "viridis", (float(low), float(high))
    figure, panels = map_panels(field, 1, 1, scale=1.4)
    image = draw_map(panels[0, 0], field, "", colours, limits)
    panels[0, 0].add_collection(_coast(series), autolim=False)
    figure.colorbar(image, ax=panels[0, 0], label=text, shrink=0.9)
    return figure


def _coast(series: xr.DataArray) -> LineCollection:
    """Lines between cells that ever have data and cells that never have."""
    mask = grid_of(series).mask
    south, west = (edges(series[name].values) for name in ("lat", "lon"))
    across = [
        [(west[j], south[i + 1]), (west[j + 1], south[i + 1])]
        for i, j in np.argwhere(mask[1:] != mask[:-1])
    ]
    down = [
        [(west[j + 1], south[i]), (west[j + 1], south[i + 1])]
        for i, j in np.argwhere(mask[:, 1:] != mask[:, :-1])
    ]
    return LineCollection(across + down, colors=_COAST, linewidths=0.8)


def _curve(series: xr.DataArray, axis: TimeAxis, text: str) -> Picture:
    figure = Picture(figsize=(9, 3.6), layout="constrained")
    panel = figure.subplots()
    if is_difference(series):
        panel.axhline(0.0, color="#999999", linewidth=0.8)
    panel.plot(on_axis(axis.times), series.values[:, 0, 0], color="#333333", linewidth=1.2)
    date_axis(panel)
    panel.set_ylabel(text)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    return figure
