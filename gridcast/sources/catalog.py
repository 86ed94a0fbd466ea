"""Named data sets: what they are, where their files lie here, and how to get them."""

from __future__ import annotations

import difflib
import fnmatch
import os
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from gridcast.cache import cache_dir
from gridcast.errors import DataError
from gridcast.sources.download import DownloadError, download, verify

SEARCH = "GRIDCAST_DATA"


class DataNotFound(DataError):  # noqa: N818  (data.offline: simulated asks for this one by name)
    """A named data set that is neither here nor can be downloaded."""


@dataclass(frozen=True)
class DataSet:
    """One entry of the catalog.

    Attributes:
      name: as in `data.name` and `gridcast data get NAME`.
      kind: a series in time, or static layers.
      variables: the names its field goes by, here or at the producer; the first is the main one.
      units: of the main variable.
      patterns: file names, with * and ?, whatever the case; the first that matches anything in a
        directory is the one that counts there, so that one product in two layouts is not mixed.
      download: address of the one file of the producer, or None, and then
      instead: says how to get the data.
      stand_in: the kind of simulated data that may take its place (`data.offline: simulated`).
    """

    name: str
    title: str
    kind: Literal["series", "static"]
    variables: tuple[str, ...]
    units: str
    producer: str
    citation: str
    licence: str
    page: str
    download: str | None
    patterns: tuple[str, ...]
    instead: str | None = None
    stand_in: Literal["ocean", "rain"] | None = None

    @property
    def variable(self) -> str:
        return self.variables[0]

    def files_in(self, directory: Path) -> list[Path]:
        """The files of this data set in a directory, by name, sorted."""
        files = sorted(p for p in directory.iterdir() if not p.name.startswith("."))
        for pattern in self.patterns:
            found = [p for p in files if fnmatch.fnmatchcase(p.name.lower(), pattern.lower())]
            if found := [p for p in found if p.is_file()]:
                return found
        return []


@cache
def _entries() -> tuple[DataSet, ...]:
    text = resources.files("gridcast.sources").joinpath("catalog.yaml").read_text("utf-8")
    tables: dict[str, dict[str, Any]] = yaml.safe_load(text)
    for table in tables.values():
        table.update({key: tuple(table[key]) for key in ("variables", "patterns")})
    return tuple(DataSet(name=name, **table) for name, table in tables.items())


def catalog() -> dict[str, DataSet]:
    """All entries by name, in the catalog's order."""
    return {dataset.name: dataset for dataset in _entries()}


def entry(name: str) -> DataSet:
    """The entry of this name.

    Raises:
      DataError: there is none; with the nearest name and all names.
    """
    known = catalog()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.4)
        hint = f"\n  did you mean: {near[0]}" if near else ""
        raise DataError(
            f"no data set {name!r} in the catalog{hint}\n  known: {', '.join(known)}\n"
            "  other files: give data.path instead of data.name"
        )
    return known[name]


def search_path() -> list[Path]:
    """The directories that the environment variable GRIDCAST_DATA names.

    Raises:
      DataError: one of them is none.
    """
    directories = [Path(part) for part in os.environ.get(SEARCH, "").split(os.pathsep) if part]
    for directory in directories:
        if not directory.is_dir():
            raise DataError(
                f"{SEARCH} names {directory}, which is no directory\n"
                f"  expected: directories, with {os.pathsep!r} between them"
            )
    return directories


def find(name: str | DataSet) -> list[Path]:
    """The files of a data set on this machine, sorted; to be joined along time if several.

    The first of these directories that has any counts: those in GRIDCAST_DATA, then the cache.

    Raises:
      DataError: no such entry, or a downloaded file that has changed since.
    """
    dataset = entry(name) if isinstance(name, str) else name
    for directory in search_path():
        if found := dataset.files_in(directory):
            return found
    return _cached(dataset)


def _cached(dataset: DataSet) -> list[Path]:
    root = cache_dir()
    folder = root / dataset.name
    found = dataset.files_in(folder) if folder.is_dir() else []
    for path in found:
        verify(path, root)
    return found


def get(name: str | DataSet) -> list[Path]:
    """The files of a data set in the cache, downloaded if they are not there.

    Raises:
      DataNotFound: no address for it, or nothing usable came from it.
      DataError: as for `find`, or the cache cannot be written.
    """
    dataset = entry(name) if isinstance(name, str) else name
    if found := _cached(dataset):
        return found
    if dataset.download is None:
        raise DataNotFound(f"{dataset.name} has no single file to download\n  {_how(dataset)}")
    root = cache_dir()
    try:
        return [download(dataset.download, root / dataset.name, cache=root)]
    except DownloadError as failure:
        raise DataNotFound(
            f"{dataset.name} could not be downloaded: {failure}\n  {_how(dataset)}"
        ) from None


def locate(name: str | DataSet) -> list[Path]:
    """The files of a data set: found here, else downloaded.

    Raises:
      DataNotFound: neither; with where it looked, the address, the citation and what to do.
      DataError: as for `find` and `get`.
    """
    dataset = entry(name) if isinstance(name, str) else name
    if found := find(dataset):
        return found
    try:
        return get(dataset)
    except DataNotFound as failure:
        looked = [str(d) for d in search_path()] or [f"no directory, {SEARCH} is not set"]
        raise DataNotFound(
            f"{failure}\n"
            f"  looked in: {', '.join(looked)}; then {cache_dir() / dataset.name}\n"
            f"  names looked for: {', '.join(dataset.patterns)}\n"
            f"  citation: {dataset.citation}\n"
            f"  or forecast simulated data in its place: data.offline=simulated"
        ) from None


def _how(dataset: DataSet) -> str:
    """How to get a data set, in the lines of an error message."""
    if dataset.download is None:
        return f"how to get it: {dataset.instead}\n  page: {dataset.page}"
    return (
        f"address: {dataset.download}\n"
        f"  fix: with a network, `gridcast data get {dataset.name}`; or save that file into a "
        f"directory and name it in {SEARCH}"
    )
