"""The gradient of a batch: at once, or of parts of it one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Batch(NamedTuple):
    """Positions of initial dates, and the key of what is random in training on them."""

    initial: Int[Array, " batch"]
    key: Array


def gradient_of(
    objective: Callable[[Any, Any, Batch], tuple[Float[Array, ""], Any]],
    params: Any,
    statistics: Any,
    batch: Batch,
    parts: int,
) -> tuple[Float[Array, ""], Any, Any]:
    """The mean objective of a batch, the statistics after it, and the gradient by `params`.

    Args:
      objective: of params, statistics and a batch: a mean over its windows, and the statistics
        after it.
      parts: equal ones, each with a key of its own, that follow one another: as little memory as a
        batch of their size takes.
    """
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    if parts == 1:
        (loss, statistics), gradient = value_and_grad(params, statistics, batch)
        return loss, statistics, gradient

    def add(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], None]:
        total, statistics = carry
        (loss, statistics), gradient = value_and_grad(params, statistics, part)
        return (jax.tree.map(jnp.add, total, (loss, gradient)), statistics), None

    each = Batch(batch.initial.reshape(parts, -1), jax.random.split(batch.key, parts))
    none = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    (total, statistics), _ = jax.lax.scan(add, (none, statistics), each)
    loss, gradient = jax.tree.map(lambda x: x / parts, total)
    return loss, statistics, gradient
