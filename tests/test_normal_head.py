"""Forecasts of a mean and a standard deviation: the losses, the head, the members' mixture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import integrate, stats
from scores import probability as oracle

from gridcast.frames.places import place_at
from gridcast.models.base import Past
from gridcast.models.heads import LEAST_DEVIATION, NormalHead
from gridcast.training.losses import LOSSES

SHAPE = (2, 2, 1, 3)  # batch, lead, lat, lon
TARGETS = 2


def distributions(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, deviations and what came."""
    rng = np.random.default_rng(seed)
    mean, came = rng.normal(0, 1.5, (2, *SHAPE, TARGETS))
    return mean, np.exp(rng.normal(-0.5, 0.8, (*SHAPE, TARGETS))), came


def outputs_of(mean: np.ndarray, deviation: np.ndarray) -> jax.Array:
    """As a model gives them: of each target the mean and the logarithm, side by side."""
    both = np.stack([mean, np.log(deviation)], axis=-1)
    return jnp.asarray(both.reshape(*mean.shape[:-1], -1), jnp.float32)


CRPS = jax.jit(LOSSES["crps"])


def slopes(name: str, mean, deviation, came) -> tuple[np.ndarray, np.ndarray]:
    """Of the summed loss by each mean and by each logarithm of a deviation."""
    outputs, truth = outputs_of(mean, deviation), jnp.asarray(came, jnp.float32)
    slope = jax.jit(jax.grad(lambda o: LOSSES[name](o, truth).sum()))(outputs)
    split = np.asarray(slope).reshape(*mean.shape, 2)
    return split[..., 0], split[..., 1]


# ---------------------------------------------------------------- losses


def test_crps_is_the_integral_of_the_squared_difference_of_distribution_and_step():
    mean, deviation, came = distributions()
    found = CRPS(outputs_of(mean, deviation), jnp.asarray(came, jnp.float32))
    assert found.shape == came.shape
    cases = zip(np.ravel(found), mean.ravel(), deviation.ravel(), came.ravel(), strict=True)
    for ours, m, d, y in cases:
        below = integrate.quad(lambda x, m=m, d=d: stats.norm.cdf(x, m, d) ** 2, -30, y)[0]
        above = integrate.quad(lambda x, m=m, d=d: stats.norm.sf(x, m, d) ** 2, y, 30)[0]
        assert ours == pytest.approx(below + above, abs=2e-5)


def test_crps_agrees_with_the_package_scores():
    mean, deviation, came = (x.ravel()[:6] for x in distributions(1))
    steps = np.linspace(-15, 15, 30_001)
    curves = stats.norm.cdf(steps, mean[:, None], deviation[:, None])
    forecast = xr.DataArray(curves, {"x": steps, "case": range(6)}, ("case", "x"))
    observed = xr.DataArray(came, {"case": range(6)}, ("case",))
    expected = oracle.crps_cdf(
        forecast, observed, threshold_dim="x", preserve_dims="case", integration_method="trapz"
    )["total"]
    outputs = outputs_of(mean.reshape(1, 1, 1, 1, 6), deviation.reshape(1, 1, 1, 1, 6))
    found = CRPS(outputs, jnp.asarray(came.reshape(1, 1, 1, 1, 6), jnp.float32))
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-3)


def test_crps_is_proper_and_finite_far_away():
    """On average the true distribution scores best; the absolute error is the limit."""
    came = jnp.asarray(np.random.default_rng(0).normal(0.5, 2.0, (1, 1, 1, 40_000, 1)), jnp.float32)

    def mean_score(m: float, d: float) -> float:
        constant = np.broadcast_to(np.array([m, np.log(d)], np.float32), (1, 1, 1, 40_000, 2))
        return float(CRPS(jnp.asarray(constant), came).mean())

    best = mean_score(0.5, 2.0)
    for wrong in ((0.0, 2.0), (1.0, 2.0), (0.5, 1.5), (0.5, 2.7)):
        assert mean_score(*wrong) > best + 0.01
    far = jnp.full((1, 1, 1, 1, 1), 1e3)
    outputs = jnp.array([0.0, np.log(1e-3)]).reshape(1, 1, 1, 1, 2)
    assert float(CRPS(outputs, far).squeeze()) == pytest.approx(1e3, rel=1e-5)
    slope = jax.grad(lambda o: CRPS(o, far).sum())(outputs)
    assert np.isfinite(slope).all()


def test_of_both_losses_the_mean_learns_as_by_mse_and_the_deviation_as_by_crps():
    mean, deviation, came = distributions()
    by_mean, by_deviation = slopes("mse_crps", mean, deviation, came)
    np.testing.assert_allclose(by_mean, 2 * (mean - came), rtol=1e-5)
    squared = jax.grad(lambda m: LOSSES["mse"](m, jnp.asarray(came, jnp.float32)).sum())(
        jnp.asarray(mean, jnp.float32)
    )
    np.testing.assert_allclose(by_mean, squared, rtol=1e-6)
    alone_mean, alone_deviation = slopes("crps", mean, deviation, came)
    np.testing.assert_allclose(by_deviation, alone_deviation, rtol=1e-6)
    # The control: by CRPS alone the mean learns less where the forecast is unsure.
    assert np.abs(alone_mean).max() <= 1.0 + 1e-6
    value = LOSSES["mse_crps"](outputs_of(mean, deviation), jnp.asarray(came, jnp.float32))
    score = CRPS(outputs_of(mean, deviation), jnp.asarray(came, jnp.float32))
    np.testing.assert_allclose(value, (mean - came) ** 2 + score, rtol=1e-5)


# ---------------------------------------------------------------- the head


def head(calibration: np.ndarray | None = None) -> NormalHead:
    """Of damping by month, 2 leads, 1 x 3 cells, 2 targets; one error in training was 0."""
    rng = np.random.default_rng(2)
    damping = rng.uniform(0, 1, (12, 2, 1, 3, TARGETS)).astype(np.float32)
    deviation = rng.uniform(0.2, 1, (2, 1, 3, TARGETS)).astype(np.float32)
    deviation[0, 0, 0, 0] = 0.0
    return NormalHead({"damping": damping}, deviation, calibration)


LAST = np.random.default_rng(3).normal(0, 1, (2, 1, 3, TARGETS)).astype(np.float32)
MONTHS = np.array([[12, 1], [6, 7]])


def test_the_reference_is_the_base_with_its_error_in_training():
    one = head()
    mean = LAST[:, None] * np.asarray(one.base.arrays["damping"][...])[MONTHS[:, 0] - 1]
    found = np.asarray(one.reference(jnp.asarray(LAST), jnp.asarray(MONTHS), None))
    split = found.reshape(*found.shape[:-1], TARGETS, 2)
    np.testing.assert_allclose(split[..., 0], mean, rtol=1e-6)
    error = np.asarray(one.deviation[...])
    assert error.min() == np.float32(LEAST_DEVIATION)
    np.testing.assert_allclose(np.exp(split[..., 1]), [error, error], rtol=1e-5)
    # Around the mean of the years before: the mean moves, the error does not.
    past = Past(None, jnp.asarray(0.5 * LAST))
    moved = np.asarray(one.reference(jnp.asarray(LAST), jnp.asarray(MONTHS), None, past))
    drifted = moved.reshape(split.shape)
    np.testing.assert_allclose(drifted[..., 0], 0.5 * LAST[:, None] + 0.5 * mean, rtol=1e-5)
    np.testing.assert_array_equal(drifted[..., 1], split[..., 1])


def test_the_error_comes_from_the_place_of_each_sample():
    one = head()
    place = place_at(jnp.array([0, 0]), jnp.array([1, 2]), (1, 3), (1, 2))
    cut = np.stack([LAST[0][:, [1, 2]], LAST[1][:, [2, 0]]])
    found = one.reference(jnp.asarray(cut), jnp.asarray(MONTHS), place)
    whole = np.asarray(one.reference(jnp.asarray(LAST), jnp.asarray(MONTHS), None))
    np.testing.assert_allclose(found[0], whole[0][:, :, [1, 2]], rtol=1e-6)
    np.testing.assert_allclose(found[1], whole[1][:, :, [2, 0]], rtol=1e-6)


def test_calibration_multiplies_the_deviation_of_its_lead_and_target():
    factors = np.array([[1.5, 0.5], [2.0, 1.0]], np.float32)
    mean, deviation, _ = distributions()
    outputs = outputs_of(mean, deviation)
    plain = np.asarray(head().forecast(outputs)).reshape(*mean.shape, 2)
    np.testing.assert_allclose(plain[..., 0], mean, rtol=1e-6)
    np.testing.assert_allclose(plain[..., 1], deviation, rtol=1e-5)
    found = np.asarray(head(factors).forecast(outputs)).reshape(*mean.shape, 2)
    np.testing.assert_array_equal(found[..., 0], plain[..., 0])
    for lead, target in np.ndindex(2, TARGETS):
        np.testing.assert_allclose(
            found[:, lead, ..., target, 1],
            factors[lead, target] * plain[:, lead, ..., target, 1],
            rtol=1e-6,
        )


def test_members_together_have_the_mean_and_variance_of_their_mixture():
    """By drawing from one member after the other, and by the moments themselves."""
    members = [distributions(seed)[:2] for seed in range(3)]
    outputs = jnp.stack([outputs_of(*member) for member in members])
    joint = np.asarray(head().combine(outputs)).reshape(*SHAPE, TARGETS, 2)
    rng, draws = np.random.default_rng(9), 60_000
    mean, deviation = (np.stack(parts) for parts in zip(*members, strict=True))
    first = np.moveaxis(
        rng.normal(mean[:, 0, 0, 0, 0], deviation[:, 0, 0, 0, 0], (draws, 3, 2)), 2, 0
    )
    np.testing.assert_allclose(joint[0, 0, 0, 0, :, 0], first.mean(axis=(1, 2)), atol=0.03)
    np.testing.assert_allclose(np.exp(joint[0, 0, 0, 0, :, 1]), first.std(axis=(1, 2)), rtol=0.02)
    second = (deviation**2 + mean**2).mean(axis=0)
    np.testing.assert_allclose(joint[..., 0], mean.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        np.exp(2 * joint[..., 1]), second - mean.mean(axis=0) ** 2, rtol=1e-3
    )
    # Members that agree are one of them.
    same = np.asarray(head().combine(jnp.stack([outputs[0]] * 4)))
    np.testing.assert_allclose(same, outputs[0], atol=1e-5)
