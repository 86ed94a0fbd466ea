"""How two runs of classes compare, in a table, sentences and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from gridcast.paired import difference_table, in_words
from gridcast.verification.class_significance import ClassComparison


@dataclass(frozen=True)
class PairedClasses:
    """Two runs' probabilities of the classes of one variable.

    Attributes:
      names: of the runs, the first minus the second is judged.
      classes: from low to high.
      step: of a lead, in words.
      first, last: of the dates that are judged, the same at every lead.
      cells: that count.
      rps, hit_rate: of each run, over all dates and cells.
      compared: 95 % intervals of the first against the second.
    """

    names: tuple[str, str]
    variable: str
    classes: list[str]
    step: str
    dates: int
    first: str
    last: str
    cells: int
    rps: Float[np.ndarray, "run lead"]
    hit_rate: Float[np.ndarray, "run lead"]
    compared: ClassComparison

    @property
    def verdict(self) -> str:
        """A sentence of each score."""
        rps, hits = self.compared.rps_difference, self.compared.hit_rate_difference
        return f"{in_words(self.names, 'RPS', rps)} {in_words(self.names, 'hit rate', hits)}"

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        compared = self.compared
        return {
            "runs": list(self.names),
            "variable": self.variable,
            "classes": self.classes,
            "step": self.step,
            "leads": list(range(1, self.rps.shape[1] + 1)),
            "dates": {"count": self.dates, "first": self.first, "last": self.last},
            "cells": self.cells,
            "rps": self.rps.tolist(),
            "difference": (self.rps[0] - self.rps[1]).tolist(),
            "interval_95": np.stack(compared.rps_difference, axis=-1).tolist(),
            "skill_interval_95": np.stack(compared.skill, axis=-1).tolist(),
            "hit_rate": self.hit_rate.tolist(),
            "hit_rate_difference": (self.hit_rate[0] - self.hit_rate[1]).tolist(),
            "hit_rate_interval_95": np.stack(compared.hit_rate_difference, axis=-1).tolist(),
            "block": compared.block.tolist(),
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        ours, theirs = self.names
        about = (
            f"of classes of {self.variable}: A is {ours}, B is {theirs}; "
            f"{self.dates} dates, {self.first} to {self.last}, {self.cells} cells"
        )
        compared = self.compared
        lines = [
            f"ranked probability score (RPS) {about}; below is better",
            *difference_table(self.rps, compared.rps_difference, self.step),
            "hit rate of the same; above is better",
            *difference_table(self.hit_rate, compared.hit_rate_difference, self.step),
            f"{self.verdict} Each lead by itself; blocks of dates resampled.",
        ]
        return "\n".join(lines)
