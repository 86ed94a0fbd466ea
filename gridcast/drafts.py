"""Files that appear under their name whole or not at all: no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A file beside `path` to write in its place, which takes its name when the block has ended.

    Raises:
      OSError: it cannot be written; then nothing of it is left, and `path` is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        to_disk(draft)
        os.replace(draft, path)
        to_disk(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def drafted_directory(path: Path) -> Iterator[Path]:
    """A directory beside `path` to fill, which takes its name when the block has ended.

    What was there is replaced.

    Raises:
      OSError: it cannot be written; then nothing of it is left.
    """
    draft, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.mkdir()
    try:
        yield draft
        for written in (*draft.iterdir(), draft):
            to_disk(written)
        if path.exists():
            path.rename(old)
        draft.rename(path)
        to_disk(path.parent)
    finally:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; as `drafted`."""
    with drafted(path) as draft:
        draft.write_text(text)


def to_disk(path: Path) -> None:
    """Ask the disk to keep a file or a directory.

    A rename may otherwise survive a power cut that the data do not.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
