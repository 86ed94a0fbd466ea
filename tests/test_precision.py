"""Less memory and less precision: parts of a batch, what is computed again, bfloat16."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, STEPS, Bench, small_config
from flax import nnx
from jax import export
from pydantic import ValidationError

from gridcast.config.training import TrainConfig
from gridcast.errors import ConfigError
from gridcast.fitting import compile_setup
from gridcast.models import Inputs
from gridcast.training.batches import epoch_batches
from gridcast.training.step import Stepper

NETWORKS: dict[str, dict[str, Any]] = {
    "conv_lstm": {"norm": "group"},
    "conv_seq2seq": {"name": "conv_seq2seq", "hidden": [4], "downsample": 2},
    "cnn_lstm": {
        "name": "cnn_lstm",
        "channels": [3, 4],
        "latent": 4,
        "hidden": [5],
        "norm": "batch",
        "recurrent_dropout": 0.2,
    },
    "series": {"name": "series", "filters": [3], "length": 2, "pool": 1, "hidden": [3]},
}


def after_steps(bench: Bench, stepper: Stepper) -> tuple[Any, np.ndarray]:
    """The weights after three steps, and the log of them."""
    train = bench.setup.config.train
    batches = epoch_batches(bench.setup.member_windows, train.batch_size, train.seed, 0)
    start = stepper.start(jax.tree.map(jnp.copy, bench.weights))
    state, log = stepper.run(start, bench.series, jnp.asarray(batches), 0, 3)
    return state.params, np.asarray(log)[:3]


@pytest.mark.parametrize("way", [{"accumulate": 4}, {"remat": True}])
def test_parts_and_what_is_computed_again_change_nothing_but_roundings(bench, ocean, way):
    plain = after_steps(bench, bench.stepper)
    params, log = after_steps(bench, Bench.of(ocean, small_config(train=way)).stepper)
    np.testing.assert_allclose(log, plain[1], rtol=1e-4)
    for found, expected in zip(jax.tree.leaves(params), jax.tree.leaves(plain[0]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_the_parts_of_a_batch_must_be_equal(ocean, bench):
    with pytest.raises(ValidationError, match="found 3 of batch_size 8"):
        TrainConfig(batch_size=8, accumulate=3)
    windows = bench.setup.train_windows.size
    config = small_config(train={"batch_size": 4 * windows, "accumulate": 4 * windows})
    with pytest.raises(ConfigError, match=f"found {windows} windows"):
        compile_setup(replace(bench.setup, config=config))


def saved(bench: Bench) -> int:
    """Numbers that are held from the forward to the backward pass of one batch."""
    initial = jnp.asarray(bench.setup.train_windows[:8])

    def loss(params: Any) -> Any:
        weights = bench.weights._replace(params=params)
        return bench.stepper._loss(weights, bench.series, initial, jax.random.key(0))[0].mean()

    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), bench.weights.params)
    return sum(leaf.size for leaf in jax.tree.leaves(backward) if leaf.ndim > 3)


@pytest.mark.parametrize("name", ["conv_lstm", "cnn_lstm"])
def test_less_is_held_for_the_backward_pass(ocean, name):
    everything, less = (
        saved(Bench.of(ocean, small_config(model=NETWORKS[name], train={"remat": remat})))
        for remat in (False, True)
    )
    assert 0 < less < 0.8 * everything


@pytest.mark.family
@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_is_the_same_forecast_to_a_few_hundredths(ocean, name):
    bench = Bench.of(ocean, small_config(model=NETWORKS[name]))
    drawn = jax.tree.map(
        lambda p: p + 0.2 * np.random.default_rng(p.size).standard_normal(p.shape, np.float32),
        bench.weights,
    )
    stepper, initial = bench.stepper, jnp.asarray(bench.setup.train_windows[:4])
    mixed = Bench.of(ocean, small_config(model=NETWORKS[name], train={"precision": "mixed"}))

    def correction(stepper: Stepper) -> np.ndarray:
        def of(weights: Any) -> Any:
            model = nnx.merge(stepper.graph, *weights, stepper.fixed)
            inputs: Inputs = stepper._batch(bench.series, initial, None, 0.0)[0]
            return model(inputs) - model.reference(inputs)

        return np.asarray(jax.jit(of)(drawn))

    exact, found = correction(stepper), correction(mixed.stepper)
    assert found.dtype == np.float32
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert 0 < error < 0.03


@pytest.mark.parametrize("name", NETWORKS)
def test_in_mixed_precision_every_product_is_of_bfloat16_and_every_sum_is_kept(
    ocean, name, monkeypatch
):
    config = small_config(model=NETWORKS[name], train={"precision": "mixed"})
    bench = Bench.of(ocean, config)
    state = bench.stepper.start(bench.weights)
    batches = jnp.zeros((STEPS, SMALL["train"]["batch_size"]), jnp.int32)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    run = jax.jit(bench.stepper._run)
    text = export.export(run, platforms=("cuda", "tpu"))(
        state, bench.series, batches, 0, 1
    ).mlir_module()
    factors = re.findall(r"stablehlo\.(?:convolution|dot_general)\b.*?: (\(.*?\)) ->", text, re.S)
    assert factors
    assert all(found.count("bf16") == 2 for found in factors), factors
    kept, log = jax.eval_shape(run, state, bench.series, batches, 0, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept.params)} == {np.dtype(np.float32)}
    assert log.dtype == np.float32
