"""Losses: pure functions of arrays."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def masked_mse(
    prediction: Float[Array, "batch lead lat lon channel"],
    target: Float[Array, "batch lead lat lon channel"],
    weight: Float[Array, "lat lon"],
    scale: Float[Array, " lead"],
) -> Float[Array, " batch"]:
    """Area-weighted mean squared error of each window, relative to `scale` at each lead.

    Args:
      prediction, target: scaled units; `target` may be NaN where `weight` is 0 (land, for SST).
      weight: relative cell area, 0 off the mask; any positive scale.
      scale: mean squared error that counts as 1 at each lead, for example the reference's. It
        keeps long leads, whose errors are large, from drowning the short ones.

    Returns:
      One value for each window. NaN at a cell of positive weight makes it NaN, on purpose.
    """
    # Select before squaring: 0 * NaN is NaN, in the value and again in the gradient.
    error = jnp.where(weight[:, :, None] > 0, prediction - target, 0.0)
    channels = prediction.shape[-1]
    by_lead = jnp.einsum("blxyc,xy->bl", error**2, weight) / (weight.sum() * channels)
    return (by_lead / scale).mean(axis=1)
