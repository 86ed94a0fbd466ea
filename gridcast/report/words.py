"""What a run's scores say, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from gridcast.report.contents import Subject
from gridcast.verification.by_name import DAMPED_TRAILING
from gridcast.verification.hindcast import BASE, MODEL
from gridcast.verification.tables import headline, title

_CLIMATOLOGY = "climatology"
_NAMES = {
    "lim": "the linear inverse model",
    BASE: "the reference that its network corrects",
    DAMPED_TRAILING: "persistence damped to the trailing mean",
}


def summary(subject: Subject) -> list[str]:
    """Sentences: against each reference, climatology last, then correlation and certainty.

    "Beats" is said of leads at which the 95 % interval of the difference lies on the model's side;
    of classes, which have none, of leads with a better score, and this is said.
    """
    scores = subject.scores
    references = [str(name) for name in scores["reference"].values]
    better, worse = verdicts(subject)
    found = []
    if len(references) > 1:
        every = np.all(list(better.values()), axis=0)
        surely = "" if subject.classes else "surely "
        at, told = leads_in_words(subject, every), f"{surely}better than every reference"
        found.append(
            f"The model is {told} at {at}." if every.any() else f"At no lead is the model {told}."
        )
    for name in references:
        if name != _CLIMATOLOGY:
            found.append(_against(subject, name, better[name], worse[name]))
    if _CLIMATOLOGY in better:
        found.append(_beyond_climatology(subject, better[_CLIMATOLOGY]))
    found.append(_measure(subject))
    if told := _certainty(subject):
        found.append(told)
    if subject.classes:
        found.append("Scores of classes have no intervals: small differences may be chance.")
    return found


def verdicts(
    subject: Subject,
) -> tuple[dict[str, Bool[np.ndarray, " lead"]], dict[str, Bool[np.ndarray, " lead"]]]:
    """For each reference, at which leads the model is surely better, and surely worse."""
    scores = subject.scores
    better, worse = {}, {}
    for name in map(str, scores["reference"].values):
        if "skill_interval" in scores:
            interval = scores["skill_interval"].sel(reference=name)
            better[name] = interval.sel(bound="low").values > 0
            worse[name] = interval.sel(bound="high").values < 0
        else:
            skill = scores["skill"].sel(reference=name).values
            better[name], worse[name] = skill > 0, skill < 0
    return better, worse


def share_of_area(subject: Subject, reference: str, leads: Bool[np.ndarray, " lead"]) -> float:
    """The share of the area in which the model has the smaller error, mean over the leads."""
    skill = subject.scores["skill_map"].sel(reference=reference).values[leads]
    weight = np.where(np.isfinite(skill), subject.grid.weight, 0.0)
    return float(((skill > 0) * weight).sum() / max(weight.sum(), 1e-30))


def leads_in_words(subject: Subject, chosen: Bool[np.ndarray, " lead"]) -> str:
    """ "leads 1 to 4 and 7 months"; "every lead" for all of them."""
    leads = subject.scores["lead"].values
    if not chosen.any():
        return "no lead"
    if chosen.all():
        return "every lead" if leads.size > 1 else f"lead {leads[0]}"
    runs = stretches(leads[chosen].tolist())
    texts = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs]
    listed = " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
    return f"lead{'s' if chosen.sum() > 1 else ''} {listed} {_steps(subject.step, runs[-1][1])}"


def _against(
    subject: Subject,
    name: str,
    better: Bool[np.ndarray, " lead"],
    worse: Bool[np.ndarray, " lead"],
) -> str:
    who = _NAMES.get(name, title(subject.scores, name))
    if better.any():
        where = "" if subject.single else f", in {_percent(subject, name, better)} of the area"
        text = f"It beats {who} at {leads_in_words(subject, better)}{where}"
    else:
        text = f"It does not beat {who} at any lead"
    if worse.any():
        return f"{text}; is worse at {leads_in_words(subject, worse)}."
    return f"{text}{'' if better.all() or not better.any() else '; no difference elsewhere'}."


def _beyond_climatology(subject: Subject, better: Bool[np.ndarray, " lead"]) -> str:
    leads = subject.scores["lead"].values
    if not better.any():
        return "It is no better than climatology at any lead."
    last = int(np.flatnonzero(better)[-1])
    if last == leads.size - 1:
        at = leads_in_words(subject, better)
        return f"It is better than climatology at {at}."
    after = f"{subject.step} {leads[last]}" if _plain(subject.step) else f"lead {leads[last]}"
    return f"It is no better than climatology after {after}."


def _measure(subject: Subject) -> str:
    """The second headline score, the higher the better, at the ends of the leads."""
    metric = headline(subject.scores)[1]
    ours: Float[np.ndarray, " lead"] = subject.scores[metric].sel(forecast=MODEL).values
    leads = subject.scores["lead"].values
    name = {"acc": "anomaly correlation", "hit_rate": "hit rate"}.get(metric, metric)
    told = [f"{ours[k]:z.2f} at lead {leads[k]}" for k in sorted({0, leads.size - 1})]
    return f"Its {name} is {' and '.join(told)} {_steps(subject.step, int(leads[-1]))}."


def _certainty(subject: Subject) -> str:
    if "spread_error_ratio" not in subject.scores:
        return ""
    ratio = subject.scores["spread_error_ratio"].sel(forecast=MODEL).values
    if not np.isfinite(ratio).any():
        return ""
    low, high = float(np.nanmin(ratio)), float(np.nanmax(ratio))
    if low > 0.9 and high < 1.1:
        judged = "as wide as its errors are"
    elif high < 1:
        judged = "too sure of itself"
    elif low > 1:
        judged = "less sure of itself than it could be"
    else:
        judged = "too sure at some leads, not sure enough at others"
    return f"Its spread is {low:.2f} to {high:.2f} times its error: {judged}."


def _percent(subject: Subject, name: str, leads: Bool[np.ndarray, " lead"]) -> str:
    return f"{100 * share_of_area(subject, name, leads):.0f} %"


def stretches(leads: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of the leads that follow each other."""
    found: list[tuple[int, int]] = []
    for lead in leads:
        if found and found[-1][1] == lead - 1:
            found[-1] = (found[-1][0], lead)
        else:
            found.append((lead, lead))
    return found


def _plain(step: str) -> bool:
    return not step[:1].isdigit()


def _steps(step: str, count: int) -> str:
    if not _plain(step):
        return f"(steps of {step})"
    return step if count == 1 else f"{step}s"
