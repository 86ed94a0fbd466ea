"""The compiled training step: batches are gathered, and many steps run, inside one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from gridcast.accelerator import jit
from gridcast.config.schema import TrainConfig
from gridcast.frames.windows import gather_inputs, gather_targets
from gridcast.training.losses import masked_mse

LOGGED = ("loss", "gradient_norm", "parameter_norm", "update_norm")


class DeviceSeries(NamedTuple):
    """The whole series, resident on the device; batches are integer positions in it."""

    values: Float[Array, "series lat lon channel"]
    season: Float[Array, "series 2"]
    weight: Float[Array, "lat lon"]
    scale: Float[Array, " lead"]


class TrainState(NamedTuple):
    """Everything that a step changes."""

    params: Any
    optimizer: Any
    step: Int[Array, ""]


def make_optimizer(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with warm-up, cosine decay and clipping.

    Weights decay, biases and norms do not.
    """
    warmup = max(1, round(config.warmup * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(total_steps, warmup + 1)
    )

    def decays(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decays)
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw)


@dataclass(frozen=True)
class Stepper:
    """Compiled functions for one model, made once for a run."""

    graph: nnx.GraphDef
    fixed: Any
    optimizer: optax.GradientTransformation
    inputs: int
    leads: int
    seed: int

    @cached_property
    def run(self) -> Callable[..., tuple[TrainState, Array]]:
        """`_run`, compiled; the state that is handed in is given away."""
        return jit(self._run, donate_argnums=0)

    @cached_property
    def losses(self) -> Callable[..., Array]:
        """`_losses`, compiled."""
        return jit(self._losses)

    def start(self, params: Any) -> TrainState:
        return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def _loss(self, params: Any, series: DeviceSeries, initial: Array, key: Array | None) -> Array:
        model = nnx.merge(self.graph, params, self.fixed)
        frames = gather_inputs(series.values, initial, self.inputs)
        season = gather_inputs(series.season, initial, self.inputs)
        target = gather_targets(series.values, initial, self.leads)
        return masked_mse(model(frames, season, key), target, series.weight, series.scale)

    def _run(
        self,
        state: TrainState,
        series: DeviceSeries,
        batches: Int[Array, "step batch"],
        first: Int[Array, ""],
        last: Int[Array, ""],
    ) -> tuple[TrainState, Float[Array, "step logged"]]:
        """Take steps `first` to `last` (excluded) of an epoch.

        The bounds are traced, so any stretch of any epoch runs the same compiled program.
        """
        root = jax.random.key(self.seed)

        def one(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            state, log = carry
            key = jax.random.fold_in(root, state.step)
            loss, gradient = jax.value_and_grad(
                lambda params: self._loss(params, series, batches[i], key).mean()
            )(state.params)
            updates, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            norms = (optax.tree.norm(tree) for tree in (gradient, params, updates))
            log = log.at[i].set(jnp.stack([loss, *norms]))
            return TrainState(params, optimizer, state.step + 1), log

        log = jnp.full((batches.shape[0], len(LOGGED)), jnp.nan)
        return jax.lax.fori_loop(first, last, one, (state, log))

    def _losses(
        self, params: Any, series: DeviceSeries, batches: Int[Array, "step batch"]
    ) -> Float[Array, "step batch"]:
        """The loss of each window, without dropout."""
        return jax.lax.map(lambda initial: self._loss(params, series, initial, None), batches)
