"""Pictures of the latest forecast: maps of a grid, a curve or bars of a single series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter

from gridcast.plots import COLOURS, Picture, entitle, save, with_units
from gridcast.timeaxis import label, season_fields
from gridcast.verification.hindcast import MODEL

_LAND = "#d9d9d9"
_HISTORY = 36  # dates before the forecast: three years of months
_OBSERVED = "#333333"


def plot_forecast(observed: xr.DataArray, forecast: xr.Dataset, path: Path) -> None:
    """The figure of `forecast_figure` as PNG."""
    save(forecast_figure(forecast, observed), path)


def forecast_figure(forecast: xr.Dataset, observed: xr.DataArray | None = None) -> Picture:
    """Draw the first variable, from the last initial date.

    Values on a grid are maps: the last observed field, the forecast at the first and the longest
    lead, and the changes. Probabilities on a grid are maps of the lowest and the highest class
    (of two classes: the highest). Of a single series, values are a curve that goes on from the
    observed one, probabilities are bars.

    Args:
      forecast: as `Run.forecast` returns.
      observed: (time, lat, lon), the series of the first variable; without it what it tells is
        left out.
    """
    name = str(next(iter(forecast.data_vars)))
    field = forecast[name].isel(forecast_reference_time=-1)
    initial = field["forecast_reference_time"].values[()]
    classes = "category" in field.dims
    if field.sizes["lat"] * field.sizes["lon"] == 1:
        series = field.isel(lat=0, lon=0)
        known = None if observed is None else observed.isel(lat=0, lon=0)
        figure = _bars(series) if classes else _curve(known, series, initial)
    elif classes or observed is None:
        figure = _odds_maps(field) if classes else _plain_maps(field)
    else:
        figure = _maps(observed.sel(time=initial), field)
    subject = f"probabilities of {name.removesuffix('_probability')}" if classes else name
    title = f"forecast of {subject} from {date_of(initial, field)}"
    entitle(figure, title, str(forecast.attrs.get("source", "")))
    return figure


def _maps(observed: xr.DataArray, field: xr.DataArray) -> Picture:
    """The observed field and the forecasts, below them the changes."""
    shown = _first_and_longest(field)
    changes = [one - observed.values for one in shown]
    everything = np.concatenate([one.values.ravel() for one in (observed, *shown)])
    limits = tuple(np.nanpercentile(everything, [1, 99]))
    largest = np.abs(np.concatenate([one.values.ravel() for one in changes]))
    span = float(np.nanpercentile(largest, 99)) or 1.0
    figure, panels = map_panels(field, 2, 1 + len(shown))
    start = date_of(observed["time"].values[()], field)
    units = str(field.attrs.get("units", "1"))
    draw_map(panels[0, 0], observed, f"observed {start}", "viridis", limits)
    panels[1, 0].axis("off")
    for (upper, lower), one, change in zip(panels.T[1:], shown, changes, strict=True):
        image = draw_map(upper, one, f"forecast for {_valid(one)}", "viridis", limits)
        below = draw_map(lower, change, f"forecast minus {start}", "RdBu_r", (-span, span))
    figure.colorbar(
        image, ax=panels[0].tolist(), label=with_units(str(field.name), units), shrink=0.9
    )
    figure.colorbar(below, ax=panels[1].tolist(), label=with_units("change", units), shrink=0.9)
    return figure


def _plain_maps(field: xr.DataArray) -> Picture:
    """The forecasts alone, the first and the longest lead."""
    shown = _first_and_longest(field)
    low, high = np.nanpercentile(np.stack([one.values for one in shown]), [1, 99])
    figure, panels = map_panels(field, 1, len(shown))
    for panel, one in zip(panels[0], shown, strict=True):
        text = f"forecast for {_valid(one)}"
        image = draw_map(panel, one, text, "viridis", (float(low), float(high)))
    text = with_units(str(field.name), str(field.attrs.get("units", "1")))
    figure.colorbar(image, ax=panels[0].tolist(), label=text, shrink=0.9)
    return figure


def _odds_maps(field: xr.DataArray) -> Picture:
    """A row for the highest and, of more than two classes, one for the lowest."""
    shown = _first_and_longest(field)
    rows = [-1] if field.sizes["category"] == 2 else [-1, 0]
    figure, panels = map_panels(field, len(rows), len(shown))
    for row, k in zip(panels, rows, strict=True):
        category = str(field["category"].values[k])
        for panel, one in zip(row, shown, strict=True):
            title = f"{category}, {_valid(one)}"
            image = draw_map(panel, one.isel(category=k), title, "YlGnBu", (0.0, 1.0))
        text = f"probability of {category}"
        figure.colorbar(image, ax=row.tolist(), label=text, shrink=0.9)
    return figure


def _curve(observed: xr.DataArray | None, series: xr.DataArray, initial: Any) -> Picture:
    """The forecast; where they are given, it goes on from the observed values up to `initial`."""
    dates, values = series["time"].values, series.values
    figure = Picture(figsize=(9, 4.2), layout="constrained")
    panel = figure.subplots()
    if observed is not None:
        past = observed.sel(time=slice(None, initial))
        past = past.isel(time=slice(-max(_HISTORY, 3 * series.size), None))
        before = on_axis(past["time"].values)
        panel.axvline(before[-1], color="#999999", linewidth=0.8, linestyle=":")
        panel.plot(before, past.values, color=_OBSERVED, linewidth=1.4, label="observed")
        dates = np.concatenate([past["time"].values[-1:], dates])
        values = np.concatenate([past.values[-1:], values])
    panel.plot(
        on_axis(dates),
        values,
        color=COLOURS[MODEL],
        linewidth=2.2,
        marker="o",
        markersize=4,
        markevery=slice(0 if observed is None else 1, None),  # the first point is an observation
        label="forecast",
    )
    panel.legend(fontsize=9, frameon=False)
    date_axis(panel)
    panel.set_ylabel(with_units(str(series.name), str(series.attrs.get("units", "1"))))
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def _bars(series: xr.DataArray) -> Picture:
    """For each lead the probabilities of the classes, the lowest at the bottom."""
    odds = series.transpose("category", "forecast_period").values
    leads = np.arange(1, odds.shape[1] + 1)
    figure = Picture(figsize=(min(12.0, max(6.5, 2.5 + 0.55 * leads.size)), 4.4))
    figure.set_layout_engine("constrained")
    panel = figure.subplots()
    colours = mpl.colormaps["RdYlBu_r"](np.linspace(0.15, 0.85, len(odds)))
    below = np.zeros(leads.size)
    for share, category, colour in zip(odds, series["category"].values, colours, strict=True):
        bars = panel.bar(leads, share, bottom=below, width=0.85, color=colour, label=str(category))
        if leads.size <= 18:  # as many as the numbers have room for
            texts = [f"{100 * p:.0f}" if p > 0.05 else "" for p in share]
            panel.bar_label(bars, texts, label_type="center", fontsize=8)
        below = below + share
    every = -(-leads.size // 18)
    dates = [date_of(time, series) for time in series["time"].values]
    panel.set_xticks(leads[::every], dates[::every], rotation=45, ha="right", fontsize=8)
    panel.set_xlim(0.4, leads.size + 0.6)
    panel.set_ylim(0, 1)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    panel.set_ylabel("probability")
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", reverse=True, frameon=False, fontsize=9)
    return figure


def _first_and_longest(field: xr.DataArray) -> list[xr.DataArray]:
    leads = sorted({0, field.sizes["forecast_period"] - 1})
    return [field.isel(forecast_period=k).assign_coords(lead=k + 1) for k in leads]


def map_panels(
    field: xr.DataArray, rows: int, columns: int, scale: float = 1.0
) -> tuple[Picture, np.ndarray]:
    """A figure with panels in the shape of the grid, `scale` times as large as usual."""
    across = min(6.0, max(3.2, 2.6 * _shape(field)))
    size = (columns * across * scale, rows * 2.6 * scale + 0.8)
    figure = Picture(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_map(
    panel: Axes, field: xr.DataArray, title: str, colours: str, limits: tuple[float, float]
) -> QuadMesh:
    image = panel.pcolormesh(
        edges(field["lon"].values),
        edges(field["lat"].values),
        np.ma.masked_invalid(field.values),
        cmap=mpl.colormaps[colours].with_extremes(bad=_LAND),
        vmin=limits[0],
        vmax=limits[1],
    )
    panel.set_box_aspect(1.0 / _shape(field))
    panel.set_facecolor(_LAND)
    panel.set_title(title, fontsize=10)
    panel.xaxis.set_major_formatter(FuncFormatter(east))
    panel.yaxis.set_major_formatter(FuncFormatter(north))
    panel.tick_params(labelsize=8)
    panel.locator_params(nbins=6, steps=[1, 2, 3, 6, 10])
    return image


def _shape(field: xr.DataArray) -> float:
    """Width of a map over its height: as on the ground, unless that were but a strip."""
    height, width = (np.ptp(edges(field[name].values)) for name in ("lat", "lon"))
    middle = np.deg2rad(float(field["lat"].mean()))
    return float(np.clip(width * max(np.cos(middle), 0.2) / height, 0.4, 4.0))


def edges(centres: np.ndarray) -> np.ndarray:
    """Of cells; a single row or column is drawn one degree wide."""
    if centres.size == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def on_axis(times: np.ndarray) -> np.ndarray:
    """Dates that can be drawn; those of other calendars at the same share of their year."""
    if times.dtype != object:
        return times
    years = season_fields(times, "day")[2]
    whole = np.floor(years).astype(int)
    begin, end = (
        (whole - 1970 + k).astype("datetime64[Y]").astype("datetime64[s]") for k in (0, 1)
    )
    return begin + (end - begin) * (years - whole)


def date_axis(panel: Axes) -> None:
    """As few words as the dates along the axis need."""
    locator = AutoDateLocator()
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _valid(field: xr.DataArray) -> str:
    return f"{date_of(field['time'].values[()], field)} (lead {int(field['lead'])})"


def date_of(time: Any, forecast: xr.DataArray) -> str:
    """As exact as the forecast's steps are."""
    units = forecast["forecast_period"].attrs.get("units")
    return label(time)[: {"year": 4, "month": 7}.get(str(units))]


def east(value: float, _position: int | None) -> str:
    degrees = (value + 180) % 360 - 180
    return f"{abs(degrees):g}°{'' if degrees in (0, -180) else 'E' if degrees > 0 else 'W'}"


def north(value: float, _position: int | None) -> str:
    return f"{abs(value):g}°{'' if value == 0 else 'N' if value > 0 else 'S'}"
