"""Every network over every head: exact references when untrained, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from gridcast.config.models import CnnLstmConfig, ConvLstmConfig, ConvSeq2SeqConfig, SeriesConfig
from gridcast.frames.places import place_at
from gridcast.grid import Grid
from gridcast.models import Fixed, ForecastModel, Inputs, build_model
from gridcast.models.heads import (
    LEAST_PROBABILITY,
    ClassHead,
    Head,
    RainHead,
    ValueHead,
    class_probabilities,
)
from gridcast.references import REFERENCES, TrainingSeries
from gridcast.timeaxis import TimeAxis

BATCH, TIME, LEADS, VARIABLES, TARGETS, KNOWN = 3, 4, 2, 3, 2, 2
SIZE = (5, 8)


def cnn_lstm(**settings: Any) -> CnnLstmConfig:
    return CnnLstmConfig(
        **{"name": "cnn_lstm", "channels": [4, 6], "latent": 5, "hidden": [6]} | settings
    )


NETWORKS = {
    "conv_lstm": ConvLstmConfig(name="conv_lstm", hidden=[3, 2], downsample=2),
    "conv_lstm_fine": ConvLstmConfig(name="conv_lstm", hidden=[3], downsample=1),
    "conv_seq2seq": ConvSeq2SeqConfig(name="conv_seq2seq", hidden=[3], downsample=2),
    "cnn_lstm": cnn_lstm(),
    "cnn_lstm_stride": cnn_lstm(channels=[4], pooling="stride", norm="none"),
    "cnn_lstm_batch": cnn_lstm(norm="batch"),
    "cnn_lstm_layer": cnn_lstm(norm="layer", latent=None),
    "series": SeriesConfig(name="series", filters=[4], hidden=[5], dense=[4]),
}
DROPOUT = {
    f"{name}_dropout": NETWORKS[name].model_copy(update={"dropout": 0.5})
    for name in ("conv_lstm", "conv_seq2seq", "cnn_lstm", "series")
}


class Case(NamedTuple):
    """A model: network, head, (lat, lon), and whether it has gaps, one answer, a ring."""

    network: str
    head: str = "value"
    size: tuple[int, int] = SIZE
    gaps: bool = False
    whole: bool = False
    wraps: bool = True

    @property
    def targets(self) -> int:
        return 1 if self.whole else TARGETS

    @property
    def out(self) -> tuple[int, int]:
        return (1, 1) if self.whole else self.size


HEADS = ["value", "classes", "odds", "rain"]
ALONE = [Case(name) for name in NETWORKS]
CASES = [
    *ALONE,
    *(Case(name, size=size) for name in ("conv_lstm", "cnn_lstm") for size in ((13, 9), (1, 1))),
    *(Case("conv_lstm", head) for head in HEADS[1:]),
    Case("cnn_lstm", "classes"),
    Case("cnn_lstm_batch", "odds"),
    Case("series", "rain"),
    Case("conv_lstm", whole=True),
    Case("cnn_lstm", "classes", whole=True),
    Case("series", "odds", whole=True),
]
GAPS = [
    Case("conv_lstm", gaps=True),
    Case("conv_seq2seq", gaps=True),
    Case("cnn_lstm_batch", "classes", gaps=True),
    Case("series", gaps=True, whole=True),
]


def name_of(value: object) -> str | None:
    if not isinstance(value, Case):
        return None
    size = "x".join(map(str, value.size))
    flags = [flag for flag in ("gaps", "whole") if getattr(value, flag)]
    return "-".join([value.network, value.head, size, *flags])


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=name_of)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@cache
def mask_of(size: tuple[int, int]) -> np.ndarray:
    mask = np.random.default_rng(1).random(size) < 0.8
    mask[0, 0] = True
    return mask


@cache
def target_mask(case: Case) -> np.ndarray:
    """The second target is missing in some more cells."""
    if case.whole:
        return np.ones((1, 1, 1), bool)
    second = mask_of(case.size) & (np.random.default_rng(2).random(case.size) < 0.8)
    return np.stack([mask_of(case.size), second], axis=-1)


def head_of(case: Case) -> Head:
    shape = (*case.out, case.targets)
    damping = {"damping": random(1, LEADS, *shape, seed=5)}
    deviation = np.abs(random(LEADS, *shape, seed=6)) + 0.1
    edges = np.sort(random(12, 2, *shape, seed=7), axis=1)
    odds = special.softmax(random(12, 3, *shape, seed=8), axis=1)
    return {
        "value": lambda: ValueHead(damping),
        "classes": lambda: ClassHead(damping, deviation, edges, odds),
        "odds": lambda: ClassHead(None, None, edges, odds),
        "rain": lambda: RainHead(random(12, 3, *shape, seed=9)),
    }[case.head]()


@cache
def untrained(case: Case) -> ForecastModel:
    # Any random numbers will do, and these take less time to compile.
    with jax.default_prng_impl("unsafe_rbg"):
        return build_model(
            (NETWORKS | DROPOUT)[case.network],
            head_of(case),
            variables=VARIABLES,
            known=KNOWN,
            layers=random(*case.size, 2, seed=10),
            mask=mask_of(case.size),
            target_mask=target_mask(case),
            inputs=TIME,
            leads=LEADS,
            patch=None,
            gaps=case.gaps,
            whole=case.whole,
            wraps=case.wraps,
            seed=0,
        )


class Compiled(NamedTuple):
    """A model as functions of (weights, fixed arrays, inputs): forecast, and slope of its square.

    Attributes:
      first, fixed: of the untrained model.
      weights: others, with which the network does say something.
    """

    forecast: Callable
    slope: Callable
    first: Any
    fixed: Any
    weights: Any


@cache
def compiled(case: Case) -> Compiled:
    graph, first, fixed = nnx.split(untrained(case), nnx.Param, ...)
    leaves, tree = jax.tree.flatten(first)
    leaves = [p + 0.3 * random(*p.shape, seed=i) for i, p in enumerate(leaves)]

    def forecast(weights: Any, fixed: Any, inputs: Inputs) -> jax.Array:
        return nnx.merge(graph, weights, fixed)(inputs)

    slope = jax.grad(
        lambda *arguments: (forecast(*arguments) ** 2).sum(), argnums=(0, 2), allow_int=True
    )
    weights = jax.tree.unflatten(tree, leaves)
    return Compiled(jax.jit(forecast), jax.jit(slope), first, fixed, weights)


def trained_forecast(case: Case, inputs: Inputs) -> np.ndarray:
    model = compiled(case)
    return np.asarray(model.forecast(model.weights, model.fixed, inputs))


def inputs_of(case: Case) -> Inputs:
    frames = random(BATCH, TIME, *case.size, VARIABLES, seed=11) * mask_of(case.size)[:, :, None]
    last = random(BATCH, *case.out, case.targets, seed=12)
    past = jnp.asarray(random(BATCH, TIME, 1, 1, case.targets, seed=14)) if case.whole else None
    return Inputs(
        jnp.asarray(frames),
        jnp.asarray(random(BATCH, TIME + LEADS, case.size[0], KNOWN, seed=13)),
        jnp.array([[1, 2], [12, 1], [6, 7]]),
        jnp.asarray(last * target_mask(case)),
        past=past,
    )


def judged(case: Case) -> np.ndarray:
    """[out_lat out_lon output] where a forecast has to be."""
    return np.repeat(target_mask(case), untrained(case).head.width, axis=-1)


def reference_of(case: Case, inputs: Inputs) -> np.ndarray:
    found = jax.jit(untrained(case).head.reference, static_argnums=2)(
        inputs.last, inputs.month, None
    )
    return np.where(judged(case), found, 0.0)


# ---------------------------------------------------------------- every network and head


@each(CASES + GAPS)
def test_an_untrained_model_is_its_reference_exactly(case):
    model, inputs = compiled(case), inputs_of(case)
    found = np.asarray(model.forecast(model.first, model.fixed, inputs))
    expected = reference_of(case, inputs)
    assert found.shape == (BATCH, LEADS, *case.out, case.targets * untrained(case).head.width)
    if case.head == "classes":  # logarithms of small probabilities, compiled with their neighbours
        np.testing.assert_allclose(found, expected, atol=5e-5)
    else:
        np.testing.assert_array_equal(found, expected)
    assert found.any()


@pytest.mark.parametrize("base", ["climatology", "persistence", "damped_persistence"])
@pytest.mark.parametrize("network", ["conv_lstm", "conv_seq2seq", "cnn_lstm", "series"])
def test_with_a_fitted_base_it_is_that_reference_forecast(network, base):
    case, dates = Case(network), np.arange("2000-01", "2003-01", dtype="datetime64[M]")
    series = random(dates.size, *SIZE, TARGETS, seed=9) * target_mask(case)
    mask = target_mask(case)
    grids = [
        Grid(np.linspace(-60.0, 60.0, 5), np.arange(8) * 45.0, m) for m in np.moveaxis(mask, -1, 0)
    ]
    weight = np.stack([grid.weight for grid in grids], axis=-1)
    axis = TimeAxis.of(dates.astype("datetime64[ns]"))
    reference = REFERENCES[base](TrainingSeries(series, axis, np.ones(36, bool), weight), LEADS)
    model, inputs = compiled(case), inputs_of(case)
    fixed = jax.tree.map(lambda x: x, model.fixed)
    own = fixed["head"]["base"]["arrays"]
    own["damping"] = own["damping"].replace(jnp.asarray(reference.damping))
    found = np.asarray(model.forecast(model.first, fixed, inputs))
    np.testing.assert_array_equal(found, reference(np.asarray(inputs.last)[:, None]))
    assert found.any() == (base != "climatology")


@each(CASES + GAPS)
def test_a_trained_model_is_finite_on_any_grid_and_zero_off_the_mask(case):
    inputs = inputs_of(case)
    found = trained_forecast(case, inputs)
    assert np.isfinite(found).all()
    assert not found[:, :, ~judged(case)].any()
    assert np.abs(found - reference_of(case, inputs))[:, :, judged(case)].max() > 0.01


@each([*(case for case in ALONE if case.network != "conv_lstm_fine"), *GAPS])
def test_every_weight_and_every_input_has_a_share_in_the_forecast(case):
    model = compiled(case)
    weights, inputs = model.slope(model.weights, model.fixed, inputs_of(case))
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    for time in range(TIME):
        assert (np.abs(inputs.frames[:, time]).max(axis=(0, 1, 2)) > 0).all(), f"frame {time}"
        assert (np.abs(inputs.known[:, time]).max(axis=(0, 1)) > 0).all(), f"date {time}"
        assert inputs.past is None or (np.abs(inputs.past[:, time]) > 0).any(), f"past {time}"


@each([*ALONE, *CASES[-3:]])
def test_batch_members_do_not_see_each_other(case):
    inputs = inputs_of(case)
    before = trained_forecast(case, inputs)
    after = trained_forecast(
        case,
        inputs._replace(
            frames=inputs.frames.at[1].set(9.0),
            known=inputs.known.at[1].set(-1.0),
            last=inputs.last.at[1].set(5.0),
            month=inputs.month.at[1].set(4),
        ),
    )
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] != before[1]).any()


@each(ALONE)
def test_a_forecast_depends_on_the_order_of_frames(case):
    inputs = inputs_of(case)
    before = trained_forecast(case, inputs)
    order = jnp.array([1, 0, 2, 3])
    swapped = trained_forecast(case, inputs._replace(frames=inputs.frames[:, order]))
    assert np.abs(swapped - before).max() > 1e-4


@each([Case(name) for name in DROPOUT])
def test_dropout_changes_training_only(case):
    model, plain = compiled(case), compiled(Case(case.network.removesuffix("_dropout")))
    inputs = inputs_of(case)
    without = np.asarray(plain.forecast(plain.weights, plain.fixed, inputs))
    np.testing.assert_array_equal(model.forecast(plain.weights, model.fixed, inputs), without)
    one, again, other = (
        model.forecast(plain.weights, model.fixed, inputs._replace(key=jax.random.key(k)))
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != without).any()


# ---------------------------------------------------------------- gaps


@each(GAPS)
@pytest.mark.parametrize("absent", [0, 2])
def test_a_frame_that_lacks_changes_nothing_whatever_is_known_of_its_date(case, absent):
    inputs = inputs_of(case)
    inputs = inputs._replace(frames=inputs.frames.at[:, absent].set(jnp.nan))
    found = trained_forecast(case, inputs)
    assert np.isfinite(found).all()
    other = trained_forecast(case, inputs._replace(known=inputs.known.at[:, absent].set(7.0)))
    np.testing.assert_array_equal(other, found)
    # The control: of a frame that is there, the date matters.
    there = trained_forecast(case, inputs._replace(known=inputs.known.at[:, 1].set(7.0)))
    assert (there != found).any()


@each(GAPS)
def test_a_padded_window_is_the_shorter_window(case):
    inputs = inputs_of(case)
    padded = inputs._replace(frames=inputs.frames.at[:, 0].set(jnp.nan))
    past = None if inputs.past is None else inputs.past[:, 1:]
    shorter = inputs._replace(frames=inputs.frames[:, 1:], known=inputs.known[:, 1:], past=past)
    found, expected = (trained_forecast(case, one) for one in (padded, shorter))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(trained_forecast(case, inputs) - expected).max() > 1e-4


@each(GAPS)
def test_a_value_that_lacks_is_not_a_zero_and_leaves_all_gradients_finite(case):
    inputs, model = inputs_of(case), compiled(case)
    inside = mask_of(case.size)
    inputs = inputs._replace(frames=inputs.frames.at[1, 1, 0, 0, 0].set(jnp.nan))
    found = trained_forecast(case, inputs)
    zero = trained_forecast(case, inputs._replace(frames=jnp.nan_to_num(inputs.frames)))
    assert inside[0, 0]
    assert np.isfinite(found).all()
    assert (found[1] != zero[1]).any()
    np.testing.assert_array_equal(found[[0, 2]], zero[[0, 2]])
    weights, slope = model.slope(model.weights, model.fixed, inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    assert np.isfinite(slope.frames).all()


def test_where_the_last_value_lacks_the_reference_is_no_anomaly():
    case = GAPS[0]
    model, inputs = compiled(case), inputs_of(case)
    holed = inputs._replace(last=inputs.last.at[0, 0, 0, 0].set(jnp.nan))
    found, whole = (
        np.array(model.forecast(model.first, model.fixed, one)) for one in (holed, inputs)
    )
    assert not found[0, :, 0, 0, 0].any()
    assert whole[0, :, 0, 0, 0].all()
    found[0, :, 0, 0, 0] = whole[0, :, 0, 0, 0]
    np.testing.assert_array_equal(found, whole)


# ---------------------------------------------------------------- places


def turned(case: Case, inputs: Inputs, by: int) -> Inputs:
    """The same windows on a grid that starts `by` columns further east."""
    row, column = jnp.zeros(BATCH, int), jnp.full(BATCH, by)
    place = place_at(row, column, case.size, case.size)
    frames, last = (jnp.roll(x, -by, -2) for x in (inputs.frames, inputs.last))
    return inputs._replace(frames=frames, last=last, place=place)


@pytest.mark.parametrize(
    "case", [*(Case("conv_lstm", head) for head in HEADS), ALONE[1], ALONE[2]], ids=name_of
)
def test_it_does_not_matter_where_the_longitudes_of_a_ring_start(case):
    by, inputs = 4, inputs_of(case)
    for ring in (case, case._replace(wraps=False)):
        straight = trained_forecast(ring, inputs)
        found = trained_forecast(ring, turned(ring, inputs, by))
        error = np.abs(found - np.roll(straight, -by, -2)).max()
        assert error < 5e-5 if ring.wraps else error > 1e-3


# ---------------------------------------------------------------- heads


def test_classes_are_those_of_a_normal_distribution_around_the_damped_last_frame():
    case = Case("conv_lstm", "classes")
    head, inputs = head_of(case), inputs_of(case)
    assert isinstance(head, ClassHead)
    found = np.asarray(head.reference(inputs.last, inputs.month, None))
    assert head.base is not None
    assert head.deviation is not None
    damping, deviation, edges = (
        np.asarray(x, np.float64)
        for x in (head.base.arrays["damping"][0], head.deviation[...], head.edges[...])
    )
    cells = np.ndindex(BATCH, LEADS, *SIZE, TARGETS)
    for window, lead, row, column, target in cells:
        here = (row, column, target)
        mean = float(inputs.last[window, *here]) * damping[lead, *here]
        bounds = edges[int(inputs.month[window, lead]) - 1, :, *here]
        below = special.ndtr((bounds - mean) / deviation[lead, *here])
        share = np.diff([0.0, *below, 1.0])
        expected = np.log(LEAST_PROBABILITY + (1 - 3 * LEAST_PROBABILITY) * share)
        ours = found[window, lead, row, column, 3 * target : 3 * target + 3]
        np.testing.assert_allclose(ours, expected, atol=1e-3)
    np.testing.assert_allclose(special.logsumexp(found.reshape(-1, 3), axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("head", ["odds", "rain"])
def test_without_damping_the_reference_is_the_table_of_the_month_of_the_lead(head):
    case = Case("conv_lstm", head)
    inputs, model = inputs_of(case), head_of(case)
    found = np.asarray(model.reference(inputs.last, inputs.month, None))
    table = np.log(model.odds[...]) if isinstance(model, ClassHead) else model.climate[...]
    for window, lead, target in np.ndindex(BATCH, LEADS, TARGETS):
        expected = table[int(inputs.month[window, lead]) - 1, ..., target]
        ours = found[window, lead, ..., 3 * target : 3 * target + 3]
        np.testing.assert_allclose(ours, np.moveaxis(expected, 0, -1), rtol=1e-6)


def test_forecasts_of_heads_by_hand():
    outputs = np.array([0.0, np.log(3.0), 0.0, np.log(0.2), np.log(0.5), np.log(0.3)])
    outputs = jnp.asarray(outputs, jnp.float32)[None, None, None, None]
    classes = np.asarray(head_of(Case("conv_lstm", "odds")).forecast(outputs))[0, 0, 0, 0]
    np.testing.assert_allclose(classes, [0.2, 0.6, 0.2, 0.2, 0.5, 0.3], rtol=1e-6)
    # Rain: probability times mean of the wet amount; the shape does not matter.
    rain = np.asarray(head_of(Case("conv_lstm", "rain")).forecast(outputs))[0, 0, 0, 0]
    np.testing.assert_allclose(rain, [0.5 * 1.0, 0.2 / 1.2 * 0.3], rtol=1e-6)
    values = np.asarray(head_of(Case("conv_lstm")).forecast(outputs))
    np.testing.assert_array_equal(values, outputs)


def test_no_class_is_impossible_and_a_certain_reference_has_finite_gradients():
    mean, deviation = jnp.zeros((1, 1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1, 1))
    edges = jnp.array([-5.0, 5.0])[None, None, :, None, None, None]
    found = class_probabilities(mean, deviation, edges)[0, 0, :, 0, 0, 0]
    np.testing.assert_allclose(
        found, [LEAST_PROBABILITY, 1 - 2 * LEAST_PROBABILITY, LEAST_PROBABILITY], atol=1e-6
    )
    gradient = jax.grad(lambda m: jnp.log(class_probabilities(m, deviation, edges)).sum())(mean)
    assert np.isfinite(gradient).all()


def test_references_and_masks_are_carried_and_never_trained():
    for head in HEADS:
        model = untrained(Case("conv_lstm", head))
        fixed = nnx.state(model, Fixed)
        assert len(jax.tree.leaves(nnx.state(model.head, Fixed))) >= 1
        assert len(jax.tree.leaves(nnx.state(model.head, nnx.Param))) == 0
        assert {"layers", "target_mask", "head"} <= set(fixed)
