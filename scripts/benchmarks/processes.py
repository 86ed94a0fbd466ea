"""The other end of `worker`: start a process, ask it, end it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.measure import Block

SCRIPTS = Path(__file__).parents[1]
# Several processes hold their models on one GPU at the same time, and each is timed by itself;
# nobody starts from what an earlier run compiled.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(Exception):
    """A worker could not do what it was asked.

    Attributes:
      kind: "missing": its library is not installed; "slow": it took too long; or the name of what
        was raised.
      differs: it computes something else than gridcast.
    """

    def __init__(self, kind: str, message: str, *, differs: bool = False):
        super().__init__(message)
        self.kind, self.differs = kind, differs


class Worker:
    """A process that holds one runner.

    Attributes:
      about: what it said when it was ready.
    """

    def __init__(
        self,
        asked: Mapping[str, Any],
        patience: float,
        environment: Mapping[str, str] | None = None,
    ):
        variables = {**os.environ, **ENVIRONMENT, **(environment or {})}
        path = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(path)
        folder = Path(asked["folder"])
        folder.mkdir(exist_ok=True)
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        if asked["threads"] == 1:
            variables |= dict.fromkeys(_ONE_THREAD, "1")
        began = time.perf_counter()
        # What libraries say, which is of interest only where one dies.
        self.log = folder / f"{asked['runner']}-{asked['members']}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", json.dumps(dict(asked))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=variables,
            )
        try:
            self.about = self._heard(patience)
        except WorkerError:
            self.process.kill()
            self.close()
            raise
        self.about["start_seconds"] = time.perf_counter() - began

    def block(self, what: str, steps: int) -> Block:
        """Time so many steps of "training", or batches of "inference"."""
        took = self.ask(do=what, steps=steps)
        return Block(took["seconds"], took["cpu"], took["others"])

    def ask(self, *, patience: float = 3600.0, **request: Any) -> dict[str, Any]:
        _pipe(self.process.stdin).write(json.dumps(request) + "\n")
        _pipe(self.process.stdin).flush()
        return self._heard(patience)

    def _heard(self, patience: float) -> dict[str, Any]:
        pipe = _pipe(self.process.stdout)
        if not select.select([pipe], [], [], patience)[0]:
            raise WorkerError("slow", f"no answer within {patience:.0f} s")
        line = pipe.readline()
        if not line:
            raise WorkerError("died", f"the process ended\n{self.log.read_text()[-2000:]}")
        said = json.loads(line)
        if "error" in said:
            raise WorkerError(said["error"], said["message"], differs=said["differs"])
        return said

    def close(self) -> None:
        """End the process: it stops when there is nothing more to read."""
        _pipe(self.process.stdin).close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _pipe(self.process.stdout).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
