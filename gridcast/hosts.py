"""Training on several hosts: their processes meet, agree, and end together when one is lost.

JAX connects them and notices who no longer answers. It ends a process then, whatever that process
is doing, without a word that a user would understand; so a witness, a process of a few lines, waits
beside each and has the last word.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from gridcast.errors import ConfigError, GridcastError, LostProcessError

# Seconds that a process stays which has said what is wrong, for others to find the same themselves.
# Process 0 goes last: with it all others lose their connection.
GRACE, GRACE_OF_FIRST = 1, 5
# Seconds without a sign of life after which a process counts as lost.
SILENCE = 20
# Seconds to wait for all others at the start, and at the end of the training.
PATIENCE = 300
_NOT_MET = (
    f"error: the processes of this training did not find each other within {PATIENCE} s, or one "
    "of them ended\n"
    "  expected: all of them started at about the same time, each with a number of its own, and a "
    "coordinator that all can reach\n"
    "  fix: see what the others say; then start all of them again"
)
_LOST = (
    "a process of this training was lost, or cannot be reached\n"
    "  fix: look for another reason in what the others say; then start all of them again with "
    "--resume, as many as there are hosts"
)
# Prints the last line that it was given, once whoever gave it is no more.
_WITNESS = """
import sys
last = b""
for line in sys.stdin.buffer:
    last = line.rstrip(b"\\n")
if last:
    sys.stderr.buffer.write(last.replace(b"\\0", b"\\n") + b"\\n")
"""
# What JAX says of a connection that broke while numbers went through it.
_BROKEN = re.compile(r"gloo|nccl|rccl|connection|unavailable|heartbeat|coordination|barrier", re.I)
_log = logging.getLogger("gridcast")


@contextmanager
def joined(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """One training of several processes in the block; it comes before anything is computed.

    Args:
      coordinator: HOST:PORT that process 0 listens at; None: as SLURM, GKE, a TPU pod or Open MPI
        tell JAX, like the other two.
      processes: how many there are.
      process: which this is, from 0.

    Raises:
      ConfigError: they do not meet there, or there is no cluster that JAX knows.
      LostProcessError: another process was lost.
    """
    witness = Witness()
    witness.last_word(_NOT_MET)
    grace = 0
    try:
        _meet(coordinator, processes, process)
        witness.last_word(f"error: {_LOST}")
        grace = GRACE_OF_FIRST if writes() else GRACE
        yield
    except BaseException as error:
        found = error
        if _BROKEN.search(str(error)) and not isinstance(error, GridcastError):
            found = LostProcessError(f"{_LOST}\n  found: {str(error)[:200]}")
        if jax.distributed.is_initialized():
            atexit.register(_end, found, grace, witness)
        else:
            witness.dismiss()
        if found is error:
            raise
        raise found from error
    witness.dismiss()


class Witness:
    """A process that prints the last word it was given if this one ends without dismissing it."""

    def __init__(self) -> None:
        command = [sys.executable, "-S", "-E", "-c", _WITNESS]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def last_word(self, text: str) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # it may have been stopped with all others
            pipe.write(text.replace("\n", "\0").encode() + b"\n")
            pipe.flush()

    def dismiss(self) -> None:
        self.last_word("")
        self.process.communicate()


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def writes() -> bool:
    """Whether this is the process that writes, of all that train together."""
    return jax.process_index() == 0


def agreed(number: int) -> int:
    """The largest of the numbers that the processes have; all must ask."""
    if not several():
        return number
    return int(_gathered(np.array(number, np.int32)).max())


def require_same(fix: str, **facts: str) -> None:
    """Raise in every process unless all know the same of each fact; all must ask.

    Raises:
      ConfigError: they do not.
    """
    if not several():
        return
    sums = [hashlib.sha256(fact.encode()).digest()[:4] for fact in facts.values()]
    every = _gathered(np.frombuffer(b"".join(sums), np.uint32))
    for number, one in enumerate(every):
        if (differ := one != every[0]).any():
            names = ", ".join(np.array(list(facts))[differ])
            raise ConfigError(f"process {number} has another {names} than process 0\n  fix: {fix}")


def leave() -> None:
    """Training is over, and each process by itself from here on; all must come here."""
    if several():
        jax.distributed.shutdown()


def _gathered(numbers: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(numbers))


def _meet(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connect with the others."""
    method = None if coordinator is None else "deactivate"
    if hasattr(jax.config, "jax_enable_preemption_service"):
        # It takes SIGTERM for itself, also while nobody asks it what it has heard.
        jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method=method,
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=SILENCE,
            shutdown_timeout_seconds=PATIENCE,
        )
        number, count = jax.process_index(), jax.process_count()
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if coordinator is not None:
            raise ConfigError(
                f"--distributed: process {process} of {processes} cannot meet the others at "
                f"{coordinator}\n  found: {error}\n  fix: another port, or the address of the host "
                "of process 0 as the others reach it"
            ) from error
        raise ConfigError(
            "--distributed: found no cluster that JAX knows (SLURM, GKE, TPU pod, Open MPI)\n"
            f"  found: {error}\n  fix: --coordinator HOST:PORT --processes N --process I"
        ) from error
    _log.info(
        "process %d of %d: %d devices, %d of its own",
        *(number, count, jax.device_count(), jax.local_device_count()),
    )
    if number:  # one tells how it goes; warnings come from all
        _log.setLevel(logging.WARNING)


def _end(error: BaseException, grace: float, witness: Witness) -> None:
    """End at once, when Python does: JAX would wait for the others to end as well.

    Args:
      error: what has been said already.
      grace: seconds to stay after a mistake that the others may find as well.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    witness.dismiss()
    code = 1
    if isinstance(error, GridcastError):
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0
    if code == GridcastError.exit_code:
        time.sleep(grace)
    os._exit(code)
