"""Keras 3 as a peer, on the back end that KERAS_BACKEND names: its own layers, `train_on_batch`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.problem import Problem, require_same

keras: Any = import_module("keras")
layers: Any = keras.layers
ops: Any = keras.ops
Weights = dict[str, np.ndarray]


class KerasPeer:
    """The network of a problem, compiled by Keras with AdamW and clipping.

    The step is the library's own: on TensorFlow a graph, on JAX jitted, on torch eager.
    """

    def __init__(self, kind: str, problem: Problem):
        self.problem = problem

    def build(self) -> dict[str, Any]:
        problem, arrays = self.problem, self.problem.arrays
        name = problem.about["network"]["name"]
        if name not in NETWORKS:
            raise NotImplementedError(f"Keras has no layer for {name}")
        self.model, self.place = NETWORKS[name](problem)
        self._fill()
        settings = problem.about["optimizer"]
        optimizer = keras.optimizers.AdamW(
            settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            global_clipnorm=settings["clip"],
            epsilon=1e-8,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        weight = ops.convert_to_tensor(_flat(arrays["weight"][None]))

        def loss(targets: Any, outputs: Any) -> Any:
            return ops.sum(weight * (targets - outputs) ** 2, axis=(1, 2, 3))

        self.model.compile(optimizer, loss)
        self.frames = ops.convert_to_tensor(arrays["frames"])
        self.missing = ops.convert_to_tensor(_flat(arrays["targets"] - arrays["reference"]))
        return {}

    def begin(self) -> None:
        self.loss = float(self.model.train_on_batch(self.frames, self.missing))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.model.train_on_batch(self.frames, self.missing)

    def infer(self, batches: int) -> None:
        for _ in range(batches):
            self.model.predict_on_batch(self.frames)

    def agreement(self) -> dict[str, float]:
        """How well loss and outputs agree with gridcast's."""
        found = {"loss": require_same("losses", self.loss, self.problem.about["loss"])}
        moved = self.model.get_weights()
        self._fill()
        outputs = np.asarray(self.model.predict_on_batch(self.frames))
        self.model.set_weights(moved)
        expected = _flat(self.problem.arrays["outputs"])
        return found | {"outputs": require_same("outputs", outputs, expected)}

    def memory(self) -> int | None:
        return None

    def rates(self) -> dict[str, float]:
        return {}

    def _fill(self) -> None:
        for layer, weights in self.place(self.problem.weights):
            layer.set_weights(weights)


def _flat(array: np.ndarray) -> np.ndarray:
    """[batch lead lat lon output] as [batch lat lon lead*output]."""
    moved = np.moveaxis(array, 1, 3)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:3], -1))


def _conv_lstm(problem: Problem) -> tuple[Any, Any]:
    about, (_, time, lat, lon, count) = problem.about, problem.arrays["frames"].shape
    settings = about["network"]
    block, hidden, kernel = settings["downsample"], settings["hidden"], settings["kernel"]
    x = frames = keras.Input((time, lat, lon, count))
    rows, columns = -(-lat // block), -(-lon // block)
    if block > 1:
        edges = ((0, 0), (0, 0), (0, -lat % block), (0, -lon % block), (0, 0))
        x = ops.pad(x, edges)
        x = ops.reshape(x, (-1, time * rows, block, columns, block, count))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, time, rows, columns, block**2 * count))
    cells = [
        layers.ConvLSTM2D(
            width,
            kernel,
            padding="same",
            recurrent_activation="sigmoid",
            return_sequences=i < len(hidden) - 1,
        )
        for i, width in enumerate(hidden)
    ]
    for cell in cells:
        x = cell(x)
    out = about["leads"] * about["outputs"]
    head = layers.Conv2D(out * block**2, kernel, padding="same")
    x = head(x)
    if block > 1:
        x = ops.reshape(x, (-1, rows, columns, block, block, out))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, rows * block, columns * block, out))[:, :lat, :lon]

    def place(given: Weights) -> Any:
        channels = count * block**2
        for i, (cell, width) in enumerate(zip(cells, hidden, strict=True)):
            gates = given[f"cells.{i}.gates.kernel"]
            bias = _forget(given[f"cells.{i}.gates.bias"])
            yield cell, [gates[:, :, :channels], gates[:, :, channels:], bias]
            channels = width
        yield head, [given["head.kernel"], given["head.bias"]]

    return keras.Model(frames, x), place


def _cnn_lstm(problem: Problem) -> tuple[Any, Any]:
    about, (_, time, lat, lon, count) = problem.about, problem.arrays["frames"].shape
    settings = about["network"]
    channels, kernel = settings["channels"], settings["kernel"]
    if lat % 2 ** len(channels) or lon % 2 ** len(channels) or len(settings["hidden"]) > 1:
        raise NotImplementedError(f"grid {lat} x {lon}, or two LSTMs")

    def convolution(width: int, activation: str | None = "relu") -> Any:
        return layers.Conv2D(width, kernel, padding="same", activation=activation)

    frames = keras.Input((time, lat, lon, count))
    seen = [frames[:, -1]]
    stages = [convolution(width) for width in channels]
    # Batch and time as one axis: TimeDistributed is several times slower on TensorFlow.
    x = ops.reshape(frames, (-1, lat, lon, count))
    for i, stage in enumerate(stages, 1):
        x = layers.MaxPooling2D(2)(stage(x))
        seen.append(ops.reshape(x, (-1, time, lat >> i, lon >> i, channels[i - 1]))[:, -1])
    dense = layers.Dense(settings["latent"])
    x = ops.reshape(dense(layers.Flatten()(x)), (-1, time, settings["latent"]))
    lstm = layers.LSTM(settings["hidden"][0])
    shape = seen[-1].shape[1:]
    start = layers.Dense(int(np.prod(shape)), activation="relu")
    x = layers.Reshape(shape)(start(lstm(x)))
    ups = [convolution(width) for width in [*channels[::-1], count][1:]]
    for up in ups:
        x = up(layers.Concatenate()([x, seen.pop()]))
        x = layers.UpSampling2D(2)(x)
    head = convolution(about["leads"] * about["outputs"], None)
    x = head(layers.Concatenate()([x, seen.pop()]))

    def place(given: Weights) -> Any:
        named = {
            **{f"encoder.stages.{i}.conv": stage for i, stage in enumerate(stages)},
            **{f"decoder.stages.{i}": up for i, up in enumerate(ups)},
            "encoder.dense": dense,
            "decoder.start": start,
            "decoder.head": head,
        }
        for name, layer in named.items():
            yield layer, [given[f"{name}.kernel"], given[f"{name}.bias"]]
        driven, state = (f"lstm.layers.0.0.from_{one}" for one in ("input", "state"))
        bias = _forget(given[f"{driven}.bias"])
        yield lstm, [given[f"{driven}.kernel"], given[f"{state}.kernel"], bias]

    return keras.Model(frames, x), place


def _forget(bias: np.ndarray) -> np.ndarray:
    """With the one that gridcast's cells add to the forget gate; the gates are i, f, g, o."""
    quarter = bias.size // 4
    return bias + np.repeat(np.array([0, 1, 0, 0], bias.dtype), quarter)


NETWORKS = {"conv_lstm": _conv_lstm, "cnn_lstm": _cnn_lstm}
