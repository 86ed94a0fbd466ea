"""How much memory a training step takes on its device, told before the first one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gridcast.scratch import free_memory

_log = logging.getLogger("gridcast")


class StepMemory(NamedTuple):
    """Bytes on one device, as the compiler has planned them.

    Attributes:
      whole: what is given to the step, what it makes and what it needs in between.
      further: the part of it that is not there before the step.
    """

    whole: int
    further: int

    def __str__(self) -> str:
        return f"memory: {self.whole / 2**20:.0f} MiB on the device while training"


def step_memory(step: Callable[..., Any], *arguments: Any) -> StepMemory | None:
    """Of a compiled step; None of a plain function, and where the compiler does not say.

    The program is kept: a call with the same arguments does not compile again.

    Args:
      arguments: of the step, or their shapes.
    """
    if not isinstance(step, jax.stages.Wrapped):
        return None
    found = step.lower(*arguments).compile().memory_analysis()
    if found is None:
        return None
    made = found.temp_size_in_bytes + found.output_size_in_bytes
    return StepMemory(made + found.argument_size_in_bytes, made - found.alias_size_in_bytes)


def tell_memory(step: Callable[..., Any], *arguments: Any) -> None:
    """Log what the first step will take, and warn where less is free."""
    memory = step_memory(step, *arguments)
    if memory is None:
        return
    free = _free()
    wanted = f"{memory.further / 2**20:.0f} MiB", f"{free / 2**20:.0f} MiB"
    _log.info("%s, of which %s are still to be taken; %s are free", memory, *wanted)
    if memory.further > free:
        _log.warning(
            "the training step takes another %s, and %s are free: it may be slow, or be stopped\n"
            "  fix: end other programs; or a smaller train.batch_size, train.accumulate, "
            "train.remat: true, frames.patches, a coarser grid",
            *wanted,
        )


def _free() -> int:
    """Bytes of the first device, or of the machine where that is the device."""
    about = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in about:
        return about["bytes_limit"] - about.get("bytes_in_use", 0)
    return free_memory()
