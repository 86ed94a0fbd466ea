"""What takes long: the seconds of each stage of a command, and of compiling within them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gridcast.compiled import compiling_seconds

COMPILING = "compiling"


class Times:
    """Seconds of wall clock by stage, each moment in one of them; compiling is a stage of its own.

    Attributes:
      seconds: by name, in the order of their first beginning.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = self._since = time.perf_counter()
        self._compiled = compiling_seconds()
        self._now = "other"

    def switch(self, name: str) -> str:
        """From now on it is this stage; returns the one before."""
        now, compiled = time.perf_counter(), compiling_seconds()
        spent = compiled - self._compiled
        self._add(self._now, now - self._since - spent)
        self._add(COMPILING, spent)
        before, self._now, self._since, self._compiled = self._now, name, now, compiled
        return before

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def __str__(self) -> str:
        """`time: opening 1.2 s, training 30.1 s; 33.0 s in all`, without what took no time."""
        told = [f"{name} {spent:.1f} s" for name, spent in self.seconds.items() if spent >= 0.05]
        return f"time: {', '.join(told)}; {time.perf_counter() - self._began:.1f} s in all"


_active: ContextVar[Times | None] = ContextVar("stages", default=None)


@contextmanager
def timed() -> Iterator[Times]:
    """Count the stages of what runs in the block; complete after it."""
    times = Times()
    token = _active.set(times)
    try:
        yield times
    finally:
        times.switch("other")
        _active.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block, or the function that this decorates, is one stage; a stage within has its own."""
    times = _active.get()
    if times is None:
        yield
        return
    before = times.switch(name)
    try:
        yield
    finally:
        times.switch(before)
