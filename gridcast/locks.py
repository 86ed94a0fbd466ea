"""Locks between processes; the system gives them back when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gridcast.drafts import sweep, unwritable
from gridcast.errors import DataError

LOCK = ".lock"
_log = logging.getLogger("gridcast")


@contextmanager
def waiting_for(path: Path) -> Iterator[None]:
    """Hold a lock, after all others that asked for it first.

    Args:
      path: a file that is made when needed, and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            _log.warning("waiting for another process that holds %s", path)
            while not _try_lock(file.fileno()):
                time.sleep(0.1)
        yield  # closing the file gives the lock back


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Be the only run that writes to a directory, or say which one is.

    What a run that was killed left half written there, and in its folders, is removed.

    Raises:
      DataError: another run holds it (its process and machine), or it cannot be written to.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = _held(path)
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        before = _holder(file)
        if before:
            _log.warning("%s was left by %s, which is no more; it is taken over", path, before)
        try:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            for folder in (directory, *(p for p in directory.iterdir() if p.is_dir())):
                for name in sweep(folder):
                    _log.warning("removed %s, left by a run that was killed", folder / name)
        except OSError as error:
            _forget(file, path)
            raise unwritable(path, error) from error
        try:
            yield
        finally:
            _forget(file, path)


def _held(path: Path) -> IO[bytes]:
    """The lock's file, locked.

    Raises:
      DataError: another process has locked it.
      OSError: it cannot be opened.
    """
    while True:
        file = path.open("a+b", buffering=0)  # closing it has nothing more to write
        try:
            if not _try_lock(file.fileno()):
                raise DataError(
                    f"{path.parent} is in use by another run: {_holder(file) or 'unknown'}\n"
                    "  expected: one run at a time in a directory\n"
                    "  fix: wait for it or stop it, or give another output.directory"
                )
            # Whoever held it may have removed the file between opening and locking.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _holder(file: IO[bytes]) -> str | None:
    """Who wrote into a lock's file, in words."""
    file.seek(0)
    try:
        said = json.loads(file.read(4096))
        return f"process {int(said['pid'])} on {str(said['host'])[:253]!r}"
    except (OSError, ValueError, KeyError, TypeError):  # nobody, or killed before it could
        return None


def _forget(file: IO[bytes], path: Path) -> None:
    with contextlib.suppress(OSError):  # then the next run says that it takes it over
        file.truncate(0)
        path.unlink()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
            _log.warning("this disk has no locks: two processes at once would not be noticed")
        return True
