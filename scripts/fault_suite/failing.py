"""File operations that fail as on a full or read-only disk, one at a time."""

from __future__ import annotations

import builtins
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock


@contextmanager
def failing(below: Path, count: int, number: int) -> Iterator[list[int]]:
    """Fail the operation of this number on files below a folder; yields what is left to count."""
    left = [count]

    def guard(function: Callable, concerns: Callable[..., bool]) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            if concerns(*arguments, **named):
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(number, os.strerror(number))
            return function(*arguments, **named)

        return call

    def inside(path: object, *_: object, **__: object) -> bool:
        return isinstance(path, str | os.PathLike) and str(path).startswith(str(below))

    def written(path: object, mode: str = "r", *_: object, **__: object) -> bool:
        return inside(path) and bool(set(mode) & set("wax+"))

    def absent(path: object, *_: object, **__: object) -> bool:
        # Of a folder that is there the system says so, however full the disk is.
        return inside(path) and not os.path.isdir(str(path))

    always = guard(os.fsync, lambda *_: True)
    with ExitStack() as stack:
        for module in (io, builtins):
            stack.enter_context(mock.patch.object(module, "open", guard(io.open, written)))
        stack.enter_context(mock.patch.object(os, "fsync", always))
        for name in ("replace", "rename"):
            stack.enter_context(mock.patch.object(os, name, guard(getattr(os, name), inside)))
        stack.enter_context(mock.patch.object(os, "mkdir", guard(os.mkdir, absent)))
        yield left


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
