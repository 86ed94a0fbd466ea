"""Which rows of the grid the patches of a batch lie in, known before its frames are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from gridcast.frames.places import Place


def purposes(key: Array) -> Array:
    """The keys of where a batch is taken from, of noise and of dropout."""
    return jax.random.split(key, 3)


def validation_key(position: Int[Array, ""]) -> Array:
    """Of where a batch is judged, by the position of its first window in the whole series.

    The same places for the same windows, so that validations can be compared.
    """
    return jax.random.fold_in(jax.random.key(0), position)


@dataclass(frozen=True)
class PatchRows:
    """The rows that the compiled step will take its patches from, by the same draws.

    Attributes:
      places: draws the places of a batch of so many windows.
      seeds: of each member; of a single network one, and its batches have no axis of members.
      parts: of a batch of training, each with places of its own.
    """

    places: Callable[[Array, int], Place]
    seeds: tuple[int, ...]
    parts: int = 1

    def __call__(
        self, batches: Int[np.ndarray, "*member step batch"], begun: int | None
    ) -> Int[np.ndarray, "*member step batch 2"]:
        """Of each window the first row and the one after the last.

        Args:
          begun: steps taken before the epoch that these batches are of; None: of a validation.
        """
        if begun is None:
            found = self._of_validation(jnp.asarray(batches))
        else:
            each = jnp.asarray(batches).reshape(len(self.seeds), *batches.shape[-2:])
            steps = begun + jnp.arange(batches.shape[-2])
            found = self._of_epoch(jnp.asarray(self.seeds, jnp.uint32), steps, each)
        return np.asarray(found).reshape(*batches.shape, 2)

    # Compiled once for a run.
    @cached_property
    def _of_validation(self) -> Callable[..., Int[Array, "step batch 2"]]:
        return jax.jit(jax.vmap(self._judged))

    @cached_property
    def _of_epoch(self) -> Callable[..., Int[Array, "member step batch 2"]]:
        of_member = jax.vmap(self._trained, in_axes=(None, 0, 0))
        return jax.jit(jax.vmap(of_member, in_axes=(0, None, 0)))

    def _trained(self, seed: Array, step: Array, batch: Array) -> Int[Array, "batch 2"]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        keys = key[None] if self.parts == 1 else jax.random.split(key, self.parts)
        windows = batch.size // self.parts
        draw = jax.vmap(lambda key: _ends(self.places(purposes(key)[0], windows)))
        return draw(keys).reshape(batch.size, 2)

    def _judged(self, batch: Array) -> Int[Array, "batch 2"]:
        return _ends(self.places(validation_key(batch[0]), batch.size))


def _ends(place: Place) -> Int[Array, "batch 2"]:
    return jnp.stack([place.rows.min(axis=1), place.rows.max(axis=1) + 1], axis=-1)
