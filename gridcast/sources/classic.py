"""Whether a NetCDF-3 file can be what its header says.

The C library believes the header: a damaged count lets it read for minutes and fill the memory, and
a file that ends early gives zeros. Nothing of the kind needs the library to be noticed.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

from gridcast.errors import DataError

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of each type
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12


class _Impossible(Exception):  # noqa: N818  (a verdict, told with the path by who asked)
    pass


def require_possible(path: Path) -> None:
    """Raise where a count or an extent in the header goes beyond the file.

    Format: NetCDF Users Guide, appendix B, "File Format Specifications".

    Raises:
      DataError: naming what does not fit.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _Header(content).check()
        except _Impossible as error:
            raise DataError(
                f"{path}: is damaged or cut off: {error}\n"
                f"  found: a NetCDF-3 file of {len(content)} bytes\n"
                "  fix: copy or download it again"
            ) from None


class _Header:
    """Reads the header from its first byte to its last."""

    def __init__(self, content: mmap.mmap):
        self._content = content
        self._at = 4
        self._wide = 8 if content[3] == 5 else 4  # bytes of a count
        self._far = 4 if content[3] == 1 else 8  # bytes of a position in the file

    def check(self) -> None:
        records = self._number(self._wide)
        streamed = records == 2 ** (8 * self._wide) - 1  # the library counts them
        lengths = []
        for _ in range(self._count(_DIMENSIONS)):
            self._name()
            lengths.append(self._number(self._wide))
        self._attributes()
        extents = [self._variable(lengths) for _ in range(self._count(_VARIABLES))]
        along = [size for _, _, size, record in extents if record]
        step = along[0] if len(along) == 1 else sum(-(-size // 4) * 4 for size in along)
        for name, begin, size, record in extents:
            if record and (streamed or not records):
                continue
            end = begin + size + (step * (records - 1) if record else 0)
            if end > len(self._content):
                raise _Impossible(f"{name!r} would end at byte {end}")

    def _variable(self, lengths: list[int]) -> tuple[str, int, int, bool]:
        """Its name, where it begins, its bytes (of a record), and whether it has records."""
        name = self._name()
        shape = []
        for _ in range(self._held(self._number(self._wide), self._wide)):
            dimension = self._number(self._wide)
            if dimension >= len(lengths):
                raise _Impossible(f"{name!r} has a dimension that is not there")
            shape.append(lengths[dimension])
        self._attributes()
        size = self._size()
        self._number(self._wide)  # the size once more, which may be too small for it
        begin = self._number(self._far)
        record = bool(shape) and shape[0] == 0
        return name, begin, size * math.prod(shape[1:] if record else shape), record

    def _attributes(self) -> None:
        for _ in range(self._count(_ATTRIBUTES)):
            self._name()
            size = self._size()
            self._skip(size * self._held(self._number(self._wide), size))

    def _count(self, kind: int) -> int:
        tag, count = self._number(4), self._number(self._wide)
        if tag != kind and (tag or count):
            raise _Impossible(f"a list in the header begins with {tag}, expected {kind}")
        return self._held(count, 2 * self._wide)

    def _name(self) -> str:
        length = self._held(self._number(self._wide), 1)
        begin = self._at
        self._skip(length)
        return self._content[begin : begin + length].decode("utf-8", "replace")

    def _size(self) -> int:
        kind = self._number(4)
        if kind not in _SIZES:
            raise _Impossible(f"there is no type {kind}")
        return _SIZES[kind]

    def _held(self, count: int, size: int) -> int:
        """`count`, if so many things of `size` bytes can follow."""
        if count * size > len(self._content) - self._at:
            raise _Impossible(f"a list of {count} at byte {self._at} of the header")
        return count

    def _skip(self, length: int) -> None:
        self._at += -(-length // 4) * 4

    def _number(self, size: int) -> int:
        self._at += size
        if self._at > len(self._content):
            raise _Impossible("the header does not end")
        return int.from_bytes(self._content[self._at - size : self._at], "big")
