"""Which files a path names, and of what kind each is by its first bytes."""

from __future__ import annotations

import contextlib
import difflib
import glob
import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from gridcast.errors import DataError
from gridcast.sources.classic import require_possible

_MAGIC = {
    b"CDF\x01": "netcdf4",
    b"CDF\x02": "netcdf4",
    b"CDF\x05": "netcdf4",
    b"\x89HDF": "netcdf4",
    b"GRIB": "cfgrib",
}
_OTHER = {
    b"\x1f\x8b": ("compressed with gzip", "gunzip it first"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"BZh": ("compressed with bzip2", "bunzip2 it first"),
    b"\x0e\x03\x13\x01": ("HDF4", "convert it to NetCDF, for example with ncl_convert2nc"),
    b"<": ("a web page or XML, as a failed download leaves it", "download it again"),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "git lfs pull"),
}


def find_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a list of paths or a glob names, each glob sorted.

    Raises:
      DataError: nothing is named or matched, with the nearest names there are.
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    if not given:
        raise DataError("the list of files is empty\n  fix: data.path: a path, a list or a glob")
    paths: list[Path] = []
    for item in given:
        path = Path(item).expanduser()
        if not glob.has_magic(str(path)) or os.path.lexists(path):
            paths.append(path)
            continue
        matched = sorted(glob.glob(str(path), recursive=True))
        if not matched:
            raise DataError(f"no file matches {item}\n{_nearby(path)}")
        paths += [Path(name) for name in matched]
    return paths


def engine_of(path: Path) -> str:
    """The reader of xarray for this file, by its first bytes.

    Raises:
      DataError: no such file, not readable, empty, of another kind, without its reader, or with a
        header that cannot be.
    """
    if str(path).startswith(("http:/", "https:/")):
        raise DataError(f"{path}: is an address, not a file\n  fix: download it first")
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _directory_engine(path)
        if not stat.S_ISREG(mode):  # a pipe would keep its reader waiting
            raise DataError(f"{path}: is a pipe or a device\n  expected: a file")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(
                f"{path}: is a link to {os.readlink(path)}, and there is no such file"
            ) from None
        raise DataError(f"{path}: there is no such file\n{_nearby(path)}") from None
    except PermissionError:
        raise DataError(
            f"{path}: cannot be opened (Permission denied)\n"
            "  fix: chmod u+r on it, and u+x on the folders around it"
        ) from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long or with a NUL
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be opened ({reason})\n  expected: a file") from None
    if not head:
        raise DataError(f"{path}: the file is empty\n  fix: download or copy it again")
    engine = next((engine for magic, engine in _MAGIC.items() if head.startswith(magic)), None)
    if engine is None:
        kinds = (what for magic, what in _OTHER.items() if head.lstrip().startswith(magic))
        what, fix = next(kinds, ("of an unknown kind", "convert it to NetCDF"))
        raise DataError(
            f"{path}: is {what}; it begins with {head[:8]!r}\n"
            f"  expected: NetCDF (CDF or HDF in its first bytes)\n  fix: {fix}"
        )
    if engine == "cfgrib" and importlib.util.find_spec("cfgrib") is None:
        raise DataError(
            f"{path}: is a GRIB file, and cfgrib is not installed\n"
            f"  fix: pip install cfgrib, or convert it: cdo -f nc copy {path.name} {path.stem}.nc"
        )
    if head.startswith(b"CDF"):
        require_possible(path)
    return engine


@contextlib.contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise if a file is written to inside the block; one that is replaced is read to its end.

    Raises:
      DataError: naming the file.
    """
    if path.is_dir():
        yield
        return
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        yield
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"{path}: was written to while it was read\n"
            "  fix: try again when whatever writes it has ended"
        )


def _directory_engine(path: Path) -> str:
    markers = ("zarr.json", ".zgroup", ".zmetadata")
    if path.suffix != ".zarr" and not any((path / name).exists() for name in markers):
        raise DataError(
            f"{path}: is a folder with {len(list(path.glob('*.nc')))} .nc file(s)\n"
            f"  expected: a file\n  fix: data.path: '{path}/*.nc'"
        )
    if importlib.util.find_spec("zarr") is None:
        raise DataError(
            f"{path}: is a zarr store, and zarr is not installed\n  fix: pip install zarr"
        )
    return "zarr"


def _nearby(path: Path) -> str:
    """What is where `path` was expected: for error messages."""
    folder = path.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f"  the folder {folder} does not exist either"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        return f"  the folder {folder} cannot be read ({error.strerror})"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.3) or names[:3]
    return f"  looked in: {folder}\n  nearest there: {', '.join(near) or 'nothing at all'}"
