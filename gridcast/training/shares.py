"""Of what processes train on together, the part that the devices of this one need."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Int

from gridcast.training.parallel import Layout


def own_rows(layout: Layout, count: int) -> slice:
    """Of so many rows of the grid, those that its devices hold."""
    own, parts = _own(layout, 1)
    return slice(own[0] * count // parts, (own[-1] + 1) * count // parts)


def own_windows(
    layout: Layout, initial: Int[np.ndarray, "*member step batch"], parts: int
) -> Int[np.ndarray, "..."]:
    """The windows that its devices compute with, shared as by `gridcast.training.parallel.spread`.

    Args:
      parts: of a batch of training, shared one after the other; other batches are shared whole.
    """
    own, shared = _own(layout, 0)
    if layout.apart and initial.ndim == 3:
        return initial.reshape(shared, -1, *initial.shape[1:])[own]
    size, found = initial.shape[-1], set()
    for part in {1, parts}:
        windows = size // part
        if windows <= 1 or size % part:
            return initial
        each = -(-windows // shared)
        place = (np.array(own)[:, None] * each + np.arange(each)).reshape(-1)
        place = np.where(place < windows, place, 0)
        found |= set((np.arange(part)[:, None] * windows + place).reshape(-1).tolist())
    return initial[..., sorted(found)]


def _own(layout: Layout, axis: int) -> tuple[list[int], int]:
    """Where on an axis of the mesh this process has devices, and how long the axis is."""
    assert layout.mesh is not None
    devices = layout.mesh.devices
    here = jax.process_index()
    where = {place[axis] for place, one in np.ndenumerate(devices) if one.process_index == here}
    return sorted(where), devices.shape[axis]
