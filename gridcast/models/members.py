"""Several networks of one architecture as one forecast: an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gridcast.accelerator import each_member
from gridcast.models import ForecastModel, Inputs
from gridcast.models.heads import Head


def joint_outputs(
    graph: nnx.GraphDef, fixed: Any, weights: Any, inputs: Inputs, members: int
) -> tuple[Float[Array, "batch lead lat lon output"], Head]:
    """The numbers of the forecast that all members make together, and the head that reads them.

    Args:
      fixed: what the model carries beside its weights, the same for all members.
      weights: the rest, as a tuple of states; stacked, where there are several members.
    """

    def model(*states: Any) -> ForecastModel:
        return nnx.merge(graph, *states, fixed)

    if members == 1:
        one = model(*weights)
        return one(inputs), one.head
    head = model(*member_of(weights, 0)).head
    return head.combine(each_member(lambda *states: model(*states)(inputs))(*weights)), head


def stacked(members: Sequence[Any]) -> Any:
    """The weights of several members as one tree with a leading member axis; of one, its own."""
    if len(members) == 1:
        return members[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def member_of(weights: Any, member: int) -> Any:
    """The weights of one of several members."""
    return jax.tree.map(lambda leaf: leaf[member], weights)
