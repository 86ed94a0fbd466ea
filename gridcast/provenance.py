"""What a result was made with: versions of packages, the revision of the code, sums of the data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from gridcast.scratch import blocks

# Of the packages that decide the numbers.
PACKAGES = ("gridcast", "jax", "jaxlib", "flax", "optax", "numpy", "xarray", "netCDF4")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@cache
def revision() -> str | None:
    """Of the checkout that this code is in, `-dirty` where it was changed; None without one."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def checksums(series: Sequence[xr.DataArray]) -> dict[str, str]:
    """The SHA-256 of the dates and values of each series, as they were used, by its name.

    The same values from another file, or in another order or convention, have the same sum.
    """
    sums: dict[str, str] = {}
    for number, one in enumerate(series, 1):
        digest = hashlib.sha256(" ".join(map(str, one["time"].values)).encode())
        for part in blocks(len(one), one[:1].nbytes):
            digest.update(np.ascontiguousarray(one[part].values).data)
        name = str(one.name)
        sums[f"{name}_{number}" if name in sums else name] = digest.hexdigest()
    return sums
