"""The summary counts every weight once and shows the shapes that really come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gridcast.models.summary import Row, summarise, table
from gridcast.models.window import Fixed, Frozen


class Frame(nnx.Module):
    """[feature] -> ([4], [2]): one frame, to be mapped."""

    def __init__(self, rngs: nnx.Rngs):
        self.wide = nnx.Linear(3, 4, rngs=rngs)
        self.narrow = nnx.Linear(4, 2, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array | None]]:
        x = self.wide(x)
        return x, {"narrow": self.narrow(x), "nothing": None}


class Cell(nnx.Module):
    """Looped over time by `run`, never called as a whole."""

    def __init__(self, rngs: nnx.Rngs):
        self.turn = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
        self.start = nnx.Param(jnp.zeros(4))

    def run(self, x: jax.Array) -> jax.Array:
        """[batch time 4] -> [batch 4]"""
        start = jnp.broadcast_to(self.start[...], (len(x), 4))
        return jax.lax.scan(lambda h, y: (self.turn(h) + y, None), start, x.swapaxes(0, 1))[0]


class Small(nnx.Module):
    """[batch time 3] -> [batch 1]; what is called first is not what the alphabet has first."""

    def __init__(self, rngs: nnx.Rngs):
        self.frame = Frame(rngs)
        self.cells = nnx.List([Cell(rngs)])
        self.answer = nnx.Linear(4, 1, rngs=rngs)
        self.spare = nnx.List([nnx.Param(jnp.zeros((2, 5)))])
        self.asleep = nnx.Linear(2, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.known = Frozen(jnp.zeros((30, 40)))
        self.mask = Fixed(jnp.zeros(7))

    def __call__(self, x: jax.Array) -> jax.Array:
        flat = jax.vmap(self.frame)(x.reshape(-1, 3))[0]
        return self.answer(self.cells[0].run(flat.reshape(*x.shape[:2], 4)))


@pytest.fixture(scope="module")
def small() -> Small:
    return Small(nnx.Rngs(0))


def run(model: Any) -> jax.Array:
    return model(jnp.zeros((2, 5, 3)))


def by_path(rows: list[Row]) -> dict[str, Row]:
    assert len({row.path for row in rows}) == len(rows)
    return {row.path: row for row in rows}


def shapes_of(module: nnx.Module, call: Callable[[Any], Any]) -> list[Any]:
    return [row.shape for row in summarise(module, call)]


def test_a_small_model_gives_a_table_checked_by_hand(small: Small):
    expected = """\
module      class   output              parameters  frozen
----------------------------------------------------------
model       Small   (2, 1)                      10   1,200
  frame     Frame   (10, 4), (10, 2) *
    wide    Linear  (10, 4) *                   16
    narrow  Linear  (10, 2) *                    8
  cells.0   Cell    -                            4
    turn    Linear  (2, 4)                      16
  answer    Linear  (2, 1)                       5
  asleep    Linear  -                            6
----------------------------------------------------------
* time-distributed: the same weights for each entry of the first axis
trainable parameters: 65
frozen parameters: 1,200"""
    assert table(summarise(small, run)) == expected


def test_a_model_without_frozen_weights_or_vmap_has_no_column_or_note_for_them():
    expected = """\
module  class   output  parameters
----------------------------------
model   Linear  (2,)             8
----------------------------------
trainable parameters: 8
frozen parameters: 0"""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    assert table(summarise(model, lambda m: m(jnp.zeros(3)))) == expected


def test_the_parameters_add_up_to_those_of_the_model(small: Small):
    rows = summarise(small, run)
    for kind, ours in ((nnx.Param, "parameters"), (Frozen, "frozen")):
        theirs = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(small, kind)))
        assert sum(getattr(row, ours) for row in rows) == theirs


def test_a_module_whose_weights_are_all_frozen_has_its_line():
    class Stays(nnx.Module):
        def __init__(self):
            self.weight = Frozen(jnp.ones(3))

    assert summarise(Stays(), lambda m: m.weight[...]) == [Row("", "Stays", None, False, 0, 3)]


def test_a_shared_module_and_a_shared_weight_are_counted_once():
    rngs = nnx.Rngs(0)

    class Shared(nnx.Module):
        def __init__(self):
            self.one, self.two = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
            self.two.kernel = self.one.kernel
            self.three = self.one

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.three(self.two(self.one(x)))

    rows = by_path(summarise(Shared(), lambda m: m(jnp.zeros(3))))
    assert len(rows) == 3
    assert sum(row.parameters for row in rows.values()) == 9 + 3 + 3


def test_a_module_called_twice_shows_its_first_output():
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    assert shapes_of(model, lambda m: m(m(jnp.zeros((2, 3))).sum(0))) == [(2, 3)]


WRAPPED: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "nested vmap": (lambda m: jax.vmap(jax.vmap(m))(jnp.zeros((5, 6, 3))), (5, 6, 3)),
    "vmap of another axis": (lambda m: jax.vmap(m, 1)(jnp.zeros((7, 5, 3))), (5, 7, 3)),
    "vmap of jit": (lambda m: jax.vmap(jax.jit(lambda x: m(x)))(jnp.zeros((5, 3))), (5, 3)),
    "jit of vmap": (lambda m: jax.jit(jax.vmap(lambda x: m(x)))(jnp.zeros((5, 3))), (5, 3)),
    "vmap of scan": (
        lambda m: jax.vmap(lambda x: jax.lax.scan(lambda h, y: (m(h) + y, None), x[0], x))(
            jnp.zeros((5, 7, 3))
        ),
        (5, 3),
    ),
    "merged again": (
        lambda m: jax.vmap(nnx.merge(*nnx.split(m)))(jnp.zeros((5, 3))),
        (5, 3),
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_mapped_axes_come_first_however_the_module_is_wrapped(name: str):
    call, shape = WRAPPED[name]
    (row,) = summarise(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), call)
    assert row.shape == shape
    assert row.time_distributed


def test_a_loop_shows_the_shape_of_one_step_and_is_not_time_distributed(small: Small):
    row = by_path(summarise(small, run))["cells.0.turn"]
    assert row.shape == (2, 4)
    assert not row.time_distributed


def test_rows_follow_the_calls_and_a_module_comes_before_what_it_holds():
    rngs = nnx.Rngs(0)

    class Order(nnx.Module):
        def __init__(self):
            self.a, self.b, self.c = (Frame(rngs) for _ in range(3))

        def __call__(self, x: jax.Array) -> Any:
            # The inside of b is called before, and after, all of c.
            return self.b.wide(x), self.c(x), self.b.narrow(jnp.zeros(4))

    rows = summarise(Order(), lambda m: m(jnp.zeros(3)))
    assert [row.path for row in rows] == [
        *["", "b", "b.wide", "b.narrow", "c", "c.wide", "c.narrow"],
        *["a", "a.narrow", "a.wide"],
    ]
    assert by_path(rows)["b"].shape is None


def test_an_inherited_call_is_seen():
    class Plain(nnx.Linear):
        pass

    assert shapes_of(Plain(3, 3, rngs=nnx.Rngs(0)), lambda m: m(jnp.zeros((2, 3)))) == [(2, 3)]


def test_a_call_that_uses_an_inherited_one_is_shown_as_its_own():
    class Twice(nnx.Linear):
        def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
            return jnp.concatenate([super().__call__(inputs)] * 2)

    assert shapes_of(Twice(3, 3, rngs=nnx.Rngs(0)), lambda m: m(jnp.zeros((2, 3)))) == [(4, 3)]


def test_many_outputs_are_cut_short_and_a_number_is_an_empty_shape():
    rows = [
        Row("", "Model", ((1,), (2, 2), (3,), (4,)), False, 0, 0),
        Row("inner", "Loss", (), False, 1, 0),
    ]
    text = table(rows).splitlines()
    assert text[2] == "model    Model  (1,), (2, 2) and 2 more"
    assert text[3].split() == ["inner", "Loss", "()", "1"]


def test_a_name_that_begins_like_another_is_not_inside_it():
    rows = [Row(path, "Linear", None, False, 1, 0) for path in ("cell", "cells.0", "cell.gates")]
    assert [line.split("  Linear")[0].rstrip() for line in table(rows).splitlines()[2:5]] == [
        *["cell", "cells.0", "  gates"]
    ]


def test_nothing_is_left_behind_in_the_model_or_its_classes(small: Small):
    before = {c: c.__call__ for c in (Frame, nnx.Linear, nnx.Dropout)}
    attributes = set(vars(small))
    summarise(small, run)

    def fails(model: Any) -> None:
        run(model)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        summarise(small, fails)
    assert all(c.__call__ is call for c, call in before.items())
    assert "__call__" not in vars(Cell)
    assert set(vars(small)) == attributes


def test_what_a_call_changes_stays_in_the_copy():
    norm = nnx.BatchNorm(3, use_running_average=False, rngs=nnx.Rngs(0))
    (row,) = summarise(norm, lambda m: m(jnp.ones((2, 3))))
    assert (row.shape, row.parameters) == ((2, 3), 6)
    np.testing.assert_array_equal(norm.mean[...], 0)


def test_nothing_is_computed():
    computed = []

    class Loud(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(3))

        def __call__(self, x: jax.Array) -> jax.Array:
            jax.debug.callback(lambda: computed.append(1))
            return x * self.weight[...]

    summarise(Loud(), lambda m: m(jnp.ones(3)))
    jax.effects_barrier()
    assert computed == []
