"""Whether a series is in memory or read from its store as it is needed, by settings or by size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gridcast.config import Config
from gridcast.errors import ConfigError
from gridcast.scratch import free_memory
from gridcast.sources.files import find_files
from gridcast.sources.store import about_store

# What a training takes at its peak, in sizes of the series: fits in float64, frames, the device.
_TIMES = 8
_log = logging.getLogger("gridcast")


def streams(config: Config, source: Any) -> bool:
    """Whether the series is read as it is needed; where `auto` decides, it is logged.

    Args:
      source: a path, paths, or data in memory.

    Raises:
      ConfigError: auto: what does not fit in memory is no training store, or needs to fit.
    """
    storage = config.frames.storage
    if storage != "auto" or not isinstance(source, str | Path | list):
        return storage == "stream"
    size, free = size_of(source), free_memory()
    found = (
        f"the series takes {size / 2**20:.0f} MiB, training on it in memory about {_TIMES} times "
        f"that, and {free / 2**20:.0f} MiB are free"
    )
    if _TIMES * size <= free:
        _log.info("frames.storage: auto: memory, as %s", found)
        return False
    kept = isinstance(source, str | Path) and about_store(source) is not None
    if kept and config.unstreamed is None:
        _log.info("frames.storage: auto: stream, as %s", found)
        return True
    fix = "fix: gridcast data prepare CONFIG, then data.path: what it has written"
    raise ConfigError(
        f"frames.storage: auto: {found}\n"
        + (f"  but {config.unstreamed}" if config.unstreamed is not None else f"  {fix}")
    )


def size_of(source: str | Path | Sequence[str | Path]) -> int:
    """Bytes of a store's series in float32, or of files as they are: packed ones become larger."""
    if isinstance(source, str | Path) and (about := about_store(source)) is not None:
        return 4 * int(np.prod(about["shape"]))
    inside = [
        [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
        for path in find_files(source)
    ]
    return sum(file.stat().st_size for files in inside for file in files)
