"""Where training stands, and how it is shown: a bar on a terminal, lines elsewhere, time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm.auto import tqdm

from gridcast.compiled import compiling_seconds, loaded_programs

_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class Progress:
    """Where training stands; with the state and the seed it decides all that follows.

    Attributes:
      best_loss, best_epoch: of the best validation so far; epoch 0 is the untrained model.
      stale: epochs since then.
      finished: training ended by itself.
      skipped: steps that were not taken, because what came of them was not finite.
    """

    best_loss: float
    best_epoch: int = 0
    stale: int = 0
    finished: bool = False
    skipped: int = 0


@contextmanager
def first_told(first: bool) -> Iterator[None]:
    """Say how long it took to get the program of the training step, which no later call does."""
    if not first:
        yield
        return
    seconds, loaded = compiling_seconds(), loaded_programs()
    yield
    how = "loaded, compiled before" if loaded_programs() > loaded else "compiled"
    _log.info("the training step was %s, in %.1f s", how, compiling_seconds() - seconds)


@contextmanager
def progress_bar(total: int, done: int) -> Iterator[Bar]:
    bar = Bar(total, done)
    try:
        yield bar
    finally:
        bar.close()


def _watched() -> bool:
    """Whether somebody looks on: at a terminal, or in a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or "IPKernelApp" in getattr(shell, "config", {})


class Bar:
    """A progress bar on a terminal and in a notebook, one plain line for each epoch elsewhere."""

    def __init__(self, total: int, done: int):
        self.inner = tqdm(total=total, initial=done, unit="step", disable=not _watched())
        self.close = self.inner.close
        self.left = total - done
        self.seen: list[tuple[float, int]] = []

    def update(self, steps: int) -> None:
        self.inner.update(steps)
        self.left -= steps
        self.seen.append((time.perf_counter(), self.left))

    @property
    def remaining(self) -> str:
        """Time left by the pace since the first call, which compiles; nothing before a second."""
        if not self.left or len(self.seen) < 2:
            return ""
        began, left = self.seen[0]
        pace = (time.perf_counter() - began) / (left - self.left)
        return f"; about {tqdm.format_interval(pace * self.left)} left"

    def epoch(
        self, epoch: int, epochs: int, loss: float, validation: float, progress: Progress
    ) -> None:
        text = (
            f"loss {loss:.4f}, validation {validation:.4f}, "
            f"best {progress.best_loss:.4f} (epoch {progress.best_epoch})"
        )
        if self.inner.disable:
            left = "" if progress.finished else self.remaining
            _log.info("epoch %d of %d: %s%s", epoch, epochs, text, left)
        else:
            self.inner.set_description(f"epoch {epoch}/{epochs}")
            self.inner.set_postfix_str(text)
