"""Reading a file in a process of its own: what it gave, or how it ended.

A damaged file may end the C library that reads it, or keep it for ever. The process that is asked
survives both.
"""

from __future__ import annotations

import hashlib
import multiprocessing as mp
import os
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np

from gridcast.errors import DataError
from gridcast.sources.netcdf import open_frames

LIMIT = 60.0  # seconds for one file: on a busy machine, too


@dataclass(frozen=True)
class Reading:
    """How reading ended.

    Attributes:
      kind: read, refused with a DataError, another exception, the process died, or no end.
      text: the message; of what was read a digest of each part.
    """

    kind: Literal["read", "refused", "raised", "died", "hung"]
    text: str


class Reader:
    """A process that reads files one after the other, replaced when it dies or hangs."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._context = mp.get_context("forkserver")
        self._context.set_forkserver_preload(["gridcast.sources.netcdf"])
        self._start()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, path: Path) -> Reading:
        self._asking.send(str(path))
        try:
            if self._asking.poll(self._limit):
                return self._asking.recv()
            reading = Reading("hung", f"no answer within {self._limit:g} s")
        except (EOFError, ConnectionResetError):
            self._process.join()
            reading = Reading("died", f"exit code {self._process.exitcode}")
        self._stop()
        self._start()
        return reading

    def _start(self) -> None:
        self._asking, answering = self._context.Pipe()
        self._process = self._context.Process(target=_answer, args=(answering,), daemon=True)
        self._process.start()
        answering.close()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._asking.close()


def _answer(asked: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the C library writes its whole stack there
    warnings.simplefilter("error")
    while True:
        asked.send(read(asked.recv()))


def read(path: str) -> Reading:
    """Read a series in this process."""
    try:
        data = open_frames(path)
    except DataError as error:
        return Reading("refused", str(error))
    except BaseException as error:
        return Reading("raised", f"{type(error).__name__}: {error}")
    parts = {"values": data.values, **{name: data[name].values for name in data.dims}}
    digests = [f"{name} {_digest(part)}" for name, part in parts.items()]
    return Reading("read", "; ".join([*digests, f"name {data.name}", f"attributes {data.attrs}"]))


def _digest(values: np.ndarray) -> str:
    content = str(values.tolist()).encode() if values.dtype == object else values.tobytes()
    return f"{values.shape} {hashlib.sha256(content).hexdigest()[:12]}"


def judged(reading: Reading, path: Path, sound: Reading) -> str | None:
    """What is wrong with a reading of a damaged file; None: it is right, or says what is damaged.

    Args:
      sound: of the file without the fault.
    """
    if reading.kind == "refused":
        named = reading.text.startswith(str(path)) and len(reading.text) > len(str(path)) + 10
        return None if named else f"an error without the file: {reading.text[:200]}"
    if reading == sound:
        return None
    if reading.kind == "read":
        pairs = zip(reading.text.split("; "), sound.text.split("; "), strict=False)
        return "read otherwise: " + ", ".join(new for new, old in pairs if new != old)[:300]
    return f"{reading.kind}: {reading.text[:200]}"
