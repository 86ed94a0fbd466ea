"""The fitted reference inside a model: what the network corrects."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gridcast.frames.places import Place
from gridcast.models.window import Fixed
from gridcast.references import restore


class Past(NamedTuple):
    """What else a reference may start from.

    Attributes:
      state: the last frame of all variables, less the mean of the years before.
      trailing: this mean, of the targets; None: the climatology.
    """

    state: Float[Array, "batch state_lat state_lon variable"] | None
    trailing: Float[Array, "batch lat lon target"] | None


class Base(nnx.Module):
    """The fitted reference inside a model: its arrays, which are never trained."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = nnx.Dict({name: Fixed(jnp.asarray(a)) for name, a in arrays.items()})

    def __call__(
        self,
        last: Float[Array, "batch lat lon target"],
        month: Int[Array, "batch lead"],
        place: Place | None,
        past: Past | None,
    ) -> Float[Array, "batch lead lat lon target"]:
        """Scaled anomalies, around the mean of the years before where there is one."""
        reference = restore({name: array[...] for name, array in self.arrays.items()})
        state, trailing = (None, None) if past is None else past
        if trailing is None:
            return reference(last[:, None], month[:, 0], state, place)
        return trailing[:, None] + reference((last - trailing)[:, None], month[:, 0], state, place)
