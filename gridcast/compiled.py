"""Compiled programs are kept on disk: the next process loads what an earlier one compiled."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
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


def _processor() -> str:
    """What its instructions are, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return " ".join([platform.machine(), platform.processor(), *sorted(set(features))])
