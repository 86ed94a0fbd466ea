"""1-D CNN-LSTM: one network for every cell's own series of frames."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from gridcast.config.models import SeriesConfig
from gridcast.errors import ConfigError
from gridcast.models.layers import Dense
from gridcast.models.lstm import LstmStack, where_present
from gridcast.models.window import Sizes, Window


class TimeConv(nnx.Module):
    """A convolution over time, then relu: length * channels * filters weights, filters biases.

    An output is present where all frames under the filter are (valid), or the one in its centre
    (same); where not, it is 0.
    """

    def __init__(self, channels: int, filters: int, length: int, *, same: bool, rngs: nnx.Rngs):
        start = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(start(rngs.params(), (length, channels, filters), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(filters))
        self.same = same

    def __call__(
        self,
        x: Float[Array, "batch time channel"],
        present: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch step filter"], Bool[Array, "batch step"] | None]:
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        length, x = len(kernel), where_present(x, present)
        if self.same:
            x = jnp.pad(x, ((0, 0), ((length - 1) // 2, length // 2), (0, 0)))
        steps = x.shape[1] - length + 1
        # One matrix product of what lies under the filter: faster than a convolution on CPUs.
        under = jnp.concatenate([x[:, i : i + steps] for i in range(length)], axis=-1)
        x = nnx.relu(under @ kernel.reshape(-1, kernel.shape[2]) + bias)
        if present is not None and not self.same:
            present = jnp.stack([present[:, i : i + steps] for i in range(length)]).all(axis=0)
        return where_present(x, present), present


def pool_time(
    x: Float[Array, "batch time channel"], present: Bool[Array, "batch time"] | None, size: int
) -> tuple[Float[Array, "batch step channel"], Bool[Array, "batch step"] | None]:
    """The maximum of each `size` steps that are present, counted from the end of the window.

    A group at the front may be shorter; one without any present step is absent, and 0.
    """
    front = ((0, 0), (-x.shape[1] % size, 0))
    shape = (len(x), -1, size)
    if present is not None:
        x = jnp.where(present[..., None], x, -jnp.inf)
        present = jnp.pad(present, front).reshape(shape).any(axis=2)
    x = jnp.pad(x, (*front, (0, 0)), constant_values=-jnp.inf)
    return where_present(x.reshape(*shape, x.shape[2]).max(axis=2), present), present


class SeriesNetwork(nnx.Module):
    """Convolutions over time, pooling, LSTM layers, dense layers; of one series or many.

    The last dense layer starts at zero, so that an untrained network says nothing.

    Args:
      channels, inputs: of a series [time channel].
      outputs: numbers given for each series.

    Raises:
      ConfigError: valid convolutions leave nothing of `inputs` frames.
    """

    def __init__(
        self, channels: int, inputs: int, outputs: int, config: SeriesConfig, *, rngs: nnx.Rngs
    ):
        self.pool = config.pool
        same, length = config.padding == "same", config.length
        widths = [channels, *config.filters]
        self.convs = nnx.List(
            TimeConv(n, m, length, same=same, rngs=rngs)
            for n, m in zip(widths, config.filters, strict=False)
        )
        steps = inputs if same else inputs - len(self.convs) * (length - 1)
        if steps < 1:
            raise ConfigError(
                f"{len(self.convs)} valid convolutions of model.length {length} leave nothing of "
                f"frames.inputs {inputs}\n  expected: frames.inputs of at least "
                f"{inputs - steps + 1}\n  fix: a larger frames.inputs, a smaller model.length, or "
                "model.padding: same"
            )
        self.lstm = LstmStack(widths[-1], config, rngs=rngs)
        widths = [self.lstm.vector_width(-(-steps // self.pool)), *config.dense]
        self.dense = nnx.List(
            Dense(n, m, rngs=rngs) for n, m in zip(widths, config.dense, strict=False)
        )
        start = nnx.initializers.zeros
        self.head = Dense(widths[-1], outputs, kernel_init=start, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch time channel"],
        present: Bool[Array, "batch time"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "batch output"]:
        return self.answer(self.vector(x, present, key))

    def vector(
        self,
        x: Float[Array, "batch time channel"],
        present: Bool[Array, "batch time"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "batch vector"]:
        """What the LSTM layers make of each series."""
        for conv in self.convs:
            x, present = conv(x, present)
        x, present = pool_time(x, present, self.pool)
        return self.lstm.vector(x, present, key)

    def answer(self, vector: Float[Array, "batch vector"]) -> Float[Array, "batch output"]:
        """The dense layers."""
        for dense in self.dense:
            vector = nnx.relu(dense(vector))
        return self.head(vector)


class SeriesModel(nnx.Module):
    """A `SeriesNetwork` with the same weights for every cell of the grid.

    For one answer to a whole window, the dense layers are given the mean over the cells of the mask
    of what the LSTM layers found.
    """

    def __init__(self, config: SeriesConfig, sizes: Sizes, *, rngs: nnx.Rngs):
        self.leads, self.whole = sizes.leads, sizes.whole
        outputs = sizes.leads * sizes.outputs
        self.network = SeriesNetwork(sizes.channels, sizes.inputs, outputs, config, rngs=rngs)

    def __call__(self, window: Window) -> Float[Array, "batch lead out_lat out_lon output"]:
        batch, time, lat, lon, _ = window.frames.shape
        # The cells of all samples are one batch.
        series = jnp.moveaxis(window.frames, 1, 3).reshape(batch * lat * lon, time, -1)
        present = window.present
        if present is not None:
            present = jnp.repeat(present, lat * lon, axis=0)
        found = self.network.vector(series, present, window.key)
        if self.whole:
            inside = window.frames[:, -1, :, :, -1:].reshape(batch, lat * lon, 1) > 0
            found = jnp.where(inside, found.reshape(batch, lat * lon, -1), 0.0).sum(axis=1)
            found, lat, lon = found / jnp.maximum(inside.sum(axis=1), 1), 1, 1
        numbers = self.network.answer(found).reshape(batch, lat, lon, self.leads, -1)
        return jnp.moveaxis(numbers, 3, 1)
