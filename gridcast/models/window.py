"""What every network is given and must return: the contract between model and network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float


class Fixed(nnx.Variable):
    """An array that the model carries and never trains."""


class Frozen(nnx.Variable):
    """A weight that was trained elsewhere and stays: no gradient, no decay."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is that a network takes and gives, and how it is to be computed.

    Attributes:
      channels: of `Window.frames`.
      ahead: channels of `Window.ahead`.
      inputs, leads: frames taken, leads given.
      outputs: numbers for each cell and lead.
      grid: (lat, lon) of the frames.
      whole: one answer for the whole window, on a grid of 1 x 1.
      wraps: whether the last longitude's neighbour is the first.
      remat: whether layers compute what they need for their gradients again.
    """

    channels: int
    ahead: int
    inputs: int
    leads: int
    outputs: int
    grid: tuple[int, int]
    whole: bool
    wraps: bool
    remat: bool = False

    @property
    def out(self) -> tuple[int, int]:
        """(lat, lon) of what the network gives."""
        return (1, 1) if self.whole else self.grid


class Context(NamedTuple):
    """What the last channels of `Window.frames` are made of.

    Attributes:
      known: covariates that are the same at all longitudes.
      layers: what is the same at all times: static layers and, last, the mask.
    """

    known: Float[Array, "batch time lat known"]
    layers: Float[Array, "lat lon layer"]

    @property
    def channels(self) -> int:
        return self.known.shape[-1] + self.layers.shape[-1]


class Window(NamedTuple):
    """A batch of windows.

    Attributes:
      frames: variables, known covariates, static layers and, as the last channel, the mask.
      present: which frames were observed; None: all. A frame that was not is 0 and must not
        change anything. The last one is always there.
      ahead: known covariates, static layers and mask at each lead.
      reference: what the network corrects; the forecast is reference + what the network returns.
      truth: what is to be forecast, in training with scheduled sampling; otherwise None.
      truth_rate: probability with which the decoder is shown the truth instead of its own frame.
      key: for dropout and sampling, in training; otherwise None.
      context: for networks that gain from knowing what changes from frame to frame; None: samples
        are of several places of the grid.
    """

    frames: Float[Array, "batch time lat lon channel"]
    present: Bool[Array, "batch time"] | None
    ahead: Float[Array, "batch lead lat lon known"]
    reference: Float[Array, "batch lead out_lat out_lon output"]
    truth: Float[Array, "batch lead out_lat out_lon output"] | None
    truth_rate: Float[Array, ""] | float
    key: Array | None
    context: Context | None = None

    def of(self, dtype: Any) -> Window:
        """With what the network reads in another precision."""
        frames, ahead, context = jax.tree.map(
            lambda x: x.astype(dtype), (self.frames, self.ahead, self.context)
        )
        return self._replace(frames=frames, ahead=ahead, context=context)
