"""Files that are damaged, of another kind, or not to be had: refused by name, or read right.

In a file with checksums (as gridcast writes them) no flipped byte may pass. NetCDF without them
cannot show that a number or a text was another one before; there the header and the structure are
tried, and bytes of values, coordinates and texts left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from fault_suite.outcome import Outcome
from fault_suite.reader import Reader, Reading, judged
from gridcast.errors import DataError
from gridcast.sources.netcdf import opened, write_netcdf

NAME = "files"
READERS = 2


def series(steps: int = 12, lat: int = 3, lon: int = 6) -> xr.Dataset:
    """A few months of a small field with one cell of land."""
    values = np.random.default_rng(steps).normal(15, 5, (steps, lat, lon)).astype(np.float32)
    values[:, 0, 1] = np.nan
    rows, columns = np.linspace(-60, 60, lat), np.arange(lon) * 360.0 / lon
    # The field last, as most write it: a file that is cut off has all its coordinates.
    coordinates = {
        "time": xr.date_range("2000-01-01", periods=steps, freq="MS"),
        "lat": ("lat", rows, {"units": "degrees_north"}),
        "lon": ("lon", columns, {"units": "degrees_east"}),
    }
    field = ("time", "lat", "lon"), values, {"units": "degC"}
    return xr.Dataset(coords=coordinates).assign(sst=field)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      write: makes one.
      checked: whether it carries checksums.
      every: which of its header's bytes are flipped.
    """

    write: Callable[[xr.Dataset, Path], object]
    checked: bool
    every: int


def _written_as(form: Any) -> Callable[[xr.Dataset, Path], object]:
    return lambda data, path: data.to_netcdf(path, format=form, engine="netcdf4")


KINDS = {
    "gridcast": Kind(write_netcdf, True, 1),
    "classic": Kind(_written_as("NETCDF3_CLASSIC"), False, 1),
    "64-bit data": Kind(_written_as("NETCDF3_64BIT_DATA"), False, 1),
    "NetCDF-4": Kind(_written_as("NETCDF4"), False, 7),
}


def run(folder: Path) -> Outcome:
    cases: list[tuple[str, bytes]] = []
    wrong: list[str] = []
    count, control = 0, True
    for name, kind in KINDS.items():
        path = folder / f"{name}.nc"
        kind.write(series(), path)
        whole = path.read_bytes()
        cases = [*truncated(whole), *flipped(whole, kind)]
        sound, found = read_all(folder, name, whole, cases)
        control &= sound.kind == "read"
        count += len(cases)
        wrong += [f"{name}: {text}" for text in found]
    for name, problem in others(folder):
        count += 1
        wrong += [f"{name}: {problem}"] if problem else []
    return Outcome(count, count - len(wrong), wrong, control)


def truncated(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut off at every 2 % of the length."""
    for percent in range(0, 100, 2):
        yield f"cut off at {percent} %", whole[: percent * len(whole) // 100]


def flipped(whole: bytes, kind: Kind) -> Iterator[tuple[str, bytes]]:
    """One byte inverted, or one of its bits, in turn: of the header, or of all where it shows."""
    places = np.arange(0, len(whole), kind.every)
    left_out = _free(whole) | (False if kind.checked else _numbers(whole))
    places = places[~left_out[places]]
    for number, place in enumerate(places.tolist()):
        mask = 0xFF if number % 2 else 1 << (number // 2 % 8)
        damaged = bytearray(whole)
        damaged[place] ^= mask
        yield f"byte {place} ^ {mask:#x}", bytes(damaged)


def _free(whole: bytes) -> np.ndarray:
    """[byte] the inner of long runs of zeros: room that the format has set aside."""
    found = np.zeros(len(whole), bool)
    for match in re.finditer(rb"\x00{32,}", whole):
        found[match.start() + 8 : match.end() - 8] = True
    return found


def _numbers(whole: bytes) -> np.ndarray:
    """[byte] of a file without checksums: where a number is only another number, a text another
    text (`degC`, a name, the date from which days are counted)."""
    data = series()
    found = np.zeros(len(whole), bool)
    contents = [b"sst", b"units", b"calendar", b"degC", rb"degrees_\w+", rb"days since [\d :-]+"]
    days = (data["time"].values - data["time"].values[0]) // np.timedelta64(1, "D")
    numbers = [data[name].values for name in ("sst", "lat", "lon")]
    for values in (*numbers, days.astype(np.int64), days.astype(np.int32)):
        contents += [re.escape(values.tobytes()), re.escape(values.byteswap().tobytes())]
    for content in contents:
        for match in re.finditer(content, whole, re.DOTALL):
            # With the count before a text: a shorter one is another text, too.
            found[max(0, match.start() - 4) : match.end()] = True
    return found


def read_all(
    folder: Path, name: str, whole: bytes, cases: list[tuple[str, bytes]]
) -> tuple[Reading, list[str]]:
    """What the sound file gives, and what is wrong with the readings of damaged ones."""

    def some(first: int) -> tuple[Reading, list[str]]:
        path, wrong = folder / f"{name}.{first}.nc", []
        with Reader() as reader:
            path.write_bytes(whole)
            sound = reader(path)
            for about, content in cases[first::READERS]:
                path.write_bytes(content)
                if problem := judged(reader(path), path, sound):
                    wrong.append(f"{about}: {problem}")
        return sound, wrong

    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(some, range(READERS)))
    return parts[0][0], [text for _, wrong in parts for text in wrong]


def others(folder: Path) -> Iterator[tuple[str, str | None]]:
    """What is no NetCDF file, or not to be had; the path is made and what is wrong told."""
    made = {
        "zero bytes": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("time,lat,lon,sst\n"),
        "a web page": lambda path: path.write_text("<!DOCTYPE html><html></html>"),
        "zeros": lambda path: path.write_bytes(bytes(4096)),
        "the magic number alone": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
        "the classic magic number alone": lambda path: path.write_bytes(b"CDF\x01"),
        "a folder": lambda path: path.mkdir(),
        "a pipe": os.mkfifo,
        "a loop of links": lambda path: path.symlink_to(path),
        "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing.nc")),
        "nothing": lambda path: None,
    }
    with Reader() as reader:
        sound = folder / "sound.nc"
        write_netcdf(series(), sound)
        expected = reader(sound)
        for number, (name, make) in enumerate(made.items()):
            path = folder / f"other{number}.nc"
            make(path)
            yield name, judged(reader(path), path, expected)
        long = folder / ("x" * 300 + ".nc")
        yield "a name too long", judged(reader(long), long, expected)
        text = folder / "sound.txt"
        text.write_bytes(sound.read_bytes())
        reading = reader(text)
        yield "another extension", None if reading == expected else f"{reading}"
    for name, change, allowed in (
        ("written to while open", _append, False),
        ("cut off while open", _cut, False),
        ("replaced while open", _replace, True),
    ):
        yield name, _changed(folder / "changing.nc", change, allowed)
    yield "without permission", _forbidden(folder / "forbidden.nc")


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(512))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _replace(path: Path) -> None:
    other = path.with_name("other.nc")
    write_netcdf(series() + 1, other)
    os.replace(other, path)


def _changed(path: Path, change: Callable[[Path], None], allowed: bool) -> str | None:
    """Open, change, read: the values of before, or an error that names the file."""
    path.unlink(missing_ok=True)
    write_netcdf(series(), path)
    try:
        with opened(path) as data:
            change(path)
            same = np.array_equal(data["sst"].values, series()["sst"].values, equal_nan=True)
    except DataError as error:
        return None if str(error).startswith(str(path)) else f"an error without the file: {error}"
    return None if allowed and same else f"not noticed, values {'' if same else 'not '}as before"


def _forbidden(path: Path) -> str | None:
    """A file that only its owner may read, and a folder; root becomes nobody for this."""
    write_netcdf(series(), path)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with opened(path):
            return "it was read"
    except DataError as error:
        return None if "Permission denied" in str(error) else f"another error: {error}"
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o600)
