"""Whether this machine can do what gridcast needs: versions, devices, memory, disk, data."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

OK, WARNING, BROKEN = "ok", "warning", "broken"
# Packages that are imported under another name than they are installed by.
_IMPORTED = {"netcdf4": "netCDF4", "pyyaml": "yaml", "pillow": "PIL"}
_LITTLE_MEMORY, _LITTLE_DISK = 2 * 2**30, 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
      state: broken where something that gridcast needs fails; a warning where it may.
      found: in words.
      fix: what to do; empty where all is well.
    """

    name: str
    state: Literal["ok", "warning", "broken"]
    found: str
    fix: str = ""


def examine() -> list[Check]:
    """Look at everything; a check that itself fails is a broken one, never an error."""
    return [check for name in _CHECKS for check in examine_one(name)]


def examine_one(name: str) -> list[Check]:
    """One of the checks: "python", "packages", "disk, scratch", ..., or of its family."""
    name = name.partition(",")[0]
    try:
        return _CHECKS[name]()
    except Exception as error:  # whatever a broken package raises
        return [Check(name, BROKEN, _said(error), "install gridcast again, in a fresh environment")]


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _python() -> list[Check]:
    system = f"{platform.system()} {platform.machine()}"
    return [Check("python", OK, f"{platform.python_version()}, {system}")]


def _packages() -> list[Check]:
    """Every package that gridcast requires, imported."""
    from packaging.requirements import Requirement

    checks, fine = [], []
    for text in metadata.requires("gridcast") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        name = f"package {needed.name}"
        fix = f"pip install '{needed.name}{needed.specifier}'"
        try:
            version = metadata.version(needed.name)
            module = importlib.import_module(_IMPORTED.get(needed.name.lower(), needed.name))
        except metadata.PackageNotFoundError:
            checks.append(Check(name, BROKEN, "not installed", fix))
        except Exception as error:  # a package may fail with anything while it is imported
            checks.append(Check(name, BROKEN, f"cannot be imported: {_said(error)}", fix))
        else:
            if needed.specifier.contains(version, prereleases=True) and module is not None:
                fine.append(f"{needed.name} {version}")
            else:
                found = f"{version}, needed {needed.specifier}"
                checks.append(Check(name, BROKEN, found, fix))
    return [Check("packages", OK, ", ".join(fine)), *checks]


def _gridcast() -> list[Check]:
    importlib.import_module("gridcast.experiment")
    from gridcast.provenance import revision

    commit = revision()
    found = metadata.version("gridcast") + (f", revision {commit}" if commit else "")
    return [Check("gridcast", OK, found)]


def _devices() -> list[Check]:
    import jax

    try:
        devices = jax.devices()
        answer = float(jax.jit(lambda x: x @ x)(jax.numpy.ones((8, 8))).sum())
    except Exception as error:  # the drivers' own types
        fix = "the driver of the accelerator, or JAX_PLATFORMS=cpu"
        return [Check("devices", BROKEN, _said(error), fix)]
    if answer != 512:
        fix = "another jaxlib, or another device"
        return [Check("devices", BROKEN, f"a product that is 512 came out as {answer}", fix)]
    names = [f"{device.platform} {device.device_kind}{_memory_of(device)}" for device in devices]
    found = f"{', '.join(names)}; {_cores()} CPU cores"
    if devices[0].platform == "cpu" and Path("/proc/driver/nvidia/version").exists():
        fix = 'pip install "gridcast[cuda13]"'
        return [Check("devices", WARNING, f"{found}; a GPU is there and not used", fix)]
    return [Check("devices", OK, found)]


def _memory_of(device: object) -> str:
    stats = getattr(device, "memory_stats", lambda: None)() or {}
    limit = stats.get("bytes_limit")
    return "" if limit is None else f" ({_size(limit)})"


def _cores() -> int:
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def _memory() -> list[Check]:
    from gridcast.scratch import memory

    if not Path("/proc/meminfo").exists():
        return [Check("memory", OK, "this system does not say")]
    free, total = memory()
    found = f"{_size(free)} of {_size(total)} available"
    if free < _LITTLE_MEMORY:
        fix = "end other programs, or a coarser grid, train.accumulate, frames.patches"
        return [Check("memory", WARNING, found, fix)]
    return [Check("memory", OK, found)]


def _disk() -> list[Check]:
    """Room where runs, downloads and large arrays go."""
    from gridcast.cache import cache_dir
    from gridcast.scratch import folder_of_files

    checks = []
    for name, path, needed, fix in (
        ("disk, here", Path.cwd(), False, "run it elsewhere, or give output.directory"),
        ("disk, cache", cache_dir(), False, "name another directory in GRIDCAST_CACHE"),
        ("disk, scratch", Path(folder_of_files()), True, "name another directory in TMPDIR"),
    ):
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        found = f"{_size(free)} free for {path}"
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            state = BROKEN if needed else WARNING
            checks.append(Check(name, state, f"{path}: {error.strerror or error}", fix))
            continue
        little = free < _LITTLE_DISK
        checks.append(Check(name, WARNING if little else OK, found, fix if little else ""))
    return checks


def _cache() -> list[Check]:
    from gridcast.cache import cache_dir

    files = [path for path in (cache_dir() / "compiled").glob("*/*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    return [Check("cache", OK, f"{len(files)} files of compiled programs, {_size(total)}")]


def _data() -> list[Check]:
    from gridcast.errors import DataError
    from gridcast.sources.catalog import catalog, find, search_path

    try:
        search_path()
    except DataError as error:
        lines = str(error).splitlines()
        return [Check("data", BROKEN, lines[0], "; ".join(line.strip() for line in lines[1:]))]
    here, damaged = [], []
    for name in catalog():
        try:
            here += [name] if find(name) else []
        except DataError as error:
            fix = f"remove it, then gridcast data get {name}"
            damaged.append(Check(f"data {name}", BROKEN, str(error).splitlines()[0], fix))
    found = f"{len(here)} of {len(catalog())} data sets: {', '.join(here) or 'none'}"
    fix = "gridcast data get NAME, or their directories in GRIDCAST_DATA"
    first = Check("data", OK, found) if here else Check("data", WARNING, found, fix)
    return [first, *damaged]


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


_CHECKS: dict[str, Callable[[], list[Check]]] = {
    "python": _python,
    "packages": _packages,
    "gridcast": _gridcast,
    "devices": _devices,
    "memory": _memory,
    "disk": _disk,
    "cache": _cache,
    "data": _data,
}
