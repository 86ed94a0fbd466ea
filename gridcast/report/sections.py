"""The sections of a report, each of one target of one run: words, tables, charts."""

from __future__ import annotations

import numpy as np

from gridcast.html import Html, el, joined, table
from gridcast.plots import with_units
from gridcast.report.cases import Cases
from gridcast.report.class_cases import ClassCases
from gridcast.report.contents import Subject
from gridcast.report.pictures import (
    certainty_charts,
    skill_charts,
    training_charts,
)
from gridcast.report.series import plume_chart
from gridcast.report.words import summary
from gridcast.verification.hindcast import MODEL
from gridcast.verification.tables import headline, title

COLUMNS = 8  # leads of a table


def about(subject: Subject) -> Html:
    """What was trained on which data and dates."""
    config = subject.run.config
    grid, splits = subject.grid, config.splits
    dates = int(subject.scores["dates"].values[0])
    members = config.train.members
    count = f", {members} members" if members > 1 else ""
    what = "classes of " if subject.classes else ""
    rows = [
        ["forecast of", f"{what}{subject.variable} [{subject.units}]"],
        ["model and data", subject.run.source],
        ["network", f"{config.model.name} over {config.model.base}{count}"],
        [
            "grid",
            f"one series, at {grid.lat[0]:g} N {grid.lon[0]:g} E" if subject.single else str(grid),
        ],
        ["from and to", f"{config.frames.inputs} inputs, {config.frames.leads} leads"],
        ["one step", subject.step],
        *(
            [["trained on", str(splits.train)], ["validated on", str(splits.validation)]]
            if subject.run.blocks is None
            else []
        ),
        ["tested on", f"{subject.run.tested}, {dates} dates, the same at each lead"],
    ]
    lines = [joined(el("dt", name), el("dd", value)) for name, value in rows]
    return el("dl", *lines)


def in_words(subject: Subject) -> Html:
    """The plain-language summary."""
    return el("ul", *(el("li", line) for line in summary(subject)), class_="words")


def skill(subject: Subject, key: str) -> Html:
    """Skill by lead against the references, drawn and as a table."""
    numbers = el("details", el("summary", "The numbers"), *_tables(subject))
    text = "Bands are 95 % intervals: blocks of dates resampled."
    note = el("p", text, class_="note") if "skill_interval" in subject.scores else Html("")
    return joined(el("div", *skill_charts(subject, key), class_="charts"), note, numbers)


def _tables(subject: Subject) -> list[Html]:
    scores = subject.scores
    names = [str(name) for name in scores["forecast"].values]
    return [
        _by_lead(
            subject,
            metric,
            {title(scores, name): scores[metric].sel(forecast=name).values for name in names},
        )
        for metric in [*headline(scores), *(["crps"] if "crps" in scores else [])]
    ]


def blocks(subject: Subject) -> Html | None:
    """The model's scores of each block of years, and of all; None of no cross-validation."""
    found = subject.run.blocks
    if found is None:
        return None
    tables = []
    for metric in headline(subject.scores):
        parts = found[f"{subject.variable}_{metric}"].sel(forecast=MODEL).values
        rows = dict(zip(map(str, found["block"].values), parts, strict=True))
        rows["all"] = subject.scores[metric].sel(forecast=MODEL).values
        tables.append(_by_lead(subject, metric, rows))
    return joined(*tables)


def _by_lead(subject: Subject, metric: str, rows: dict[str, np.ndarray]) -> Html:
    """A table of one score, a row of each name, at some leads."""
    lead = subject.scores["lead"].values
    leads = chosen_leads(lead.size, COLUMNS)
    name = with_units(metric.upper().replace("_", " "), str(subject.scores[metric].attrs["units"]))
    numbers = [[row, *map(_number, values[leads])] for row, values in rows.items()]
    return table([f"{name}, lead", *(str(lead[k]) for k in leads)], numbers)


def certainty(subject: Subject, key: str) -> Html | None:
    """Spread against error, histograms, reliability; None of forecasts without a spread."""
    charts = certainty_charts(subject, key)
    return el("div", *charts, class_="charts") if charts else None


def training(subject: Subject, key: str) -> Html | None:
    """The training curves; None of a model that was not trained."""
    charts = training_charts(subject.run, key)
    return el("div", *charts, class_="charts") if charts else None


def indices(subject: Subject, found: Cases | ClassCases | None, key: str) -> Html | None:
    """Series of indices with forecasts that start from them; None of classes."""
    if not isinstance(found, Cases):
        return None
    charts = [
        plume_chart(one, found.initial, found.valid, subject.units, f"{key}-index-{k}")
        for k, one in enumerate(found.indices)
    ]
    told = dict.fromkeys(one.told for one in found.indices)
    notes = [el("p", line, class_="note") for line in told]
    return joined(el("div", *charts, class_="charts long"), *notes)


def settings(subject: Subject) -> Html:
    """The whole configuration."""
    text = el("pre", subject.run.settings, tabindex=0)
    return el("details", el("summary", "Every setting"), text)


def chosen_leads(count: int, most: int) -> list[int]:
    """Places of some leads, the first and the last among them."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))})


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"  # noqa: RUF001
