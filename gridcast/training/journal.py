"""metrics.jsonl: a JSON line for each step and each epoch of a training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gridcast.drafts import unwritable, write_text
from gridcast.printing import strict_json
from gridcast.training.events import Events
from gridcast.training.step import LOGGED


class Journal:
    """What was written after the checkpoint of a resumed run is dropped.

    Args:
      path: None: nothing is written, as another process does.
      step: of this checkpoint.
      events: write the same numbers for TensorBoard.

    Raises:
      DataError: it cannot be written.
    """

    def __init__(self, path: Path | None, step: int, *, events: bool = False):
        self.path, self._events = path, None
        if path is None:
            return
        kept = []
        if step and path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if _readable(line).get("step", step + 1) <= step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        if events:
            self._events = Events(path.parent, step)

    def steps(self, epoch: int, first: int, rows: Float[np.ndarray, "step logged"]) -> None:
        self._write(
            {"step": first + i + 1, "epoch": epoch + 1} | dict(zip(LOGGED, row, strict=True))
            for i, row in enumerate(rows.tolist())
        )

    def epoch(self, **record: int | float) -> None:
        self._write([record])

    def close(self) -> None:
        """Finish the events; lines are written at once."""
        if self._events is not None:
            self._events.close()

    def _write(self, records: Iterable[dict[str, Any]]) -> None:
        if self.path is None:
            return
        records = list(records)
        text = "".join(strict_json(record) + "\n" for record in records)
        try:
            with self.path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self._events is not None:
            for record in records:
                self._events.write(record)


def _readable(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # half a line, written while the run was killed
        return {}
