"""Signals: SIGINT and SIGTERM are heard between two steps, and nothing is lost."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_log = logging.getLogger("gridcast")


def end(signum: int) -> None:
    """Leave as the signal asks, when all has been saved.

    Raises:
      KeyboardInterrupt, SystemExit: for SIGINT, for another signal with 128 + its number.
    """
    _log.warning("stopped by %s; all is saved, go on with --resume", signal.Signals(signum).name)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Hear SIGINT and SIGTERM without breaking off a step; a second one is not held back."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {}

    def hear(signum: int, _frame: Any) -> None:
        heard.append(signum)
        signal.signal(signum, before[signum])

    for signum in (signal.SIGINT, signal.SIGTERM):
        before[signum] = signal.signal(signum, hear)
    try:
        yield heard
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
