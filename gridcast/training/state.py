"""What training changes: weights, their moving average, and the optimizer's memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from gridcast.config.training import TrainConfig


class Weights(NamedTuple):
    """What a model has learned: its parameters, and the running statistics of batch norms.

    Of several members, each array has a leading member axis.
    """

    params: Any
    statistics: Any


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      average: the moving average of the weights, or None: there is none.
    """

    params: Any
    statistics: Any
    optimizer: Any
    step: Int[Array, ""]
    average: Weights | None = None

    @property
    def weights(self) -> Weights:
        return Weights(self.params, self.statistics)

    @property
    def delivered(self) -> Weights:
        """What is validated, and forecasts with: the average, where there is one."""
        return self.weights if self.average is None else self.average


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


def moved_average(average: Weights, weights: Weights, decay: float, step: Int[Array, ""]) -> Any:
    """The exponential moving average after one more step (Polyak & Juditsky 1992).

    Statistics of batch norms are averaged with the weights that they belong to.

    Args:
      step: steps taken before this one. Early averages forget faster, so that they do not
        remember the first weights.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, w: a + (1.0 - kept) * (w - a), average, weights)


def finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a tree is."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
