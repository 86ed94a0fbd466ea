"""Where downloads and compiled programs are kept."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

CACHE = "GRIDCAST_CACHE"


def cache_dir() -> Path:
    """GRIDCAST_CACHE, else data/cache of the checkout, else the user's cache directory.

    The directory need not exist yet.
    """
    if given := os.environ.get(CACHE):
        return Path(given)
    checkout = Path(__file__).parents[1]
    project = checkout / "pyproject.toml"
    if project.is_file():
        try:
            name = tomllib.loads(project.read_text("utf-8")).get("project", {}).get("name")
        except tomllib.TOMLDecodeError:
            name = None
        if name == "gridcast":
            return checkout / "data" / "cache"
    import pooch  # here alone: it takes a quarter of a second

    return Path(pooch.os_cache("gridcast"))
