"""Files that appear under their name whole or not at all, and what tells that they still are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from gridcast.errors import DataError

_DRAFT = re.compile(r"\..+\.(\d+)\.tmp")


@contextlib.contextmanager
def drafted(path: Path, *, size: int | None = None) -> Iterator[Path]:
    """A file beside `path` to write in its place, which takes its name when the block has ended.

    Args:
      size: about how many bytes will be written, for the message.

    Raises:
      DataError: it cannot be written; then nothing of it is left, and `path` is as it was.
    """
    draft = draft_of(path)
    try:
        yield draft
        to_disk(draft)
        os.replace(draft, path)
        to_disk(path.parent)
    except OSError as error:
        raise unwritable(path, error, size) from error
    finally:
        with contextlib.suppress(OSError):  # it may be the folder that cannot be written to
            draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """Where this process prepares what will be at `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep(folder: Path) -> list[str]:
    """Remove what killed processes have left half written in a folder; returns the names.

    What bears the number of this process is of an earlier one: call it before anything is written.
    """
    swept = []
    for path in folder.glob(".*.tmp"):
        found = _DRAFT.fullmatch(path.name)
        if found is None or _alive_elsewhere(int(found[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        swept.append(path.name)
    return swept


def _alive_elsewhere(pid: int) -> bool:
    """Whether another process of this machine has this number."""
    if pid == os.getpid():
        return False
    if sys.platform == "win32":  # where asking would send it a signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


@contextlib.contextmanager
def drafted_directory(path: Path) -> Iterator[Path]:
    """A directory beside `path` to fill, which takes its name when the block has ended.

    What was there is replaced.

    Raises:
      DataError: it cannot be written; then nothing of it is left.
    """
    draft = draft_of(path)
    old = draft.with_suffix(".old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        for written in (*draft.iterdir(), draft):
            to_disk(written)
        if path.exists():
            path.rename(old)
        draft.rename(path)
        to_disk(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file; as `drafted`."""
    with drafted(path, size=len(text)) as draft:
        draft.write_text(text)


def unwritable(path: Path, error: OSError, size: int | None = None) -> DataError:
    """What to tell of a file that cannot be written, for want of space or of permission."""
    lines = [f"{path}: cannot be written ({error.strerror or error})"]
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path.parent).free / 1e6
        needed = "" if size is None else f"; about {size / 1e6:.0f} MB are needed"
        lines.append(f"  found: {free:.0f} MB free there{needed}")
    return DataError("\n".join([*lines, "  fix: free some space, or write to another folder"]))


def to_disk(path: Path) -> None:
    """Ask the disk to keep a file or a directory.

    A rename may otherwise survive a power cut that the data do not.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
