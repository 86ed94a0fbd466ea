"""How two runs compare, in a table, a sentence and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from gridcast.report.words import stretches
from gridcast.verification.significance import Comparison, Interval


@dataclass(frozen=True)
class Paired:
    """Two runs' forecasts of one variable.

    Attributes:
      names: of the runs, the first minus the second is judged.
      step: of a lead, in words.
      first, last: of the dates that are judged, the same at every lead.
      cells: that count.
      rmse: of each run, in `units`, over all dates and cells.
      compared: 95 % intervals of the first against the second.
    """

    names: tuple[str, str]
    variable: str
    units: str
    step: str
    dates: int
    first: str
    last: str
    cells: int
    rmse: Float[np.ndarray, "run lead"]
    compared: Comparison

    @property
    def verdict(self) -> str:
        """One sentence."""
        return in_words(self.names, "RMSE", self.compared.rmse_difference)

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        interval = self.compared.rmse_difference
        return {
            "runs": list(self.names),
            "variable": self.variable,
            "units": self.units,
            "step": self.step,
            "leads": list(range(1, self.rmse.shape[1] + 1)),
            "dates": {"count": self.dates, "first": self.first, "last": self.last},
            "cells": self.cells,
            "rmse": [one.tolist() for one in self.rmse],
            "difference": (self.rmse[0] - self.rmse[1]).tolist(),
            "interval_95": np.stack(interval, axis=-1).tolist(),
            "skill_interval_95": np.stack(self.compared.skill, axis=-1).tolist(),
            "block": self.compared.block.tolist(),
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        ours, theirs = self.names
        lines = [
            f"RMSE of {self.variable} in {self.units}: A is {ours}, B is {theirs}; "
            f"{self.dates} dates, {self.first} to {self.last}, {self.cells} cells",
            *difference_table(self.rmse, self.compared.rmse_difference, self.step),
            f"{self.verdict} Each lead by itself; blocks of dates resampled.",
        ]
        return "\n".join(lines)


def in_words(names: tuple[str, str], metric: str, difference: Interval) -> str:
    """At which leads a score of the first run is surely below or above that of the second."""
    low, high = difference
    found = []
    for words, leads in (
        ("below", np.flatnonzero(high < 0) + 1),
        ("above", np.flatnonzero(low > 0) + 1),
    ):
        if leads.size:
            found.append(f"surely {words} at {_leads(leads.tolist())}")
    open_leads = (np.flatnonzero(~((high < 0) | (low > 0))) + 1).tolist()
    if open_leads:
        every = len(open_leads) == low.size
        found.append(f"not surely another at {'any lead' if every else _leads(open_leads)}")
    return f"The {metric} of {names[0]}, beside that of {names[1]}, is {'; '.join(found)}."


def difference_table(
    scores: Float[np.ndarray, "run lead"], difference: Interval, step: str
) -> list[str]:
    """A score of two runs and the interval of its difference, a line for each lead."""
    low, high = difference
    lines = [f"{'lead':>6}{'A':>10}{'B':>10}{'A - B':>10}   95 % of A - B (a lead is a {step})"]
    for lead, (a, b) in enumerate(scores.T):
        bounds = f"{low[lead]:+.4f} to {high[lead]:+.4f}"
        shown = "too few dates" if np.isnan(low[lead]) else bounds
        lines.append(f"{lead + 1:>6}{a:>10.4f}{b:>10.4f}{a - b:>+10.4f}   {shown}")
    return lines


def _leads(leads: Sequence[int]) -> str:
    """`lead 3`, `leads 1 to 4 and 7`."""
    words = [f"{a}" if a == b else f"{a} to {b}" for a, b in stretches(leads)]
    joined = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"lead{'s' * (len(leads) > 1)} {joined}"
