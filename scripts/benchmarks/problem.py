"""What the peers are given: a batch, weights, and what gridcast makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Of float32 after a dozen recurrent steps, relative to the largest value.
TOLERANCE = 1e-4


class Disagreement(Exception):  # noqa: N818  (a finding about the peer)
    """A peer computes something else."""


@dataclass(frozen=True)
class Problem:
    """One batch, of the network alone: what it takes, its weights, the loss and its gradients.

    The loss is the mean over the batch of the sum of `weight` times the squared error of
    reference + network.

    Attributes:
      about: settings of the network, its sizes, the optimizer's; the loss.
      arrays: frames [batch time lat lon channel], ahead [batch lead lat lon known], reference,
        targets and outputs [batch lead lat lon output], weight [lead lat lon output].
      weights, gradients: by the names of gridcast's network.
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    def save(self, folder: Path) -> None:
        groups = {"arrays": self.arrays, "weights": self.weights, "gradients": self.gradients}
        named = {f"{g}/{name}": a for g, group in groups.items() for name, a in group.items()}
        np.savez(folder / "problem.npz", **named)  # pyright: ignore[reportArgumentType]
        (folder / "problem.json").write_text(json.dumps(self.about))

    @classmethod
    def load(cls, folder: Path) -> Problem:
        groups: dict[str, dict[str, np.ndarray]] = {"arrays": {}, "weights": {}, "gradients": {}}
        with np.load(folder / "problem.npz") as file:
            for path in file.files:
                group, _, name = path.partition("/")
                groups[group][name] = file[path]
        return cls(json.loads((folder / "problem.json").read_text()), **groups)


def block_order(*shape: int) -> np.ndarray:
    """Where channels that lie as (row, column, channel) are in the order (channel, row, column)."""
    return np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).reshape(-1)


def difference(found: Any, expected: Any) -> float:
    """The largest difference relative to the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise Disagreement(f"shape {found.shape}, expected {expected.shape}")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def require_same(what: str, found: Any, expected: Any) -> float:
    """Their `difference`.

    Raises:
      Disagreement: it is more than `TOLERANCE`, or not a number.
    """
    wrong = difference(found, expected)
    if not wrong <= TOLERANCE:
        raise Disagreement(f"{what} differ by {wrong:.1e}, allowed are {TOLERANCE:.0e}")
    return wrong
