"""The machine: its names, what it can do at best, and what a process takes of it."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("gridcast", "jax", "jaxlib", "flax", "numpy", "torch", "keras", "tensorflow")
MATRIX = 2048
_COPIED = 2**25  # float32 numbers, far more than any cache holds


def description() -> dict[str, Any]:
    """Processor, cores and memory."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_GiB": round(pages / 2**30, 1),
    }


def processor() -> str:
    """Its model, or what else the system says of it."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name == "tensorflow":
                found |= _version_of("tensorflow-cpu")
    return found


def _version_of(name: str) -> dict[str, str]:
    try:
        return {name: version(name)}
    except PackageNotFoundError:
        return {}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_core() -> None:
    """Hold this process, and the threads that it will start, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def fastest(function: Callable[[], Any], seconds: float = 0.4) -> float:
    """The shortest time of one call, of as many as fit into `seconds`, and of three at least."""
    function()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def matrix_rate(multiply: Callable[[], Any]) -> float:
    """FLOP/s of a product of square float32 matrices of side `MATRIX`."""
    return 2 * MATRIX**3 / fastest(multiply)


def numpy_matrix_rate() -> float:
    a = np.ones((MATRIX, MATRIX), np.float32)
    return matrix_rate(lambda: a @ a)


def numpy_memory_rate() -> float:
    """Bytes read and written each second by copies, one thread for each core."""
    source = np.ones(_COPIED, np.float32)
    target = np.empty_like(source)
    count = cores()
    parts = list(zip(np.array_split(target, count), np.array_split(source, count), strict=True))
    with ThreadPoolExecutor(count) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(*part), parts))

        return 2 * source.nbytes / fastest(copy)


def cpu_seconds() -> float:
    """CPU time of this process, of all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine_seconds() -> float | None:
    """CPU time of all processes since the machine was started, where that can be known."""
    for line in _lines("/proc/stat"):
        if line.startswith("cpu "):
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, line.split()[1:])
            ticks = user + nice + system + irq + softirq + steal
            return ticks / os.sysconf("SC_CLK_TCK")
    return None


def resident_bytes() -> int:
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that was resident since `reset_peak`, or ever."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Give back what is free, and count the peak anew, where the system can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(name: str) -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: str) -> Iterable[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
