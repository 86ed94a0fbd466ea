"""One runner in a process of its own, which waits for requests while others are timed.

    python -m benchmarks.worker '{"runner": "torch-compile", "folder": ..., ...}'

Requests and answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.problem import Disagreement, Problem


def runner_of(asked: dict[str, Any]) -> Any:
    """What is to be timed, imported, with its data in memory."""
    kind, folder = asked["runner"], Path(asked["folder"])
    if kind == "gridcast":
        ours = import_module("benchmarks.ours")
        names = ("workload", "quick", "batch_times", "members")
        return ours.Gridcast(**{n: asked[n] for n in names})
    if kind == "job":
        names = ("config", "epochs", "began")
        return import_module("benchmarks.job").Job(folder, **{n: asked[n] for n in names})
    problem = Problem.load(folder)
    if kind.startswith("torch"):
        return import_module("benchmarks.torch_peers").TorchPeer(kind, problem)
    os.environ["KERAS_BACKEND"] = kind.removeprefix("keras-")
    return import_module("benchmarks.keras_peers").KerasPeer(kind, problem)


def timed(function: Any, *arguments: Any) -> dict[str, Any]:
    """Wall time, and CPU time of this process and of all others over it."""
    cpu, everyone, began = (
        machine.cpu_seconds(),
        machine.machine_seconds(),
        time.perf_counter(),
    )
    function(*arguments)
    seconds = time.perf_counter() - began
    cpu = machine.cpu_seconds() - cpu
    others = None
    if everyone is not None and (now := machine.machine_seconds()) is not None:
        others = max(0.0, now - everyone - cpu) / seconds
    return {"seconds": seconds, "cpu": cpu / seconds, "others": others}


def started(asked: dict[str, Any], runner: Any) -> dict[str, Any]:
    """Build, take the first step and the first forecast, check, and say what that took."""
    before = machine.resident_bytes()
    about = runner.build()
    first = {
        "training": timed(runner.begin)["seconds"],
        "inference": timed(runner.infer, 1)["seconds"],
    }
    if asked["runner"] == "gridcast":
        agreement = runner.export(Path(asked["folder"])) if asked["members"] == 1 else {}
    else:
        agreement = runner.agreement()
    machine.reset_peak()
    runner.train(2)
    memory = {
        "training": machine.peak_bytes() - before,
        "before": before,
        "device": runner.memory(),
    }
    steps = {
        "training": timed(runner.train, 1)["seconds"],
        "inference": timed(runner.infer, 1)["seconds"],
    }
    return {
        **about,
        "first_seconds": first,
        "step_seconds": steps,
        "memory": memory,
        "agreement": agreement,
    }


def answer(runner: Any, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "rates":
        return runner.rates()
    work = runner.train if request["do"] == "training" else runner.infer
    took = timed(work, request["steps"])
    return took | {"seconds": took["seconds"] / request["steps"]}


def main() -> None:
    # Libraries print what they like: answers go another way.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")

    asked = json.loads(sys.argv[1])
    if asked["threads"] == 1:
        machine.one_core()
    try:
        runner = runner_of(asked)
        if asked["runner"] == "job":
            say(runner.run())
            return
        say(started(asked, runner))
        for line in sys.stdin:
            say(answer(runner, json.loads(line)))
    except Exception as error:
        traceback.print_exc()
        missing = isinstance(error, ModuleNotFoundError)
        kind = "missing" if missing else type(error).__name__
        say({"error": kind, "message": str(error), "differs": isinstance(error, Disagreement)})


if __name__ == "__main__":
    main()
