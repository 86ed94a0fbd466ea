"""One entry of the results: a workload against its peers, an ensemble, a whole job."""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measure import SECONDS, Block, comparison, in_turns, ratio, summary
from benchmarks.processes import Worker, WorkerError
from benchmarks.workloads import WORKLOADS

TORCH = ("torch", "torch-channels-last", "torch-compile", "torch-compile-channels-last")
PEERS = (*TORCH, "keras-tensorflow", "keras-torch", "keras-jax")
WORK = ("training", "inference")
MEMBERS = 8
_log = logging.getLogger("gridcast")


@dataclass(frozen=True)
class How:
    """How it is measured.

    Attributes:
      threads: "all" or "1".
      patience: seconds after which a runner that is not ready is left out.
    """

    quick: bool = False
    threads: str = "all"
    peers: tuple[str, ...] = PEERS
    rounds: int = 5
    batch_times: int = 1
    patience: float = 900.0

    @property
    def cores(self) -> int:
        return 1 if self.threads == "1" else machine.cores()

    @property
    def seconds(self) -> float:
        """The least length of a block."""
        return 0.1 if self.quick else SECONDS

    def asked(self, runner: str, workload: str, folder: Path, members: int = 1) -> dict[str, Any]:
        return {
            "runner": runner,
            "workload": workload,
            "folder": str(folder),
            "members": members,
            "quick": self.quick,
            "batch_times": self.batch_times,
            "threads": 1 if self.threads == "1" else 0,
        }

    def about(self) -> dict[str, Any]:
        return {
            "date": dt.date.today().isoformat(),
            "quick": self.quick,
            "threads": self.threads,
            "cores": self.cores,
            "rounds": self.rounds,
        }


@contextmanager
def _workers() -> Iterator[tuple[Path, dict[str, Worker]]]:
    """A folder, and processes that are ended with it."""
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder), workers
        finally:
            for worker in workers.values():
                worker.close()


def workload_entry(name: str, how: How) -> dict[str, Any]:
    """A workload, by gridcast and by all peers that are here.

    Raises:
      WorkerError: gridcast could not do it, or a peer computes something else.
    """
    notes = []
    with _workers() as (folder, workers):

        def start(runner: str) -> None:
            _log.info("%s: %s", name, runner)
            workers[runner] = Worker(how.asked(runner, name, folder), how.patience)

        start("gridcast")
        for peer in how.peers:
            try:
                start(peer)
            except WorkerError as error:
                if error.differs:
                    raise WorkerError(error.kind, f"{peer}, {name}: {error}") from error
                notes.append(f"{peer}: {error.kind}, {error}")
                _log.warning("%s", notes[-1])
        ours = workers["gridcast"].about
        cores = how.cores if ours["platform"] == "cpu" else None
        rates = _rates(workers)
        entry: dict[str, Any] = {"title": WORKLOADS[name].title, **how.about()}
        for work in WORK:
            blocks = _timed(workers, work, how)
            runners = {runner: summary(found, cores) for runner, found in blocks.items()}
            peers = {n: found for n, found in runners.items() if n != "gridcast"}
            entry[work] = {
                "runners": runners,
                "against": comparison(runners["gridcast"], peers),
            }
        if not how.quick:
            rates = {key: max(rate, rates[key]) for key, rate in _rates(workers).items()}
        fastest = max(rate for key, rate in rates.items() if key != "memory")
        for work in WORK:
            done = ours["flops"][work] / entry[work]["runners"]["gridcast"]["seconds"]
            entry[work] |= {"flops_per_second": done, "matrix_share": done / fastest}
        entry["rates"] = rates
        entry["about"] = {runner: worker.about for runner, worker in workers.items()}
    if WORKLOADS[name].file is not None:
        notes.append("of the peers network and loss alone, without the reference and the windows")
    return entry | {"notes": notes}


def ensemble_entry(how: How) -> dict[str, Any]:
    """A training step of several members of W1 over that of one."""
    with _workers() as (folder, workers):
        for members in (1, MEMBERS):
            _log.info("ensemble: %d", members)
            asked = how.asked("gridcast", "W1", folder, members)
            workers[str(members)] = Worker(asked, how.patience)
        cores = how.cores if workers["1"].about["platform"] == "cpu" else None
        blocks = _timed(workers, "training", how)
        one, several = (summary(blocks[str(n)], cores) for n in (1, MEMBERS))
    return {
        **how.about(),
        "members": MEMBERS,
        "one": one,
        "several": several,
        "times": ratio(one, several),
    }


def job_entry(how: How, config: str = "sst") -> dict[str, Any]:
    """A whole training, once with an empty cache of compiled programs and once with its own."""
    epochs = 1 if how.quick else 3
    found: dict[str, Any] = {"config": f"configs/{config}.yaml", "epochs": epochs, **how.about()}
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
        }
        for start in ("cold", "warm"):
            _log.info("job: %s", start)
            asked = how.asked("job", "", Path(folder) / start) | {
                "config": config,
                "epochs": epochs,
                "began": time.time(),
            }
            worker = Worker(asked, 3600.0, cache)
            found[start] = worker.about
            worker.close()
    return found


def growth_entry(how: How) -> dict[str, Any]:
    """What a training step costs by size, in this process: JAX is imported only now."""
    from benchmarks.growth import growth

    return {**how.about(), "by": growth(how.rounds, how.cores, how.seconds)}


def _timed(workers: Mapping[str, Worker], work: str, how: How) -> dict[str, list[Block]]:
    runners = {name: partial(worker.block, work) for name, worker in workers.items()}
    first = {name: worker.about["step_seconds"][work] for name, worker in workers.items()}
    return in_turns(runners, first, how.rounds, how.seconds)


def _rates(workers: Mapping[str, Worker]) -> dict[str, float]:
    """The best of what the libraries reach, each asked once."""
    rates: dict[str, float] = {}
    for runner in ("gridcast", "torch"):
        if runner in workers:
            rates |= workers[runner].ask(do="rates")
    return rates
