"""Which windows each member of an ensemble is trained on, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from gridcast.config.training import TrainConfig
from gridcast.errors import ConfigError
from gridcast.frames.windows import shuffled

# Beside the seed: the draw of the years and the orders of the epochs are streams of their own.
_YEARS = (0, 1)


def member_seed(seed: int, member: int) -> int:
    """The seed of a member: alone, with this `train.seed`, it would become the same network."""
    return (seed + member) % 2**32


def member_windows(
    windows: Int[np.ndarray, " window"], years: Int[np.ndarray, " window"], config: TrainConfig
) -> list[Int[np.ndarray, " _"]]:
    """The training windows of each member: all of them, or those of years drawn by lot.

    Args:
      years: of the initial dates.

    Raises:
      ConfigError: blocks so long that there is only one to draw from.
    """
    if config.bootstrap is None:
        return [windows] * config.members
    seeds = [member_seed(config.seed, member) for member in range(config.members)]
    return [resampled(windows, years, config.bootstrap, seed) for seed in seeds]


def resampled(
    windows: Int[np.ndarray, " window"], years: Int[np.ndarray, " window"], length: int, seed: int
) -> Int[np.ndarray, " drawn"]:
    """The windows of as many blocks of years as there are, drawn with replacement.

    The block bootstrap (Künsch 1989): what depends on each other within a block stays together.

    Args:
      length: years of a block, counted from the year of the first window.

    Raises:
      ConfigError: there is only one block.
    """
    number = (years - years.min()) // length
    blocks = [windows[number == one] for one in np.unique(number)]
    if len(blocks) < 2:
        raise ConfigError(
            f"train.bootstrap: {length} years make one block of the training years "
            f"{years.min()} to {years.max()}\n"
            f"  expected: two blocks or more\n  fix: fewer years, or no train.bootstrap"
        )
    drawn = np.random.default_rng([seed, *_YEARS]).integers(len(blocks), size=len(blocks))
    return np.concatenate([blocks[i] for i in drawn])


def epoch_batches(
    windows: Sequence[Int[np.ndarray, " _"]], batch_size: int, seed: int, epoch: int
) -> Int[np.ndarray, "*member step batch"]:
    """The batches of one epoch: for each member in an order of its own, all as many.

    Years drawn by lot differ in their number of windows. The fewest decide the number of steps;
    what is left out of one epoch is another one's. One member's have no member axis.
    """
    batch_size = min(batch_size, *(one.size for one in windows))
    each = [
        shuffled(one, batch_size, member_seed(seed, member), epoch)
        for member, one in enumerate(windows)
    ]
    steps = min(len(one) for one in each)
    return each[0] if len(each) == 1 else np.stack([one[:steps] for one in each])
