"""Pictures: score curves, and the latest forecast as maps."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gridcast.verification.hindcast import MODEL
from gridcast.verification.scores import TITLES

# Okabe & Ito: told apart by colour-blind readers; the model stands out by its width.
_COLOURS = {
    MODEL: "#d55e00",
    "climatology": "#7f7f7f",
    "persistence": "#56b4e9",
    "damped_persistence": "#0072b2",
    "lim": "#009e73",
}
_LAND = "#d9d9d9"


def plot_scores(scores: xr.Dataset, path: Path) -> None:
    """RMSE and ACC by lead, the model beside the references, as PNG."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    unit = scores["rmse"].attrs["units"]
    step = scores["lead"].attrs["long_name"]
    for panel, metric, title in (
        (panels[0], "rmse", f"RMSE [{unit}], lower is better"),
        (panels[1], "acc", "anomaly correlation, higher is better"),
    ):
        for name in scores["forecast"].values[::-1]:
            curve = scores[metric].sel(forecast=name)
            if np.isnan(curve).all():
                continue
            panel.plot(
                scores["lead"],
                curve,
                label=TITLES[str(name)],
                color=_COLOURS[str(name)],
                linewidth=2.6 if name == MODEL else 1.4,
                marker="o",
                markersize=4 if name == MODEL else 2.5,
            )
        panel.set_title(title, fontsize=11)
        panel.set_xlabel(step)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend(handles[::-1], labels[::-1], fontsize=9, frameon=False)
    figure.suptitle(
        _title(scores, f"{int(scores['dates'].values[0])} verification dates"), fontsize=11
    )
    _save(figure, path)


def plot_forecast(observed: xr.DataArray, forecast: xr.Dataset, path: Path) -> None:
    """The last observed field, the forecast at the first and longest lead, and the changes.

    Args:
      observed: (lat, lon) at the initial date.
      forecast: as `Run.forecast` returns; its last initial date is drawn.
    """
    name = str(next(iter(forecast.data_vars)))
    field = forecast[name].isel(forecast_reference_time=-1)
    leads = sorted({0, field.sizes["forecast_period"] - 1})
    fields = [field.isel(forecast_period=k) for k in leads]
    units = field.attrs.get("units", "1")
    everything = np.concatenate([f.values.ravel() for f in [observed, *fields]])
    low, high = np.nanpercentile(everything, [1, 99])
    changes = [f.values - observed.values for f in fields]
    span = float(np.nanpercentile(np.abs(np.concatenate([c.ravel() for c in changes])), 99)) or 1.0
    aspect = 1.0 / max(np.cos(np.deg2rad(float(observed["lat"].mean()))), 0.2)
    width = observed.sizes["lon"] / observed.sizes["lat"] / aspect
    columns = 1 + len(fields)
    size = (min(6.0, max(3.2, 2.6 * width)), 2.6)
    figure = Figure(figsize=(columns * size[0], 2 * size[1] + 0.8), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    panels[1, 0].axis("off")

    def draw(panel: Axes, values: np.ndarray, title: str, colours: str, limits: tuple) -> object:
        colour_map = mpl.colormaps[colours].with_extremes(bad=_LAND)
        image = panel.pcolormesh(
            observed["lon"],
            observed["lat"],
            np.ma.masked_invalid(values),
            cmap=colour_map,
            vmin=limits[0],
            vmax=limits[1],
            shading="nearest",
        )
        panel.set_aspect(aspect)
        panel.set_facecolor(_LAND)
        panel.set_title(title, fontsize=10)
        panel.xaxis.set_major_formatter(FuncFormatter(_east))
        panel.yaxis.set_major_formatter(FuncFormatter(_north))
        panel.tick_params(labelsize=8)
        panel.locator_params(nbins=5)
        return image

    draw(panels[0, 0], observed.values, f"observed {_date(observed)}", "viridis", (low, high))
    for i, (lead, f) in enumerate(zip(leads, fields, strict=True), 1):
        title = f"forecast for {_date(f)} (lead {lead + 1})"
        image = draw(panels[0, i], f.values, title, "viridis", (low, high))
        change = draw(
            panels[1, i],
            changes[i - 1],
            f"forecast minus {_date(observed)}",
            "RdBu_r",
            (-span, span),
        )
    figure.colorbar(image, ax=panels[0], label=f"{name} [{units}]", shrink=0.9)  # type: ignore
    figure.colorbar(change, ax=panels[1], label=f"difference [{units}]", shrink=0.9)  # type: ignore
    figure.suptitle(_title(forecast, f"forecast of {name} from {_date(observed)}"), fontsize=11)
    _save(figure, path)


def _title(dataset: xr.Dataset, text: str) -> str:
    """Simulated data must not pass for real ones."""
    source = str(dataset.attrs["source"])
    if "simulated" in source:
        source = f"SIMULATED DATA: {source}"
    return "\n".join([text, *textwrap.wrap(source, 110)])


def _date(field: xr.DataArray) -> str:
    return str(field["time"].dt.strftime("%Y-%m-%d").values)


def _east(value: float, _position: int | None) -> str:
    degrees = (value + 180) % 360 - 180
    return f"{abs(degrees):g}°{'' if degrees in (0, -180) else 'E' if degrees > 0 else 'W'}"


def _north(value: float, _position: int | None) -> str:
    return f"{abs(value):g}°{'' if value == 0 else 'N' if value > 0 else 'S'}"


def _save(figure: Figure, path: Path) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    figure.savefig(draft, dpi=110, format="png")
    draft.replace(path)
