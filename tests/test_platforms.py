"""The compiled training step on machines that are not here, and what it asks of the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STEPS, Bench, small_config
from jax import export

from gridcast.training.batches import epoch_batches

NETWORKS = {
    "conv_lstm": {},
    "conv_seq2seq": {"name": "conv_seq2seq", "hidden": [4], "downsample": 2},
    "cnn_lstm": {"name": "cnn_lstm", "channels": [3, 4], "latent": 4, "hidden": [5]},
}


def epoch(bench: Bench) -> jax.Array:
    train = bench.setup.config.train
    batches = epoch_batches(bench.setup.member_windows, train.batch_size, train.seed, 0)
    assert len(batches) == STEPS
    return jnp.asarray(batches)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_step_lowers_for_gpu_and_tpu_with_the_time_loop_inside(ocean, name, monkeypatch):
    bench = Bench.of(ocean, small_config(model=NETWORKS[name]))
    arguments = (bench.stepper.start(bench.weights), bench.series, epoch(bench), 0, STEPS)
    # What is chosen by the platform is chosen as there.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = export.export(jax.jit(bench.stepper._run), platforms=("cuda", "tpu"))(*arguments)
    assert found.platforms == ("cuda", "tpu")
    text = found.mlir_module()
    assert text.count("stablehlo.while") > 1
    assert "stablehlo.convolution" in text
    for host in ("callback", "infeed", "outfeed"):
        assert host not in text


def test_an_epoch_moves_nothing_between_host_and_device(bench):
    bounds = jax.device_put(np.int32(0)), jax.device_put(np.int32(STEPS))
    # The step takes over what it is given, and the bench is every test's.
    batches, state = epoch(bench), bench.stepper.start(jax.tree.map(jnp.copy, bench.weights))
    with jax.transfer_guard("disallow"):
        state, log = bench.stepper.run(state, bench.series, batches, *bounds)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            bench.stepper.run(state, bench.series, np.asarray(batches), *bounds)
    assert np.isfinite(np.asarray(log)).all()
