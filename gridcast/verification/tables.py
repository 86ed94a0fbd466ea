"""Scores for people: a table, one sentence, and comma-separated values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridcast.drafts import drafted
from gridcast.verification.by_name import DAMPED_TRAILING
from gridcast.verification.hindcast import BASE, MODEL

TITLES = {
    MODEL: "model",
    "climatology": "climatology",
    "persistence": "anomaly persistence",
    "damped_persistence": "damped persistence",
    "lim": "linear inverse model",
    BASE: "what the model corrects",
    DAMPED_TRAILING: "damped to trailing mean",
}
LEAD = "lead in steps of: "


def headline(scores: xr.Dataset) -> list[str]:
    """The scores that are shown: the first is the lower the better."""
    return str(scores.attrs["headline"]).split()


def title(scores: xr.Dataset, name: str) -> str:
    """What a forecast is called; the persistence of a class is not that of an anomaly."""
    if name == "persistence" and _of_classes(scores):
        return "persistence of class"
    return TITLES.get(name, name)


def _of_classes(scores: xr.Dataset) -> bool:
    return headline(scores)[0] == "rps"


def table(scores: xr.Dataset, most: int = 12) -> str:
    """The main scores of each forecast by lead, as lines of text."""
    leads = _spread(scores["lead"].values, most)
    step = scores["lead"].attrs["long_name"].removeprefix(LEAD)
    lines = []
    for metric in [*headline(scores), *(["crps"] if "crps" in scores else [])]:
        chosen = scores[metric].sel(lead=leads)
        unit = chosen.attrs["units"]
        head = f"{metric.upper().replace('_', ' ')} {'' if unit == '1' else unit}".strip()
        lines.append(f"{head:<24}" + "".join(f"{lead:>8d}" for lead in leads) + f"  x {step}")
        for name in map(str, scores["forecast"].values):
            row = chosen.sel(forecast=name).values
            cells = "".join(f"{'-' if np.isnan(v) else f'{v:.3f}':>8}" for v in row)
            lines.append(f"{title(scores, name):<24}{cells}")
    if _of_classes(scores):
        skill = scores["skill"].sel(reference="climatology", lead=leads).values
        lines.append(f"{'RPSS, climatology 0':<24}" + "".join(f"{v:>8.3f}" for v in skill))
    dates = int(scores["dates"].values[0])
    lines.append(f"{scores.attrs['source']}; {dates} verification dates, the same at each lead")
    return "\n".join(lines)


def verdict(scores: xr.Dataset) -> str:
    """One sentence: at which leads the model beats every reference, and which it does not beat."""
    metric = headline(scores)[0]
    score, leads = scores[metric], scores["lead"].values
    ours = score.sel(forecast=MODEL).values
    beaten = {
        str(name): ours < score.sel(forecast=name).values for name in scores["reference"].values
    }
    wins = np.all(list(beaten.values()), axis=0)
    word = metric.upper()
    if wins.all():
        return f"The model's {word} is below every reference at all {leads.size} leads."
    unbeaten = [
        f"{title(scores, name)} at {', '.join(map(str, leads[~below]))}"
        for name, below in beaten.items()
        if not below.all()
    ]
    return (
        f"The model's {word} is below every reference at {int(wins.sum())} of {leads.size} leads; "
        f"not below {'; '.join(unbeaten)}."
    )


def as_plain(scores: xr.Dataset) -> dict[str, Any]:
    """For JSON: every score by lead, of each forecast, and against each reference."""
    leads = scores["lead"]
    by_lead = {
        str(name): {
            str(of): one.sel({one.dims[0]: of}).values.tolist() for of in one[one.dims[0]].values
        }
        for name, one in scores.data_vars.items()
        if one.dims in (("forecast", "lead"), ("reference", "lead"), ("reference", "lead", "bound"))
    }
    return {
        "title": str(scores.attrs["title"]),
        "source": str(scores.attrs["source"]),
        "headline": headline(scores),
        "units": {name: str(scores[name].attrs.get("units", "1")) for name in by_lead},
        "step": str(leads.attrs["long_name"]).removeprefix(LEAD),
        "leads": leads.values.tolist(),
        "dates": int(scores["dates"].values[0]),
        **by_lead,
        "verdict": verdict(scores),
    }


def write_csv(scores: xr.Dataset, path: Path) -> None:
    """One line for each forecast and lead; the first line names the columns."""
    plain = [name for name, s in scores.data_vars.items() if s.dims == ("forecast", "lead")]
    columns = scores[plain].to_dataframe().reset_index()
    skill = scores["skill"].to_dataframe().reset_index()
    wide = skill.pivot(index="lead", columns="reference", values="skill").add_prefix("skill_vs_")
    joined = columns.merge(wide.reset_index().assign(forecast=MODEL), how="left")
    joined["source"] = scores.attrs["source"]
    with drafted(path) as draft:
        joined.to_csv(draft, index=False, float_format="%.6g")


def _spread(leads: np.ndarray, most: int) -> list[int]:
    if leads.size <= most:
        return leads.tolist()
    return sorted({int(leads[round(i)]) for i in np.linspace(0, leads.size - 1, most)})
