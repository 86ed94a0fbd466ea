"""What a training step takes in memory is told before it, and told when it is too much."""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gridcast.compiled import compiling_seconds
from gridcast.training import memory
from gridcast.training.memory import step_memory, tell_memory

MIB = 2**20
FIELD = jax.ShapeDtypeStruct((MIB // 4,), jnp.float32)


def test_what_is_given_and_made_is_counted_and_what_is_given_away_but_once():
    kept = step_memory(jax.jit(lambda x: x + 1), FIELD)
    assert kept is not None
    assert 2 * MIB <= kept.whole < 2.1 * MIB
    assert MIB <= kept.further < 1.1 * MIB
    given = step_memory(jax.jit(lambda x: x + 1, donate_argnums=0), FIELD)
    assert given is not None
    assert given.further < 0.1 * MIB


def test_what_lies_in_between_is_counted():
    between = step_memory(jax.jit(lambda x: jnp.sort(jnp.outer(x[:512], x[:1024])).sum()), FIELD)
    assert between is not None
    assert between.further >= 2 * MIB  # the 512 x 1024 numbers


def test_asking_compiles_nothing_twice():
    compiling_seconds()

    @jax.jit
    def step(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ x) * 3.25

    x = jnp.ones((33, 33))
    before = compiling_seconds()
    assert step_memory(step, x) is not None
    asked = compiling_seconds()
    assert asked > before  # the control: compiling is seen
    np.testing.assert_allclose(step(x), np.tanh(33.0) * 3.25)
    assert compiling_seconds() == asked


def test_a_plain_function_has_no_program_to_ask():
    assert step_memory(lambda x: x, jnp.ones(3)) is None


@pytest.mark.parametrize(("free", "warned"), [(MIB // 2, True), (4 * MIB, False)])
def test_more_than_is_free_is_a_warning_with_a_way_out(free, warned, monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    with caplog.at_level(logging.INFO, "gridcast"):
        tell_memory(jax.jit(lambda x: x + 1), FIELD)
    assert "memory: 2 MiB on the device while training, of which 1 MiB" in caplog.text
    assert ("fix: end other programs" in caplog.text) == warned
    assert any(one.levelno == logging.WARNING for one in caplog.records) == warned
