"""Patches, tiles, rolls, flips and noise in training and forecasts: nothing gets out of place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import Bench, small_config
from flax import nnx

from gridcast.config import Config
from gridcast.errors import ConfigError
from gridcast.frames.places import random_place
from gridcast.frames.windows import FrameSeries
from gridcast.models import ForecastModel, Inputs
from gridcast.models.heads import ClassHead, Head, RainHead, ValueHead
from gridcast.models.window import Sizes, Window
from gridcast.opening import open_source
from gridcast.preparation import Setup, prepare
from gridcast.run import Run
from gridcast.training.step import DeviceSeries, Stepper, Weights

SPLITS = {"train": [1950, 1951], "validation": [1952, 1952], "test": [1953, 1953]}
FEW = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2}
HARMONICS = {"harmonics": 1}


def globe(rows: int, columns: int, *, of: int | None = None) -> xr.DataArray:
    """Four years of noise with a season; some land. `of` columns would go round the globe."""
    of = of or columns
    time = xr.date_range("1950-01-01", periods=48, freq="MS")
    season = 5 * np.cos(2 * np.pi * np.arange(48) / 12)[:, None, None]
    random = np.random.default_rng(0)
    values = 15 + season + random.normal(size=(48, rows, columns))
    values[:, random.random((rows, columns)) < 0.2] = np.nan
    return xr.DataArray(
        values.astype(np.float32),
        {
            "time": time,
            "lat": np.linspace(-60, 60, rows),
            "lon": (np.arange(columns) + 0.5) * 360 / of,
        },
        ("time", "lat", "lon"),
        "sst",
        {"units": "degC"},
    )


def config_of(**sections: Any) -> Config:
    frames = {"climatology": HARMONICS} | sections.pop("frames", {})
    model = {"name": "conv_lstm", "hidden": [3]} | sections.pop("model", {})
    train = FEW | sections.pop("train", {})
    return small_config(splits=SPLITS, train=train, frames=frames, model=model, **sections)


def prepared(series: xr.DataArray, **sections: Any) -> Setup:
    config = config_of(**sections)
    return prepare(config, open_source(config, series))


def awake(params: Any) -> Any:
    """Weights moved at random: an untrained network says nothing, whatever it is given."""
    leaves, shape = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(8), len(leaves))
    moved = [p + 0.2 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(shape, moved)


def key(number: int = 0) -> jax.Array:
    return jax.random.key(number)


# ---------------------------------------------------------------- forecasts in tiles


@dataclass(frozen=True)
class Case:
    """A network whose view is `radius` cells wide, and tiles that hide as many."""

    wraps: bool
    downsample: int
    inputs: int
    size: int
    overlap: int

    @property
    def radius(self) -> int:
        return (self.inputs + 1) * self.downsample

    def run(self, series: xr.DataArray, params: Any, overlap: int | None) -> Run:
        """With tiles, or for overlap None without."""
        patches = None if overlap is None else {"size": [self.size] * 2, "overlap": overlap}
        setup = prepared(
            series,
            # Light is known in advance, and differs from row to row.
            frames={"inputs": self.inputs, "patches": patches, "known": ["season", "insolation"]},
            model={"downsample": self.downsample},
        )
        model = setup.model()
        nnx.update(model, awake(nnx.state(model, nnx.Param)) if params is None else params)
        return Run(Path(), setup.config, setup.fields, model, "", 24)


CASES = {
    "globe": Case(True, 1, 1, 16, 8),
    "region": Case(False, 1, 2, 24, 12),
    "coarsened globe": Case(True, 2, 1, 32, 16),
    "coarsened region": Case(False, 2, 1, 32, 16),
}


@pytest.mark.parametrize("name", CASES)
def test_a_forecast_in_tiles_is_the_forecast_of_the_whole_grid(name):
    case = CASES[name]
    assert case.overlap // 4 == case.radius
    series = globe(36, 72) if case.wraps else globe(36, 40, of=72)
    whole = case.run(series, None, None)
    params = nnx.state(whole.model, nnx.Param)
    arrays = whole.fields.arrays_of([series], prepared(series).axis)
    initial = np.array([5, 20, 33])
    # Beyond the trained leads the blended forecast is what goes on being cut.
    expected = whole.predictor(arrays, initial, 4)
    tiled = case.run(series, params, case.overlap)
    assert tiled.predictor.tiling is not None
    assert len(tiled.predictor.tiling.starts) > 2
    assert tiled.fields.inputs[0].grid.wraps is case.wraps
    np.testing.assert_allclose(tiled.predictor(arrays, initial, 4), expected, atol=1e-5)
    # The network does say something.
    damped = arrays.values[initial][:, None] * whole.model.head.base.arrays["damping"][0]
    assert np.abs(expected[:, :2] - damped).max() > 0.1


def test_an_overlap_that_hides_less_than_the_network_sees_shows():
    case = CASES["globe"]
    series = globe(36, 72)
    whole = case.run(series, None, None)
    arrays = whole.fields.arrays_of([series], prepared(series).axis)
    initial = np.array([5])
    tiled = case.run(series, nnx.state(whole.model, nnx.Param), 4)
    differ = tiled.predictor(arrays, initial) - whole.predictor(arrays, initial)
    assert np.abs(differ).max() > 1e-2


# ---------------------------------------------------------------- training on patches


@pytest.mark.family
def test_patches_as_large_as_the_grid_train_as_the_whole_grid_does(tmp_path):
    series = globe(8, 12)
    slow = {"learning_rate": 1e-3}
    patches = {"patches": {"size": [8, 12], "overlap": 4}}
    plain = Bench.of(series, config_of(train=slow))
    patched = Bench.of(series, config_of(train=slow, frames=patches))
    assert patched.stepper.places is not None
    ends = [b.fit(tmp_path / "metrics") for b in (plain, patched)]
    for ours, theirs in zip(*(jax.tree.leaves(end.state.params) for end in ends), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ends[1].progress.best_loss == pytest.approx(ends[0].progress.best_loss, abs=1e-6)
    # The control: they have moved.
    first, last = (jax.tree.leaves(t) for t in (plain.weights.params, ends[0].state.params))
    assert max(np.abs(a - b).max() for a, b in zip(first, last, strict=True)) > 5e-4


class Probe(nnx.Module):
    """A network that says nothing and keeps what it was shown."""

    def __init__(self, config: Any, sizes: Any, *, rngs: nnx.Rngs):
        self.outputs = sizes.outputs
        self.seen: list[Window] = nnx.data([])

    def __call__(self, window: Window) -> jax.Array:
        self.seen.append(window)
        return jnp.zeros(window.reference.shape)


ROWS, COLUMNS, DATES = 8, 12, 40


def code(*, time: bool = True) -> np.ndarray:
    """A number for each date, row and column, from which all three can be read."""
    t, i, j = np.indices((DATES if time else 1, ROWS, COLUMNS))
    number = (1 + 1000.0 * t + 50 * i + j).astype(np.float32)
    return number if time else number[0]


def coded() -> DeviceSeries:
    """Two variables: a scalar, and the eastward component of a vector; both are targets."""
    values = np.stack([code(), 0.5 * code()], axis=-1)
    known = np.stack([code()[:, :, 0], 2 * code()[:, :, 0]], axis=-1)
    month = np.arange(DATES) % 12 + 1
    values, targets, known, month = map(jnp.asarray, (values, 3 * values, known, month))
    series = FrameSeries(values, None, targets, known, month)
    weight = np.stack([code(time=False), 4 * code(time=False)], axis=-1)
    return DeviceSeries(series, jnp.asarray(weight), jnp.ones((2, 2)))


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Patches of 4 x 6 cells of a globe of 8 x 12."""
    patches = {"size": [4, 6], "overlap": 2}
    return Bench.of(globe(ROWS, COLUMNS), config_of(frames={"patches": patches}))


def cutter(bench: Bench, **settings: Any) -> Stepper:
    """The bench's stepper with patches that are mirrored as well."""
    places = partial(
        random_place,
        grid=(ROWS, COLUMNS),
        size=(4, 6),
        step=2,
        wraps=True,
        roll=False,
        flip=("lat", "lon"),
        vectors=(None, "east"),
    )
    return replace(bench.stepper, places=places, **settings)


INITIAL = jnp.array([7, 20, 13, 30, 9, 25])


def in_validation(stepper: Stepper, series: DeviceSeries, initial: Any) -> Inputs:
    """What the model is given without a key."""
    return stepper._batch(series, jnp.asarray(initial), None, 0.0)[0]


@pytest.fixture(scope="module")
def batch(bench: Bench) -> tuple[Inputs, np.ndarray, np.ndarray]:
    inputs, targets, weight = jax.jit(cutter(bench)._batch)(coded(), INITIAL, key(), 0.0)
    return inputs, np.asarray(targets), np.asarray(weight)


def test_all_that_belongs_to_a_patch_comes_from_its_place(batch):
    inputs, targets, weight = batch
    place, numbers, flat = inputs.place, code(), code(time=False)
    rows, columns = np.asarray(place.rows), np.asarray(place.columns)
    assert place.signs is not None
    turned = np.asarray(place.signs)[:, 1]
    # The draws do what they are meant to: over the seam, upside down, turned round.
    assert any(set(c) >= {0, 11} for c in columns.tolist())
    assert set(np.sign(np.diff(rows)[:, 0])) == set(turned) == {-1, 1}
    for b, initial in enumerate(INITIAL):
        here = np.ix_(rows[b], columns[b])
        sign = np.array([1, turned[b]])
        both = np.stack([numbers, 0.5 * numbers], axis=-1) * sign
        for k, date in enumerate(range(initial - 2, initial + 1)):
            np.testing.assert_array_equal(inputs.frames[b, k], both[date][here])
        np.testing.assert_array_equal(inputs.last[b], both[initial][here])
        for k, date in enumerate((initial + 1, initial + 2)):
            np.testing.assert_array_equal(targets[b, k], 3 * both[date][here])
            assert inputs.month[b, k] == date % 12 + 1
        for k, date in enumerate(range(initial - 2, initial + 3)):
            np.testing.assert_array_equal(inputs.known[b, k, :, 0], numbers[date][rows[b], 0])
        np.testing.assert_array_equal(weight[b, ..., 0], flat[here])
        np.testing.assert_array_equal(weight[b, ..., 1], 4 * flat[here])


def heads() -> dict[str, tuple[Head, int]]:
    """A head of each kind whose arrays say where they are from, and its numbers a cell."""
    flat = code(time=False)[:, :, None] * np.array([1.0, 0.25], np.float32)
    damping = np.stack([flat, -flat])
    odds = np.arange(1, 13)[:, None, None, None, None] * np.stack([flat, 2 * flat, 3 * flat])
    return {
        "values": (ValueHead({"damping": damping[None]}), 1),
        "odds": (ClassHead(None, None, odds[:, :2], odds), 3),
        "amounts": (RainHead(odds), 3),
    }


@pytest.mark.parametrize("kind", ["values", "odds", "amounts"])
def test_the_model_takes_layers_mask_and_reference_from_the_place_of_the_patch(kind, batch):
    inputs = batch[0]
    place, flat = inputs.place, code(time=False)
    head, width = heads()[kind]
    layers = np.stack([flat, flat + 0.5], axis=-1)
    target_mask = np.stack([flat % 7 > 2, flat % 5 > 1], axis=-1)

    sizes = Sizes(
        channels=0,
        ahead=0,
        inputs=0,
        leads=0,
        outputs=2 * width,
        grid=flat.shape,
        whole=False,
        wraps=False,
    )
    network = Probe(None, sizes, rngs=nnx.Rngs(0))
    model = ForecastModel(network, head, layers, target_mask, sizes=sizes, variables=1, gaps=False)
    out = np.asarray(model(inputs))
    (window,) = network.seen
    last, months = jnp.zeros((1, ROWS, COLUMNS, 2)), jnp.arange(1, 13)[None]
    whole = None if kind == "values" else head.reference(last, months, None)
    for b in range(len(INITIAL)):
        here = np.ix_(place.rows[b], place.columns[b])
        for frames in (window.frames[b], window.ahead[b]):
            for one in frames:
                np.testing.assert_array_equal(one[..., -2:], layers[here])
                rows = inputs.known[b, 0, :, 0] % 1000
                np.testing.assert_array_equal(one[..., -4] % 1000, rows[:, None] + 0 * flat[here])
        for k in range(2):
            if whole is None:
                factor = np.stack([flat, 0.25 * flat], axis=-1)[here] * (1, -1)[k]
                expected = np.asarray(inputs.last[b]) * factor
            else:
                expected = np.asarray(whole[0, int(inputs.month[b, k]) - 1])[here]
            np.testing.assert_allclose(window.reference[b, k], expected, rtol=1e-6)
            shown = np.repeat(target_mask[here], width, axis=-1)
            np.testing.assert_allclose(out[b, k], np.where(shown, expected, 0.0), rtol=1e-6)


@pytest.mark.family
def test_the_loss_of_an_untrained_model_on_patches_is_that_of_its_reference(bench):
    """A loop over the cells of each patch, in double precision."""
    setup = bench.setup
    initial = setup.validation_windows[:4]
    found = np.asarray(bench.stepper.losses(bench.weights, bench.series, initial[None]))[0]
    place = in_validation(bench.stepper, bench.series, initial).place
    assert place is not None
    values = setup.arrays.values[..., 0].astype(np.float64)
    damping = setup.head["damping"][0, ..., 0].astype(np.float64)
    weight = setup.fields.inputs[0].grid.weight
    scale = np.asarray(bench.series.scale, np.float64)
    for b, start in enumerate(initial):
        total = area = 0.0
        for lead in (0, 1):
            for i in place.rows[b].tolist():
                for j in place.columns[b].tolist():
                    error = values[start, i, j] * damping[lead, i, j]
                    error -= values[start + lead + 1, i, j]
                    total += error**2 * weight[i, j] / scale[lead, 0]
                    area += weight[i, j]
        assert found[b] == pytest.approx(total / area, rel=1e-4)


def test_validation_sees_the_same_patches_every_time_and_many_of_them(bench):
    assert bench.validate(bench.weights) == bench.validate(bench.weights)
    windows = bench.setup.validation_windows
    seen = set()
    for start in range(4):
        first, again = (
            in_validation(bench.stepper, bench.series, windows[start : start + 4]).place
            for _ in range(2)
        )
        assert first is not None
        assert again is not None
        np.testing.assert_array_equal(first.rows, again.rows)
        np.testing.assert_array_equal(first.columns, again.columns)
        seen |= set(zip(first.rows[:, 0].tolist(), first.columns[:, 0].tolist(), strict=True))
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("size", "reason"),
    [([4, 14], "at most \\[8, 12\\]"), ([5, 6], "multiples of 2")],
)
def test_patches_that_do_not_fit_the_grid_or_the_network_are_refused(size, reason):
    patches = {"size": size, "overlap": 2}
    with pytest.raises(ConfigError, match=reason):
        Bench.of(globe(ROWS, COLUMNS), config_of(frames={"patches": patches}))


# ---------------------------------------------------------------- rolls and flips


@pytest.fixture(scope="module")
def ring() -> Bench:
    """The whole globe, rolled."""
    return Bench.of(globe(ROWS, COLUMNS), config_of(frames={"augment": {"roll": True}}))


class Dense(nnx.Module):
    """A network with a weight for each cell."""

    def __init__(self, config: Any, sizes: Any, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jnp.zeros(sizes.grid))

    def __call__(self, window: Window) -> jax.Array:
        mean = (window.frames[:, -1, ..., 0] * self.weight[...]).mean(axis=(1, 2))
        return mean[:, None, None, None, None] + jnp.zeros(window.reference.shape)


def losses_by_roll(stepper: Stepper, series: DeviceSeries, weights: Weights) -> np.ndarray:
    """Of the same windows, rolled in three ways."""

    @jax.jit
    def rolled(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        args = (series, INITIAL[:4], jax.random.key(number))
        place = stepper._batch(*args, 0.0)[0].place
        return place.columns[:, 0], stepper._loss(weights, *args)[0]

    columns, losses = map(np.stack, zip(*(rolled(n) for n in range(3)), strict=True))
    assert (np.ptp(columns, axis=0) > 0).all()
    return losses


def test_a_convolution_does_not_notice_that_the_grid_is_rolled(ring):
    """Layers of position turn with the grid, so they make no difference."""
    weights = ring.weights._replace(params=awake(ring.weights.params))
    losses = losses_by_roll(ring.stepper, ring.series, weights)
    np.testing.assert_allclose(losses - losses[:1], 0.0, atol=1e-5)
    # The network does say something.
    reference = ring.stepper.losses(ring.weights, ring.series, INITIAL[None, :4])
    assert np.abs(losses - reference).min() > 0.01


def test_a_weight_for_each_cell_notices_that_the_grid_is_rolled(ring):
    graph, params, fixed = nnx.split(ring.setup.model(Dense), nnx.Param, ...)
    stepper = replace(ring.stepper, graph=graph, fixed=fixed)
    losses = losses_by_roll(stepper, ring.series, Weights(awake(params), {}))
    assert np.ptp(losses, axis=0).max() > 1e-3


def test_a_grid_with_edges_is_not_rolled():
    config = config_of(frames={"augment": {"roll": True}})
    with pytest.raises(ConfigError, match=r"goes round the globe.*\n.*roll: false"):
        Bench.of(globe(ROWS, COLUMNS, of=24), config)


def test_a_mirrored_vector_component_changes_sign_in_inputs_and_targets():
    config = config_of(frames={"augment": {"flip": ["lat"]}}, data={"vector": "north"})
    bench = Bench.of(globe(ROWS, COLUMNS), config)
    inputs, targets, _ = jax.jit(bench.stepper._batch)(bench.series, INITIAL, key(1), 0.0)
    values = bench.setup.arrays.values
    turned = 0
    for b, start in enumerate(INITIAL):
        past, ahead = values[start - 2 : start + 1], values[start + 1 : start + 3]
        mirrored = not np.array_equal(inputs.frames[b], past)
        turned += mirrored
        if mirrored:
            past, ahead = -past[:, ::-1], -ahead[:, ::-1]
        np.testing.assert_array_equal(inputs.frames[b], past)
        np.testing.assert_array_equal(inputs.last[b], past[-1])
        np.testing.assert_array_equal(targets[b], ahead)
    assert 0 < turned < len(INITIAL)
    # Validation sees the grid as it is.
    plain = in_validation(bench.stepper, bench.series, INITIAL)
    np.testing.assert_array_equal(plain.frames[:, -1], values[INITIAL])


def test_the_mean_of_a_mirrored_vector_component_changes_sign_too():
    """In a mirrored world the wind over the box blows the other way."""
    config = config_of(
        frames={"augment": {"flip": ["lon"]}},
        data={"vector": "east"},
        target={"mean_over": {"lat": [-30, 30], "lon": [30, 200]}},
    )
    bench = Bench.of(globe(ROWS, COLUMNS), config)
    inputs, targets, _ = jax.jit(bench.stepper._batch)(bench.series, INITIAL, key(1), 0.0)
    place, answers = inputs.place, bench.setup.arrays.last
    assert answers is not None
    assert place is not None
    assert place.signs is not None
    signs = np.asarray(place.signs)[:, 0]
    assert set(signs.tolist()) == {-1.0, 1.0}
    for b, start in enumerate(INITIAL):
        np.testing.assert_array_equal(inputs.last[b], signs[b] * answers[start])
        np.testing.assert_array_equal(inputs.past[b], signs[b] * answers[start - 2 : start + 1])
        np.testing.assert_array_equal(targets[b], signs[b] * answers[start + 1 : start + 3])


# ---------------------------------------------------------------- noise


def test_noise_is_added_to_inputs_on_the_mask_in_training_only(ring):
    stepper = replace(ring.stepper, places=None, noise=0.5)
    series, mask = ring.series, ring.setup.fields.inputs[0].grid.mask
    initial = np.asarray(INITIAL)
    clean = ring.setup.arrays.values[initial[:, None] + np.arange(-2, 1)]
    batch = jax.jit(stepper._batch)
    inputs, targets, _ = batch(series, INITIAL, key(2), 0.0)
    noise = np.asarray(inputs.frames) - clean
    assert 0 < mask.sum() < mask.size
    assert (np.asarray(inputs.frames)[:, :, ~mask] == 0).all()
    inside = noise[:, :, mask]
    assert inside.std() == pytest.approx(0.5, rel=0.1)
    assert abs(inside.mean()) < 0.05
    assert np.unique(inside).size > 0.9 * inside.size
    np.testing.assert_array_equal(inputs.last, clean[:, -1])
    np.testing.assert_array_equal(targets[:, 0], ring.setup.arrays.values[initial + 1])
    again = batch(series, INITIAL, key(3), 0.0)[0].frames
    assert np.abs(np.asarray(again) - np.asarray(inputs.frames)).max() > 0.1
    np.testing.assert_array_equal(in_validation(stepper, series, INITIAL).frames, clean)
