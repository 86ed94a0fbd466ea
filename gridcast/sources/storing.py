"""From a collection of files to a training store: block by block, gone on with where it ended."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int
from tqdm import tqdm

from gridcast.drafts import drafted, drafted_directory, sweep
from gridcast.errors import DataError
from gridcast.sources import store
from gridcast.sources.collection import Collection
from gridcast.sources.joining import origin_of
from gridcast.sources.packing import Packing, bytes_of
from gridcast.sources.values import FILLS_AND_ZERO, check_still_cells
from gridcast.timeaxis import TimeAxis, label

# Of the dates that are read, checked and written at once.
BLOCK = 2**24
_PROGRESS = "progress.npz"
_log = logging.getLogger("gridcast")


@dataclass
class _Seen:
    """What has been written, and what was seen of each cell.

    Attributes:
      dates: how many are in the store.
      count: of the values of each cell.
      still: cells that held one value so far, 0 or a habitual fill value.
    """

    dates: int
    count: Int[np.ndarray, "lat lon"]
    first: Float32[np.ndarray, "lat lon"]
    still: Bool[np.ndarray, "lat lon"]

    def add(self, values: Float32[np.ndarray, "time lat lon"]) -> None:
        if self.dates == 0:
            self.first = values[0]
            self.still = np.isin(self.first, FILLS_AND_ZERO)
        self.still &= (values == self.first).all(axis=0)
        self.count += np.isfinite(values).sum(axis=0)
        self.dates += len(values)


def write_store(collection: Collection, path: Path) -> None:
    """Write the series as a training store, or what is left of it to write.

    Blocks are on the disk before they count as done, so that an end at any time loses one block.

    Raises:
      DataError: the data cannot be used, values are missing inside the mask, there is no space, or
        `path` holds something else.
    """
    store.require_packages()
    digest, name = collection.digest, str(collection.like.name)
    about = store.about_store(path)
    if about is not None and about["digest"] == digest:
        _log.info("%s holds these data already", path)
        return
    progress = path / _PROGRESS
    if about is not None or (path.exists() and not progress.is_file()):
        raise DataError(
            f"{path}: there is something else already, not a store of these data\n"
            "  fix: another --output, or remove it first"
        )
    sweep(path)
    seen = _load(progress, digest)
    if seen is None:
        packing = _packing(collection)
        seen = _begin(collection, path, packing)
    else:
        packing = store.packing_of(path, name)
        _log.info("going on after %d of %d dates", seen.dates, collection.times.size)
    if not _write_rest(collection, path, seen, packing):
        _log.info("not all values are packed as the first ones: begun anew, in float32")
        seen = _begin(collection, path, None)
        _write_rest(collection, path, seen, None)
    _require_whole(collection, seen)
    region = None if collection.region is None else collection.region.model_dump(mode="json")
    store.finish(
        path, name, seen.count > 0, {"digest": digest, "region": region, "shape": collection.shape}
    )
    progress.unlink()


def _packing(collection: Collection) -> Packing | None:
    """As the files are packed, if that gives back the values of the first date."""
    packing = collection.packing
    if packing is None or packing.packed(collection.read(slice(0, 1)).values) is None:
        return None
    return packing


def _begin(collection: Collection, path: Path, packing: Packing | None) -> _Seen:
    """An empty store."""
    _require_space(collection, path, packing)
    rows = collection.shape[1:]
    nothing = np.zeros(rows, np.int64), np.zeros(rows, np.float32), np.zeros(rows, bool)
    seen = _Seen(0, *nothing)
    with drafted_directory(path) as draft:
        store.create(draft, collection.like, collection.times, packing)
        _save(draft / _PROGRESS, collection.digest, seen)
    return seen


def _write_rest(collection: Collection, path: Path, seen: _Seen, packing: Packing | None) -> bool:
    """Write the dates that are not there; False where the packing would change values."""
    name, digest = str(collection.like.name), collection.digest
    step = _dates_of_block(collection, store.shard_dates(path, name))
    shown = tqdm(
        total=collection.times.size,
        initial=seen.dates,
        unit="date",
        desc="data prepare",
        disable=not sys.stderr.isatty(),
    )
    with shown as bar, _said_once():
        for dates in collection.blocks(step):
            if dates.start < seen.dates:
                continue
            values = collection.read(dates).values
            kept = values if packing is None else packing.packed(values)
            if kept is None:
                return False
            store.write(path, name, dates, kept)
            seen.add(values)
            _save(path / _PROGRESS, digest, seen)
            bar.update(len(values))
    return True


def _dates_of_block(collection: Collection, shard: int) -> int:
    """Whole shards: one that is written in two parts is written twice."""
    date = 4 * int(np.prod(collection.shape[1:]))
    return shard * max(1, BLOCK // (date * shard))


def _require_whole(collection: Collection, seen: _Seen) -> None:
    """Raise where a value is missing inside the mask, and for the reasons of `check_series`."""
    origin, like = origin_of(collection.paths), collection.like
    # Only its number of dates is asked for.
    still = like.isel(time=np.zeros(min(3, collection.times.size), int))
    check_still_cells(still, seen.first, seen.still, origin)
    axis = TimeAxis.of(collection.times)
    for gap in axis.gaps:
        _log.info("%s: %s", origin, gap)
    holes = (seen.count > 0) & (seen.count < seen.dates)
    if not holes.any():
        return
    row, column = np.argwhere(holes)[0]
    missing = int((seen.dates - seen.count[holes]).sum())
    raise DataError(
        f"values of {like.name} are missing inside the mask: {missing} in all, in "
        f"{int(holes.sum())} of {int((seen.count > 0).sum())} cells, the first of them at lat "
        f"{float(like['lat'][row]):g}, lon {float(like['lon'][column]):g}; dates "
        f"{label(collection.times[0])} to {label(collection.times[-1])}\n"
        "  expected: cells with values at every date (ocean), or at none (land)\n"
        "  fix: fill the holes, cut them out with data.region, or frames.storage: memory with "
        "frames.missing: drop or mask"
    )


def _require_space(collection: Collection, path: Path, packing: Packing | None) -> None:
    size = bytes_of(packing) * int(np.prod(collection.shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise DataError(
            f"{path}: the store takes {size / 1e6:.0f} MB, found {free / 1e6:.0f} MB free there\n"
            "  fix: free some space, or --output on another disk"
        )


def _load(progress: Path, digest: str) -> _Seen | None:
    """How far an earlier process came with these data."""
    if not progress.is_file():
        return None
    with np.load(progress, allow_pickle=False) as found:
        if str(found["digest"]) != digest:
            return None
        parts = (found[name] for name in ("count", "first", "still"))
        return _Seen(int(found["dates"]), *parts)


def _save(progress: Path, digest: str, seen: _Seen) -> None:
    with drafted(progress) as draft, draft.open("wb") as file:
        np.savez(file, digest=np.array(digest), **vars(seen))


@contextmanager
def _said_once() -> Iterator[None]:
    """What is noted of a file is noted of each block of it: once will do."""
    said: set[str] = set()

    def fresh(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not (text in said or said.add(text))

    _log.addFilter(fresh)
    try:
        yield
    finally:
        _log.removeFilter(fresh)
