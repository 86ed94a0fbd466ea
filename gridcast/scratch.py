"""Arrays that may be larger than memory: made and read in blocks, kept in files without a name."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from gridcast.errors import DataError

# Bytes of one array that is worked on at once. What is larger as a whole is kept in a file.
BLOCK = 2**24
# The files that are mapped, as long as an array of them lives.
_MAPPED: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()


def blocks(size: int, nbytes: int) -> Iterator[slice]:
    """Cut an axis into parts of no more than `BLOCK` bytes, or of one place.

    Args:
      nbytes: of one place.
    """
    step = max(1, BLOCK // max(nbytes, 1))
    for k in range(0, size, step):
        yield slice(k, min(k + step, size))
        _let_go()


def lead_blocks(shape: tuple[int, ...], itemsize: int = 8) -> Iterator[tuple[slice, slice]]:
    """Leads and rows to work on at once: several leads, or, of a large grid, a band of one lead.

    Args:
      shape: window, lead, lat and more, of one array.
    """
    windows, leads, rows, *more = shape
    row = windows * prod(more) * itemsize
    for some in blocks(leads, row * rows):
        for band in blocks(rows, row * (some.stop - some.start)):
            yield some, band


def kept(
    make: Callable[[slice], dict[str, Any]], size: int, nbytes: int, batch: int = 1
) -> dict[str, Any]:
    """What `make` gives of all windows, made of some after the others.

    Args:
      make: arrays [window, lead, ...] of some windows, by name, or mappings of them.
      size: how many windows there are.
      nbytes: of an array of one window.
      batch: windows are made in multiples of it.

    Returns:
      As `make`; in `room` where they were made in several parts.
    """
    parts = -(-size // (batch * max(1, BLOCK // (batch * nbytes))))
    if parts <= 1:
        return make(slice(0, size))
    # Of like size: products of small matrices are summed up in another order than those of large.
    step = batch * -(-size // (batch * parts))
    found: dict[str, Any] = {}
    for first in range(0, size, step):
        part = slice(first, min(first + step, size))
        _put(found, make(part), part, size)
    return found


def _put(found: dict[str, Any], made: dict[str, Any], part: slice, size: int) -> None:
    for name, one in made.items():
        if isinstance(one, dict):
            _put(found.setdefault(name, {}), one, part, size)
            continue
        if name not in found:
            found[name] = room((size, *one.shape[1:]), one.dtype)
        found[name][part] = one
        _let_go()


def _let_go() -> None:
    """Give the memory back that pages of the files take; what is in them stays in the files."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_MAPPED.values()):
            mapped.madvise(mmap.MADV_DONTNEED)


def room(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Zeros [window, lead, ...], beyond `BLOCK` bytes in a file that goes when the array does.

    The file has no name, so that nothing is left of it either when the process is killed. There,
    all windows of a lead lie together: forecasts are made by window and judged by lead. It is in
    TMPDIR, or else in /var/tmp, as /tmp may be memory.

    Raises:
      DataError: there is no space for it.
    """
    windows, leads, *more = shape
    order = (leads, windows, *more)
    size = prod(shape) * np.dtype(dtype).itemsize
    if size <= BLOCK:
        return np.zeros(order, dtype).swapaxes(0, 1)
    folder = folder_of_files()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A disk that turns out to be full under a memory map ends the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            mapped = np.memmap(file, dtype, "r+", shape=order)
            if hasattr(mmap, "MADV_RANDOM"):
                # Else rows of all windows, asked for, would bring whole fields into memory.
                mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
            _MAPPED[id(mapped)] = mapped._mmap  # type: ignore[attr-defined]
    except OSError as error:
        raise DataError(
            f"{folder}: no space for {size / 1e6:.0f} MB of forecasts ({error.strerror or error})\n"
            "  fix: free some, or set TMPDIR to a folder on another disk"
        ) from error
    return np.asarray(mapped).swapaxes(0, 1)


def folder_of_files() -> str:
    """Where large arrays are kept."""
    if "TMPDIR" not in os.environ and os.access(large := Path("/var/tmp"), os.W_OK):
        return str(large)
    return tempfile.gettempdir()


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its control group."""
    return memory()[0]


def memory() -> tuple[int, int]:
    """Bytes that are free, and all there are, of the machine or of this process's control group."""
    free = total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(one for one in lines if one.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        free, total = min(free, max(limit - used, 0)), min(total, limit)
    return free, total
