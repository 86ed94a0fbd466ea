"""Charts of single series: indices with forecasts that start from them, the latest forecast."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from gridcast.forecast_plots import date_axis, date_of, on_axis
from gridcast.html import Html
from gridcast.plots import with_units
from gridcast.report.cases import Index
from gridcast.report.charts import INK, chart, colour
from gridcast.report.contents import Subject
from gridcast.verification.hindcast import MODEL

_PLUMES = 40
_HISTORY = 36  # dates before the forecast
_LONG, _LEAST = 24, 120  # dates of an index that are shown: leads, and no fewer than


def plume_chart(index: Index, initial: np.ndarray, valid: np.ndarray, units: str, key: str) -> Html:
    """What was observed, and forecasts that start from it, some of them.

    Forecasts that are short beside the test dates would not be seen: the last dates are shown.
    """
    leads = valid.shape[1]
    shown = slice(-max(_LONG * leads, _LEAST), None)
    late = int((initial < index.times[shown][0]).sum()) if index.times[shown].size else 0
    late -= late > 0  # one that starts on the date before
    apart = leads if index.band is not None else max(1, leads // 4)
    every = max(apart, -(-(initial.size - late) // _PLUMES))  # bands must not lie on each other
    known = dict(zip(index.times.tolist(), index.observed, strict=True))

    def draw(panel: Axes) -> None:
        panel.axhline(0, color=INK, linewidth=0.5)
        for k in range(late, initial.size, every):
            begin = known.get(initial[k : k + 1].tolist()[0], np.nan)
            dates = on_axis(np.concatenate([initial[k : k + 1], valid[k]]))
            label = "forecasts" if k == late else None
            values = np.concatenate([[begin], index.forecast[k]])
            panel.plot(dates, values, color=colour(MODEL), linewidth=1, alpha=0.75, label=label)
            if index.band is not None:
                low, high = index.band[:, k]
                panel.fill_between(dates[1:], low, high, color=colour(MODEL), alpha=0.2, lw=0)
        times = on_axis(index.times[shown])
        panel.plot(times, index.observed[shown], color=INK, linewidth=1.3, label="observed")
        date_axis(panel)

    count = index.times[shown].size
    some = "" if count == index.times.size else f", the last {count} test dates"
    return chart(draw, with_units(f"{index.name}, anomaly", units) + some, key, (9.6, 3.3))


def series_chart(subject: Subject, field: xr.DataArray, key: str) -> Html:
    """The latest forecast of a single series: a curve, or bars of probabilities."""
    series = field.isel(lat=0, lon=0)
    if "category" in series.dims:
        return _bars(series, key)
    ahead = on_axis(series["time"].values)

    def draw(panel: Axes) -> None:
        initial = field["forecast_reference_time"].values[()]
        observations = subject.run.observations
        if observations is not None:
            past = observations[subject.variable].isel(lat=0, lon=0).sel(time=slice(None, initial))
            past = past.isel(time=slice(-max(_HISTORY, 3 * series.size), None))
            panel.plot(on_axis(past["time"].values), past, color=INK, label="observed")
        panel.plot(ahead, series, color=colour(MODEL), marker="o", label="forecast", linewidth=2)
        name = f"{subject.variable}_standard_deviation"
        if subject.run.forecast is not None and name in subject.run.forecast:
            spread = subject.run.forecast[name].values[-1, :, 0, 0]
            bounds = (series.values - spread, series.values + spread)
            panel.fill_between(ahead, *bounds, color=colour(MODEL), alpha=0.2, lw=0)
        date_axis(panel)

    return chart(draw, with_units(subject.variable, subject.units), key, (6.5, 3.4))


def _bars(series: xr.DataArray, key: str) -> Html:
    """Probabilities of classes for each lead, the lowest class at the bottom."""
    odds = series.transpose("category", "forecast_period").values
    hues = mpl.colormaps["RdYlBu_r"](np.linspace(0.15, 0.85, len(odds)))

    def draw(panel: Axes) -> None:
        below = np.zeros(odds.shape[1])
        places = np.arange(odds.shape[1])
        for share, name, hue in zip(odds, series["category"].values, hues, strict=True):
            panel.bar(places, share, bottom=below, color=hue, label=str(name))
            below = below + share
        every = -(-places.size // 8)
        texts = [date_of(one, series) for one in series["time"].values]
        panel.set_xticks(places[::every], texts[::every])
        panel.set_ylim(0, 1)

    return chart(draw, "Probability of each class", key, (6.5, 3.4))
