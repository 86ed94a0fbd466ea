"""The training store: a canonical series as zarr v3, of which any dates or rows are read alone.

A store holds what `open_frames` would give of its source, value for value, its mask, and nothing
that was fitted: transforms are applied to what is read. Each shard is a file of some dates; inside
lie pieces of one band of rows each, so that a window of dates and all dates of a band are both read
without the rest. tensorstore reads many pieces at once, by threads of its own. Values are float32,
or whole numbers of 16 bits where their source is packed so and nothing is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from gridcast.errors import ConfigError, DataError
from gridcast.sources.dates import read_dates
from gridcast.sources.packing import MISSING, Packing, bytes_of

MASK = "mask"
# What tells a store that is complete from one that is being written, and from other zarr.
_MARK = "gridcast_store"
FORMAT = 1
# All dates of a band of rows in float32, and of a piece of one shard: at least so many bytes.
BAND, PIECE = 2**23, 2**14
_MOST_DATES = 64
_CACHE = 2**24


def require_packages() -> None:
    """Raise without the packages of the extra `stream`.

    Raises:
      ConfigError: naming those that lack.
    """
    lacking = [name for name in ("tensorstore", "zarr") if find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"frames.storage: stream needs {' and '.join(lacking)}, not installed here\n"
            "  fix: pip install 'gridcast[stream]', or frames.storage: memory"
        )


def stored(series: xr.DataArray) -> bool:
    """Whether a series is read from a store as it is asked for, not in memory."""
    return MASK in series.coords


def open_store(path: str | Path, variable: str | None = None) -> xr.DataArray:
    """The series of a store, in canonical form and not yet read; `mask` is a coordinate.

    What is selected of it is read when its values are asked for, each time anew.

    Raises:
      DataError: no store, one that is not complete, or one of another variable.
    """
    require_packages()
    _give_back_what_is_freed()
    path = Path(path).expanduser()
    about = about_store(path)
    if about is None:
        what = "an unfinished store" if (path / "zarr.json").is_file() else "no training store"
        raise DataError(
            f"{path}: is {what}\n"
            "  fix: gridcast data prepare CONFIG, then data.path: what it has written"
        )
    name = about["variable"]
    if variable not in (None, name):
        raise DataError(
            f"{path}: there is no variable {variable!r}; found {name}\n  fix: data.variable: {name}"
        )
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as dataset:
        coords = dataset[["time", "lat", "lon", MASK]].load().coords
        attrs = dict(dataset[name].attrs)
    times = read_dates(coords["time"].variable, str(path))
    array = _Stored(_array(path, name), packing_of(path, name))
    data = xr.Variable(("time", "lat", "lon"), indexing.LazilyIndexedArray(array), attrs)
    return xr.DataArray(
        data, {**coords, "time": ("time", times, coords["time"].attrs)}, name=name, fastpath=False
    )


def _give_back_what_is_freed() -> None:
    """glibc keeps freed blocks below a threshold that grows to 32 MiB, in each thread's arena.

    Blocks of a series, freed again and again, took half as much memory again.
    """
    mmap_threshold, arena_max = -3, -8
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(mmap_threshold, 2**20)
            libc.mallopt(arena_max, 2)


class _Stored(BackendArray):
    """What xarray reads an array of tensorstore through."""

    def __init__(self, array: Any, packing: Packing | None):
        self.array, self.packing = array, packing
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._values)

    def _values(self, key: tuple[Any, ...]) -> np.ndarray:
        found = self._read(key)
        return found if self.packing is None else self.packing.unpacked(found)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        dates, *rest = (_plain(part, size) for part, size in zip(key, self.shape, strict=True))
        if not isinstance(dates, np.ndarray) or dates.size < 2 or (np.diff(dates) <= 0).any():
            return np.asarray(self.array.oindex[(dates, *rest)].read().result())
        # Runs of dates are read side by side, and each much faster than date by date.
        runs = np.split(dates, np.flatnonzero(np.diff(dates) > 1) + 1)
        cuts = [self.array.oindex[(slice(int(r[0]), int(r[-1]) + 1), *rest)] for r in runs]
        return np.concatenate([one.result() for one in [cut.read() for cut in cuts]])


def _plain(part: Any, size: int) -> Any:
    """An index as tensorstore takes it: a slice without a step, places, or one place."""
    if not isinstance(part, slice):
        return part
    first, last, step = part.indices(size)
    return slice(first, max(first, last)) if step == 1 else np.arange(first, last, step)


def in_memory(series: xr.DataArray) -> xr.DataArray:
    """What was selected of a stored series, read."""
    return series.drop_vars(MASK).compute() if stored(series) else series


def row_bands(series: xr.DataArray) -> list[slice]:
    """Rows to be worked on at once, over all dates: of a stored series some, each with a cell of
    the mask; of one in memory all."""
    if not stored(series):
        return [slice(None)]
    rows = series.sizes["lat"]
    step = max(1, BAND // (4 * series.sizes["time"] * series.sizes["lon"]))
    inside = np.asarray(np.any(series[MASK].values, axis=1))
    edges = [k for k in range(step, rows, step) if inside[:k].any() and inside[k:].any()]
    kept = [0]
    for k in edges:
        if inside[kept[-1] : k].any():
            kept.append(k)
    if not inside[kept[-1] :].any():
        kept.pop()
    return [slice(a, b) for a, b in pairwise([*kept, rows])]


def create(path: Path, like: xr.DataArray, times: np.ndarray, packing: Packing | None) -> None:
    """An empty store for the series on these dates; what was begun there is replaced.

    Args:
      like: canonical, of any dates: grid, name and attributes.
      packing: of the values; None: float32.
    """
    rows, columns = like.shape[1:]
    row = columns * bytes_of(packing)
    band = int(np.clip(BAND // (times.size * row), 1, rows))
    dates = int(np.clip(-(-PIECE // (band * row)), 4, _MOST_DATES))
    mask = xr.Variable(("lat", "lon"), np.zeros((rows, columns), bool))
    time = xr.Variable("time", times, like["time"].attrs)
    empty = xr.Dataset(coords={"time": time, "lat": like["lat"], "lon": like["lon"], MASK: mask})
    empty.to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    plain = {"name": "bytes", "configuration": {"endian": "little"}}
    shard = {"chunk_shape": [dates, band, columns], "codecs": [plain]}
    whole = [dates, -(-rows // band) * band, columns]
    metadata = {
        "shape": [times.size, rows, columns],
        "data_type": "float32" if packing is None else "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": whole}},
        "codecs": [{"name": "sharding_indexed", "configuration": shard}],
        "fill_value": "NaN" if packing is None else MISSING,
        "dimension_names": ["time", "lat", "lon"],
        "attributes": dict(like.attrs) | ({} if packing is None else packing.attributes),
    }
    _array(path, str(like.name), metadata)


def packing_of(path: Path, name: str) -> Packing | None:
    """Of a store that was created, finished or not."""
    about = json.loads((path / name / "zarr.json").read_text())
    how = about["attributes"]
    return (
        Packing(how["scale_factor"], how["add_offset"]) if about["data_type"] == "int16" else None
    )


def write(path: Path, name: str, dates: slice, values: np.ndarray) -> None:
    """Some dates of a store that was created, packed as it is; on the disk when this returns."""
    _array(path, name)[dates].write(values).result()


def shard_dates(path: Path, name: str) -> int:
    """How many dates lie in one file."""
    return int(_array(path, name).chunk_layout.write_chunk.shape[0])


def finish(path: Path, name: str, mask: np.ndarray, about: dict[str, Any]) -> None:
    """Write the mask and the mark of a complete store, last of all."""
    import zarr

    group = zarr.open_group(path, mode="r+", zarr_format=3)
    group[MASK][...] = mask  # type: ignore
    group.attrs[_MARK] = {"format": FORMAT, "variable": name, **about}


def _array(path: Path, name: str, metadata: dict[str, Any] | None = None) -> Any:
    import tensorstore as ts

    # Enough to keep where the pieces of each shard are; a finished store does not change.
    context = {"cache_pool": {"total_bytes_limit": _CACHE}, "file_io_concurrency": {"limit": 8}}
    spec: dict[str, Any] = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path.resolve()}/{name}/"},
        "context": context,
        "recheck_cached_data": "open",
    }
    if metadata is not None:
        spec |= {"metadata": metadata}
    try:
        return ts.open(spec, create=metadata is not None, open=True).result()
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error).splitlines()[0][:200]})\n"
            "  fix: gridcast data prepare CONFIG writes it anew"
        ) from error


def about_store(path: str | Path) -> dict[str, Any] | None:
    """What `finish` wrote, and the variable; None of what is no complete store."""
    try:
        text = (Path(path).expanduser() / "zarr.json").read_text()
        return json.loads(text).get("attributes", {}).get(_MARK)
    except (OSError, ValueError):
        return None
