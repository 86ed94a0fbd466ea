"""The page around the sections: one file that needs nothing else and asks nobody for anything."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from gridcast.drafts import write_text
from gridcast.errors import DataError
from gridcast.html import Html, el, joined, table
from gridcast.plots import with_units
from gridcast.report import atlas, sections
from gridcast.report.cases import cases
from gridcast.report.class_cases import class_cases
from gridcast.report.contents import Contents, Subject, contents
from gridcast.report.maps import Frame
from gridcast.report.pictures import comparison_charts
from gridcast.verification.hindcast import MODEL
from gridcast.verification.tables import headline

NAME = "report.html"
LARGEST = 5_000_000  # bytes of a page
_CELLS = 2_000_000  # of all maps together; a cell takes about a byte
_MOST_CELLS = 40_000  # of one map
_log = logging.getLogger("gridcast")


def write_report(directories: Sequence[str | Path], output: str | Path) -> Path:
    """Write the report of one run, or of several side by side, as one HTML file.

    Raises:
      DataError: a directory holds no run with scores, or so many runs make too large a page.
    """
    path = Path(output).expanduser()
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(contents(one)) for one in directories]
        text = page(runs)
    size = len(text.encode())
    if size > LARGEST:
        raise DataError(
            f"the report of {len(runs)} runs has {size / 1e6:.1f} MB\n"
            f"  expected: at most {LARGEST / 1e6:.0f} MB\n  fix: fewer runs at a time"
        )
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist\n  fix: create it")
    write_text(path, text)
    return path


def report_run(directory: Path) -> None:
    """The report of a run that has ended; whatever is wrong with it, the run is there."""
    try:
        write_report([directory], directory / NAME)
    except Exception as error:
        _log.warning(
            "no %s: %s: %s\n  the run is complete without it\n  fix: gridcast report %s",
            NAME,
            type(error).__name__,
            error,
            directory,
        )


def page(runs: Sequence[Contents]) -> str:
    """The whole page."""
    subjects = [subject for run in runs for subject in run.subjects()]
    heading = "Forecast report: " + ", ".join(dict.fromkeys(run.name for run in runs))
    parts = _parts(subjects)
    links = [el("a", name, href=f"#{_anchor(name)}") for name, _ in parts]
    banners = [
        el("p", f"SIMULATED DATA: {source}", class_="banner", role="note")
        for source in dict.fromkeys(run.source for run in runs if run.simulated)
    ]
    chapters = [el("section", el("h2", name), inside, id=_anchor(name)) for name, inside in parts]
    body = joined(
        el("header", el("h1", heading), *banners, el("nav", *links, aria_label="sections")),
        el("main", *chapters),
        el("footer", el("p", f"gridcast {version('gridcast')}", class_="note")),
    )
    return f"<!DOCTYPE html>\n{el('html', _head(heading), _body(body), lang='en')}\n"


def _head(heading: str) -> Html:
    digest = base64.b64encode(hashlib.sha256(_part("slider.js").encode()).digest()).decode()
    # Nothing is fetched, and no script runs but ours, whatever the names in the files say.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", heading),
        el("style", Html(_part("style.css"))),
    )


def _body(inside: Html) -> Html:
    return el("body", inside, el("script", Html(_part("slider.js"))))


def _parts(subjects: list[Subject]) -> list[tuple[str, Html]]:
    """The sections with their names: in each a column for each subject."""
    most = min(_MOST_CELLS, _CELLS // sum(map(atlas.pictures, subjects)))
    columns = [_column(subject, f"c{k}", most) for k, subject in enumerate(subjects)]
    found = [("Side by side", _side_by_side(subjects))] if len(subjects) > 1 else []
    for name in columns[0]:
        cells = [column[name] for column in columns]
        if any(cell is not None for cell in cells):
            found.append((name, _row(subjects, cells)))
    return found


def _column(subject: Subject, key: str, most: int) -> dict[str, Html | None]:
    """All sections of a subject by name; None of what it has nothing for.

    Args:
      key: that no other column has.
      most: cells that a map may have.
    """
    frame = Frame.of(subject.grid, f"{key}-coast", most)
    found = class_cases(subject) if subject.classes else cases(subject)
    shared = el("svg", frame.coast(), class_="shared", aria_hidden="true")
    return {
        "In words": joined(shared, sections.in_words(subject)),
        "What was trained": sections.about(subject),
        "Skill by lead": sections.skill(subject, key),
        "Block by block": sections.blocks(subject),
        "Latest forecast": atlas.latest(subject, frame, key),
        "Where it is good": atlas.skill_maps(subject, frame),
        "Indices": sections.indices(subject, found, key),
        "How sure it is": sections.certainty(subject, key),
        "Worst and best cases": atlas.worst_and_best(subject, found, frame),
        "Training": sections.training(subject, key),
        "Settings": sections.settings(subject),
    }


def _row(subjects: list[Subject], cells: list[Html | None]) -> Html:
    if len(subjects) == 1:
        return cells[0] or Html("")
    columns = [
        el("div", el("h3", subject.title), el("p", "Nothing.") if cell is None else cell)
        for subject, cell in zip(subjects, cells, strict=True)
    ]
    return el("div", *columns, class_="columns several")


def _side_by_side(subjects: list[Subject]) -> Html:
    """The scores of models that can be held against each other: one variable, unit and score."""
    groups: dict[tuple[str, ...], list[Subject]] = {}
    for one in subjects:
        metrics = headline(one.scores)
        groups.setdefault((one.variable, one.units, one.step, *metrics), []).append(one)
    parts = []
    for number, group in enumerate(groups.values()):
        dates = {one.run.tested for one in group}
        if len(dates) > 1:
            text = f"The test dates differ: {'; '.join(sorted(dates))}. Scores do not compare."
            parts.append(el("p", text, class_="note"))
        if len(group) > 1:
            parts.append(el("div", *comparison_charts(group, f"g{number}"), class_="charts"))
        parts.extend(_scores(group, metric) for metric in headline(group[0].scores))
    return joined(*parts)


def _scores(group: list[Subject], metric: str) -> Html:
    leads = sorted({int(lead) for one in group for lead in one.scores["lead"].values})
    leads = [leads[k] for k in sections.chosen_leads(len(leads), sections.COLUMNS)]
    rows = []
    for one in group:
        ours = one.scores[metric].sel(forecast=MODEL).to_series()
        told = [f"{ours[lead]:.3f}" if lead in ours else "" for lead in leads]
        rows.append([one.title, *told])
    name = f"{metric.upper().replace('_', ' ')} of {group[0].variable}"
    about = with_units(name, str(group[0].scores[metric].attrs["units"])) + ", lead"
    return table([about, *map(str, leads)], rows)


def _part(name: str) -> str:
    return (files("gridcast.report") / name).read_text(encoding="utf-8")


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
