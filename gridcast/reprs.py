"""What notebooks show of runs, forecasters and data: small HTML in which all text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from gridcast.config import Config
from gridcast.errors import DataError
from gridcast.frames.fields import Fields
from gridcast.grid import describe_axis
from gridcast.html import Html, el, joined, table
from gridcast.plots import METRICS, Picture, with_units
from gridcast.sources.netcdf import opened
from gridcast.timeaxis import TimeAxis, label
from gridcast.verification.tables import LEAD, headline, title, verdict

_LEADS = 8  # columns of a table
_BANNER = "border-left:4px solid #d55e00;padding:2px 8px;font-weight:bold"
_LEFT = "text-align:left"
Rows = Sequence[tuple[str, str]]


def card(heading: str, source: str, rows: Rows, *more: str) -> Html:
    """A heading, a banner where the source says "simulated", names with values, and what follows.

    Args:
      more: text, or Html that stays as it is.
    """
    simulated = "simulated" in source.lower()
    banner = el("p", f"SIMULATED DATA: {source}", style=_BANNER) if simulated else Html("")
    lines = [
        el("tr", el("th", name, scope="row", style=_LEFT), el("td", value, style=_LEFT))
        for name, value in rows
    ]
    facts = el("table", el("tbody", *lines))
    return el("div", el("strong", heading), banner, facts, *more, class_="gridcast")


def picture(figure: Picture, about: str) -> Html:
    """A figure inside of HTML."""
    png = base64.b64encode(figure._repr_png_()).decode()
    return el("p", el("img", src=f"data:image/png;base64,{png}", alt=about, style="max-width:100%"))


def _run_rows(config: Config, fields: Fields, origin: str, directory: Path) -> Rows:
    """What a run forecasts, from what, and where its files are."""
    frames, splits = config.frames, config.splits
    targets = ", ".join(with_units(target.variable, target.units) for target in fields.targets)
    classes = "" if fields.classes is None else f", as {', '.join(fields.classes.labels)}"
    network = config.model.name
    if network != config.model.base:
        network += f" over {config.model.base}"
    members = config.train.members
    return [
        ("forecast of", targets + classes),
        ("model", network + (f", {members} members" if members > 1 else "")),
        ("data", origin),
        ("grid", str(fields.targets[0].grid)),
        ("frames", f"{frames.inputs} inputs, {frames.leads} leads, step: {fields.targets[0].step}"),
        ("trained on", str(splits.train)),
        ("validated on", str(splits.validation)),
        ("tested on", str(splits.test)),
        ("files", str(directory)),
    ]


def run_text(config: Config, fields: Fields, origin: str, directory: Path) -> str:
    """The text of `run_card`, without scores."""
    return as_text("gridcast run", _run_rows(config, fields, origin, directory))


def run_card(config: Config, fields: Fields, origin: str, directory: Path) -> Html:
    """What was trained, and its scores if they are in the directory."""
    rows = _run_rows(config, fields, origin, directory)
    try:
        with opened(directory / "scores.nc") as scores:
            judged = scores_table(scores)
    except DataError:
        judged = Html("")
    return card("gridcast run", origin, rows, judged)


def scores_table(scores: xr.Dataset) -> Html:
    """The first score by lead, beside the references, and the verdict."""
    metric = headline(scores)[0]
    score = scores[metric].isel(lead=_spread(scores.sizes["lead"]))
    step = str(scores["lead"].attrs["long_name"]).removeprefix(LEAD)
    about = with_units(METRICS[metric], str(score.attrs["units"]))
    rows = [
        [title(scores, str(name)), *(f"{value:.3f}" for value in score.sel(forecast=name).values)]
        for name in scores["forecast"].values
    ]
    dates = int(scores["dates"].values[0])
    said = el("p", f"{verdict(scores)} {dates} verification dates, the same at each lead.")
    return joined(table([f"{about}, {LEAD}{step}", *map(str, score["lead"].values)], rows), said)


def series_rows(series: xr.DataArray) -> Rows:
    """What a canonical series is."""
    axis = TimeAxis.of(series["time"].values)
    span = f"{label(axis.times[0])} to {label(axis.times[-1])}, every {axis.frequency}"
    return [
        ("variable", with_units(str(series.name), str(series.attrs["units"]))),
        ("dates", f"{axis.times.size}: {span}"),
        ("gaps", "; ".join(axis.gaps[:3]) or "none"),
        ("lat", describe_axis(series["lat"].values)),
        ("lon", describe_axis(series["lon"].values)),
    ]


def forecast_rows(forecast: xr.Dataset) -> Rows:
    """What a forecast is, as `Run.forecast` and `Run.hindcast` label it."""
    from_, leads = forecast["forecast_reference_time"].values, forecast["forecast_period"]
    units = str(leads.attrs.get("units", "steps"))
    variables = ", ".join(
        with_units(str(name), str(one.attrs.get("units", "1")))
        for name, one in forecast.data_vars.items()
    )
    first, last = label(from_.min()), label(from_.max())
    return [
        ("forecast of", variables),
        ("from", first if from_.size == 1 else f"{from_.size} dates, {first} to {last}"),
        ("leads", f"{leads.size}, {leads.values[0]:g} to {leads.values[-1]:g} {units}"),
        ("source", str(forecast.attrs.get("source", ""))),
    ]


def as_text(heading: str, rows: Rows) -> str:
    """The same in plain text."""
    return "\n".join([heading, *(f"  {name}: {value}" for name, value in rows)])


def _spread(count: int) -> list[int]:
    """Which leads are shown: all of them, or some from the first to the last."""
    every = max(1, -(-count // _LEADS))
    return sorted({*range(0, count, every), count - 1})
