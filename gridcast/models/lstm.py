"""LSTM layers over the frames of a window: stacked, in both directions, with gaps and dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.config.models import CnnLstmConfig, SeriesConfig
from gridcast.models.layers import Dense, dropout


def where_present(
    x: Float[Array, "batch time feature"], present: Bool[Array, "batch time"] | None
) -> Float[Array, "batch time feature"]:
    """Zero in place of frames that were not observed."""
    return x if present is None else jnp.where(present[..., None], x, 0.0)


class Lstm(nnx.Module):
    """A long short-term memory (Hochreiter & Schmidhuber 1997), forget bias of one.

    It has (features + hidden) * 4 * hidden weights and 4 * hidden biases.
    """

    def __init__(self, features: int, hidden: int, *, backward: bool = False, rngs: nnx.Rngs):
        self.hidden, self.backward = hidden, backward
        self.from_input = Dense(features, 4 * hidden, rngs=rngs)
        recurrent = nnx.initializers.orthogonal()
        self.from_state = Dense(
            hidden, 4 * hidden, use_bias=False, kernel_init=recurrent, rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        present: Bool[Array, "batch time"] | None = None,
        kept: Float[Array, "batch hidden"] | None = None,
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch hidden"]]:
        """The state after each frame, and the one after the frame that is read last.

        Args:
          present: frames that are not pass the state on unchanged and give 0 in the sequence.
          kept: factors of the state in the recurrent product, the same at all times.
        """
        # What comes from the inputs needs no state: one product for all times.
        driven = jnp.moveaxis(self.from_input(where_present(x, present)), 1, 0)
        observed = None if present is None else present.T[..., None]
        empty = jnp.zeros((x.shape[0], self.hidden), x.dtype)
        # c adds up over the frames: it is kept in full precision.
        first = empty, empty.astype(jnp.float32)

        def step(
            carry: tuple[Array, Array], now: tuple[Array, Array | None]
        ) -> tuple[tuple[Array, Array], Array]:
            (h, c), (drive, there) = carry, now
            gates = drive + self.from_state(h if kept is None else h * kept)
            gates = gates.astype(jnp.float32)
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            later_c = nnx.sigmoid(f + 1.0) * c + nnx.sigmoid(i) * jnp.tanh(g)
            later_h = (nnx.sigmoid(o) * jnp.tanh(later_c)).astype(h.dtype)
            if there is None:
                return (later_h, later_c), later_h
            carry = jnp.where(there, later_h, h), jnp.where(there, later_c, c)
            return carry, jnp.where(there, later_h, 0.0)

        (last, _), states = jax.lax.scan(step, first, (driven, observed), reverse=self.backward)
        return jnp.moveaxis(states, 0, 1), last


class LstmStack(nnx.Module):
    """LSTM layers one upon the other; where bidirectional, each also reads the window backwards.

    Dropout acts on what each layer gives. Recurrent dropout is variational (Gal & Ghahramani 2016):
    one draw for each sequence and layer, on the state in the recurrent product.

    Attributes:
      width: features that the last layer gives, of both directions.
    """

    def __init__(self, features: int, config: CnnLstmConfig | SeriesConfig, *, rngs: nnx.Rngs):
        self.dropout, self.recurrent_dropout = config.dropout, config.recurrent_dropout
        self.sequence = config.sequence
        directions = (False, True) if config.bidirectional else (False,)
        self.layers = nnx.List()
        self.width = features
        for hidden in config.hidden:
            self.layers.append(
                nnx.List(Lstm(self.width, hidden, backward=b, rngs=rngs) for b in directions)
            )
            self.width = hidden * len(directions)

    def __call__(
        self,
        x: Float[Array, "batch time feature"],
        present: Bool[Array, "batch time"] | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "batch time width"], Float[Array, "batch width"]]:
        """The states after each frame, and the last ones: backwards, that is after the first frame.

        Args:
          present: frames that are not change nothing, and are 0 in the sequence.
          key: for dropout; None: no dropout.
        """
        last = x[:, -1]
        for layer, layer_key in zip(self.layers, _keys(key, len(self.layers)), strict=True):
            for_sequence, for_last, *for_states = _keys(layer_key, 2 + len(layer))
            read = [
                lstm(x, present, self._kept(x, lstm.hidden, state_key))
                for lstm, state_key in zip(layer, for_states, strict=True)
            ]
            x = jnp.concatenate([states for states, _ in read], axis=-1)
            x = dropout(x, self.dropout, for_sequence)
            last = jnp.concatenate([state for _, state in read], axis=-1)
            last = dropout(last, self.dropout, for_last)
        return x, last

    def vector(
        self,
        x: Float[Array, "batch time feature"],
        present: Bool[Array, "batch time"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "batch vector"]:
        """What the window comes to: the last states, or where `sequence` is set all of them."""
        states, last = self(x, present, key)
        return states.reshape(len(states), -1) if self.sequence else last

    def vector_width(self, time: int) -> int:
        """The length of `vector` for windows of `time` frames."""
        return self.width * time if self.sequence else self.width

    def _kept(self, x: Array, hidden: int, key: Array | None) -> Array | None:
        if key is None or self.recurrent_dropout == 0.0:
            return None
        return dropout(jnp.ones((len(x), hidden), x.dtype), self.recurrent_dropout, key)


def _keys(key: Array | None, count: int) -> list[Array | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))
