"""Tables of results in Markdown, made of the scores of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gridcast.config import Config
from gridcast.verification.hindcast import MODEL
from gridcast.verification.tables import LEAD, headline, title

NETWORKS = {
    "conv_lstm": "ConvLSTM",
    "conv_seq2seq": "ConvLSTM, encoder and decoder",
    "cnn_lstm": "CNN-LSTM",
    "series": "1-D CNN-LSTM",
    "lim": "LIM",
}


@dataclass(frozen=True)
class Group:
    """A data set: its configs, the leads that are shown, and what of the forecasts is shown.

    Attributes:
      leads: none: all.
      shown: "scores": RMSE (ACC) or RPS (hit rate); "rpss": the RPS relative to climatology's.
    """

    title: str
    configs: tuple[str, ...]
    leads: tuple[int, ...] = ()
    shown: str = "scores"


@dataclass(frozen=True)
class Done:
    """A finished run.

    Attributes:
      path: of its config, as the table names it.
      scores: of its first target.
      about: seconds of the whole job, date, machine, versions.
    """

    path: str
    config: Config
    scores: xr.Dataset
    about: dict[str, Any]

    @property
    def label(self) -> str:
        model, train = self.config.model, self.config.train
        name = NETWORKS.get(model.name, model.name.replace("_", " "))
        if model.base not in (model.name, "damped_persistence"):
            name += f" over {NETWORKS.get(model.base, model.base)}"
        members = f", {train.members} members" if train.members > 1 else ""
        seconds = self.about["seconds"]
        spent = "" if seconds is None else f", {seconds:.0f} s"
        return f"{name}{members}, `{self.path}`{spent}"


def table(group: Group, runs: Sequence[Done]) -> str:
    """Markdown: the references, then each run with how sure it is that it beats the best of them.

    Each reference is that of the first run that has it at this lead. Leads that no run has are left
    out.
    """
    most = max(runs, key=lambda run: run.scores.sizes["lead"]).scores
    there = most["lead"].values.tolist()
    leads = [lead for lead in group.leads or there if lead in there]
    rows: list[tuple[str, list[float], list[str]]] = []
    common = dict.fromkeys(n for run in runs for n in _references(run, of_all=True))
    for name in common:
        cells = [
            next((c for r in runs if (c := _cell(r.scores, name, lead, group.shown))), None)
            for lead in leads
        ]
        rows.append(_row(title(most, name), cells))
    lines = {}
    for run in runs:
        for name in _references(run, of_all=False):
            cells = [_cell(run.scores, name, lead, group.shown) for lead in leads]
            rows.append(_row(f"{title(run.scores, name)}, `{run.path}`", cells))
        rows.append(
            _row(run.label, [_cell(run.scores, MODEL, lead, group.shown) for lead in leads])
        )
        lines[len(rows) - 1] = _beneath(run.scores, leads)
    best = np.argmax if group.shown == "rpss" else np.argmin
    worst = -np.inf if group.shown == "rpss" else np.inf
    for column in range(len(leads)):
        values = [row[1][column] for row in rows]
        if np.isfinite(values).any():
            chosen = best(np.where(np.isnan(values), worst, values))
            rows[chosen][2][column] = f"**{rows[chosen][2][column]}**"
    text = [_caption(group, runs), "", "| | " + " | ".join(map(str, leads)) + " |"]
    text.append("|---" * (len(leads) + 1) + "|")
    for i, (label, _, cells) in enumerate(rows):
        text.append(f"| {label} | {' | '.join(cells)} |")
        text += lines.get(i, [])
    return "\n".join(text)


def _references(run: Done, *, of_all: bool) -> list[str]:
    """References that are the same for all runs on these data; or those of this run alone."""
    names = run.scores["reference"].values.tolist()
    return [n for n in names if (n in ("base", "damped_trailing")) != of_all]


def _cell(scores: xr.Dataset, name: str, lead: int, shown: str) -> tuple[float, str] | None:
    """The number that is compared, and what stands in the table."""
    if lead not in scores["lead"].values or name not in scores["forecast"].values:
        return None
    one = scores.sel(lead=lead)
    main, second = headline(scores)
    value = float(one[main].sel(forecast=name))
    if shown == "rpss":
        value = 1 - value / float(one[main].sel(forecast="climatology"))
        return value, number(value)
    further = float(one[second].sel(forecast=name))
    return value, number(value) + ("" if np.isnan(further) else f" ({number(further)})")


def _row(
    label: str, cells: Sequence[tuple[float, str] | None]
) -> tuple[str, list[float], list[str]]:
    return label, [c[0] if c else np.nan for c in cells], [c[1] if c else "" for c in cells]


def _beneath(scores: xr.Dataset, leads: Sequence[int]) -> list[str]:
    """Further lines of a run: the interval of the difference, and how good its distribution is."""
    there = [lead if lead in scores["lead"].values else None for lead in leads]
    lines = []
    if "rmse_difference_interval" in scores:
        cells = []
        for lead in there:
            bounds = [np.nan]
            if lead is not None:
                one = scores.sel(lead=lead)
                best = int(one["best_reference"])
                bounds = one["rmse_difference_interval"].isel(reference=best).values
            known = np.isfinite(bounds).all()
            cells.append(" to ".join(map(number, bounds)) if known else "")
        lines.append(f"| minus the best reference, 95 % | {' | '.join(cells)} |")
    if "crps_skill" in scores:
        cells = []
        for lead in there:
            names = ("crps_skill", "spread_error_ratio")
            pair = [] if lead is None else [scores[n].sel(forecast=MODEL, lead=lead) for n in names]
            cells.append("{} ({})".format(*(number(float(v)) for v in pair)) if pair else "")
        lines.append(f"| CRPS skill (spread / error) | {' | '.join(cells)} |")
    return lines


def _caption(group: Group, runs: Sequence[Done]) -> str:
    scores, splits = runs[0].scores, runs[0].config.splits
    main, second = headline(scores)
    units = scores[main].attrs["units"]
    further = "ACC" if second == "acc" else second.replace("_", " ")
    what = f"{main.upper()}{'' if units == '1' else f' in {units}'} ({further})"
    if group.shown == "rpss":
        what = "RPSS, 0 is climatology"
    dates = sorted({int(run.scores["dates"].values[0]) for run in runs})
    step = scores["lead"].attrs["long_name"].removeprefix(LEAD)
    simulated = "SIMULATED DATA. " * ("simulated" in scores.attrs["source"].lower())
    return (
        f"**{group.title}**, trained {splits.train}, validated {splits.validation}, tested "
        f"{splits.test}. {simulated}{what} on "
        f"{' or '.join(map(str, dates))} dates, by lead in steps of: {step}."
    )


def number(value: float) -> str:
    """`.285`, `-.049`, `1.767`."""
    text = f"{value:.3f}"
    text = "0.000" if float(text) == 0 else text
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def made_on(runs: Sequence[Done]) -> str:
    machines = dict.fromkeys(
        f"{run.about['date']}: {run.about['cores']} cores of {run.about['processor']}, device "
        f"{run.about['device']}, jax {run.about['versions']['jax']}"
        for run in runs
        if "date" in run.about
    )
    return (
        "Written by `python scripts/results.py`; the seconds are those of the whole job. Bold is "
        f"best. Made on {'; '.join(machines) or 'machines unknown'}."
    )
