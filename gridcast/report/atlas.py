"""The maps of a report: skill, the difference to the best reference, the latest forecast, cases."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from gridcast.forecast_plots import date_of
from gridcast.html import Html, el, joined, table
from gridcast.plots import with_units
from gridcast.report.cases import Cases, anomalies, at_dates
from gridcast.report.class_cases import ClassCases, odds_and_classes
from gridcast.report.contents import Subject
from gridcast.report.maps import Colours, Frame
from gridcast.report.sections import chosen_leads
from gridcast.report.series import series_chart
from gridcast.sources.units import family
from gridcast.verification.tables import title

_LEADS = 4  # that maps of skill are shown of
_KINDS = "largest error", "most gained"
_SHOWN, _LISTED = 2, 3  # worst and best cases, as maps and in the table


def pictures(subject: Subject) -> int:
    """How many maps there are of a subject, so that a page stays small."""
    return 2 * _LEADS + 2 * 2 * _SHOWN + 2 * subject.scores["lead"].size


def skill_maps(subject: Subject, frame: Frame) -> Html | None:
    """Skill against climatology, and the difference to the best reference; None of one cell."""
    if subject.single:
        return None
    scores = subject.scores
    leads = chosen_leads(scores["lead"].size, _LEADS)
    references = [str(name) for name in scores["reference"].values]
    reference = "climatology" if "climatology" in references else references[0]
    fields = list(scores["skill_map"].sel(reference=reference).values[leads])
    limit = Colours("RdBu", -1.0, 1.0)
    name = title(scores, reference)
    bar = f"skill against {name}: 1 is perfect, below 0 is worse"
    rows = [_row(subject, frame, leads, fields, limit, bar)]
    if "mse_difference" in scores:
        fields = list(scores["mse_difference"].values[leads])
        dots = list(scores["significant"].values[leads] > 0)
        units = re.sub("2$", "²", str(scores["mse_difference"].attrs["units"]))
        bar = with_units("MSE minus that of the best reference, blue is better", units)
        rows.append(_row(subject, frame, leads, fields, Colours.around_zero(fields), bar, dots))
        text = "Dots: the difference is significant (false discovery rate 0.1). "
        text += f"Best reference: {_best(subject, leads)}."
        rows.append(el("p", text, class_="note"))
    return joined(*rows)


def latest(subject: Subject, frame: Frame, key: str) -> Html | None:
    """The latest forecast: maps with a slider for the lead, or a chart of a single series."""
    forecast = subject.run.forecast
    name = subject.variable + ("_probability" if subject.classes else "")
    if forecast is None or name not in forecast:
        return None
    field = forecast[name].isel(forecast_reference_time=-1).load()
    start = date_of(field["forecast_reference_time"].values[()], field)
    text = el("p", f"Made from the data up to {start}.")
    if subject.single:
        return joined(
            text, el("div", series_chart(subject, field, f"{key}-latest"), class_="charts")
        )
    maps = _odds(field, frame) if subject.classes else _values(subject, field, frame)
    times = field["time"].values
    labels = [f"lead {k + 1}: {date_of(one, field)}" for k, one in enumerate(times)]
    slider = el(
        "div",
        el("button", "Play", type="button"),
        el("input", type="range", min=0, max=len(labels) - 1, value=0, aria_label="lead"),
        el("output", labels[0]),
        class_="slider",
    )
    return joined(text, el("div", slider, *maps, class_="film", data_labels="|".join(labels)))


def worst_and_best(subject: Subject, found: Cases | ClassCases | None, frame: Frame) -> Html | None:
    """The forecasts with the largest error, and those that gained most over climatology."""
    if found is None:
        return None
    worst, best = found.extremes(_LISTED)
    if not worst:
        return None
    kinds: list[tuple[str, list[int]]] = list(zip(_KINDS, (worst, best), strict=True))
    if isinstance(found, ClassCases):
        score, head, what = found.rps, "RPS", "RPS"
    else:
        score, head, what = found.rmse, with_units("RMSE", subject.units), "squared error"
    rows = [
        [kind, _start(subject, found, k), f"{score[k]:.3f}", f"{found.normal[k]:.3f}"]
        for kind, cases in kinds
        for k in cases
    ]
    text = f"Gained is {what}: that of climatology less that of the forecast, over all leads."
    parts = [
        table(["why", "forecast from", head, "of climatology"], rows),
        el("p", text, class_="note"),
    ]
    if not subject.single:
        parts.append(_case_maps(subject, found, frame, kinds))
    return joined(*parts)


def _case_maps(
    subject: Subject,
    found: Cases | ClassCases,
    frame: Frame,
    kinds: list[tuple[str, list[int]]],
) -> Html:
    lead = (found.valid.shape[1] - 1) // 2
    chosen = [(kind, k) for kind, cases in kinds for k in cases[:_SHOWN]]
    assert subject.run.hindcast is not None
    places = subject.run.hindcast.indexes["forecast_reference_time"].get_indexer(
        found.initial[[k for _, k in chosen]]
    )
    if isinstance(found, ClassCases):
        odds, classes, _ = odds_and_classes(subject, places)
        top = odds.shape[-1] - 1
        forecast = odds[:, lead, ..., top]
        came = np.where(np.isnan(classes[:, lead]), np.nan, classes[:, lead] == top)
        colours = Colours("YlGnBu", 0.0, 1.0)
        name = str(subject.run.hindcast["category"].values[top])
        text = f"probability of {name} at lead {lead + 1}; observed: 1 where it came"
    else:
        forecast, came = (one[:, lead] for one in anomalies(subject, places))
        colours = Colours.around_zero([*forecast, *came], _anomaly(subject))
        text = with_units(f"anomaly at lead {lead + 1}", subject.units)
    maps = []
    for n, (kind, k) in enumerate(chosen):
        date = date_of(found.valid[k, lead], subject.run.hindcast["time"])
        for what, fields in (("forecast", forecast), ("observed", came)):
            maps.append(_map(frame, [fields[n]], colours, f"{kind}: {what} for {date}"))
    return joined(el("div", *maps, class_="maps"), colours.bar(text))


def _anomaly(subject: Subject) -> str:
    """Colours of anomalies: of rain brown is dry, of all else blue is low."""
    return "BrBG" if family(subject.units) in ("rate", "length") else "RdBu_r"


def _start(subject: Subject, found: Cases | ClassCases, k: int) -> str:
    assert subject.run.hindcast is not None
    return date_of(found.initial[k], subject.run.hindcast["time"])


def _values(subject: Subject, field: xr.DataArray, frame: Frame) -> list[Html]:
    """Values, and anomalies where the climatology is at hand."""
    fields = list(field.values)
    colours = Colours.of_values(fields)
    rows = [_film(frame, fields, colours, "forecast", with_units(str(field.name), subject.units))]
    observations = subject.run.observations
    if observations is not None:
        _, normal = at_dates(observations, subject.variable, field["time"].values[None])
        changes = list(field.values - normal[0])
        text = "forecast minus climatology"
        colours = Colours.around_zero(changes, _anomaly(subject))
        rows.insert(0, _film(frame, changes, colours, text, with_units(text, subject.units)))
    return [el("div", *rows, class_="maps")]


def _odds(field: xr.DataArray, frame: Frame) -> list[Html]:
    """Of the highest class and, of more than two, of the lowest."""
    names = [str(name) for name in field["category"].values]
    rows = []
    for k in [-1] if len(names) == 2 else [-1, 0]:
        fields = list(field.isel(category=k).values)
        text = f"probability of {names[k]}"
        rows.append(_film(frame, fields, Colours("YlGnBu", 0.0, 1.0), text, text))
    return [el("div", *rows, class_="maps")]


def _film(frame: Frame, fields: list[np.ndarray], colours: Colours, text: str, bar: str) -> Html:
    drawn = frame.draw(fields, colours, text)
    return el("figure", el("figcaption", text), drawn, colours.bar(bar))


def _row(
    subject: Subject,
    frame: Frame,
    leads: list[int],
    fields: list[np.ndarray],
    colours: Colours,
    bar: str,
    dots: list[np.ndarray] | None = None,
) -> Html:
    """Maps of some leads with one scale."""
    maps = [
        _map(frame, [field], colours, f"lead {subject.scores['lead'].values[k]}", significant)
        for k, field, significant in zip(leads, fields, dots or [None] * len(leads), strict=True)
    ]
    return joined(el("div", *maps, class_="maps"), colours.bar(bar))


def _map(
    frame: Frame,
    fields: list[np.ndarray],
    colours: Colours,
    text: str,
    significant: np.ndarray | None = None,
) -> Html:
    return el("figure", el("figcaption", text), frame.draw(fields, colours, text, significant))


def _best(subject: Subject, leads: list[int]) -> str:
    scores = subject.scores
    names = [str(scores["reference"].values[k]) for k in scores["best_reference"].values[leads]]
    pairs = zip(scores["lead"].values[leads], names, strict=True)
    return "; ".join(f"{title(scores, name)} at lead {lead}" for lead, name in pairs)
