"""What the charts of a report show by lead and by epoch: skill, certainty, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gridcast.html import Html
from gridcast.plots import METRICS, with_units
from gridcast.report.charts import INK, chart, colour, of_run
from gridcast.report.contents import Contents, Subject
from gridcast.verification.hindcast import MODEL
from gridcast.verification.tables import headline, title

_POINTS = 400  # of a curve: more are not seen


def skill_charts(subject: Subject, key: str) -> list[Html]:
    """The headline scores by lead, and the difference to the best reference with its interval."""
    scores = subject.scores
    metrics = headline(scores)
    found = []
    for metric, better in zip(metrics, ("lower", "higher"), strict=True):

        def draw(panel: Axes, metric: str = metric) -> None:
            for name in map(str, scores["forecast"].values):
                values = scores[metric].sel(forecast=name)
                if np.isfinite(values).any():
                    _by_lead(panel, subject, values, name)
            if metric == "acc" and "acc_interval" in scores:
                _band(panel, scores["lead"].values, scores["acc_interval"].values, MODEL)

        about = with_units(METRICS[metric], str(scores[metric].attrs["units"]))
        found.append(chart(draw, f"{about}: {better} is better", f"{key}-{metric}"))
    if "rmse_difference_interval" in scores:
        found.append(_difference(subject, key))
    return found


def _difference(subject: Subject, key: str) -> Html:
    """RMSE minus that of the best reference of each lead, 95 %."""
    scores = subject.scores
    best = scores["reference"].values[scores["best_reference"].values]
    leads = scores["lead"].values
    ours = scores["rmse"].sel(forecast=MODEL).values
    theirs = [
        float(scores["rmse"].sel(forecast=n, lead=k)) for n, k in zip(best, leads, strict=True)
    ]
    interval = scores["rmse_difference_interval"]
    bounds = np.stack([interval.sel(reference=n, lead=k) for n, k in zip(best, leads, strict=True)])

    def draw(panel: Axes) -> None:
        panel.axhline(0, color=INK, linewidth=0.8)
        values = xr.DataArray(ours - np.array(theirs), {"lead": leads}, "lead")
        _by_lead(panel, subject, values, MODEL)
        _band(panel, leads, bounds, MODEL)

    about = with_units("RMSE minus that of the best reference", str(scores["rmse"].attrs["units"]))
    return chart(draw, f"{about}: below 0 is better", f"{key}-difference")


def comparison_charts(subjects: list[Subject], key: str) -> list[Html]:
    """The headline scores of the models of several runs by lead."""
    found = []
    for metric in headline(subjects[0].scores):

        def draw(panel: Axes, metric: str = metric) -> None:
            for k, one in enumerate(subjects):
                values = one.scores[metric].sel(forecast=MODEL)
                style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 2}
                panel.plot(one.scores["lead"], values, color=of_run(k), label=one.title, **style)
            _whole_numbers(panel)
            panel.set_xlabel(_lead_axis(subjects[0]))

        about = with_units(METRICS[metric], str(subjects[0].scores[metric].attrs["units"]))
        found.append(chart(draw, about, f"{key}-{metric}"))
    return found


def certainty_charts(subject: Subject, key: str) -> list[Html]:
    """Spread against error, and histograms: flat where forecasts are reliable."""
    scores, found = subject.scores, []
    ours = scores.sel(forecast=MODEL)
    leads = scores["lead"].values
    if "spread" in scores and np.isfinite(ours["spread"]).any():

        def draw_spread(panel: Axes) -> None:
            panel.plot(leads, ours["rmse"], color=colour(MODEL), marker="o", label="RMSE")
            dashed: dict[str, Any] = {"linestyle": "--", "marker": "s", "markersize": 4}
            panel.plot(leads, ours["spread"], color=colour("lim"), label="spread", **dashed)
            panel.set_ylim(0, None)
            _whole_numbers(panel)
            panel.set_xlabel(_lead_axis(subject))

        units = str(scores["rmse"].attrs["units"])
        found.append(chart(draw_spread, with_units("Spread and error", units), f"{key}-spread"))
    for name, what, axis in _HISTOGRAMS:
        if name in scores and np.isfinite(ours[name]).any():
            found.append(_histogram(subject, ours[name], what, axis, f"{key}-{name}"))
    if "observed_frequency" in scores and np.isfinite(ours["observed_frequency"]).any():
        found.append(_reliability(subject, key))
    return found


_HISTOGRAMS = (
    ("rank_share", "Rank histogram", "members below what came"),
    ("pit_share", "PIT histogram", "forecast probability of no more than what came"),
)


def _histogram(subject: Subject, shares: xr.DataArray, what: str, axis: str, key: str) -> Html:
    known = shares.values[:, np.isfinite(shares.values).any(axis=0)]

    def draw(panel: Axes) -> None:
        count = known.shape[1]
        panel.axhline(1 / count, color=INK, linewidth=0.8)
        for k, hue in _ends(known.shape[0]):
            edges = np.arange(count + 1) / (count if shares.dims[-1] == "pit" else 1)
            panel.stairs(known[k], edges, color=hue, linewidth=1.8, label=_lead(subject, k))
        panel.set_ylim(0, None)
        panel.set_xlabel(axis)

    return chart(draw, f"{what}: flat is reliable", key)


def _reliability(subject: Subject, key: str) -> Html:
    """Of the highest class at the first and the last lead."""
    ours = subject.scores.sel(forecast=MODEL).isel(category=-1)
    name = str(ours["category"].values)

    def draw(panel: Axes) -> None:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        for k, hue in _ends(ours.sizes["lead"]):
            one = ours.isel(lead=k)
            one = one.isel(bin=one["share"].values > 0)
            at = (one["forecast_probability"], one["observed_frequency"])
            panel.plot(*at, color=hue, label=_lead(subject, k))
            panel.scatter(*at, s=220 * one["share"], color=hue, alpha=0.6, clip_on=False)
        panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="forecast probability")
        panel.set_ylabel("observed frequency")

    return chart(draw, f"Reliability of “{name}”: the diagonal is best", f"{key}-reliability")


def training_charts(run: Contents, key: str) -> list[Html]:
    """Loss by epoch, and the norm of the gradient by step."""
    epochs = [one for one in run.metrics if "validation_loss" in one]
    steps = [one for one in run.metrics if "gradient_norm" in one]
    found = []
    if epochs:

        def draw(panel: Axes) -> None:
            at = [one["epoch"] for one in epochs]
            for name, hue in (("training_loss", "persistence"), ("validation_loss", MODEL)):
                values = [one.get(name, np.nan) for one in epochs]
                panel.plot(at, values, color=colour(hue), marker="o", label=name.split("_")[0])
            panel.set_xlim(at[0] - 0.5, at[-1] + 0.5)
            _whole_numbers(panel)
            panel.set_xlabel("epoch")

        found.append(chart(draw, "Loss: lower is better", f"{key}-loss"))
    if len(steps) > 1:
        few = steps[:: -(-len(steps) // _POINTS)]

        def draw_norm(panel: Axes) -> None:
            at = [one["step"] for one in few]
            panel.plot(at, [one["gradient_norm"] for one in few], color=colour("lim"), linewidth=1)
            panel.set_xlabel("step")

        found.append(chart(draw_norm, "Norm of the gradient", f"{key}-gradient"))
    return found


def _by_lead(panel: Axes, subject: Subject, values: xr.DataArray, name: str) -> None:
    ours = name == MODEL
    panel.plot(
        values["lead"],
        values,
        color=colour(name),
        label=title(subject.scores, name),
        linewidth=3 if ours else 1.3,
        marker="o",
        markersize=3.5 if ours else 2,
        zorder=1.9 if ours else 2.0,  # where they coincide, both are seen
    )
    _whole_numbers(panel)
    panel.set_xlabel(_lead_axis(subject))


def _band(panel: Axes, leads: np.ndarray, bounds: np.ndarray, name: str) -> None:
    low, high = bounds.T
    if leads.size == 1:
        leads, low, high = leads + np.array([-0.2, 0.2]), np.repeat(low, 2), np.repeat(high, 2)
    panel.fill_between(leads, low, high, color=colour(name), alpha=0.2, linewidth=0)


def _ends(count: int) -> list[tuple[int, str]]:
    """The first and the last lead, with a colour for each."""
    return list(zip(sorted({0, count - 1}), (colour(MODEL), colour("lim")), strict=False))


def _whole_numbers(panel: Axes) -> None:
    """Of leads and epochs there is no half, also where there is one alone."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _lead(subject: Subject, k: int) -> str:
    return f"lead {int(subject.scores['lead'][k])}"


def _lead_axis(subject: Subject) -> str:
    return str(subject.scores["lead"].attrs["long_name"])
