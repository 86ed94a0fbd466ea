"""Pictures of scores, and what all pictures have in common: a title, units, a file."""

from __future__ import annotations

import io
import textwrap
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gridcast.drafts import drafted
from gridcast.verification.by_name import DAMPED_TRAILING
from gridcast.verification.hindcast import BASE, MODEL
from gridcast.verification.tables import headline, title

# Okabe & Ito: told apart by colour-blind readers; the model stands out by its width.
COLOURS = {
    MODEL: "#d55e00",
    "climatology": "#7f7f7f",
    "persistence": "#56b4e9",
    "damped_persistence": "#0072b2",
    "lim": "#009e73",
    BASE: "#cc79a7",
    DAMPED_TRAILING: "#000000",
}
_OTHER = "#e69f00"
_DPI = 110
METRICS = {
    "rmse": "RMSE",
    "acc": "anomaly correlation",
    "rps": "ranked probability score",
    "hit_rate": "hit rate",
}


class Picture(Figure):
    """A figure that notebooks show by themselves: without pyplot, which keeps figures alive."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, dpi=_DPI, format="png")
        return png.getvalue()


def plot_scores(scores: xr.Dataset, path: Path) -> None:
    """The figure of `scores_figure` as PNG."""
    save(scores_figure(scores), path)


def scores_figure(scores: xr.Dataset) -> Picture:
    """The two main scores by lead, the model beside the references."""
    figure = Picture(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    step = scores["lead"].attrs["long_name"]
    for panel, metric, better in zip(panels, headline(scores), ("lower", "higher"), strict=True):
        about = with_units(METRICS[metric], scores[metric].attrs["units"])
        for name in scores["forecast"].values[::-1]:
            curve = scores[metric].sel(forecast=name)
            if np.isnan(curve).all():
                continue
            panel.plot(
                scores["lead"],
                curve,
                label=title(scores, str(name)),
                color=COLOURS.get(str(name), _OTHER),
                linewidth=3.2 if name == MODEL else 1.4,
                zorder=1.9 if name == MODEL else 2.0,  # where they coincide, both are seen
                marker="o",
                markersize=4 if name == MODEL else 2.5,
            )
        panel.set_title(f"{about}, {better} is better", fontsize=11)
        panel.set_xlabel(step)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend(handles[::-1], labels[::-1], fontsize=9, frameon=False)
    dates = int(scores["dates"].values[0])
    entitle(figure, f"{dates} verification dates", scores.attrs["source"])
    return figure


def plot_reliability(scores: xr.Dataset, path: Path) -> None:
    """How often each class came where it was given a probability: at the ends of the leads.

    Of the model, and in a row of its own of each ensemble of another system. On the diagonal
    forecasts are reliable; the area of a point is its share of all cases. Wilks (2019), Statistical
    Methods in the Atmospheric Sciences.
    """
    names, systems = scores["category"].values, _with_probabilities(scores)
    size = 3.6 * len(names), 3.4 * len(systems) + 1.0
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(systems), len(names), squeeze=False)
    for (system, name), panel in zip(product(systems, names), rows.flat, strict=True):
        panel.plot([0, 1], [0, 1], color="#7f7f7f", linewidth=1)
        for lead, colour in ((0, COLOURS[MODEL]), (-1, COLOURS["damped_persistence"])):
            one = scores.sel(forecast=system, category=name).isel(lead=lead)
            one = one.isel(bin=one["share"].values > 0)
            panel.plot(
                one["forecast_probability"],
                one["observed_frequency"],
                color=colour,
                label=f"lead {int(one['lead'])}",
            )
            panel.scatter(
                one["forecast_probability"],
                one["observed_frequency"],
                s=300 * one["share"],
                color=colour,
                alpha=0.7,
                clip_on=False,
            )
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.set_title(str(name) if systems == [MODEL] else f"{system}: {name}", fontsize=11)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in rows[:, 0]:
        panel.set_ylabel("observed frequency")
    for panel in rows[-1]:
        panel.set_xlabel("forecast probability")
    rows[0, 0].legend(fontsize=9, frameon=False)
    dates = int(scores["dates"].values[0])
    entitle(figure, f"reliability, {dates} verification dates", scores.attrs["source"])
    save(figure, path)


def _with_probabilities(scores: xr.Dataset) -> list[str]:
    """The model, unless it has none, and the ensembles of other systems."""
    members = scores["members"].to_series() if "members" in scores else {}
    told = [MODEL] if np.isfinite(scores["rps"].sel(forecast=MODEL)).any() else []
    return told + [str(name) for name, count in members.items() if count]


def entitle(figure: Figure, text: str, source: str) -> None:
    """Text, and below it the source; simulated data must not pass for real ones."""
    if "simulated" in source:
        source = f"SIMULATED DATA: {source}"
    letters = int(12 * figure.get_figwidth())  # that a line of this size holds
    figure.suptitle("\n".join([text, *textwrap.wrap(source, letters)]), fontsize=11)


def with_units(name: str, units: str) -> str:
    return name if units == "1" else f"{name} [{units}]"


def save(figure: Figure, path: Path) -> None:
    """Write PNG, whole or not at all."""
    with drafted(path) as draft:
        figure.savefig(draft, dpi=_DPI, format="png")
