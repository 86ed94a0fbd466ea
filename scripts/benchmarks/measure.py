"""Medians, ratios and what may be quoted, of blocks that were timed in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# A block lasts so long, and has so many steps at least.
SECONDS, STEPS = 1.0, 3
# Below this share of the cores something else had them: 1.5 of 2.
QUIET = 0.75


@dataclass(frozen=True)
class Block:
    """Some steps in a row.

    Attributes:
      seconds: wall time of one step.
      cpu: CPU time of the process over wall time.
      others: the same of all other processes of the machine; None: unknown.
    """

    seconds: float
    cpu: float
    others: float | None = None


def in_turns(
    runners: Mapping[str, Callable[[int], Block]],
    first: Mapping[str, float],
    rounds: int,
    seconds: float = SECONDS,
) -> dict[str, list[Block]]:
    """Time a block of each runner, then of each again, so that all see the same machine.

    Args:
      runners: do so many steps, and say what they took.
      first: seconds of one step, by which the blocks are made long enough.
      seconds: so long.
    """
    blocks: dict[str, list[Block]] = {name: [] for name in runners}
    for number in range(rounds):
        # Nobody is always the first after the same neighbour.
        for name in list(runners)[:: 1 if number % 2 == 0 else -1]:
            blocks[name].append(runners[name](steps_of(first[name], seconds)))
    return blocks


def steps_of(step: float, block: float = SECONDS) -> int:
    """How many steps of so many seconds make a block."""
    return max(STEPS, math.ceil(block / max(step, 1e-4)))


def summary(blocks: Sequence[Block], cores: int | None) -> dict[str, Any]:
    """The median and all that it was taken of.

    Args:
      cores: that the process could have had; None: it computes elsewhere, on a GPU.
    """
    cpu = median(block.cpu for block in blocks)
    others = [block.others for block in blocks if block.others is not None]
    return {
        "seconds": median(block.seconds for block in blocks),
        "blocks": [block.seconds for block in blocks],
        "cpu_over_wall": cpu,
        "others_over_wall": median(others) if others else None,
        "busy": cores is not None and cpu < QUIET * cores,
    }


def comparison(ours: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many times as fast as the best peer, with the range of the rounds.

    Args:
      ours, peers: from `summary`.

    Returns:
      `quoted` is False where the machine was busy with something else in either.
    """
    if not peers:
        return {}
    best = min(peers, key=lambda name: peers[name]["seconds"])
    return {
        "best_peer": best,
        **ratio(ours, peers[best]),
        "all": {name: ratio(ours, peer) for name, peer in peers.items()},
    }


def ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The other's time over ours; above 1 we are faster."""
    each = [theirs / own for theirs, own in zip(other["blocks"], ours["blocks"], strict=True)]
    return {
        "ratio": other["seconds"] / ours["seconds"],
        "range": [min(each), max(each)],
        "quoted": not (ours["busy"] or other["busy"]),
    }
