"""Compiled programs: kept on disk for the next process, and how long compiling took."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from functools import cache
from pathlib import Path

# Programs that compile in fewer seconds are not kept.
LEAST_SECONDS = 0.2


def keep_compiled(directory: Path) -> None:
    """Let JAX keep what it compiles under `directory`. Call it before JAX is imported.

    Each kind of processor has a folder of its own: a program may not run on another kind, and
    several machines may share the disk. JAX's own variables of the environment win. Once JAX has
    been imported nothing is changed.
    """
    if "jax" in sys.modules:
        return
    kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory / kind))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(LEAST_SECONDS))


def compiling_seconds() -> float:
    """Seconds that this process has compiled, or loaded what was compiled, since the first call.

    Tracing Python functions is not among them.
    """
    return sum(_durations(), 0.0)


def loaded_programs() -> int:
    """How many programs came from the disk since `compiling_seconds` was first called."""
    _durations()
    return len(_loaded)


_loaded: list[str] = []


@cache
def _durations() -> list[float]:
    """A list that grows with every program."""
    from jax import monitoring

    found: list[float] = []

    def compiled(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith(("/backend_compile_duration", "/jaxpr_to_mlir_module_duration")):
            found.append(duration_secs)

    def loaded(event: str, **_: str | int) -> None:
        if event.endswith("/cache_hits"):
            _loaded.append(event)

    monitoring.register_event_duration_secs_listener(compiled)
    monitoring.register_event_listener(loaded)
    return found


def _processor() -> str:
    """What its instructions are, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return " ".join([platform.machine(), platform.processor(), *sorted(set(features))])
