"""`gridcast data prepare`: the series of a config as a training store."""

from __future__ import annotations

import logging
from pathlib import Path

from gridcast.config import Config
from gridcast.errors import ConfigError
from gridcast.opening import IN_MEMORY
from gridcast.sources import catalog
from gridcast.sources.collection import Collection
from gridcast.sources.storing import write_store

_log = logging.getLogger("gridcast")


def prepare_store(config: Config, path: Path) -> None:
    """Write the store, or what an interrupted process has left to write.

    Raises:
      ConfigError: settings that streaming does not carry, or no files to read.
      DataError: as `gridcast.sources.storing.write_store`.
    """
    if config.unstreamed is not None:
        raise ConfigError(f"a training store is of no use here: {config.unstreamed}")
    settings = config.data
    if settings.path == IN_MEMORY:
        raise ConfigError("data.path names data in memory\n  fix: data.path: the files")
    if settings.path is not None:
        source = settings.path
    else:
        source = list(catalog.locate(str(settings.name)))
    write_store(Collection.of(source, settings.variable, settings.region), path)
    _log.info("the training store is %s", path)
