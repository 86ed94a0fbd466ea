"""Losses: pure functions of arrays, one number for each cell, and their mean over the grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, ndtr
from jaxtyping import Array, Float

Outputs = Float[Array, "batch lead lat lon output"]
Targets = Float[Array, "batch lead lat lon target"]

# Huber: errors beyond this many standard deviations of the variable count linearly.
HUBER = 1.0
# Balanced: from so many standard deviations above normal, an error counts so many times.
BALANCE = ((1.0, 2.0), (2.0, 5.0), (3.0, 10.0))


def squared(outputs: Outputs, targets: Targets) -> Targets:
    return (outputs - targets) ** 2


def absolute(outputs: Outputs, targets: Targets) -> Targets:
    return jnp.abs(outputs - targets)


def huber(outputs: Outputs, targets: Targets) -> Targets:
    """Squared near zero, linear beyond (Huber 1964): outliers pull less."""
    error = jnp.abs(outputs - targets)
    return jnp.where(error < HUBER, error**2, HUBER * (2 * error - HUBER))


def balanced(outputs: Outputs, targets: Targets) -> Targets:
    """Squared, with more weight on rare high values (as Shi et al. 2017 for rain)."""
    weight = jnp.ones_like(targets)
    for least, factor in BALANCE:
        weight = jnp.where(targets >= least, factor, weight)
    return weight * (outputs - targets) ** 2


def cross_entropy(outputs: Outputs, targets: Targets) -> Targets:
    """Minus the logarithm of the probability of the class that came.

    Args:
      outputs: unnormalised logarithms of probabilities, the classes of each target side by side.
      targets: numbers of the classes, from 0.
    """
    split = outputs.reshape(*targets.shape, -1)
    chosen = jax.nn.one_hot(targets.astype(jnp.int32), split.shape[-1])
    return -(chosen * jax.nn.log_softmax(split)).sum(axis=-1)


def bernoulli_gamma(outputs: Outputs, targets: Targets) -> Targets:
    """Minus the log likelihood of rain amounts (Williams 1998; Cannon 2008).

    Args:
      outputs: for each target the logit of rain, the logarithm of the gamma shape and of its mean.
      targets: amounts in units of the variable, 0 for dry.
    """
    logit, log_shape, log_mean = jnp.moveaxis(outputs.reshape(*targets.shape, 3), -1, 0)
    shape, log_rate = jnp.exp(log_shape), log_shape - log_mean
    wet = targets > 0
    amount = jnp.where(wet, targets, 1.0)
    density = (
        shape * log_rate
        + (shape - 1) * jnp.log(amount)
        - amount * jnp.exp(log_rate)
        - gammaln(shape)
    )
    return -jnp.where(wet, jax.nn.log_sigmoid(logit) + density, jax.nn.log_sigmoid(-logit))


def crps(outputs: Outputs, targets: Targets) -> Targets:
    """Continuous ranked probability score of a normal distribution (Gneiting et al. 2005).

    Args:
      outputs: for each target its mean and the logarithm of its standard deviation.
    """
    split = outputs.reshape(*targets.shape, 2)
    deviation = jnp.exp(split[..., 1])
    away = (targets - split[..., 0]) / deviation
    density = jnp.exp(-0.5 * away**2) / jnp.sqrt(2 * jnp.pi)
    return deviation * (away * (2 * ndtr(away) - 1) + 2 * density - 1 / jnp.sqrt(jnp.pi))


def squared_and_crps(outputs: Outputs, targets: Targets) -> Targets:
    """The squared error of the mean, and the CRPS for the deviation alone.

    The mean learns as if there were no deviation: where a forecast is unsure its errors count as
    much as elsewhere, which a likelihood or the CRPS does not do.
    """
    split = outputs.reshape(*targets.shape, 2)
    held = jnp.stack([jax.lax.stop_gradient(split[..., 0]), split[..., 1]], axis=-1)
    return (targets - split[..., 0]) ** 2 + crps(held.reshape(outputs.shape), targets)


LOSSES: dict[str, Callable[[Outputs, Targets], Targets]] = {
    "mse": squared,
    "mae": absolute,
    "huber": huber,
    "balanced_mse": balanced,
    "cross_entropy": cross_entropy,
    "bernoulli_gamma": bernoulli_gamma,
    "crps": crps,
    "mse_crps": squared_and_crps,
}


def masked_mean(
    loss: Callable[[Outputs, Targets], Targets],
    outputs: Outputs,
    targets: Targets,
    weight: Float[Array, "#batch lat lon target"],
    scale: Float[Array, "lead target"],
    *,
    gaps: bool = False,
) -> Float[Array, " batch"]:
    """The area-weighted mean of a loss over each window, relative to `scale`.

    Args:
      targets: may be NaN where `weight` is 0 (land, for SST).
      weight: relative cell area times the weight of the target, 0 off the mask; any positive scale.
      scale: the loss that counts as 1 at each lead, for example the reference's. It keeps long
        leads, whose errors are large, from drowning the short ones.
      gaps: leave targets that are NaN out; otherwise one at a cell of positive weight makes the
        result NaN, on purpose.
    """
    counted = jnp.broadcast_to(weight[:, None] > 0, targets.shape)
    if gaps:
        counted &= jnp.isfinite(targets)
    # Select before computing: 0 * NaN is NaN, in the value and again in the gradient.
    safe = jnp.where(counted, targets, 0.0)
    spread = jnp.repeat(counted, outputs.shape[-1] // targets.shape[-1], axis=-1)
    cells = jnp.where(counted, loss(jnp.where(spread, outputs, 0.0), safe), 0.0)
    # Without gaps each lead weighs the same; with gaps each observation does.
    total = jnp.where(counted, weight[:, None], 0.0).sum(axis=(1, 2, 3, 4))
    weighted = (cells * weight[:, None]).sum(axis=(2, 3)) / scale
    return weighted.sum(axis=(1, 2)) / jnp.where(total > 0, total, 1.0)


def penalty(params: Any, l1: float, l2: float) -> Float[Array, ""] | float:
    """`l1` and `l2` times the sums of absolute and squared weights; biases and norms are free."""
    if not l1 and not l2:
        return 0.0
    leaves = [p for p in jax.tree.leaves(params) if p.ndim > 1]
    return sum(l1 * jnp.abs(p).sum() + l2 * (p**2).sum() for p in leaves)
