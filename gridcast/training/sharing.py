"""Work that devices cannot share as the settings ask: refused, with the nearest that they can."""

from __future__ import annotations

from typing import Any

import jax

from gridcast.config import Config
from gridcast.errors import ConfigError
from gridcast.hosts import several


def require_work_for_all(config: Config, data: int, used: list[Any]) -> None:
    """Raise where a process would have no device that takes part."""
    if not several():
        return
    each, space = jax.local_device_count(), config.parallel.lat * config.parallel.lon
    if idle := jax.process_count() - len({device.process_index for device in used}):
        raise ConfigError(
            f"parallel: {idle} of {jax.process_count()} processes would have nothing to do: {data} "
            f"(data) times {space} (lat and lon) devices are used, {each} of a process\n"
            f"  fix: --processes {jax.process_count() - idle}, or a larger train.batch_size"
        )


def require_windows(config: Config, data: int, windows: int) -> None:
    """Raise where a batch cannot be shared by so many."""
    if data > windows:
        raise ConfigError(
            f"parallel.data: {data} devices for {windows} windows at a time\n"
            f"  expected: a window for each\n  fix: parallel.data: {windows}, or a larger "
            "train.batch_size"
        )
    if getattr(config.model, "norm", None) == "batch" and windows % data:
        nearest = max(n for n in range(1, data) if windows % n == 0)
        raise ConfigError(
            f"model.norm: batch takes its moments over the batch, and {data} devices cannot share "
            f"{windows} windows evenly\n  fix: parallel.data: {nearest}, or train.batch_size: "
            f"{-(-windows // data) * data}"
        )


def require_cells(config: Config, axis: str, cells: int, step: int) -> None:
    """Raise where the grid cannot be shared by so many: cells beyond it would change results."""
    asked = getattr(config.parallel, axis)
    reach = getattr(config.model, "kernel", 1) // 2

    def fits(parts: int) -> bool:
        return parts == 1 or (cells % (parts * step) == 0 and cells // (parts * step) >= reach)

    if not fits(asked):
        nearest = max(n for n in range(1, asked) if fits(n))
        whole = asked * step * max(round(cells / (asked * step)), reach)
        raise ConfigError(
            f"parallel.{axis}: {asked} devices cannot share {cells} cells evenly, of which the "
            f"network joins {step} to one\n  expected: a multiple of {asked * step} cells\n"
            f"  fix: parallel.{axis}: {nearest}, or a data.region with {whole} cells"
        )
