"""gridcast itself: the compiled step and the forecasts that users run, not a copy of them."""

from __future__ import annotations

import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.flops import network_flops
from benchmarks.kernels import kernels
from benchmarks.machine import MATRIX, fastest, matrix_rate, numpy_matrix_rate, numpy_memory_rate
from benchmarks.problem import Problem, require_same
from benchmarks.workloads import WORKLOADS, config_of, series_of
from gridcast.accelerator import device_name, jit
from gridcast.fitting import compile_setup
from gridcast.forecasting import Predictor
from gridcast.models import ForecastModel, Inputs
from gridcast.models.window import Window
from gridcast.opening import open_source
from gridcast.preparation import prepare
from gridcast.training.loop import STEPS_PER_CALL
from gridcast.training.series import DeviceSeries
from gridcast.training.state import Weights

# Settings of a network that a peer must know.
_SHAPE = ("name", "hidden", "kernel", "downsample", "channels", "latent")


class Gridcast:
    """A workload, ready to be trained and to forecast.

    Attributes:
      batches: [step batch] or [member step batch] of one epoch.
    """

    name = "gridcast"

    def __init__(self, workload: str, *, quick: bool, batch_times: int, members: int):
        described = WORKLOADS[workload]
        config = config_of(described, quick=quick, batch_times=batch_times, members=members)
        began = time.perf_counter()
        source = open_source(config, series_of(described, config, quick=quick))
        self.seconds = {"load": time.perf_counter() - began}
        began = time.perf_counter()
        self.setup = prepare(config, source)
        self.seconds["prepare"] = time.perf_counter() - began
        self.config = config

    def build(self) -> dict[str, Any]:
        """Compile; what the network is, and how much it computes in a step."""
        setup, config = self.setup, self.config
        self.stepper, series, weights, _ = compile_setup(setup)
        assert isinstance(series, DeviceSeries)
        self.series = series
        # The head of a new network is zero: its outputs would prove nothing, and most gradients
        # would be zero.
        self.weights = weights._replace(params=_drawn(weights.params))
        self.batches = jnp.asarray(setup.epoch(0))
        self.state = self.stepper.start(jax.tree.map(jnp.copy, self.weights))
        began = time.perf_counter()
        lowered = self.stepper.run.lower(self.state, self.series, self.batches, 0, 1)
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        self.seconds["compile"] = time.perf_counter() - began
        self.model = setup.model()
        single = config.train.members == 1
        if single:
            nnx.update(self.model, *self.weights)
        self.predictor = Predictor.of(
            self.model,
            None if single else self.weights,
            inputs=config.frames.inputs,
            leads=config.frames.leads,
            variables=len(setup.fields.inputs),
            batch_size=config.train.batch_size,
        )
        cost = compiled.cost_analysis() or {}
        sizes, batch = self.model.sizes, self.batches.shape[-1]
        flops = network_flops(config.model, sizes, batch)
        return {
            "platform": jax.default_backend(),
            "device": device_name(),
            "model": config.model.name,
            "batch": batch,
            "inputs": sizes.inputs,
            "leads": sizes.leads,
            "grid": list(sizes.grid),
            "channels": sizes.channels,
            "parameters": sum(p.size for p in jax.tree.leaves(nnx.state(self.model, nnx.Param))),
            "flops": {"training": flops.training, "inference": flops.inference},
            "seconds": self.seconds,
            "temporary_bytes": int(memory.temp_size_in_bytes),
            "loops": kernels(compiled.as_text()),
            "xla": {k: cost[k] for k in ("flops", "bytes accessed") if k in cost},
        }

    def train(self, steps: int) -> None:
        """So many steps in calls of as many as the loop of training makes, its log read each."""
        epoch = self.batches.shape[-2]
        while steps:
            left = 0
            while left < epoch and steps:
                right = min(left + min(STEPS_PER_CALL, steps), epoch)
                self.state, log = self.stepper.run(
                    self.state, self.series, self.batches, left, right
                )
                self.log = np.asarray(log)[left:right]
                steps -= right - left
                left = right

    def infer(self, batches: int) -> None:
        """Forecasts as `gridcast evaluate` makes them, so many batches."""
        count = batches * self.predictor.batch_size
        initial = np.fromiter(islice(cycle(self.setup.train_windows), count), int, count)
        self.predictor(self.setup.arrays, initial)

    def memory(self) -> int | None:
        """Peak of the device's own memory; None: it has none."""
        stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
        return None if not stats else stats["peak_bytes_in_use"]

    def rates(self) -> dict[str, float]:
        """FLOP/s of a matrix product, bytes each second of memory."""
        matrix = jnp.ones((MATRIX, MATRIX), jnp.float32)
        product = jit(lambda a: a @ a)
        rates = {"jax": matrix_rate(lambda: product(matrix).block_until_ready())}
        if jax.default_backend() == "cpu":
            return rates | {"numpy": numpy_matrix_rate(), "memory": numpy_memory_rate()}
        numbers = jnp.ones(2**28, jnp.float32)
        copy = jit(lambda a: a + 1.0)
        seconds = fastest(lambda: copy(numbers).block_until_ready())
        return rates | {"memory": 2 * numbers.nbytes / seconds}

    def export(self, folder: Path) -> dict[str, float]:
        """Write what peers must compute as well, and check it against a step that was taken.

        To be called after the first step.
        """
        stepper, initial = self.stepper, self.batches[0]

        def given(series: DeviceSeries) -> tuple[Window, Any, Any]:
            inputs, targets, weight = stepper._batch(series, initial, None, 0.0)
            model = nnx.merge(
                stepper.graph, self.weights.params, self.weights.statistics, stepper.fixed
            )
            return _window(model, inputs), targets, weight

        window, targets, weight = jit(given)(self.series)

        def outputs_of(params: Any, window: Window) -> Any:
            model = nnx.merge(stepper.graph, params, self.weights.statistics, stepper.fixed)
            return model.network(window)

        def loss_of(params: Any) -> Any:
            weights = Weights(params, self.weights.statistics)
            return stepper._loss(weights, self.series, initial, None)[0].mean()

        outputs = jit(outputs_of)(self.weights.params, window)
        loss, gradients = jit(jax.value_and_grad(loss_of))(self.weights.params)
        norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradients)))
        factor = _factor(np.asarray(weight[0]), np.asarray(self.series.scale))
        arrays = {
            "frames": np.asarray(window.frames),
            "ahead": np.asarray(window.ahead),
            "reference": np.asarray(window.reference),
            "targets": np.where(factor > 0, targets, 0.0),
            "outputs": np.asarray(outputs),
            "weight": factor.astype(np.float32),
        }
        error = arrays["targets"] - arrays["reference"] - np.asarray(outputs, np.float64)
        mean = float((factor * error**2).sum(axis=(1, 2, 3, 4)).mean())
        settings = {n: getattr(self.config.model, n, None) for n in _SHAPE}
        train, sizes = self.config.train, self.model.sizes
        about = {
            "network": settings,
            **{n: getattr(sizes, n) for n in ("channels", "ahead", "inputs", "leads", "outputs")},
            "loss": float(loss),
            "gradient_norm": float(norm),
            "optimizer": {
                "learning_rate": train.learning_rate,
                "weight_decay": train.weight_decay,
                "clip": train.clip,
            },
        }
        Problem(about, arrays, _named(self.weights.params), _named(gradients)).save(folder)
        return {
            "loss_of_step": require_same("losses of step and network", self.first[0], loss),
            "gradient_norm_of_step": require_same("gradient norms", self.first[1], norm),
            "loss_by_hand": require_same("losses by hand", mean, loss),
        }

    def begin(self) -> None:
        """The first step; its log is what the peers' loss and gradients are compared with."""
        self.train(1)
        self.first = self.log[0]


class _Recorder:
    """In place of a network: keeps what it was given."""

    def __call__(self, window: Window) -> Any:
        self.window = window
        return jnp.zeros_like(window.reference)


def _window(model: ForecastModel, inputs: Inputs) -> Window:
    """What the network of a model is given."""
    recorder = _Recorder()
    model.network = recorder  # pyright: ignore[reportAttributeAccessIssue]
    model(inputs)
    return recorder.window


def _drawn(params: Any) -> Any:
    """The same weights with random numbers in place of zeros."""
    rng = np.random.default_rng(1)

    def draw(leaf: Any) -> Any:
        spread = 0.1 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        drawn = (spread * rng.standard_normal(leaf.shape)).astype(np.float32)
        return leaf if np.asarray(leaf).any() else jnp.asarray(drawn)

    return jax.tree.map(draw, params)


def _named(params: Any) -> dict[str, np.ndarray]:
    """By names such as `cells.0.gates.kernel`, without the network's own."""
    return {
        ".".join(map(str, path[1:])): np.asarray(leaf[...])
        for path, leaf in nnx.to_flat_state(params)
    }


def _factor(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[lead lat lon target] what a squared error counts in the loss of its window."""
    total = len(scale) * weight.sum(dtype=np.float64)
    return weight[None] / scale[:, None, None].astype(np.float64) / total
