"""What a network's numbers mean: values, classes or a distribution, each over its reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int

from gridcast.frames.places import Place, take_static
from gridcast.models.base import Base, Past
from gridcast.models.window import Fixed

# No class is ever called impossible: a forecast that is wrong once would score minus infinity.
LEAST_PROBABILITY = 1e-3
# Of a normal distribution, in standard deviations of the variable.
LEAST_DEVIATION = 1e-3


class ValueHead(nnx.Module):
    """Scaled anomalies, over a fitted reference.

    Attributes:
      base: the reference.
    """

    width = 1

    def __init__(self, base: dict[str, np.ndarray]):
        self.base = Base(base)

    def reference(
        self,
        last: Float[Array, "batch lat lon target"],
        month: Int[Array, "batch lead"],
        place: Place | None,
        past: Past | None = None,
    ) -> Float[Array, "batch lead lat lon target"]:
        return self.base(last, month, place, past)

    def forecast(self, outputs: Float[Array, "batch lead lat lon target"]) -> Array:
        """Scaled anomalies: the outputs themselves."""
        return outputs

    def combine(
        self, outputs: Float[Array, "member batch lead lat lon target"]
    ) -> Float[Array, "batch lead lat lon target"]:
        """The mean of the members."""
        return outputs.mean(axis=0)


class NormalHead(nnx.Module):
    """A normal distribution of the scaled anomaly: its mean and the logarithm of its deviation.

    The reference is the fitted one, with the error that it had in training.

    Attributes:
      deviation: [lead lat lon target] this error.
      calibration: [lead target] times the deviation; fitted on validation, after training.
    """

    width = 2

    def __init__(
        self,
        base: dict[str, np.ndarray],
        deviation: Float[np.ndarray, "lead lat lon target"],
        calibration: Float[np.ndarray, "lead target"] | None = None,
    ):
        self.base = Base(base)
        # A forecast without error in training has no logarithm.
        self.deviation = Fixed(jnp.asarray(np.maximum(deviation, LEAST_DEVIATION), jnp.float32))
        ones = np.ones((deviation.shape[0], deviation.shape[-1]))
        self.calibration = Fixed(
            jnp.asarray(ones if calibration is None else calibration, jnp.float32)
        )

    def reference(
        self,
        last: Float[Array, "batch lat lon target"],
        month: Int[Array, "batch lead"],
        place: Place | None,
        past: Past | None = None,
    ) -> Float[Array, "batch lead lat lon output"]:
        mean = self.base(last, month, place, past)
        spread = jnp.log(jnp.broadcast_to(_by_lead(self.deviation[...], place), mean.shape))
        return jnp.stack([mean, spread], axis=-1).reshape(*mean.shape[:-1], -1)

    def forecast(self, outputs: Float[Array, "batch lead lat lon output"]) -> Array:
        """Mean and calibrated standard deviation of each target, side by side."""
        split = outputs.reshape(*outputs.shape[:-1], -1, 2)
        deviation = jnp.exp(split[..., 1]) * self.calibration[...][:, None, None]
        return jnp.stack([split[..., 0], deviation], axis=-1).reshape(outputs.shape)

    def combine(
        self, outputs: Float[Array, "member batch lead lat lon output"]
    ) -> Float[Array, "batch lead lat lon output"]:
        """Mean and variance of the members' mixture, as one normal distribution."""
        split = outputs.reshape(*outputs.shape[:-1], -1, 2)
        mean, variance = split[..., 0], jnp.exp(2 * split[..., 1])
        total = variance.mean(axis=0) + mean.var(axis=0)
        joint = jnp.stack([mean.mean(axis=0), 0.5 * jnp.log(total)], axis=-1)
        return joint.reshape(outputs.shape[1:])


class ClassHead(nnx.Module):
    """Logarithms of the probabilities of classes.

    The reference is a normal distribution around the fitted one, with the error that this
    forecast had in training, cut at the edges of the classes; or, without it, the odds of the
    training climatology.

    Attributes:
      base: the reference, or None: climatological odds.
      deviation: [lead lat lon target] its error.
      edges: [12 boundary lat lon target] scaled anomalies, by calendar month.
      odds: [12 class lat lon target] of the training climatology.
    """

    def __init__(
        self,
        base: dict[str, np.ndarray] | None,
        deviation: Float[np.ndarray, "lead lat lon target"] | None,
        edges: Float[np.ndarray, "12 boundary lat lon target"],
        odds: Float[np.ndarray, "12 class lat lon target"],
    ):
        self.width = odds.shape[1]
        self.base = None if base is None else Base(base)
        self.deviation = None if deviation is None else Fixed(jnp.asarray(deviation, jnp.float32))
        self.edges = Fixed(jnp.asarray(edges, jnp.float32))
        self.odds = Fixed(jnp.asarray(odds, jnp.float32))

    def reference(
        self,
        last: Float[Array, "batch lat lon target"],
        month: Int[Array, "batch lead"],
        place: Place | None,
        past: Past | None = None,
    ) -> Float[Array, "batch lead lat lon output"]:
        if self.base is None or self.deviation is None:
            return _classes_last(jnp.log(_of_month(self.odds[...], month, place)))
        mean = self.base(last, month, place, past)
        deviation = jnp.broadcast_to(_by_lead(self.deviation[...], place), mean.shape)
        edges = _of_month(self.edges[...], month, place)
        return _classes_last(jnp.log(class_probabilities(mean, deviation, edges)))

    def forecast(self, outputs: Float[Array, "batch lead lat lon output"]) -> Array:
        """Probabilities, arranged as the outputs: the classes of a target side by side."""
        split = outputs.reshape(*outputs.shape[:-1], -1, self.width)
        return jax.nn.softmax(split, axis=-1).reshape(outputs.shape)

    def combine(
        self, outputs: Float[Array, "member batch lead lat lon output"]
    ) -> Float[Array, "batch lead lat lon output"]:
        """The logarithm of the mean probability of the members."""
        split = outputs.reshape(*outputs.shape[:-1], -1, self.width)
        mean = jax.nn.logsumexp(jax.nn.log_softmax(split, axis=-1), axis=0)
        return (mean - jnp.log(len(outputs))).reshape(outputs.shape[1:])


class RainHead(nnx.Module):
    """A Bernoulli-gamma distribution: dry, or an amount (Williams 1998; Cannon 2008).

    Three numbers for each target: the logit of the probability of rain, the logarithm of the
    shape and of the mean of the amount. The reference is the training climatology of each cell
    and calendar month.

    Attributes:
      climate: [12 parameter lat lon target] these three numbers.
    """

    width = 3

    def __init__(self, climate: Float[np.ndarray, "12 3 lat lon target"]):
        self.climate = Fixed(jnp.asarray(climate, jnp.float32))

    def reference(
        self,
        last: Float[Array, "batch lat lon target"],
        month: Int[Array, "batch lead"],
        place: Place | None,
        past: Past | None = None,
    ) -> Float[Array, "batch lead lat lon output"]:
        return _classes_last(_of_month(self.climate[...], month, place))

    def forecast(self, outputs: Float[Array, "batch lead lat lon output"]) -> Array:
        """The mean of the distribution, in units of the variable."""
        split = outputs.reshape(*outputs.shape[:-1], -1, 3)
        return jax.nn.sigmoid(split[..., 0]) * jnp.exp(split[..., 2])

    def combine(
        self, outputs: Float[Array, "member batch lead lat lon output"]
    ) -> Float[Array, "batch lead lat lon output"]:
        """The mean of the members' logits and logarithms: one distribution again, not a mixture."""
        return outputs.mean(axis=0)


Head = ValueHead | NormalHead | ClassHead | RainHead


def class_probabilities(
    mean: Float[Array, "batch lead lat lon target"],
    deviation: Float[Array, "batch lead lat lon target"],
    edges: Float[Array, "batch lead boundary lat lon target"],
) -> Float[Array, "batch lead class lat lon target"]:
    """What a normal distribution puts between the edges; none below LEAST_PROBABILITY."""
    # A forecast without error in training would divide by zero.
    spread = jnp.maximum(deviation, LEAST_DEVIATION)[:, :, None]
    below = ndtr((edges - mean[:, :, None]) / spread)
    ends = jnp.ones_like(below[:, :, :1])
    probability = jnp.diff(jnp.concatenate([0 * ends, below, ends], axis=2), axis=2)
    count = probability.shape[2]
    return LEAST_PROBABILITY + (1 - count * LEAST_PROBABILITY) * probability


def _by_lead(values: Array, place: Place | None) -> Float[Array, "batch lead lat lon target"]:
    if place is None:
        return values[None]
    return jnp.moveaxis(take_static(jnp.moveaxis(values, 0, -1), place), -1, 1)


def _of_month(
    table: Array, month: Int[Array, "batch lead"], place: Place | None
) -> Float[Array, "batch lead number lat lon target"]:
    """The rows of a table by calendar month (1 to 12) at each date."""
    if place is None:
        return table[month - 1]
    # [12 number lat lon target] -> [batch 12 number lat lon target] at the places
    moved = take_static(table.transpose(2, 3, 0, 1, 4), place).transpose(0, 3, 4, 1, 2, 5)
    return jax.vmap(lambda t, m: t[m - 1])(moved, month)


def _classes_last(values: Array) -> Float[Array, "batch lead lat lon output"]:
    """[batch lead number lat lon target] -> the numbers of each target side by side, at the end."""
    moved = values.transpose(0, 1, 3, 4, 5, 2)
    return moved.reshape(*moved.shape[:-2], -1)
